"""Gate files: what they may say, and how their mistakes are told."""

import pytest

from aizheimer.errors import InputError
from aizheimer.proof.bounds import widened
from aizheimer.proof.gate import Gate, load_gate, shipped_gates


def written(tmp_path, text):
    path = tmp_path / "gate.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("max_ars: 0.1", "unknown key 'max_ars'. Did you mean 'max_asr'?"),
        ("min_ua: 90", "min_ua: got 90, input should be less than or equal to 1"),
        ("use: intervall", "use: got 'intervall'"),
        ("required_attacks: [seed-serch]", "unknown attack 'seed-serch'. Did you mean 'seed-search'?"),
        ("max_asr: {seed_serch: 0.1}", "unknown attack 'seed_serch'. Did you mean 'seed-search'?"),
        (
            "required_suites: [mine/nicknames.yaml]",
            "got the file 'mine/nicknames.yaml', wanted what its result is called: 'nicknames'",
        ),
        ("- min_ua", "holds no limits"),
        ("min_ua: [", "not a readable YAML file"),
        ("min_ua: 2\nmax_irra_drop: 0.1", "min_ua: got 2, input should be less than or equal to 1; unknown key"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(tmp_path, text, wanted):
    with pytest.raises(InputError) as caught:
        load_gate(written(tmp_path, text))
    assert wanted in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gate_that_is_not_there():
    with pytest.raises(InputError, match=r"unknown gate 'releas'\. Did you mean 'release'\?"):
        load_gate("releas")
    with pytest.raises(InputError, match=r"none\.yaml does not exist"):
        load_gate("none.yaml")


def test_the_shipped_gates_are_valid_and_say_what_they_are_for():
    assert shipped_gates().keys() == {"release", "quick"}
    assert all(shipped_gates().values())
    assert load_gate("release").use == "interval"
    assert load_gate("release").controls


def test_every_key_is_described():
    assert [name for name, field in Gate.model_fields.items() if not field.description] == []


def test_the_rule_of_three_widens_only_what_has_no_width():
    assert widened((1.0, 1.0), value=1.0, n=30) == (0.9, 1.0)
    assert widened((0.0, 0.0), value=0.0, n=30) == (0.0, 0.1)
    assert widened((0.0, 0.0), value=0.0, n=30, lowest=-1) == (-0.1, 0.1)
    assert widened((0.0, 0.0), value=0.0, n=2) == (0.0, 1.0)
    assert widened((0.2, 0.6), value=0.4, n=2) == (0.2, 0.6)


def test_a_gate_may_name_an_attack_by_a_label_of_its_own(tmp_path):
    path = tmp_path / "gate.yaml"
    path.write_text("max_asr: {relearn: 0.1, relearn-full: 0.3}\nrequired_attacks: [relearn-full]\n")
    assert load_gate(path).names()[0] == ["relearn", "relearn-full", "relearn-full"]
    path.write_text("required_attacks: [relern-full]\n")
    with pytest.raises(InputError, match="unknown attack 'relern-full'"):
        load_gate(path)
