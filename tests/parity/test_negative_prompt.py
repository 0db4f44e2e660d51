"""The negative prompt edit against the pipeline's own negative_prompt argument."""

import numpy as np
import pytest
import torch

from aizheimer.concepts import Concept
from aizheimer.edits.hooks.negative_prompt import NegativePromptHook
from aizheimer.errors import EditError
from aizheimer.methods.negative_prompt import NegativePrompt
from tests.unit.edits.running import apart, draw, edit_of

PROMPTS = ["a cat", "santa claus in noto style"]
HOOK = NegativePromptHook("santa claus")


@pytest.mark.parametrize("images", [1, 2])
def test_it_is_the_pipelines_own_negative_prompt(tiny_pipeline, images):
    options = {"num_images_per_prompt": images, "seeds": range(2 * images)}
    wanted = draw(tiny_pipeline, PROMPTS, negative_prompt=["santa claus"] * 2, **options)
    plain = draw(tiny_pipeline, PROMPTS, **options)
    with edit_of(tiny_pipeline, HOOK).applied(tiny_pipeline):
        assert apart(draw(tiny_pipeline, PROMPTS, **options), wanted) < 1e-6
    assert apart(plain, wanted) > 1e-4


def test_one_text_and_given_embeddings(tiny_pipeline):
    def call(**options):
        torch.manual_seed(0)
        options = {"num_inference_steps": 2, "output_type": "np", **options}
        return tiny_pipeline(generator=torch.Generator().manual_seed(0), **options).images

    (embeddings, null) = tiny_pipeline.encode_prompt("a cat", "cpu", 1, True, negative_prompt="santa claus")
    wanted = call(prompt_embeds=embeddings, negative_prompt_embeds=null)
    with edit_of(tiny_pipeline, HOOK).applied(tiny_pipeline):
        assert apart(call(prompt="a cat"), wanted) < 1e-6
        assert apart(call(prompt_embeds=embeddings), wanted) < 1e-6
        with pytest.raises(EditError, match="give negative_prompt as text"):
            call(prompt_embeds=embeddings, negative_prompt_embeds=null)


def test_words_of_the_call_stay(tiny_pipeline):
    wanted = draw(tiny_pipeline, PROMPTS, negative_prompt=["dog, santa claus", "santa claus"])
    with edit_of(tiny_pipeline, HOOK).applied(tiny_pipeline):
        assert apart(draw(tiny_pipeline, PROMPTS, negative_prompt=["dog", ""]), wanted) < 1e-6


def test_strength_moves_the_embedding_along_a_line(tiny_pipeline):
    _, null = tiny_pipeline.encode_prompt("a cat", "cpu", 1, True)
    _, words = tiny_pipeline.encode_prompt("a cat", "cpu", 1, True, negative_prompt="santa claus")
    with edit_of(tiny_pipeline, HOOK).scale(0.25).applied(tiny_pipeline):
        prompt, found = tiny_pipeline.encode_prompt("a cat", "cpu", 1, True)
    torch.testing.assert_close(found, 0.75 * null + 0.25 * words)
    torch.testing.assert_close(prompt, tiny_pipeline.encode_prompt("a cat", "cpu", 1, False)[0])


def test_without_guidance_it_warns_and_changes_nothing(tiny_pipeline):
    wanted = draw(tiny_pipeline, "a cat", guidance=1.0)
    with (
        edit_of(tiny_pipeline, HOOK).applied(tiny_pipeline),
        pytest.warns(UserWarning, match="does nothing at guidance 1 or less"),
    ):
        found = draw(tiny_pipeline, "a cat", guidance=1.0)
    assert np.array_equal(found, wanted)


def test_two_stack_to_both_words(tiny_pipeline):
    wanted = draw(tiny_pipeline, "a cat", negative_prompt=["dog, santa claus"])
    first, second = edit_of(tiny_pipeline, HOOK), edit_of(tiny_pipeline, NegativePromptHook("dog"))
    with first.applied(tiny_pipeline), second.applied(tiny_pipeline):
        assert apart(draw(tiny_pipeline, "a cat"), wanted) < 1e-6


def test_the_method_writes_the_concept_and_its_other_names(tiny_backbone):
    heard = {}
    from aizheimer.engine.callbacks import Callbacks

    method = NegativePrompt(also=("old man",))
    edit = method.unlearn(tiny_backbone, Concept("santa claus"), callbacks=Callbacks(on_data=heard.update))
    assert edit.hook == NegativePromptHook("santa claus, old man")
    assert edit.provenance.recipe["also"] == ["old man"]
    assert heard["parameters"] == heard["layers"] == []
    assert "santa claus in noto style" in heard["forget_prompts"]
