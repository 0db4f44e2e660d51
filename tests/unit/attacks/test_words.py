"""Words that no tokenizer knows are read and drawn as their vectors say, and are gone afterwards."""

import numpy as np
import pytest
import torch

from aizheimer.attacks._words import (
    TokenPrompt,
    draw_tokens,
    found_prompts,
    spelled,
    typeable,
)
from aizheimer.data.free_words import free_words, padded, text_ids, vocabulary
from aizheimer.errors import InputError
from aizheimer.evaluation.generate import initial_latents, sampling
from tests.snapshot import changed, snapshot
from tests.unit.attacks.builders import SETTINGS, subject_of


def vectors_of(backbone, text):
    return backbone.word_vectors(torch.tensor(text_ids(backbone, text))).detach()


class TestFreeWords:
    def test_a_word_with_anothers_vector_means_the_same(self, tiny_backbone):
        cat = vectors_of(tiny_backbone, "cat")
        with free_words(tiny_backbone, cat) as words:
            found = tiny_backbone.encode_prompts([f"a {words.text} in noto style", "a dog in noto style"])
            assert torch.equal(found, tiny_backbone.encode_prompts(["a cat in noto style", "a dog in noto style"]))

    def test_several_and_exchanged(self, tiny_backbone):
        santa = vectors_of(tiny_backbone, "santa claus")  # three tokens
        with free_words(tiny_backbone, torch.zeros_like(santa)) as words:
            before = tiny_backbone.encode_prompts([f"{words.text} in noto style"])
            words.vectors = santa
            after = tiny_backbone.encode_prompts([f"{words.text} in noto style"])
        wanted = tiny_backbone.encode_prompts(["santa claus in noto style"])
        assert torch.equal(after, wanted)
        assert not torch.equal(before, wanted)

    def test_gradients_reach_the_vectors(self, tiny_backbone):
        vectors = vectors_of(tiny_backbone, "cat").requires_grad_(True)
        with tiny_backbone.frozen(), free_words(tiny_backbone, vectors) as words:
            ids = padded(tiny_backbone, [text_ids(tiny_backbone, f"a {words.text}")])
            tiny_backbone.read_tokens(ids).square().sum().backward()
        assert vectors.grad.abs().sum() > 0

    def test_nothing_is_left_even_when_the_block_fails(self, tiny_backbone):
        before = snapshot(tiny_backbone.pipe)
        with pytest.raises(RuntimeError), free_words(tiny_backbone, torch.zeros(2, 32)):
            raise RuntimeError
        assert changed(before, snapshot(tiny_backbone.pipe)) == set()

    def test_names_that_are_taken_are_refused(self, tiny_backbone):
        tiny_backbone.pipe.tokenizer.add_tokens(["<free0>"])
        with (
            pytest.raises(InputError, match="knows a word of <free0>"),
            free_words(tiny_backbone, torch.zeros(1, 32)),
        ):
            pass


class TestTokens:
    def test_padding_is_the_tokenizers(self, tiny_backbone):
        prompts = ["santa claus in noto style", "a cat"]
        bodies = [text_ids(tiny_backbone, prompt) for prompt in prompts]
        assert torch.equal(padded(tiny_backbone, bodies), tiny_backbone.tokenize(prompts))
        with pytest.raises(InputError, match="got a prompt of 31 tokens, the model reads 30; search for fewer"):
            padded(tiny_backbone, [[1] * 31])

    def test_the_vocabulary_has_no_token_that_ends_a_prompt(self, tiny_backbone):
        tokenizer = tiny_backbone.pipe.tokenizer
        words = vocabulary(tiny_backbone).tolist()
        assert not set(words) & {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
        assert len(words) == len(tokenizer) - len(set(tokenizer.all_special_ids))

    def test_some_tokens_cannot_be_typed(self, tiny_backbone):
        letters = tuple(tiny_backbone.pipe.tokenizer.convert_tokens_to_ids(["c", "a", "t</w>"]))
        word = tuple(text_ids(tiny_backbone, "cat"))
        prompts = [TokenPrompt(word, "in noto style"), TokenPrompt(letters, "in noto style")]
        assert [spelled(tiny_backbone, prompt) for prompt in prompts] == ["cat in noto style"] * 2
        assert [typeable(tiny_backbone, prompt) for prompt in prompts] == [True, False]
        assert [found["typeable"] for found in found_prompts(tiny_backbone, prompts)] == [True, False]
        assert found_prompts(tiny_backbone, prompts)[1]["words"] == ["c", "a", "t"]

    def test_pictures_are_of_the_tokens_and_not_of_their_spelling(self, tiny_backbone, tmp_path, monkeypatch):
        """By hand: the tokens are encoded and the pipeline gets their rows in the place of a prompt."""
        monkeypatch.setenv("AIZHEIMER_CACHE", str(tmp_path))
        subject, pipe = subject_of(tiny_backbone, edited=False), tiny_backbone.pipe
        letters = tuple(pipe.tokenizer.convert_tokens_to_ids(["c", "a", "t</w>"]))
        word = tuple(text_ids(tiny_backbone, "cat"))
        found = draw_tokens(
            subject, [TokenPrompt(word), TokenPrompt(letters), TokenPrompt(letters, "in")], seeds=[3, 3, 4]
        )
        bodies = [word, letters, (*letters, *text_ids(tiny_backbone, "in"))]
        with torch.no_grad():
            rows = tiny_backbone.read_tokens(padded(tiny_backbone, bodies))
        with sampling(pipe):
            wanted = pipe(
                prompt_embeds=rows,
                negative_prompt_embeds=tiny_backbone.encode_prompts(["", "", ""]),
                latents=initial_latents(pipe, [3, 3, 4]),
                num_inference_steps=SETTINGS.steps,
                guidance_scale=SETTINGS.guidance,
                output_type="np",
            ).images
        assert np.abs(found.astype(float) - 255 * wanted).max() <= 1
        assert not np.array_equal(found[0], found[1])
