import json
import shutil

import pytest
import torch

from aizheimer.detectors.clip_score import CLIPScore
from aizheimer.detectors.clip_zero_shot import ZeroShotJudge
from aizheimer.errors import InputError, ModelError
from tests.unit.detectors.builders import flat_pictures

PROMPTS = ["a red cat", "a green tree in noto style", "a red cat"]


@pytest.fixture(scope="module")
def clip(clip_folder):
    return CLIPScore.load(clip_folder)


class TestScore:
    def test_equals_the_models_own_cosine(self, clip):
        pictures = flat_pictures(["red", "green", "blue"])
        tokens = clip.tokenizer(PROMPTS, padding="max_length", max_length=32, return_tensors="pt")
        with torch.no_grad():
            output = clip.model(pixel_values=pictures, **tokens)
        wanted = 100 * torch.diagonal(output.logits_per_image) / clip.model.logit_scale.exp()
        torch.testing.assert_close(clip.score(pictures, PROMPTS), wanted, atol=1e-3, rtol=1e-4)

    def test_prompts_and_pictures_stay_paired(self, clip):
        pictures = flat_pictures(["red", "green", "blue"])
        forward, backward = clip.score(pictures, PROMPTS), clip.score(pictures.flip(0), PROMPTS[::-1])
        torch.testing.assert_close(forward, backward.flip(0))

    def test_long_prompts_are_truncated(self, clip):
        assert clip.score(flat_pictures(["red"]), ["cat " * 200]).shape == (1,)

    @pytest.mark.parametrize(("colours", "prompts"), [(["red"], ["a", "b"]), ([], [])])
    def test_unequal_or_empty_input(self, clip, colours, prompts):
        pictures = flat_pictures(colours) if colours else torch.zeros(0, 3, 16, 16)
        with pytest.raises(InputError, match="one prompt an image"):
            clip.score(pictures, prompts)


class TestLoad:
    def test_reads_the_normalisation(self, clip_folder, tmp_path):
        folder = shutil.copytree(clip_folder, tmp_path / "clip")
        numbers = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
        (folder / "preprocessor_config.json").write_text(json.dumps(numbers))
        clip = CLIPScore.load(folder)
        assert (clip.mean, clip.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))

    def test_not_a_clip(self, colour_folder):
        with pytest.raises(ModelError, match="got a model of type 'resnet'"):
            CLIPScore.load(colour_folder)

    def test_corrupt_weights(self, clip_folder, tmp_path):
        folder = shutil.copytree(clip_folder, tmp_path / "clip")
        (folder / "model.safetensors").write_bytes(b"nonsense")
        with pytest.raises(ModelError, match="cannot be loaded as a CLIP"):
            CLIPScore.load(folder)


class TestZeroShot:
    def test_chooses_the_caption_of_highest_score(self, clip):
        judge = ZeroShotJudge(clip, ("cat", "tree", "car"))
        pictures = flat_pictures(["red", "green", "blue"])
        result = judge.judge(pictures)
        scores = torch.stack([clip.score(pictures, [f"a photo of {c}"] * 3) for c in judge.classes], dim=1)
        assert result.labels == [judge.classes[i] for i in scores.argmax(dim=1)]
        scale = clip.model.logit_scale.exp() / 100
        torch.testing.assert_close(result.probabilities, torch.softmax(scale * scores, dim=1), atol=1e-5, rtol=1e-4)

    def test_loads_from_a_folder(self, clip_folder):
        judge = ZeroShotJudge.load(clip_folder, ["cat", "tree"])
        assert judge.classes == ("cat", "tree")
        assert judge.name == "clip score, zero-shot"

    def test_one_class_is_no_choice(self, clip):
        with pytest.raises(InputError, match="at least two"):
            ZeroShotJudge(clip, ("cat",))
