"""Edits reckoned with like numbers: added, taken away, averaged, compared, and tried in both orders."""

import numpy as np
import pytest
import torch

from aizheimer.backbones.base import backbone_for
from aizheimer.concepts import Concept
from aizheimer.edits import ConceptRecord, Edit, load_edit
from aizheimer.edits.commuting import order_check
from aizheimer.edits.compose import diff, merge, parts_of, scale, stack, subtract, targets_of
from aizheimer.edits.hooks.stacked import StackedHook
from aizheimer.errors import EditError
from aizheimer.methods.judge_filter import JudgeFilter
from tests.snapshot import same_snapshot, snapshot
from tests.tiny import tiny_world
from tests.tiny_families import tiny_flux
from tests.unit.detectors.builders import save_colour_judge
from tests.unit.edits.artifacts import CONVOLUTIONS, CROSS, PROMPTS, TEXT, edit_of_weights
from tests.unit.edits.running import apart, draw, edit_of
from tests.unit.edits.test_adapter_hooks import erasers, spm


def about(edit, target, **update):
    record = ConceptRecord(target=target, keep=("tree",))
    return Edit(edit.deltas, edit.provenance.model_copy(update={"concept": record, **update}), edit.hook)


@pytest.fixture
def cat(tiny_pipeline):
    return about(edit_of_weights(tiny_pipeline, CROSS), "cat")


@pytest.fixture
def dog(tiny_pipeline):
    return about(edit_of_weights(tiny_pipeline, (*CROSS[:2], *CONVOLUTIONS[:1], *TEXT), strength=0.5), "dog")


def drawn(pipe, *edits):
    handles = [edit.apply_to(pipe) for edit in edits]
    pictures = draw(pipe, PROMPTS)
    for handle in reversed(handles):
        handle.remove()
    return pictures


def recorded(edit):
    """Return concept and strength of each part by the record."""
    return [(part["concept"], pytest.approx(part["strength"])) for part in parts_of(edit)]


def gap(edit, terms):
    """Return how far an edit's weights are from a sum of others' tensors, each times its factor."""
    names = {*edit.deltas, *(name for _, one in terms for name in one.deltas)}
    zero = torch.zeros(())
    wanted = {name: sum(factor * one.deltas.get(name, zero) for factor, one in terms) for name in names}
    return max(float((edit.deltas.get(name, zero) - wanted[name]).abs().max()) for name in names)


def unchanged(before, after):
    """Whether two snapshots are the same but for the numbers of the last call."""
    own = {name for name in (*before, *after) if name.startswith(("pipe:_", "scheduler:"))}
    return same_snapshot(*({name: value for name, value in one.items() if name not in own} for one in (before, after)))


