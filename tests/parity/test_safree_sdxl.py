"""SAFREE on rows of two text encoders and a pooled vector, against projections made by hand and by plain loops."""

import inspect
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from aizheimer.backbones.base import backbone_for
from aizheimer.concepts import Concept
from aizheimer.edits.hook import Patches
from aizheimer.edits.hooks.re_attention import ReAttention
from aizheimer.edits.hooks.safree import Filter, SAFREEHook, _Running
from aizheimer.errors import EditError
from aizheimer.methods.safree import SAFREE
from tests.tiny import DIM
from tests.tiny_families import tiny_sdxl
from tests.unit.edits.running import apart, draw, edit_of

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Euler and numpy 2
PROMPT, OTHER = "santa claus in noto style", "a cat"
NUMBERS = {"alpha": 0.01, "self_validating": False, "steps": 10, "steepness": 2.5, "midpoint": 5.333}
SCALES = {"skip_scales": (0.5, 0.2)}
FIRST, SECOND = slice(0, DIM), slice(DIM, None)


def hook(**options):
    return SAFREEHook(**{"phrases": ("santa claus",), "order": "paper", **NUMBERS, **options})


@pytest.fixture(scope="module")
def pipe():
    return tiny_sdxl()


@pytest.fixture
def told(pipe, monkeypatch):
    """What the UNet is given at every call, by argument name; calls of the hook's own come through it too."""
    seen, forward = [], pipe.unet.forward

    def note(*args, **options):
        bound = inspect.signature(type(pipe.unet).forward).bind(pipe.unet, *args, **options).arguments
        seen.append({name: value.clone() for name, value in bound["added_cond_kwargs"].items()})
        seen[-1]["rows"] = bound["encoder_hidden_states"].clone()
        return forward(*args, **options)

    vars(pipe.unet)["forward"] = note
    yield seen
    del vars(pipe.unet)["forward"]


def by_loops(pipe, which, prompt, *, order="paper", published=False):
    """Triggers and operators of one encoder, one text at a time and without the package."""
    tokenizer, network = getattr(pipe, f"tokenizer{which}"), getattr(pipe, f"text_encoder{which}")

    def vectors(ids):
        padded = [*ids, *[tokenizer.pad_token_id] * (tokenizer.model_max_length - len(ids))]
        with torch.no_grad():
            said = network(torch.tensor([padded]), output_hidden_states=True)
        return said.hidden_states[-2][0, len(ids) - 1].double(), said[0][0].double()

    def operator(masked, concept):
        away = torch.eye(len(concept)).double() - torch.outer(concept, concept) / concept.dot(concept)
        inside = masked.T @ torch.linalg.pinv(masked @ masked.T) @ masked
        return inside @ away if order == "paper" else away @ inside

    ids, concept = tokenizer(prompt).input_ids, vectors(tokenizer("santa claus").input_ids)
    masked = [vectors([*ids[:i], 0, *ids[i + 1 :]]) for i in range(1, len(ids) - 1)]
    rows, pooled = (torch.stack(kind) for kind in zip(*masked, strict=True))
    own, space = (pooled, concept[1]) if published else (rows, concept[0])
    distance = torch.stack([(m - space * (space.dot(m) / space.dot(space))).norm() for m in own])
    others = [distance[torch.arange(len(own)) != i].mean() for i in range(len(own))]
    triggers = [i + 1 for i in range(len(own)) if distance[i] >= 1.01 * others[i]]
    whole = operator(pooled, concept[1]) if which else None
    return triggers, operator(own, space), whole


def wanted(pipe, prompt, **options):
    """Rows and pooled vector of a prompt, filtered in both encoders."""
    rows, _, pooled, _ = (None if one is None else one.double() for one in encoded(pipe, prompt))
    for which, channels in (("", FIRST), ("_2", SECOND)):
        triggers, operator, whole = by_loops(pipe, which, prompt, **options)
        assert triggers
        for place in triggers:
            rows[0, place, channels] = operator @ rows[0, place, channels]
    return rows[0].float(), (whole @ pooled[0]).float()


def encoded(pipe, prompt, **options):
    with torch.no_grad():
        return pipe.encode_prompt(prompt, num_images_per_prompt=1, do_classifier_free_guidance=False, **options)


