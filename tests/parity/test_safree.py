"""SAFREE against projections made by hand."""

import math

import numpy as np
import pytest
import torch

from aizheimer.concepts import Concept
from aizheimer.edits import load_edit
from aizheimer.edits.hook import Patches
from aizheimer.edits.hooks.safree import Filter, SAFREEHook, _Running, filtered_steps, projector, trigger_tokens
from aizheimer.errors import EditError
from aizheimer.methods.safree import SAFREE
from tests.unit.edits.running import apart, draw, edit_of

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


@pytest.fixture
def running(tiny_pipeline):
    patches, made = Patches(), _Running(tiny_pipeline, hook(), 1.0)
    made.install(patches)
    yield made
    patches.remove()


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

        found = running.filter_of("santa claus in noto style", concept)
        assert found.triggers.tolist() == [False, *map(bool, wanted), *[False] * (32 - n - 1)]
        torch.testing.assert_close(found.operator, inside @ (torch.eye(32).double() - concept), atol=1e-5, rtol=1e-4)
        assert found.last is None

    def test_the_two_orders(self, running):
        concept = projector(running.pooled(running.tokenize(["santa claus"])))
        paper = running.filter_of("a cat", concept).operator
        running.hook = hook(order="repository")
        repository = running.filter_of("a cat", concept).operator
        torch.testing.assert_close(repository, paper.T, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(concept @ repository, torch.zeros_like(concept), atol=1e-6, rtol=0)

    def test_an_empty_prompt_is_left_alone(self, running):
        concept = projector(running.pooled(running.tokenize(["santa claus"])))
        assert not running.filter_of("", concept).triggers.any()

    def test_a_prompt_longer_than_the_window(self, running):
        concept = projector(running.pooled(running.tokenize(["santa claus"])))
        assert running.filter_of("a cat and " * 20, concept).triggers.shape == (32,)


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
        (own,) = running.filters
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


def test_a_style_has_its_own_schedule(tiny_backbone):
    thing = SAFREE(also=("mrs claus",)).unlearn(tiny_backbone, CONCEPT).hook
    style = SAFREE().unlearn(tiny_backbone, Concept("noto", kind="style")).hook
    own = SAFREE(steepness=1.0, midpoint=2.0).unlearn(tiny_backbone, CONCEPT).hook
    assert thing.phrases == ("santa claus", "mrs claus")
    assert [(h.steepness, h.midpoint) for h in (thing, style, own)] == [(2.5, 5.333), (3.5, 5.5), (1.0, 2.0)]
