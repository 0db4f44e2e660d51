"""SepME on a tiny pipeline, whose embeddings are few dimensions: a loose tolerance makes room."""

import pytest
import torch
from pydantic import ValidationError

from aizheimer.concepts import Concept
from aizheimer.edits.compose import stack, subtract
from aizheimer.engine.callbacks import Callbacks
from aizheimer.errors import ConceptError, DataError
from aizheimer.methods.sepme import SepME
from tests.trained import check_method, check_resume, small, tiny_backbone

CONCEPT = Concept("santa claus", keep=("cat",))
ROOM = {"protect": 1, "tolerance": 0.01, "beta": 0.1, "images": "generate:4", "stop_below": -100.0}


def test_it_changes_keys_and_values_inside_the_null_space():
    edit, steps, data = check_method(small(SepME, **ROOM), CONCEPT)
    assert all(name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight")) for name in edit.deltas)
    assert steps[0]["losses"].keys() == {"correlation", "l1"}
    record = edit.provenance.extra["null_space"]
    assert record["rank"] + record["dimensions"] == 32
    assert record["leakage"] < record["reach"]
    said = edit.provenance.printed["leakage"]
    assert f"more than {record['bound']:.2g} in the null space (tolerance 0.01)" in said
    assert f"{record['leakage']:.2g} of a token's length" in said
    backbone = tiny_backbone()
    protected = backbone.encode_prompts(["", data["retain_prompts"][0]]).flatten(0, 1).double()
    forgotten = backbone.encode_prompts(data["forget_prompts"]).flatten(0, 1).double()
    for delta in edit.deltas.values():
        size = torch.linalg.matrix_norm(delta.double(), ord=2)
        assert torch.linalg.vector_norm(protected @ delta.double().T, dim=1).max() <= 1.01 * size * record["bound"]
        assert (forgotten @ delta.double().T).abs().max() > 0


def test_the_correlation_ends_the_run_at_zero():
    options = ROOM | {"stop_below": 1e9, "stop_after": 2}
    edit = small(SepME, **options).unlearn(tiny_backbone(), CONCEPT)
    assert (edit.provenance.extra["stopped"], edit.provenance.extra["step"]) == ("loss", 2)


def test_undecoupled_it_trains_all_of_cross_attention():
    edit, _, _ = check_method(
        small(SepME, decoupled=False, images="generate:2", stop_below=-100.0),
        CONCEPT,
        pipeline={"prediction_type": "v_prediction", "pad_token": "!"},
    )
    assert any(".to_q." in name for name in edit.deltas)


def test_more_prompts_than_fit_are_refused_with_how_many_do():
    with pytest.raises(ConceptError, match=r"4 protected prompts leave no null space in 32 dimensions.*0 fit"):
        small(SepME, protect=4, tolerance=0.0, images="generate:1").unlearn(tiny_backbone(), CONCEPT)


class TestSimultaneously:
    @pytest.mark.long
    def test_every_concept_is_trained_on_pictures_of_its_own_and_logged(self):
        edit, steps, data = check_method(small(SepME, also=("dog", "flat"), **ROOM), CONCEPT)
        names = [f"correlation of {words}" for words in ("santa claus", "dog", "flat")]
        assert list(steps[0]["losses"]) == [*names, "l1"]
        assert edit.provenance.extra["data"].keys() >= {"forget", "forget dog", "forget flat"}
        for row in steps:
            sizes = [abs(row["losses"][name]) for name in names]
            assert [row["weights"][name] for name in names] == [min(max(sizes) / size, 10.0) for size in sizes]
        assert not any("dog" in prompt or "flat" in prompt for prompt in data["retain_prompts"])
        forgotten = tiny_backbone().encode_prompts(["santa claus", "dog", "flat"])
        delta = next(iter(edit.deltas.values()))
        assert ((forgotten @ delta.T).abs().amax(dim=(1, 2)) > 0).all()

    @pytest.mark.long
    def test_the_largest_correlation_ends_the_run(self):
        """Small concepts wait: with the limit between the two, only the smaller one is there, and training goes on."""
        seen = []
        options = ROOM | {"stop_after": 1, "stop_below": -100.0, "also": ("dog",)}
        small(SepME, **options).unlearn(tiny_backbone(), CONCEPT, callbacks=Callbacks(on_step=seen.append))
        first = sorted(value for name, value in seen[0]["losses"].items() if name != "l1")
        between = small(SepME, **options | {"stop_below": sum(first) / 2, "training": {"steps": 1}})
        assert between.unlearn(tiny_backbone(), CONCEPT).provenance.extra["stopped"] == "steps"
        above = small(SepME, **options | {"stop_below": first[1] * 1.01})
        assert above.unlearn(tiny_backbone(), CONCEPT).provenance.extra["stopped"] == "loss"

    @pytest.mark.long
    def test_resumed_it_gives_the_same_bits(self, tmp_path):
        training = {"steps": 6, "checkpoint_every": 2}
        check_resume(small(SepME, also=("dog",), training=training, **ROOM), CONCEPT, tmp_path, at=4)

    def test_freely_too(self):
        options = {"decoupled": False, "images": "generate:2", "stop_below": -100.0, "also": ("dog",)}
        edit = small(SepME, training={"steps": 1}, **options).unlearn(tiny_backbone(), CONCEPT)
        assert any(".to_q." in name for name in edit.deltas)

    def test_a_folder_needs_one_of_each_concept(self, tmp_path):
        (tmp_path / "santa-claus").mkdir()
        with pytest.raises(DataError, match="dog does not exist"):
            small(SepME, **ROOM | {"also": ("dog",), "images": str(tmp_path)}).unlearn(tiny_backbone(), CONCEPT)


class TestSeparately:
    def test_edits_add_and_subtract_without_touching_each_other(self):
        """The shift of one at the other's prompt stays under the bound that its provenance prints."""
        backbone, words = tiny_backbone(), ("santa claus", "dog")
        edits = [
            small(SepME, reserved=(other,), training={"lr": 0.1}, **ROOM | {"protect": 0}).unlearn(
                backbone, Concept(own)
            )
            for own, other in (words, words[::-1])
        ]
        prompts = [backbone.world.prompts(Concept(word))[0] for word in words]
        rows = backbone.encode_prompts(prompts).double()
        for i, edit in enumerate(edits):
            own, other, record = rows[i], rows[1 - i], edit.provenance.extra["null_space"]
            assert record["reserved"] == [prompts[1 - i]]
            for delta in edit.deltas.values():
                change = delta.double()
                size = torch.linalg.matrix_norm(change, ord=2)
                leak = torch.linalg.vector_norm(other @ change.T, dim=1).max()
                assert leak <= 1.001 * size * record["bound"]
                assert torch.linalg.vector_norm(own @ change.T, dim=1).max() > 10 * leak
        both = stack(*edits)
        for i, edit in enumerate(edits):
            left = subtract(both, edits[1 - i])
            assert left.deltas.keys() == edit.deltas.keys()
            for name, delta in edit.deltas.items():
                assert torch.allclose(left.deltas[name], delta, rtol=0, atol=1e-6 * float(delta.abs().max()))
                keys = [rows[i] @ one.deltas[name].double().T for one in (both, edit)]
                bound = edits[1 - i].provenance.extra["null_space"]["bound"]
                size = torch.linalg.matrix_norm(edits[1 - i].deltas[name].double(), ord=2)
                assert torch.linalg.vector_norm(keys[0] - keys[1], dim=1).max() <= 1.001 * size * bound

    def test_more_than_fit_are_refused_with_how_many_do(self):
        options = {"tolerance": 0.0, "images": "generate:1", "reserved_prompts": 3}
        said = (
            r"0 protected and 6 reserved prompts leave no null space in 32 dim.*; \d+ fit: set protect=0 and reserve at"
        )
        with pytest.raises(ConceptError, match=said):
            small(SepME, protect=0, reserved=("dog", "tree"), **options).unlearn(tiny_backbone(), CONCEPT)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"also": ("dog", " ")}, "empty entry"),
        ({"also": ("dog",), "reserved": ("Dog",)}, "'dog' is named twice"),
        ({"reserved": ("dog",), "decoupled": False}, "decoupled=false does without"),
        ({"balance_limit": 0.5}, "greater than or equal to 1"),
    ],
)
def test_settings_that_contradict_each_other(options, said):
    with pytest.raises(ValidationError, match=said):
        SepME(**options)