class TestByHand:
    def test_each_part_of_a_row_is_multiplied_by_its_own_operator(self):
        """Of the row (1, 2 | 3, 4) the first part loses its first axis, and the second its second one by half."""
        rows = torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]])
        first = Filter(
            torch.tensor([True, False]), torch.diag(torch.tensor([0.0, 1.0])).double(), None, 0.0, slice(0, 2)
        )
        second = Filter(
            torch.tensor([True, True]), torch.diag(torch.tensor([1.0, 0.5])).double(), None, 0.0, slice(2, None)
        )
        both = second(first(rows, 1.0), 1.0)
        assert both.tolist() == [[0.0, 2.0, 3.0, 2.0], [1.0, 2.0, 3.0, 2.0]]
        assert first(rows, 0.5).tolist() == [[0.5, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]]
        assert rows[0].tolist() == [1.0, 2.0, 3.0, 4.0]

    def test_the_pooled_vector_moves_where_there_are_triggers(self):
        swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).double()
        with_, without = (
            Filter(torch.tensor([trigger]), torch.eye(2).double(), None, 0.0, pooled=swap) for trigger in (True, False)
        )
        vector = torch.tensor([2.0, 6.0])
        assert with_.of_pooled(vector, 1.0).tolist() == [6.0, 2.0]
        assert with_.of_pooled(vector, 0.25).tolist() == [3.0, 5.0]
        assert without.of_pooled(vector, 1.0) is vector


