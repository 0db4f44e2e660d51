"""Edits in company: who takes whose pictures, alone and together, and that nothing is drawn twice."""

import pytest

from aizheimer import api
from aizheimer.edits import ConceptRecord, Edit
from aizheimer.edits.compose import stack
from aizheimer.errors import DataError, InputError
from aizheimer.evaluation import interference as module
from aizheimer.evaluation.interference import Interference, Share, measure, retained_labels
from aizheimer.evaluation.judges import Judges
from aizheimer.reports.interference import interference_picture, interference_summary, interference_table
from tests.unit.edits.artifacts import CROSS, edit_of_weights
from tests.unit.evaluation.builders import MemoryJudge
from tests.unit.evaluation.suites.scenes import LABELS, SETTINGS, STYLES, counting


def of(edit, target, kind="object"):
    concept = ConceptRecord(target=target, kind=kind)
    return Edit(edit.deltas, edit.provenance.model_copy(update={"concept": concept}))


@pytest.fixture
def edits(tiny_pipeline):
    """One that spoils every picture, and one of strength 0."""
    strong = of(edit_of_weights(tiny_pipeline, CROSS, size=3.0), "santa claus")
    return [strong, of(edit_of_weights(tiny_pipeline, CROSS, strength=0.0), "cat")]


@pytest.fixture
def judges(monkeypatch):
    """They know the unedited model's pictures by heart: those of the first two calls."""
    found = Judges(MemoryJudge(LABELS, name="objects"), MemoryJudge(STYLES, name="styles"))
    real, calls = module.generate, []

    def learning(pipe, jobs, **options):
        pictures = real(pipe, jobs, **options)
        if len(calls) < 2:
            found.object.learn(pictures, [next(label for label in LABELS if label in job.prompt) for job in jobs])
        calls.append(jobs)
        return pictures

    monkeypatch.setattr(module, "generate", learning)
    return found


def found_of(backbone, edits, judges, **options):
    return measure(backbone, edits, judges=judges, images=2, retained=2, settings=SETTINGS, **options)


def test_who_takes_whose_pictures(tiny_backbone, edits, judges, tmp_path, monkeypatch):
    monkeypatch.setenv("AIZHEIMER_CACHE", str(tmp_path))
    stages = []
    with counting(monkeypatch) as drawn:
        found = found_of(tiny_backbone, edits, judges, progress=lambda stage, done, total: stages.append(stage))
    assert found.edits == ["santa claus", "cat"]
    assert found.owner == {"santa claus": "santa claus", "cat": "cat"}
    assert {share.value for share in found.unedited.values()} == {1.0}
    assert (found.alone("santa claus"), found.together("santa claus")) == (1.0, 1.0)
    assert (found.alone("cat"), found.together("cat")) == (0.0, 1.0), "in company the other edit takes it too"
    assert found.lost("santa claus", "cat") == 1.0
    assert found.lost("cat", "santa claus") == 0.0
    assert found.retained_unedited.value == found.retained_alone["cat"].value == 1.0
    assert found.retained_alone["santa claus"].value == found.retained_company.value == 0.0
    assert set(found.retained).isdisjoint(found.owner)
    assert list(dict.fromkeys(stages)) == ["unedited", "santa claus forgotten", "cat forgotten", "all together"]
    assert sum(drawn) == 2 * (2 * 2 + 2), "under an edit of strength 0 the model is what it was before"
    with counting(monkeypatch) as again:
        assert found_of(tiny_backbone, edits, judges) == found
    assert again == [], "what was drawn before is found in the cache"
    found.save(tmp_path / "x.json")
    assert Interference.load(tmp_path / "x.json") == found
    assert len(interference_table(found).rows) == 2
    assert "all 2 together: UA 100% on average" in interference_summary(found)


def test_what_cannot_be_measured_is_told_before_anything_is_drawn(tiny_backbone, edits, judges, monkeypatch):
    monkeypatch.setattr(module, "generate", lambda *a, **k: pytest.fail("it drew"))
    for given, said in (
        (edits[:1], "got 1 edit; name two or more"),
        ([edits[0], of(edits[1], "Santa Claus")], "'Santa Claus' is forgotten by two of the edits"),
        ([edits[0], stack(edits[1].scale(-1))], "forgets nothing: no part of it is above 0; leave it out"),
        ([edits[0], of(edits[1], "unicorn")], "no object judge knows 'unicorn'"),
    ):
        with pytest.raises(InputError, match=said):
            found_of(tiny_backbone, given, judges)
    with pytest.raises(InputError, match="this model brings no object judge; name a CLIP folder"):
        found_of(tiny_backbone, edits, Judges())


def test_a_run_that_is_no_matrix(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(DataError, match="no matrix of edits"):
        Interference.load(tmp_path / "x.json")


def test_what_must_stay_is_no_target_and_always_the_same(tiny_world):
    found = retained_labels(tiny_world, ["CAT"], 3)
    assert len(found) == 3
    assert "cat" not in found
    assert found == retained_labels(tiny_world, ["CAT"], 3)


def test_the_picture_names_every_edit_and_target():
    names = [f"thing number {i} with a name that goes on" for i in range(20)]
    share = Share.of([True, False])
    found = Interference(
        model_name="x", edits=names, methods=["uce"] * 20, owner={name: name for name in names},
        unedited=dict.fromkeys(names, share), matrix={name: dict.fromkeys(names, share) for name in names},
        company=dict.fromkeys(names, share), retained_unedited=share, retained_alone=dict.fromkeys(names, share),
        retained_company=share, images=2, settings=SETTINGS,
    )  # fmt: skip
    axes = interference_picture(found).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()][-1] == "all together"
    assert len(axes.get_xticklabels()) == 21
    assert all(len(label.get_text()) <= 26 for label in axes.get_xticklabels())
    assert len(axes.texts) == 21 * 21


def test_runs_of_a_base_that_the_first_names(tiny_backbone, judges, tmp_path):
    words = {"retain_neighbours": 1, "retain_others": 1, "retain_general": 1}
    for target in ("cat", "santa claus"):
        api.forget(tiny_backbone, target, method="uce", out=tmp_path / target, **words)
    found = api.interference(
        [tmp_path / "cat", tmp_path / "santa claus"], images=1, retained=1, steps=1, judges=judges, out=tmp_path / "out"
    )
    assert found.methods == ["uce", "uce"]
    assert Interference.load(tmp_path / "out" / api.MATRIX) == found
    assert (tmp_path / "out" / api.MATRIX_PICTURE).stat().st_size > 5000
    with pytest.raises(InputError, match="without a model; name"):
        api.interference([api.load_edit(tmp_path / "cat")])
