"""The smallest part of an edit on the tiny pipeline: what is cut, in which order, and what is said of it."""

import json

import pytest
import torch

from aizheimer.api import load_edit
from aizheimer.data.latents import rollout_bank
from aizheimer.edits import ConceptRecord, Edit, Provenance
from aizheimer.edits.shrunk import layers_of, shrunk
from aizheimer.errors import EditError, GateError, InputError
from aizheimer.evaluation.results import EvaluationResult
from aizheimer.tuning import looking
from aizheimer.tuning.effects import PROMPTS, STEPS, layer_effects
from aizheimer.tuning.record import ShrinkRecord
from aizheimer.tuning.shrink import SHRINK_RECORD, shrink
from aizheimer.tuning.trials import FRESH
from tests.bad_edits import TARGET
from tests.snapshot import same_snapshot, snapshot
from tests.unit.edits.running import edit_of as hooked
from tests.unit.edits.test_adapter_hooks import spm
from tests.unit.edits.test_edit import BIAS, K, bits, same
from tests.unit.reports.builders import metric, result_of
from tests.unit.tuning.test_search import SAMPLES, _own_cache, backbone, judges  # noqa: F401

V, OUT, Q = (K.replace("to_k", part) for part in ("to_v", "to_out.0", "to_q"))
DONE = "conv_out"


def edit_on(backbone, **sizes):  # noqa: F811
    """Return an edit of one layer that ruins every picture, and others of these sizes."""
    generator, deltas = torch.Generator().manual_seed(0), {}
    for name, size in {f"{DONE}.weight": 5.0, **sizes}.items():
        shape = backbone.denoiser.get_parameter(name).shape
        deltas[f"unet.{name}"] = size * torch.randn(shape, generator=generator)
    record = ConceptRecord.of(TARGET)
    return Edit(deltas, Provenance(method="test", concept=record, base_fingerprint=backbone.fingerprint()))


@pytest.mark.usefixtures("_own_cache")
def test_what_does_nothing_is_cut_and_the_result_is_a_run(backbone, judges, tmp_path):  # noqa: F811
    edit, told = edit_on(backbone, **{K: 1e-6, V: 1e-6, BIAS: 1e-6}), []
    before = bits(backbone.pipe)
    found = shrink(edit, require="UA>=0.6", out=tmp_path / "run", model=backbone, samples=SAMPLES, judges=judges,
                   on_trial=told.append)  # fmt: skip
    assert same(bits(backbone.pipe), before)
    assert list(found.edit.deltas) == [f"unet.{DONE}.weight"]
    record, run = found.record, tmp_path / "run"
    assert ShrinkRecord.load(run / SHRINK_RECORD) == record
    assert record.trials == told
    assert (record.trials[0].rank, record.trials[0].dropped, record.layers) == (None, (), 4)
    assert len(record.trials) <= 1 + 5 + 2, "bisection, not a walk"
    chosen = record.chosen
    assert chosen.met
    assert chosen.values["ua"] >= 0.6
    assert chosen.numbers == min(cut.numbers for cut in record.trials if cut.met)
    assert chosen.numbers < record.numbers == record.trials[0].numbers
    said = load_edit(run).provenance.extra["shrunk"]
    assert said["from"] == edit.digest
    assert (said["rank"], said["kept"]) == (chosen.rank, [f"unet.{DONE}"])
    assert set(said["dropped"]) == {f"unet.{name.rpartition('.')[0]}" for name in (K, V, BIAS)}
    assert said["numbers"] == [record.numbers, chosen.numbers]
    assert said["before"]["ua"] >= 0.6
    assert said["after"] == chosen.values
    judged = EvaluationResult.load(run / "evaluation.json")
    assert judged.settings.seed == FRESH, "what was chosen by looking is measured on pictures it was not chosen by"
    assert json.loads((run / "env.json").read_text())["model"] is not None
    assert load_edit(run).digest == found.edit.digest == judged.edit


@pytest.fixture
def decided(monkeypatch, backbone, tmp_path):  # noqa: F811
    """Search with a verdict in the place of judged pictures: a function of the edit and of whether it is fresh."""

    def run(verdict, edit, **options):
        def evaluate(pipe, edit, *, settings, **rest):
            hit = verdict(edit, settings.seed >= FRESH)
            return result_of(TARGET.target, ua=metric([0] * 4, [1] * 4 if hit else [0] * 4), settings=settings)

        monkeypatch.setattr(looking, "evaluate", evaluate)
        fields = {"require": "UA>=0.9", "out": tmp_path / "run", "model": backbone, "judges": object(), **options}
        return shrink(edit, **fields)

    return run