class TestWhatTheUNetIsTold:
    @pytest.mark.parametrize("guidance", [1.0, 5.0])
    def test_both_encoders_rows_and_the_pooled_vector(self, pipe, told, guidance):
        with edit_of(pipe, hook()).applied(pipe):
            draw(pipe, PROMPT, steps=1, guidance=guidance)
        (seen,) = told
        rows, pooled = wanted(pipe, PROMPT)
        plain, _, pooled_before, _ = encoded(pipe, PROMPT)
        torch.testing.assert_close(seen["rows"][-1], rows, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(seen["text_embeds"][-1], pooled, atol=1e-4, rtol=1e-4)
        for channels in (FIRST, SECOND):
            assert (rows - plain[0])[:, channels].abs().max() > 0.1
        assert (pooled - pooled_before[0]).abs().max() > 0.01
        if guidance > 1:  # the empty prompt is all zeros, and stays it
            assert not seen["rows"][0].any()
            assert not seen["text_embeds"][0].any()

    def test_nothing_of_the_concept_is_left_in_either_part_in_the_codes_order(self, pipe):
        """With (I - P_C) last, what was moved is orthogonal to the concept, in each space."""
        running = _Running(pipe, hook(), 1.0)
        patches = Patches()
        running.install(patches)
        encoders = running.encoders
        running.hook = hook(order="repository")
        for encoder in encoders:
            concept, whole = encoder.read(encoder.tokenize(["santa claus"]))
            (own,) = running.filters_of([PROMPT], encoder)
            assert (concept[0].double() @ own.operator).abs().max() < 1e-5
            assert (own.pooled is None) == (whole is None) == (encoder.channels == FIRST)
            if whole is not None:
                assert (whole[0].double() @ own.pooled).abs().max() < 1e-5
        patches.remove()

    def test_the_published_way_is_the_second_encoder_alone(self, pipe, told):
        with edit_of(pipe, hook(order="repository")).applied(pipe):
            draw(pipe, PROMPT, steps=1)
        (seen,), (rows, _, pooled, _) = told, encoded(pipe, PROMPT)
        triggers, operator, _ = by_loops(pipe, "_2", PROMPT, order="repository", published=True)
        assert torch.equal(seen["rows"][1][:, FIRST], rows[0][:, FIRST])
        assert torch.equal(seen["text_embeds"][1], pooled[0])
        for place in triggers:
            rows[0, place, SECOND] = (operator @ rows[0, place, SECOND].double()).float()
        torch.testing.assert_close(seen["rows"][1], rows[0], atol=1e-4, rtol=1e-4)

    def test_the_published_way_needs_pooled_vectors_as_wide_as_rows(self, pipe, monkeypatch):
        monkeypatch.setattr(pipe.text_encoder_2.config, "projection_dim", DIM + 1)
        with pytest.raises(EditError, match=f"are {DIM + 1} wide here and rows {DIM}; make the edit with fidelity=pap"):
            edit_of(pipe, hook(order="repository")).apply_to(pipe)

    def test_each_encoder_is_filtered_by_the_words_it_was_given(self, pipe, told):
        with edit_of(pipe, hook()).applied(pipe):
            draw(pipe, PROMPT, steps=1, prompt_2=OTHER)
            draw(pipe, PROMPT, steps=1)
            draw(pipe, OTHER, steps=1)
        mixed, first, second = (seen["rows"][1] for seen in told)
        torch.testing.assert_close(mixed[:, FIRST], first[:, FIRST])
        torch.testing.assert_close(mixed[:, SECOND], second[:, SECOND])
        torch.testing.assert_close(told[0]["text_embeds"][1], told[2]["text_embeds"][1])

    def test_steps_behind_the_filters_last_see_the_prompt_as_it_was_written(self, pipe, told):
        with edit_of(pipe, hook(self_validating=True, steps=0)).applied(pipe):
            draw(pipe, PROMPT, steps=3)
        rows, _, pooled, _ = encoded(pipe, PROMPT)
        assert [torch.equal(seen["rows"][1], rows[0]) for seen in told] == [False, True, True]
        assert [torch.equal(seen["text_embeds"][1], pooled[0]) for seen in told] == [False, True, True]


class TestOnAPipeline:
    @pytest.mark.parametrize("guidance", [1.0, 5.0])
    def test_two_prompts_are_two_single_calls(self, pipe, guidance):
        prompts = [OTHER, PROMPT]
        with edit_of(pipe, hook()).applied(pipe):
            both = draw(pipe, prompts, guidance=guidance)
            alone = [draw(pipe, prompt, seeds=[i], guidance=guidance) for i, prompt in enumerate(prompts)]
            many = draw(pipe, prompts, seeds=[0, 1, 0, 1], guidance=guidance, num_images_per_prompt=2)
        assert apart(both, np.concatenate(alone)) < 1e-4
        assert apart(many[[0, 3]], both) < 1e-4

    def test_re_attention_acts_and_scales_of_one_change_no_bit(self, pipe):
        pictures = []
        for options in ({}, SCALES, {"skip_scales": (1.0, 1.0)}):
            with edit_of(pipe, hook(**options)).applied(pipe):
                pictures.append(draw(pipe, PROMPT))
        assert apart(pictures[0], pictures[1]) > 1e-4
        assert np.array_equal(pictures[0], pictures[2])

    def test_the_reference_is_told_the_prompt_as_it_was_written(self, pipe, told):
        with edit_of(pipe, hook(**SCALES)).applied(pipe):
            draw(pipe, ["", PROMPT], steps=1)
        reference, filtered = told
        rows, _, pooled, _ = encoded(pipe, PROMPT)
        torch.testing.assert_close(reference["rows"], rows)
        torch.testing.assert_close(reference["text_embeds"], pooled)
        assert reference["time_ids"].shape == (1, 6)
        assert (filtered["text_embeds"][3] - pooled[0]).abs().max() > 0.01

    def test_where_it_acts_in_sdxl(self):
        """By the channels that FreeU's code looks for: 1280 and 640 of the decoder's own, three blocks of three."""
        unet = SimpleNamespace(config=SimpleNamespace(block_out_channels=(320, 640, 1280)))
        unet.up_blocks = [
            SimpleNamespace(resnets=[SimpleNamespace(out_channels=out, forward=None) for _ in range(3)])
            for out in (1280, 640, 320)
        ]
        ReAttention((0.9, 0.2), (1.0, 1.0), False, 1.0).install(unet, Patches())
        put = [layer.forward for block in unet.up_blocks for layer in block.resnets]
        found = [(joint.__self__.own, joint.__self__.stage) if joint else None for joint in put]
        assert found == [(1280, 0)] * 4 + [(640, 1)] * 3 + [None] * 2

    def test_an_empty_prompt_is_left_alone(self, pipe):
        plain = draw(pipe, "")
        with edit_of(pipe, hook(**SCALES)).applied(pipe):
            assert np.array_equal(draw(pipe, ""), plain)

    def test_embeddings_without_words_are_refused(self, pipe):
        rows, _, pooled, _ = encoded(pipe, PROMPT)
        with edit_of(pipe, hook()).applied(pipe), pytest.raises(EditError, match="give prompt as text"):
            pipe(prompt_embeds=rows, pooled_prompt_embeds=pooled, num_inference_steps=1, guidance_scale=1.0)


def test_the_method_makes_it_with_its_options(pipe):
    backbone = backbone_for(pipe)
    whole = SAFREE().unlearn(backbone, Concept("santa claus")).hook
    theirs = SAFREE(fidelity="repository", self_validating=False, re_attention=False)
    theirs = theirs.unlearn(backbone, Concept("santa claus")).hook
    assert (whole.order, whole.self_validating, whole.skip_scales) == ("paper", True, (0.9, 0.2))
    assert (theirs.order, theirs.self_validating, theirs.skip_scales) == ("repository", False, None)
