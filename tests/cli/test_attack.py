"""``aizheimer attack``: what it writes, what it does not do twice, and what it refuses."""

import json

import pytest
from PIL import Image

from aizheimer import api
from aizheimer._registry import ATTACKS
from aizheimer.attacks.img2img import Img2Img
from aizheimer.attacks.results import AttackResult
from aizheimer.errors import InputError
from tests.unit.detectors.builders import save_clip, save_colour_judge
from tests.unit.edits.test_edit import bits, edit_of, same

QUICK = ("--images", 2, "--steps", 1)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("clip") / "clip")


@pytest.fixture
def run(tiny_pipeline, saved_tiny_pipeline, tmp_path):
    folder = edit_of(tiny_pipeline).save(tmp_path / "cat")
    (folder / "env.json").write_text(json.dumps({"model": str(saved_tiny_pipeline)}))
    return folder


@pytest.fixture
def attack(cli, run, clip_folder):
    return lambda *words: cli("attack", run, *QUICK, "--clip", clip_folder, *words)


@pytest.mark.long
def test_it_writes_a_result_and_a_picture_and_does_not_do_it_twice(attack, run, monkeypatch):
    done = attack("--attack", "quantise", "bits=[8]")
    assert done.code == 0, done.err
    for word in ("before", "ASR", "unedited", "random", "spent", "quantise"):
        assert word in done.out
    result = AttackResult.load(run / "attack-quantise.json")
    assert (result.target, result.parameters, result.before.n) == ("cat", {"bits": [8]}, 2)
    assert None not in (result.unedited, result.random, result.unedited_before)
    with Image.open(run / "attack-quantise.png") as picture:
        assert picture.width > 2 * 192

    before = (run / "attack-quantise.json").stat().st_mtime_ns
    done = attack("--attack", "quantise", "bits=[8]", "--json")
    assert "quantise is there already" in done.err
    assert AttackResult.model_validate(json.loads(done.out)["attacks"]["quantise"]) == result
    assert (run / "attack-quantise.json").stat().st_mtime_ns == before
    reasons = ("parameters.bits was [8] and is [4]", "", "settings.seed was 0 and is 1")
    changes = (["bits=[4]"], ["bits=[4]", "--overwrite"], ["bits=[4]", "--seed", 1])
    for words, reason in zip(changes, reasons, strict=True):
        done = attack("--attack", "quantise", "--no-controls", *words)
        assert "already" not in done.err
        assert ("measured again" in done.err) == bool(reason)
        assert reason in done.err
    assert AttackResult.load(run / "attack-quantise.json").unedited is None
    assert "already" not in attack("--attack", "quantise", "bits=[4]", "--seed", 1).err, "controls are missing"


def test_one_attack_with_two_budgets_stands_in_one_run(attack, run):
    """The second replaced the first: a battery of LoRA and full fine-tuning had one result."""
    words = ("--attack", "img2img", "--attack", "img2img-far=img2img", "--no-controls", "img2img-far.strength=0.9")
    done = attack(*words, "img2img.curve=[]", "img2img-far.curve=[]", "--json")
    assert done.code == 0, done.err
    assert list(json.loads(done.out)["attacks"]) == ["img2img", "img2img-far"]
    near, far = (AttackResult.load(run / f"attack-{label}.json") for label in ("img2img", "img2img-far"))
    assert (near.attack, near.called, far.attack, far.called) == ("img2img", "img2img", "img2img", "img2img-far")
    assert near.parameters["strength"] != far.parameters["strength"] == 0.9
    assert (run / "attack-img2img-far.png").is_file()
    again = attack("--attack", "img2img-far=img2img", "--no-controls", "strength=0.9", "curve=[]")
    assert "img2img-far is there already" in again.err
    (run / "attack-img2img-far.png").unlink()
    again = attack("--attack", "img2img-far=img2img", "--no-controls", "strength=0.5", "curve=[]")
    assert "attack-img2img-far.json is measured again: parameters.strength was 0.9 and is 0.5" in again.err
    assert "img2img-far" in again.out


def test_another_edit_in_the_folder_is_attacked_anew(attack, run, tiny_pipeline):
    words = ("--attack", "img2img", "curve=[]", "--no-controls")
    attack(*words)
    edit_of(tiny_pipeline, seed=7).save(run)
    assert "already" not in attack(*words).err
    (run / "attack-img2img.json").write_text("{}")
    done = attack(*words)
    assert "not an attack's result" in done.err
    assert done.code == 0
    assert AttackResult.load(run / "attack-img2img.json").attack == "img2img"