class TestStack:
    def test_the_sum_draws_what_both_draw_together(self, tiny_pipeline, cat, dog):
        both = stack(cat, dog)
        assert apart(drawn(tiny_pipeline, both), drawn(tiny_pipeline, cat, dog)) < 1e-4
        assert both.provenance.strength == 1
        assert both.provenance.text_fingerprint == dog.provenance.text_fingerprint
        assert torch.allclose(both.deltas[CROSS[0]], cat.deltas[CROSS[0]] + 0.5 * dog.deltas[CROSS[0]], atol=1e-6)

    def test_it_lists_what_it_is_made_of(self, cat, dog):
        both = stack(stack(cat, dog).scale(0.5), cat)
        assert [(part["concept"], part["strength"]) for part in parts_of(both)] == [
            ("cat", 0.5),
            ("dog", 0.25),
            ("cat", 1),
        ]
        assert targets_of(both) == ("cat", "dog")
        assert recorded(stack(cat.scale(0), dog)) == [("dog", 0.5)], "what is added at 0 is not in it"
        assert both.provenance.concept == ConceptRecord(target="cat", keep=("tree",))

    def test_behaviours_are_put_on_in_turn_saved_and_taken_off(self, tiny_pipeline, cat, tmp_path):
        hooks = [
            about(edit_of(tiny_pipeline, erasers()), "dog"),
            about(edit_of(tiny_pipeline, spm(gate="none")), "fox"),
        ]
        draw(tiny_pipeline, PROMPTS)  # a call leaves its own numbers behind
        before = snapshot(tiny_pipeline)
        total = stack(cat, hooks[0].scale(0.5), hooks[1])
        assert isinstance(total.hook, StackedHook)
        together = drawn(tiny_pipeline, cat, hooks[0].scale(0.5), hooks[1])
        total.save(tmp_path)
        assert apart(drawn(tiny_pipeline, load_edit(tmp_path)), together) < 1e-4
        assert unchanged(before, snapshot(tiny_pipeline))
        assert not total.mergeable

    def test_a_hook_alone_stays_what_it_is(self, tiny_pipeline, cat):
        one = edit_of(tiny_pipeline, erasers())
        assert stack(cat, one).hook is one.hook
        assert len(stack(one.scale(0.5), stack(one, one)).hook.parts) == 3

    def test_nothing_stays_on_if_a_part_cannot_be_put_on(self, tiny_pipeline, monkeypatch):
        total = stack(edit_of(tiny_pipeline, erasers()), edit_of(tiny_pipeline, spm()))
        before = snapshot(tiny_pipeline)

        def fail(*_args, **_options):
            raise RuntimeError("no")

        monkeypatch.setattr("aizheimer.edits.hooks.spm.SPMHook.install", fail)
        with pytest.raises(EditError, match=r"cannot be put on this pipeline \(RuntimeError: no\)"):
            total.apply_to(tiny_pipeline)
        assert same_snapshot(before, snapshot(tiny_pipeline))

    def test_bases_must_be_one(self, cat, dog):
        other = about(dog, "dog", base_fingerprint="f" * 16)
        with pytest.raises(EditError, match=r"edit 2 \('dog'\) was made for .* take edits of one base"):
            stack(cat, other)
        with pytest.raises(EditError, match="2 text encoders"):
            stack(dog, about(dog, "fox", text_fingerprint="f" * 16))
        with pytest.raises(EditError, match="got no edit"):
            stack()


