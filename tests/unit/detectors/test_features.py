"""Named extractors: they give what the network's own last layer reads, and the hash changes with the weights."""

import dataclasses
import json
import shutil

import pytest
import torch

from aizheimer.detectors.classifier import ImageJudge
from aizheimer.detectors.clip_score import CLIPScore
from aizheimer.detectors.features import ClassifierFeatures, CLIPFeatures, load_extractor
from aizheimer.errors import ModelError
from tests.unit.detectors.builders import COLOURS, flat_pictures


@pytest.fixture(scope="module")
def clip(clip_folder):
    return load_extractor(clip_folder)


@pytest.fixture(scope="module")
def resnet(colour_folder):
    return load_extractor(colour_folder)


def test_the_folder_decides(clip, resnet):
    assert isinstance(clip, CLIPFeatures)
    assert isinstance(resnet, ClassifierFeatures)
    assert clip.name == "clip image tower"
    assert resnet.name == "colour classifier features"


def test_clip_features_point_where_its_embedding_does(clip):
    pictures = flat_pictures(list(COLOURS))
    found = clip.features(pictures)
    assert found.shape == (3, clip.dim)
    torch.testing.assert_close(torch.nn.functional.normalize(found, dim=-1), clip.clip.embed_images(pictures))
    assert not torch.allclose(found.norm(dim=-1), torch.ones(3), atol=1e-2)


def test_classifier_features_are_what_its_last_layer_reads(resnet):
    pictures = flat_pictures(list(COLOURS))
    found = resnet.features(pictures)
    assert found.shape == (3, resnet.dim) == (3, 16)
    with torch.no_grad():
        logits = resnet.judge.model(pixel_values=pictures).logits
    torch.testing.assert_close(resnet.judge.model.classifier[1](found), logits)


def test_a_transformer_classifier_too(tmp_path):
    from transformers import ViTConfig, ViTForImageClassification

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        model = ViTForImageClassification(ViTConfig(**small, image_size=16, patch_size=8)).eval()
    model.save_pretrained(tmp_path / "vit")
    vit = load_extractor(tmp_path / "vit")
    pictures = flat_pictures(list(COLOURS))
    found = vit.features(pictures)
    with torch.no_grad():
        torch.testing.assert_close(vit.judge.model.classifier(found), model(pixel_values=pictures).logits)
    assert [tuple(layer.shape) for layer in vit.maps(pictures)] == [(3, 4, 16)] * 2


def test_maps_have_a_row_for_every_place_and_none_for_the_class_token(clip, resnet):
    pictures = flat_pictures(list(COLOURS))
    assert [tuple(layer.shape) for layer in clip.maps(pictures)] == [(3, 4, 16)]
    for layer in resnet.maps(pictures):
        assert layer.shape[0] == 3
    # A ResNet's places are those of its own maps.
    with torch.no_grad():
        states = resnet.judge.model.resnet(pictures, output_hidden_states=True).hidden_states
    torch.testing.assert_close(resnet.maps(pictures)[-1][1, 0], states[-1][1, :, 0, 0])


def test_batches_change_nothing(clip_folder, clip):
    small = CLIPFeatures(dataclasses.replace(CLIPScore.load(clip_folder), batch_size=2))
    pictures = flat_pictures([*COLOURS, "red", "blue"])
    torch.testing.assert_close(small.features(pictures), clip.features(pictures))
    torch.testing.assert_close(small.maps(pictures)[0], clip.maps(pictures)[0])
    assert small.weights == clip.weights


def test_the_hash_names_weights_running_statistics_and_how_pictures_go_in(clip_folder, colour_folder, clip, resnet):
    assert len({clip.weights, resnet.weights}) == 2
    other = CLIPFeatures(dataclasses.replace(CLIPScore.load(clip_folder), mean=(0.48, 0.46, 0.41)))
    assert other.weights != clip.weights
    moved = ImageJudge.load(colour_folder)
    name, statistic = next((n, b) for n, b in moved.model.named_buffers() if n.endswith("running_mean"))
    statistic.add_(1.0)
    assert ClassifierFeatures(moved).weights != resnet.weights, name


def test_folders_that_are_neither(tmp_path):
    with pytest.raises(ModelError, match="CLIP or image classifier folder"):
        load_extractor(tmp_path)


class TestAnyClassifierOfTheHub:
    """preprocessor_config.json decides how pictures go in."""

    def judge(self, colour_folder, tmp_path, **preprocessing):
        folder = shutil.copytree(colour_folder, tmp_path / "judge", dirs_exist_ok=True)
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
        return ImageJudge.load(folder)

    def test_normalised_once_with_the_folders_own_numbers(self, colour_folder, tmp_path):
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        judge = self.judge(colour_folder, tmp_path, size=16, image_mean=mean, image_std=std)
        pictures = flat_pictures(list(COLOURS))
        wanted = torch.stack(
            [(((pictures + 1) / 2)[:, c] - mean[c]) / std[c] for c in range(3)], dim=1
        )  # fmt: skip
        torch.testing.assert_close(judge.prepare(pictures), wanted)

    def test_the_centre_is_cut_out_after_resizing(self, colour_folder, tmp_path):
        judge = self.judge(
            colour_folder, tmp_path, size={"shortest_edge": 20}, crop_size={"height": 16, "width": 16},
            do_center_crop=True,
        )  # fmt: skip
        pictures = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(0)) * 2 - 1
        torch.testing.assert_close(judge.prepare(pictures), pictures[..., 2:18, 2:18])
        assert judge.image_size == 16

    def test_convnexts_rule(self, colour_folder, tmp_path):
        judge = self.judge(colour_folder, tmp_path, size={"shortest_edge": 28}, crop_pct=0.875)
        assert (judge.resize, judge.image_size) == (32, 28)
        assert judge.prepare(torch.zeros(1, 3, 32, 32)).shape[-1] == 28

    @pytest.mark.parametrize(
        "wrong", [{"size": "large"}, {"size": 8, "do_center_crop": True, "crop_size": 16}, {"image_mean": [1, 2]}]
    )
    def test_what_makes_no_sense(self, colour_folder, tmp_path, wrong):
        with pytest.raises(ModelError, match=r"preprocessor_config\.json"):
            self.judge(colour_folder, tmp_path, **{"size": 16, **wrong})