@pytest.mark.long
def test_an_interrupted_command_goes_on_where_it_was(attack, run, monkeypatch):
    words = ("--attack", "quantise", "--attack", "img2img", "--no-controls", "img2img.curve=[]")
    with monkeypatch.context() as patch:
        patch.setattr(Img2Img, "attack", lambda *args, **options: (_ for _ in ()).throw(KeyboardInterrupt))
        done = attack(*words)
    assert done.code == 130
    assert "goes on from there" in done.err
    assert (run / "attack-quantise.json").is_file()
    assert not (run / "attack-img2img.json").exists()
    done = attack(*words)
    assert done.code == 0, done.err
    assert "quantise is there already" in done.err
    assert (run / "attack-img2img.json").is_file()


def test_one_that_means_nothing_here_is_skipped_in_company_and_an_error_alone(attack, run, monkeypatch):
    from aizheimer.attacks.base import NotApplicable

    def refuse(self, subject, *, progress=None):
        raise NotApplicable("img2img: not here")

    monkeypatch.setattr(Img2Img, "attack", refuse)
    done = attack("--attack", "img2img", "--attack", "quantise", "--no-controls", "--json")
    found = json.loads(done.out)
    assert (list(found["attacks"]), found["skipped"]) == (["quantise"], {"img2img": "img2img: not here"})
    done = attack("--attack", "img2img")
    assert (done.code, done.error) == (2, "img2img: not here")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], "name one with --attack"),
        (["--attack", "relearn", "--all"], "choose one"),
        (["--attack", "relern"], "unknown attack 'relern'. Did you mean 'relearn'?"),
        (["--attack", "relearn", "step=3"], "unknown key 'step'. Did you mean 'steps'"),
        (["--attack", "relearn", "--attack", "quantise", "steps=3"], "write relearn.steps=3"),
        (["--attack", "relearn", "--attack", "relearn"], "give one a label: relearn-2=relearn"),
        (["--attack", "full=relearn"], "got the label 'full', wanted relearn- and small letters"),
        (["--attack", "stack", "edit=gone"], "gone holds no edit"),
    ],
)
def test_bad_words(attack, run, words, wanted):
    done = attack(*words)
    assert done.code == 2
    assert wanted in done.error
    assert not list(run.glob("attack-*"))


def test_a_model_without_a_judge(cli, run):
    done = cli("attack", run, "--attack", "quantise")
    assert done.code == 2
    assert "no object judge" in done.error
    assert "--clip" in done.error


def test_a_judge_of_ones_own_has_to_know_the_target(cli, run, tmp_path):
    words = ("attack", run, *QUICK, "--attack", "seed-search", "tries=1", "--no-controls", "--judge")
    done = cli(*words, save_colour_judge(tmp_path / "colours"))
    assert (done.code, "has no class 'cat', so no attack could succeed" in done.error) == (2, True)
    done = cli(*words, save_colour_judge(tmp_path / "mine", names=("cat", "green", "blue")))
    assert done.code == 0, done.err
    assert AttackResult.load(run / "attack-seed-search.json").judge.startswith("mine classifier ")


def test_a_folder_that_is_no_run(cli, tmp_path):
    done = cli("attack", tmp_path, "--attack", "quantise")
    assert done.code == 2
    assert "holds no edit" in done.error


def test_from_python(tiny_pipeline, clip_folder, monkeypatch, shared_cache):
    from aizheimer.attacks.base import AttackSettings

    monkeypatch.setenv("AIZHEIMER_CACHE", str(shared_cache))
    edit, before, stages = edit_of(tiny_pipeline), bits(tiny_pipeline), []
    run = api.attack(
        tiny_pipeline, edit, attack="img2img", strength=0.5, curve=[], clip=clip_folder,
        settings=AttackSettings(images=2, steps=2), progress=lambda stage, done, total: stages.append(stage),
    )  # fmt: skip
    assert (run.result.attack, run.result.target, run.result.edit) == ("img2img", "cat", edit.digest)
    assert run.result.neighbour_words
    controls = ("unedited", run.result.neighbour_words, "random")
    assert list(dict.fromkeys(stages)) == ["img2img", *(f"img2img, {control}" for control in controls)]
    assert same(before, bits(tiny_pipeline))
    with pytest.raises(InputError, match="put them into it"):
        api.attack(tiny_pipeline, edit, attack=Img2Img(), strength=0.5)
    with pytest.raises(InputError, match="neither an edit nor a concept"):
        api.attack(tiny_pipeline, None, attack="img2img")


def test_ls_and_show(cli):
    assert json.loads(cli("ls", "attacks", "--json").out)["attacks"].keys() == set(ATTACKS)
    for name in ATTACKS:
        done, found = cli("show", name), json.loads(cli("show", name, "--json").out)
        assert done.code == 0, done.err
        assert found["attack"] == name
        assert found["paper"]
        assert all(field["description"] for field in found["parameters"])
        assert all(f"  {field['name']}=" in done.out for field in found["parameters"])