class TestSubtract:
    def test_a_restored_concept_leaves_the_other_edit_bit_for_bit_where_it_was_alone(self, cat, dog):
        rest = subtract(stack(cat, dog), dog)
        assert rest.deltas.keys() == cat.deltas.keys()
        assert torch.equal(rest.deltas[CROSS[2]], cat.deltas[CROSS[2]])
        assert all(torch.allclose(rest.deltas[n], cat.deltas[n], atol=1e-6) for n in cat.deltas)
        assert targets_of(rest) == ("cat",)
        assert targets_of(subtract(stack(cat, dog), cat)) == ("dog",)
        assert subtract(stack(cat, dog), cat).provenance.concept.target == "dog"

    @pytest.mark.parametrize(("there", "away"), [(1.0, 1.0), (0.5, 0.5), (0.1 * 3, 0.3), (-1.0, -1.0)])
    def test_a_part_goes_whole_at_the_strength_that_it_is_in_with(self, cat, dog, there, away):
        rest = subtract(stack(cat.scale(there), dog), cat.scale(away))
        assert recorded(rest) == [("dog", 0.5)]
        assert gap(rest, [(0.5, dog)]) < 1e-6

    def test_of_a_part_that_is_in_at_more_the_rest_stays_listed(self, cat, dog):
        rest = subtract(stack(cat.scale(0.5), dog), cat.scale(0.25))
        assert recorded(rest) == [("cat", 0.25), ("dog", 0.5)]
        assert gap(rest, [(0.25, cat), (0.5, dog)]) < 1e-6
        assert targets_of(rest) == ("cat", "dog")
        assert recorded(subtract(cat, cat.scale(0.25))) == [("cat", 0.75)]

    def test_what_is_left_below_nothing_is_listed_and_warned_of(self, cat, dog):
        with pytest.warns(UserWarning, match=r"what is left exaggerates cat \(test, strength -0.5\)"):
            rest = subtract(stack(cat.scale(0.5), dog), cat)
        assert recorded(rest) == [("cat", -0.5), ("dog", 0.5)]
        assert gap(rest, [(-0.5, cat), (0.5, dog)]) < 1e-6
        assert targets_of(rest) == ("dog",)
        assert rest.provenance.concept.target == "dog"
        assert recorded(subtract(rest, dog)) == [("cat", -0.5)], "what was warned of is not warned of again"

    def test_a_part_that_is_in_several_times_is_taken_from_their_sum(self, cat, dog):
        total = stack(cat, dog, cat.scale(0.5))
        assert recorded(subtract(total, cat)) == [("dog", 0.5), ("cat", 0.5)]
        rest = subtract(total, cat.scale(0.75))
        assert recorded(rest) == [("cat", 0.75), ("dog", 0.5)]
        assert gap(rest, [(0.75, cat), (0.5, dog)]) < 1e-6
        assert recorded(subtract(total, cat.scale(1.5))) == [("dog", 0.5)]

    def test_a_stack_is_taken_away_part_by_part(self, cat, dog):
        pets = stack(cat, dog)
        fox = about(cat.scale(0.3), "fox")
        rest = subtract(stack(pets.scale(0.5), fox), pets.scale(0.5))
        assert recorded(rest) == [("fox", 0.3)]
        assert gap(rest, [(0.3, cat)]) < 1e-6
        half = subtract(merge(cat, dog), cat.scale(0.5))
        assert recorded(half) == [("dog", 0.25)]

    def test_where_nothing_is_left_it_is_said(self, cat, dog):
        with pytest.warns(UserWarning, match="nothing is left: this edit changes nothing"):
            assert subtract(cat, cat).is_noop
        rest = subtract(stack(cat, dog.scale(1e-3)), cat)
        with pytest.warns(UserWarning, match="nothing is left"):
            gone = subtract(rest, dog.scale(1e-3))
        assert gone.is_noop
        assert parts_of(gone) == []
        assert targets_of(gone) == ()

    @pytest.mark.parametrize("kept", ["other", "alike", "alone"])
    def test_what_is_not_in_it_is_refused(self, cat, dog, kept):
        seed = about(Edit({name: delta.flip(0) for name, delta in cat.deltas.items()}, cat.provenance), "cat")
        whole = {"other": stack(dog, dog), "alike": stack(seed, dog), "alone": dog}[kept]
        said = r"the edit of cat \(test, strength 1\) is not in this one, which is made of .*dog \(test, strength 0.5\)"
        with pytest.raises(EditError, match=said + "; take away an edit that is in it"):
            subtract(whole, cat)

    def test_a_record_that_does_not_list_all_that_is_in_the_edit_is_found_out(self, cat, dog):
        total = stack(cat, dog)
        short = total.provenance.model_copy(update={"extra": {"stack": parts_of(cat)}})
        with pytest.raises(EditError, match="its record does not say all that is in it"):
            subtract(Edit(total.deltas, short), cat)

    @pytest.mark.parametrize("damage", [{"strength": "1"}, {"digest": None}, {"concept": 3}, {"also": "dog"}])
    def test_a_damaged_list_is_told(self, cat, dog, damage):
        total = stack(cat, dog)
        parts = [{**parts_of(total)[0], **damage}]
        broken = total.provenance.model_copy(update={"extra": {"stack": parts}})
        with pytest.raises(EditError, match=rf"wrong or missing: 0\.{next(iter(damage))}"):
            parts_of(Edit(total.deltas, broken))

    def test_a_behaviour_is_taken_out(self, tiny_pipeline, cat):
        one, two = edit_of(tiny_pipeline, erasers()), edit_of(tiny_pipeline, spm())
        total = stack(cat, one, two)
        assert subtract(total, one).hook is two.hook
        with pytest.raises(EditError, match=r"not in this edit at strength 0.5, .* take it away at strength 1"):
            subtract(total, one.scale(0.5))
        with pytest.raises(EditError, match="is not in this one"):
            subtract(stack(cat, one), two)

    def test_a_behaviour_is_taken_out_at_a_strength_that_was_multiplied(self, tiny_pipeline, cat):
        one = edit_of(tiny_pipeline, erasers())
        rest = subtract(stack(cat, one.scale(0.1).scale(3)), one.scale(0.3))
        assert rest.hook is None
        assert recorded(rest) == [("cat", 1.0)]