def rank_of(edit, name):
    return int(torch.linalg.matrix_rank(edit.deltas[f"unet.{name}"].flatten(1), rtol=1e-4))


def test_the_least_rank_and_the_most_layers_that_will_do(backbone, decided):  # noqa: F811
    edit = edit_on(backbone, **{K: 1.0, V: 0.1, Q: 1e-3, OUT: 1e-2})
    found = decided(lambda one, _: f"unet.{K}" in one.deltas and rank_of(one, K) >= 3, edit)
    assert found.record.chosen.rank == 4, "of 1, 2, 4, 8, ..."
    assert f"unet.{K}" in found.edit.deltas
    order = [cut.dropped for cut in found.record.trials if cut.dropped]
    assert all(dropped[0] == f"unet.{Q.rpartition('.')[0]}" for dropped in order), "what does the least goes first"


def test_where_the_smallest_fails_on_fresh_pictures_the_next_is_taken(backbone, decided):  # noqa: F811
    edit = edit_on(backbone, **{K: 1.0})
    found = decided(lambda one, fresh: not fresh or len(one.deltas) == 2, edit)
    assert [cut.met for cut in found.record.confirmations] == [False, True]
    assert found.record.chosen.dropped == ()


def test_what_meets_nothing_leaves_nothing(backbone, decided, tmp_path):  # noqa: F811
    edit = edit_on(backbone, **{K: 1.0})
    with pytest.raises(GateError, match=r"the edit itself misses the demand: UA 0\.000 \(UA >= 0\.9\)"):
        decided(lambda one, _: False, edit)
    with pytest.raises(GateError, match=r"3 parts met the demand in the search and none on fresh pictures"):
        decided(lambda one, fresh: not fresh, edit)
    assert not (tmp_path / "run").exists()


def test_an_effect_is_how_far_the_prediction_goes_back(backbone):  # noqa: F811
    """By hand, one layer at a time, with the edit without it applied; a layer of zeros has none."""
    edit = edit_on(backbone, **{K: 1.0, V: 0.0, BIAS: 0.5})
    before = snapshot(backbone.pipe)
    effects = layer_effects(backbone, edit, TARGET, seed=3)
    assert same_snapshot(before, snapshot(backbone.pipe))
    assert list(effects) == list(layers_of(edit))
    from aizheimer._seeding import generator_for

    prompts = backbone.world.prompts(TARGET)[:PROMPTS]
    bank = rollout_bank(
        backbone, prompts, steps=STEPS, guidance=backbone.world.guidance, generator=generator_for(3, "layer effects")
    )
    words = backbone.condition(prompts)[bank.prompt_index]

    def drawn(one):
        with torch.no_grad(), one.applied(backbone.pipe):
            return backbone.predict(bank.x_t, bank.t, words)

    for layer, effect in effects.items():
        without = shrunk(edit, backbone.networks, rank=None, without=[layer])
        wanted = float((drawn(without) - drawn(edit)).square().mean())
        assert effect == pytest.approx(wanted, rel=1e-3, abs=1e-12)
    assert effects[f"unet.{V.rpartition('.')[0]}"] == 0
    assert effects[f"unet.{K.rpartition('.')[0]}"] > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"require": []}, "Got nothing to require"),
        ({"require": "UA>0.9"}, "--require: got 'UA>0.9'"),
        ({"samples": 2}, "samples: got 2; wanted 3 or more"),
        ({"model": None}, "Got an edit without a model"),
    ],
)
def test_mistakes_are_told_before_anything_is_done(backbone, tmp_path, options, said):  # noqa: F811
    fields = {"require": "UA>=0.9", "out": tmp_path / "run", "model": backbone, **options}
    with pytest.raises(InputError, match=said):
        shrink(edit_on(backbone), **fields)
    assert not (tmp_path / "run").exists()


def test_edits_that_have_nothing_to_cut_are_refused(backbone, tmp_path):  # noqa: F811
    options = {"require": "UA>=0.9", "out": tmp_path / "run", "model": backbone}
    with pytest.raises(EditError, match=r"acts while pictures are drawn \(hook 'spm'\); give one that changes weights"):
        shrink(hooked(backbone.pipe, spm()), **options)
    with pytest.raises(EditError, match="changes nothing; give one that changes weights"):
        shrink(edit_on(backbone).scale(0), **options)
