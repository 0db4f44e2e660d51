"""Concept Ablation on a tiny pipeline."""

import pytest
import torch
from pydantic import ValidationError

from aizheimer._seeding import generator_for
from aizheimer.concepts import Concept
from aizheimer.data.augmentation import PREFIXES
from aizheimer.errors import ConceptError, SelectorError
from aizheimer.methods import concept_ablation
from aizheimer.methods.concept_ablation import ConceptAblation
from tests.trained import check_method, check_resume, small, tiny_backbone

CONCEPT = Concept("santa claus", anchor="old man")


@pytest.mark.long
def test_model_based_changes_keys_and_values_only():
    method = small(ConceptAblation, images="generate:4", regularization_weight=0.2)
    edit, steps, _ = check_method(method, CONCEPT)
    assert all(name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight")) for name in edit.deltas)
    assert steps[0]["weights"] == {"erase": 1.0, "noise": 0.2}
    assert "cosine" in steps[1]


def test_noise_based_without_an_anchor_on_velocity_predictions():
    method = small(ConceptAblation, variant="noise", images="generate:2", empty_anchor="auto", weights="attention")
    check_method(method, Concept("santa claus"), pipeline={"prediction_type": "v_prediction", "pad_token": "!"})


class TestAugmented:
    @pytest.mark.long
    def test_what_is_shown_has_masks_and_words_for_its_size(self, monkeypatch):
        seen = {}
        problem = concept_ablation.NoiseProblem

        def noted(**parts):
            seen.update(term=parts["terms"][0], regularization=parts["terms"][-1])
            return problem(**parts)

        monkeypatch.setattr(concept_ablation, "NoiseProblem", noted)
        options = {"augmentation": "object", "augmented_copies": 3, "regularization_weight": 0.5}
        method = small(ConceptAblation, images="generate:4", **options)
        edit, _, _ = check_method(method, CONCEPT)
        assert "augmented" in edit.provenance.extra["data"]
        source, prompts = seen["term"].source, 3
        assert len(source.latents) == len(source.masks) == 3 * 3  # one of four is held out
        assert len(seen["term"].embeddings) == len(seen["term"].target.embeddings) == prompts * len(PREFIXES)
        assert (source.prompt_index % prompts).tolist() == [0, 1, 2] * 3
        assert (source.prompt_index // prompts).unique().numel() > 1
        # The regularisation is on the pictures as they are.
        assert seen["regularization"].source.masks is None
        draw = source.draw(2, step=1, generator=generator_for(0, "draw"))
        assert draw.mask.shape == (2, 1, 8, 8)
        backbone = tiny_backbone()
        words = seen["term"].embeddings.tokens
        assert torch.allclose(words[prompts : 2 * prompts], far_away(backbone), atol=1e-6)
        anchors = seen["term"].target.embeddings.tokens
        assert torch.equal(anchors[:prompts], anchors[prompts : 2 * prompts])

    @pytest.mark.long
    def test_resumed_it_gives_the_same_bits(self, tmp_path):
        options = {"augmentation": "object", "training": {"steps": 6, "checkpoint_every": 2}}
        check_resume(small(ConceptAblation, images="generate:2", **options), CONCEPT, tmp_path, at=4)


def far_away(backbone):
    prompts = backbone.world.prompts(CONCEPT)
    return backbone.encode_prompts([f"a far away {prompt}" for prompt in prompts])


@pytest.mark.long
def test_a_memorised_caption_becomes_its_paraphrases():
    """No anchor is named; the caption itself is the prompt, and everything may change."""
    options = {"anchor_prompts": ("red apple", "a picture of grapes"), "prompts": "target", "weights": "full"}
    edit, _, _ = check_method(small(ConceptAblation, images="generate:2", **options), Concept("old man with a red cat"))
    assert any(".attn2." not in name for name in edit.deltas)


def test_what_cannot_be_is_refused():
    with pytest.raises(ConceptError, match=r"concept-ablation needs an anchor.*empty_anchor"):
        small(ConceptAblation).unlearn(tiny_backbone(), Concept("santa claus"))
    with pytest.raises(SelectorError, match="nowhere"):
        small(ConceptAblation, layers="nowhere").unlearn(tiny_backbone(), CONCEPT)
    with pytest.raises(ValidationError, match="generate:N with N of 1 or more"):
        ConceptAblation(images="generate:0")
    with pytest.raises(ConceptError, match=r"anchor_prompts: 'cat cat .* is longer than the model reads"):
        small(ConceptAblation, anchor_prompts=("cat " * 40,)).unlearn(tiny_backbone(), Concept("santa claus"))
    with pytest.raises(ValidationError, match="anchor_prompts has an empty entry"):
        ConceptAblation(anchor_prompts=("a cat", " "))