class TestMerge:
    def test_the_mean(self, cat, dog):
        mean = merge(cat, dog)
        assert torch.allclose(mean.deltas[CROSS[0]], (cat.deltas[CROSS[0]] + 0.5 * dog.deltas[CROSS[0]]) / 2, atol=1e-6)
        assert torch.equal(merge(cat, cat).deltas[CROSS[0]], cat.deltas[CROSS[0]])
        weighted = merge(cat, dog, weights=[0, 2])
        assert torch.equal(weighted.deltas[CROSS[0]], dog.deltas[CROSS[0]])

    def test_refusals(self, tiny_pipeline, cat):
        with pytest.raises(EditError, match="weights: got 1 for 2 edits"):
            merge(cat, cat, weights=[1])
        with pytest.raises(EditError, match="which has no mean; stack such edits"):
            merge(cat, edit_of(tiny_pipeline, erasers()))


class TestDiff:
    def test_sizes_angle_and_distance(self, cat, dog):
        found = diff(cat, scale(cat, 0.5))
        assert found.cosine == pytest.approx(1)
        assert found.apart == pytest.approx(0.5)
        assert found.norms[0] == pytest.approx(2 * found.norms[1])
        assert list(found.tensors.values()) == pytest.approx([0.5] * 3)
        assert diff(cat, cat).apart == 0
        other = diff(cat, dog)
        assert (other.shared, other.only) == (2, (1, 3))
        assert other.same_behaviour
        assert next(iter(other.tensors.values())) == 1

    def test_behaviours(self, tiny_pipeline, cat):
        one = edit_of(tiny_pipeline, erasers())
        assert diff(one, one).same_behaviour
        assert diff(one, stack(one, cat)).apart != 0
        assert not diff(one, one.scale(0.5)).same_behaviour


class TestOrder:
    def test_weights_commute_and_erasers_do_not(self, tiny_backbone):
        pipe = tiny_backbone.pipe
        weights = [about(edit_of_weights(pipe, CROSS), "cat"), about(edit_of_weights(pipe, TEXT), "dog")]
        strong = erasers()
        strong = type(strong)({name: 3 * tensor for name, tensor in strong.tensors.items()})
        shifted = {name: tensor.roll(1, 0) for name, tensor in strong.tensors.items()}
        hooks = [about(edit_of(pipe, one), "fox") for one in (strong, type(strong)(shifted))]
        draw(pipe, PROMPTS)
        before = snapshot(pipe)
        found = {(pair.first, pair.second): pair for pair in order_check([*weights, *hooks], tiny_backbone, steps=2)}
        assert len(found) == 6
        assert not found[0, 1].measured
        assert found[0, 1].commutes
        assert found[0, 2].measured
        assert found[0, 2].commutes
        assert not found[2, 3].commutes
        assert found[2, 3].apart > 1e-3
        assert unchanged(before, snapshot(pipe))

    def test_latents_of_a_flux_are_packed(self, tmp_path):
        backbone = backbone_for(tiny_flux(), world=tiny_world())
        judge = save_colour_judge(tmp_path, names=("cat", "dog", "fox"))
        edit = JudgeFilter(judge=str(judge)).unlearn(backbone, Concept("cat"))
        (pair,) = order_check([edit, edit], backbone, steps=1)
        assert pair.measured
        assert pair.commutes


def test_the_base_is_asked_for(tiny_pipeline, cat):
    assert backbone_for(tiny_pipeline).fingerprint() == stack(cat, cat).provenance.base_fingerprint
    assert np.array_equal(drawn(tiny_pipeline), draw(tiny_pipeline, PROMPTS))
