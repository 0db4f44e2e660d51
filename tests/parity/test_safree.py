"""SAFREE against projections made by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from aizheimer.concepts import Concept
from aizheimer.edits import load_edit
from aizheimer.edits.hook import Patches
from aizheimer.edits.hooks.re_attention import ReAttention, low_frequencies, re_attended
from aizheimer.edits.hooks.safree import Filter, SAFREEHook, _Running, filtered_steps, projector, trigger_tokens
from aizheimer.errors import EditError
from aizheimer.methods.safree import SAFREE
from tests.unit.edits.running import apart, draw, edit_of, same_state, state

PROMPTS = ["a cat", "santa claus in noto style"]
CONCEPT = Concept("santa claus")
NUMBERS = {"alpha": 0.01, "self_validating": False, "steps": 10, "steepness": 2.5, "midpoint": 5.333}


def hook(**options):
    return SAFREEHook(**{"phrases": ("santa claus",), "order": "paper", **NUMBERS, **options})


class TestEquations:
    def test_the_projection_on_a_line_and_on_a_plane(self):
        torch.testing.assert_close(
            projector(torch.tensor([[3.0, 4.0]])), torch.tensor([[9, 12], [12, 16]]).double() / 25
        )
        plane = projector(torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [2.0, 1.0, 0.0]]))  # the third is the sum
        torch.testing.assert_close(plane, torch.diag(torch.tensor([1.0, 1.0, 0.0])).double())

    def test_a_token_is_a_trigger_if_without_it_the_concept_is_far(self):
        concept = projector(torch.tensor([[1.0, 0.0]]))
        # distances from the first axis: 1, 1.01, 3; others' means: 2.005, 2, 1.005
        masked = torch.tensor([[5.0, 1.0], [7.0, 1.01], [0.0, 3.0]])
        assert trigger_tokens(masked, concept, alpha=0.01).tolist() == [False, False, True]
        assert trigger_tokens(masked, concept, alpha=1.99).tolist() == [False, False, False]

    def test_equal_distances_need_the_tolerance(self):
        concept, masked = projector(torch.tensor([[1.0, 0.0]])), torch.tensor([[5.0, 2.0], [7.0, 2.0]])
        assert trigger_tokens(masked, concept, alpha=0.0).tolist() == [True, True]
        assert trigger_tokens(masked, concept, alpha=0.01).tolist() == [False, False]

    def test_a_single_token_is_a_trigger_as_in_the_published_code(self):
        assert trigger_tokens(torch.ones(1, 2), torch.eye(2).double(), alpha=0.01).tolist() == [True]

    @pytest.mark.parametrize("distance", [0.0, 0.4, 0.5333, 0.6, 2.0])
    def test_the_number_of_filtered_steps(self, distance):
        wanted = round(10 / (1 + math.exp(-5 * (10 * distance - 5.333))))
        assert filtered_steps(distance, steps=10, steepness=2.5, midpoint=5.333) == wanted

    def test_more_distance_never_filters_fewer_steps(self):
        steps = [filtered_steps(d / 50, steps=10, steepness=3.5, midpoint=5.5) for d in range(101)]
        assert steps == sorted(steps)
        assert (steps[0], steps[-1]) == (0, 10)
        assert filtered_steps(-1e9, steps=10, steepness=2.5, midpoint=5.333) == 0

    def test_only_trigger_rows_move_and_by_the_strength(self):
        own = Filter(torch.tensor([False, True]), torch.tensor([[0.0, 0.0], [0.0, 1.0]]).double(), None, 0.0)
        rows = torch.tensor([[1.0, 1.0], [4.0, 2.0]])
        torch.testing.assert_close(own(rows, 1.0), torch.tensor([[1.0, 1.0], [0.0, 2.0]]))
        torch.testing.assert_close(own(rows, 0.25), torch.tensor([[1.0, 1.0], [3.0, 2.0]]))


def damped(features, reference, *, scale, overwrite):
    """One channel, by the centred spectrum and a loop over its middle two by two."""
    own, other = (np.fft.fftshift(np.fft.fft2(given)) for given in (features, reference))
    middle = [size // 2 for size in features.shape]
    for i in range(middle[0] - 1, middle[0] + 1):
        for j in range(middle[1] - 1, middle[1] + 1):
            if abs(own[i, j]) > abs(other[i, j]):
                own[i, j] = scale if overwrite else scale * own[i, j]
    return np.fft.ifft2(np.fft.ifftshift(own)).real


class TestReAttention:
    @pytest.mark.parametrize("overwrite", [False, True])
    @pytest.mark.parametrize("size", [(4, 4), (8, 6), (5, 7)])
    def test_it_is_the_loop_over_the_middle_of_the_spectrum(self, size, overwrite):
        generator = torch.Generator().manual_seed(0)
        features, reference = torch.randn(2, 3, 4, *size, generator=generator)
        found = re_attended(features, low_frequencies(reference), scale=0.2, overwrite=overwrite)
        for row in range(3):
            for channel in range(4):
                own, other = features[row, channel].numpy(), reference[row, channel].numpy()
                wanted = damped(own.astype(float), other.astype(float), scale=0.2, overwrite=overwrite)
                np.testing.assert_allclose(found[row, channel].numpy(), wanted, atol=1e-5)

    def test_by_hand(self):
        """Of a constant only the zero frequency is there: 16 times it. Damped by half it is half of it."""
        features, reference = torch.full((1, 2, 4, 4), 2.0), torch.ones(1, 2, 4, 4)
        reference[:, 1] = 3.0  # louder: nothing is damped
        paper = re_attended(features, low_frequencies(reference), scale=0.5)
        torch.testing.assert_close(paper[0, 0], torch.ones(4, 4))
        assert torch.equal(paper[0, 1], features[0, 1])
        code = re_attended(features, low_frequencies(reference), scale=0.5, overwrite=True)
        torch.testing.assert_close(code[0, 0], torch.full((4, 4), 0.5 / 16))
        half = re_attended(features, low_frequencies(reference), scale=0.5, strength=0.5)
        torch.testing.assert_close(half[0, 0], torch.full((4, 4), 1.5))

    def test_a_feature_of_one_pixel_has_one_frequency(self):
        found = re_attended(torch.full((1, 1, 1, 1), 2.0), low_frequencies(torch.ones(1, 1, 1, 1)), scale=0.25)
        assert found.item() == 0.5

    def test_where_it_acts_in_stable_diffusion_1(self):
        """By the channels that FreeU's code looks for: 1280 and 640 of the decoder's own."""
        unet = SimpleNamespace(config=SimpleNamespace(block_out_channels=(320, 640, 1280, 1280)))
        unet.up_blocks = [SimpleNamespace(resnets=[Layer(out) for _ in range(3)]) for out in (1280, 1280, 640, 320)]
        patches, attention = Patches(), ReAttention((0.9, 0.2), (1.0, 1.0), False, 1.0)
        attention.install(unet, patches)
        put = [vars(layer).get("forward") for block in unet.up_blocks for layer in block.resnets]
        found = [(joint.__self__.own, joint.__self__.stage) if joint else None for joint in put]
        assert found == [(1280, 0)] * 7 + [(640, 1)] * 3 + [None] * 2

    def test_backbones_are_scaled_in_their_first_half(self):
        unet = SimpleNamespace(config=SimpleNamespace(block_out_channels=(4,)))
        unet.up_blocks = [SimpleNamespace(resnets=[Layer(4)])]
        layer, attention = unet.up_blocks[0].resnets[0], ReAttention((1.0, 1.0), (1.5, 1.0), False, 1.0)
        attention.install(unet, Patches())
        given = torch.ones(2, 6, 4, 4)
        found = attention.compared(lambda: layer.forward(given[1:]), lambda: layer.forward(given), rows=[1], size=2)
        assert torch.equal(found[0], given[0])
        assert found[1].mean(dim=(1, 2)).tolist() == [1.5, 1.5, 1.0, 1.0, 1.0, 1.0]
        assert torch.equal(layer.forward(given), given)


class Layer:
    """Stands for a residual layer of a decoder: it returns what it is given."""

    def __init__(self, out_channels):
        self.out_channels = out_channels

    def forward(self, given):
        return given


def of_unet(pipe):
    return {name: value for name, value in state(pipe).items() if name.startswith("unet")}


SCALES = {"skip_scales": (0.5, 0.2)}


class TestReAttentionOnAPipeline:
    def test_it_changes_what_a_filtered_prompt_draws_and_nothing_else(self, tiny_pipeline):
        plain = draw(tiny_pipeline, "")
        pictures = []
        for options in ({}, SCALES, {"skip_scales": (1.0, 1.0)}):
            with edit_of(tiny_pipeline, hook(**options)).applied(tiny_pipeline):
                pictures.append(draw(tiny_pipeline, PROMPTS[1]))
                assert np.array_equal(draw(tiny_pipeline, ""), plain)
        assert apart(pictures[0], pictures[1]) > 1e-4
        assert np.array_equal(pictures[0], pictures[2])  # scales of 1 change no bit

    @pytest.mark.parametrize("guidance", [1.0, 5.0])
    def test_two_prompts_are_two_single_calls(self, tiny_pipeline, guidance):
        with edit_of(tiny_pipeline, hook(**SCALES)).applied(tiny_pipeline):
            both = draw(tiny_pipeline, PROMPTS, guidance=guidance)
            alone = [draw(tiny_pipeline, prompt, seeds=[i], guidance=guidance) for i, prompt in enumerate(PROMPTS)]
        assert apart(both, np.concatenate(alone)) < 1e-4

    def test_off_again_it_draws_the_same_bits(self, tiny_pipeline):
        before, was = draw(tiny_pipeline, PROMPTS), of_unet(tiny_pipeline)
        with edit_of(tiny_pipeline, hook(**SCALES)).applied(tiny_pipeline):
            draw(tiny_pipeline, PROMPTS)
        assert same_state(was, of_unet(tiny_pipeline))
        assert np.array_equal(draw(tiny_pipeline, PROMPTS), before)

    def test_only_steps_that_are_filtered_ask_for_the_reference(self, tiny_pipeline):
        sizes, forward = [], tiny_pipeline.unet.forward

        def record(sample, *args, **options):
            sizes.append(len(sample))
            return forward(sample, *args, **options)

        vars(tiny_pipeline.unet)["forward"] = record
        with edit_of(tiny_pipeline, hook(self_validating=True, steps=0, **SCALES)).applied(tiny_pipeline):
            draw(tiny_pipeline, PROMPTS[1], steps=3)
        assert sizes == [1, 2, 2, 2]

    @pytest.mark.parametrize("guidance", [1.0, 5.0])
    def test_two_edits_count_their_steps_apart(self, tiny_pipeline, guidance):
        """The inner one filters the second step too, though the outer one calls it twice in the first."""
        first = edit_of(tiny_pipeline, hook(self_validating=True, steps=2, midpoint=-10.0, **SCALES))
        second = edit_of(tiny_pipeline, hook(phrases=("cat",), skip_scales=(1.0, 1.0)))
        other = edit_of(tiny_pipeline, hook(phrases=("cat",)))
        with first.applied(tiny_pipeline), second.applied(tiny_pipeline):
            found = draw(tiny_pipeline, PROMPTS[1], guidance=guidance, steps=4)
        with first.applied(tiny_pipeline), other.applied(tiny_pipeline):
            assert np.array_equal(draw(tiny_pipeline, PROMPTS[1], guidance=guidance, steps=4), found)

    def test_saved_and_loaded_and_an_older_record(self, tiny_pipeline, tmp_path):
        edit_of(tiny_pipeline, hook(**SCALES)).save(tmp_path)
        assert load_edit(tmp_path).hook == hook(**SCALES)
        older = dict(hook().settings)
        assert "skip_scales" not in older
        assert SAFREEHook.from_saved({}, older) == hook()


@pytest.fixture
def running(tiny_pipeline):
    patches, made = Patches(), _Running(tiny_pipeline, hook(), 1.0)
    made.install(patches)
    yield made
    patches.remove()


def space_of(running):
    (encoder,) = running.encoders
    return projector(encoder.read(encoder.tokenize(["santa claus"]))[0])


def filter_of(running, prompt, concept):
    (encoder,) = running.encoders
    return running.filter_of(prompt, concept, encoder=encoder)


class TestFilters:
    def test_masked_prompts_and_their_projections(self, running):
        """The same by plain loops, without batches."""
        pipe = running.pipe

        def pooled(ids):
            with torch.no_grad():
                hidden = pipe.text_encoder(torch.tensor([ids]))[0][0]
            return hidden[len(ids) - 1].double()

        ids = pipe.tokenizer("santa claus in noto style").input_ids
        masked = torch.stack([pooled([*ids[:i], 0, *ids[i + 1 :]]) for i in range(1, len(ids) - 1)])
        concept = pooled(pipe.tokenizer("santa claus").input_ids)
        concept = torch.outer(concept, concept) / concept.dot(concept)
        inside = masked.T @ torch.linalg.pinv(masked @ masked.T) @ masked
        distance = torch.stack([(m - concept @ m).norm() for m in masked])
        n = len(distance)
        wanted = [distance[i] >= 1.01 * distance[torch.arange(n) != i].mean() for i in range(n)]

        found = filter_of(running, "santa claus in noto style", concept)
        assert found.triggers.tolist() == [False, *map(bool, wanted), *[False] * (32 - n - 1)]
        torch.testing.assert_close(found.operator, inside @ (torch.eye(32).double() - concept), atol=1e-5, rtol=1e-4)
        assert found.last is None

    def test_the_two_orders(self, running):
        concept = space_of(running)
        paper = filter_of(running, "a cat", concept).operator
        running.hook = hook(order="repository")
        repository = filter_of(running, "a cat", concept).operator
        torch.testing.assert_close(repository, paper.T, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(concept @ repository, torch.zeros_like(concept), atol=1e-6, rtol=0)

    def test_an_empty_prompt_is_left_alone(self, running):
        concept = space_of(running)
        assert not filter_of(running, "", concept).triggers.any()

    def test_a_prompt_longer_than_the_window(self, running):
        concept = space_of(running)
        assert filter_of(running, "a cat and " * 20, concept).triggers.shape == (32,)


class TestOnAPipeline:
    @pytest.mark.parametrize("guidance", [1.0, 5.0])
    def test_two_prompts_are_two_single_calls(self, tiny_pipeline, guidance):
        with edit_of(tiny_pipeline, hook()).applied(tiny_pipeline):
            both = draw(tiny_pipeline, PROMPTS, guidance=guidance)
            alone = [draw(tiny_pipeline, prompt, seeds=[i], guidance=guidance) for i, prompt in enumerate(PROMPTS)]
        assert apart(both, np.concatenate(alone)) < 1e-4

    def test_every_picture_of_a_prompt_is_filtered(self, tiny_pipeline):
        with edit_of(tiny_pipeline, hook()).applied(tiny_pipeline):
            many = draw(tiny_pipeline, PROMPTS, seeds=[0, 1, 0, 1], num_images_per_prompt=2)
            alone = draw(tiny_pipeline, PROMPTS[1], seeds=[1])
        assert apart(many[3:], alone) < 1e-4

    def test_it_is_what_filtered_embeddings_draw(self, tiny_pipeline):
        patches, running = Patches(), _Running(tiny_pipeline, hook(), 1.0)
        running.install(patches)
        found = draw(tiny_pipeline, PROMPTS[1])
        ((own,),) = running.filters
        patches.remove()
        embeddings, null = tiny_pipeline.encode_prompt(PROMPTS[1], "cpu", 1, True)
        wanted = tiny_pipeline(
            prompt_embeds=own(embeddings[0].detach(), 1.0)[None],
            negative_prompt_embeds=null,
            latents=torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)),
            num_inference_steps=3,
            guidance_scale=5.0,
            output_type="np",
        ).images
        assert own.triggers.any()
        assert apart(found, wanted) < 1e-5

    def test_the_filter_ends_where_it_says(self, tiny_pipeline):
        """With no steps allowed only the first is filtered, whatever came before and however long the call."""
        short, whole = hook(self_validating=True, steps=0), hook()
        seen = []
        forward = tiny_pipeline.unet.forward

        def record(sample, timestep, encoder_hidden_states, *args, **options):
            seen.append(encoder_hidden_states[1:].clone())
            return forward(sample, timestep, encoder_hidden_states, *args, **options)

        vars(tiny_pipeline.unet)["forward"] = record
        draw(tiny_pipeline, PROMPTS[1], steps=1)
        plain = seen.pop()
        for chosen, filtered in ((short, 1), (whole, 4)):
            with edit_of(tiny_pipeline, chosen).applied(tiny_pipeline):
                for _ in range(2):
                    seen.clear()
                    draw(tiny_pipeline, PROMPTS[1], steps=4)
                    assert [torch.equal(rows, plain) for rows in seen] == [False] * filtered + [True] * (4 - filtered)

    def test_off_again_it_draws_the_same_bits(self, tiny_pipeline):
        before = draw(tiny_pipeline, PROMPTS)
        with edit_of(tiny_pipeline, hook()).applied(tiny_pipeline):
            during = draw(tiny_pipeline, PROMPTS)
        assert apart(before, during) > 1e-4
        assert np.array_equal(draw(tiny_pipeline, PROMPTS), before)

    def test_two_concepts_stack(self, tiny_pipeline):
        first, second = edit_of(tiny_pipeline, hook()), edit_of(tiny_pipeline, hook(phrases=("cat",)))
        with first.applied(tiny_pipeline):
            one = draw(tiny_pipeline, PROMPTS)
            with second.applied(tiny_pipeline):
                assert apart(draw(tiny_pipeline, PROMPTS), one) > 1e-5

    def test_embeddings_without_words_are_refused(self, tiny_pipeline):
        with (
            edit_of(tiny_pipeline, hook()).applied(tiny_pipeline),
            pytest.raises(EditError, match="give prompt as text"),
        ):
            tiny_pipeline(prompt_embeds=torch.zeros(1, 32, 32), num_inference_steps=1)

    def test_saved_and_loaded(self, tiny_pipeline, tmp_path):
        edit_of(tiny_pipeline, hook()).save(tmp_path)
        assert load_edit(tmp_path).hook == hook()


def test_re_attention_is_on_unless_it_is_switched_off(tiny_backbone):
    on, off = (SAFREE(re_attention=value).unlearn(tiny_backbone, CONCEPT).hook for value in (True, False))
    assert (on.skip_scales, on.backbone_scales, off.skip_scales) == ((0.9, 0.2), (1.0, 1.0), None)


def test_a_style_has_its_own_schedule(tiny_backbone):
    thing = SAFREE(also=("mrs claus",)).unlearn(tiny_backbone, CONCEPT).hook
    style = SAFREE().unlearn(tiny_backbone, Concept("noto", kind="style")).hook
    own = SAFREE(steepness=1.0, midpoint=2.0).unlearn(tiny_backbone, CONCEPT).hook
    assert thing.phrases == ("santa claus", "mrs claus")
    assert [(h.steepness, h.midpoint) for h in (thing, style, own)] == [(2.5, 5.333), (3.5, 5.5), (1.0, 2.0)]
