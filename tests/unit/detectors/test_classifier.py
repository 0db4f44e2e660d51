import json
import shutil

import numpy as np
import pytest
import torch

from aizheimer.detectors.classifier import ImageJudge
from aizheimer.errors import ModelError
from tests.unit.detectors.builders import COLOURS, flat_pictures


@pytest.fixture(scope="module")
def judge(colour_folder):
    return ImageJudge.load(colour_folder)


@pytest.fixture
def damaged(colour_folder, tmp_path):
    return shutil.copytree(colour_folder, tmp_path / "judge")


class TestJudge:
    def test_names_what_it_sees(self, judge):
        wanted = ["blue", "red", "green", "red"]
        assert judge.judge(flat_pictures(wanted)).labels == wanted

    def test_probabilities_are_tempered_softmax_of_the_logits(self, judge):
        pictures = flat_pictures(list(COLOURS), seed=3)
        with torch.no_grad():
            logits = judge.model(pixel_values=pictures).logits
        result = judge.judge(pictures)
        assert judge.temperature == 2.0
        torch.testing.assert_close(result.probabilities, torch.softmax(logits / 2.0, dim=-1))
        torch.testing.assert_close(result.confidence, result.probabilities.amax(dim=1))

    def test_a_picture_of_nothing_is_rejected(self, colour_folder, judge):
        grey = torch.zeros(1, 3, 16, 16)
        confidence = judge.judge(grey).confidence.item()
        strict = ImageJudge(
            name="strict", classes=judge.classes, model=judge.model, image_size=16, temperature=2.0,
            reject_threshold=confidence + 1e-3,
        )  # fmt: skip
        lenient = ImageJudge(
            name="lenient", classes=judge.classes, model=judge.model, image_size=16, temperature=2.0,
            reject_threshold=confidence - 1e-3,
        )  # fmt: skip
        assert strict.judge(grey).labels == [None]
        assert lenient.judge(grey).labels != [None]

    def test_other_sizes_and_batches_change_no_name(self, judge):
        wanted = list(COLOURS) * 30
        assert judge.judge(flat_pictures(wanted, size=40)).labels == wanted

    def test_uint8_and_float_agree(self, judge):
        pictures = flat_pictures(list(COLOURS))
        array = ((pictures + 1) * 127.5).round().permute(0, 2, 3, 1).numpy().astype(np.uint8)
        torch.testing.assert_close(
            judge.judge(array).probabilities, judge.judge(pictures).probabilities, atol=2e-2, rtol=0
        )

    def test_no_pictures(self, judge):
        result = judge.judge([])
        assert result.labels == []
        assert result.probabilities.shape == (0, 3)


class TestLoad:
    def test_reads_the_extra_fields(self, judge):
        assert judge.classes == ("red", "green", "blue")
        assert (judge.temperature, judge.reject_threshold, judge.image_size) == (2.0, 0.6, 16)
        assert not judge.model.training
        assert not any(p.requires_grad for p in judge.model.parameters())

    def test_defaults_without_them(self, damaged):
        config = json.loads((damaged / "config.json").read_text())
        for name in ("temperature", "reject_threshold", "image_size"):
            del config[name]
        (damaged / "config.json").write_text(json.dumps(config))
        judge = ImageJudge.load(damaged)
        assert (judge.temperature, judge.reject_threshold, judge.image_size) == (1.0, 0.0, 64)

    def test_missing_folder(self, tmp_path):
        with pytest.raises(ModelError, match=r"no config\.json there; give a transformers image classifier"):
            ImageJudge.load(tmp_path / "nothing")

    def test_config_that_is_no_object(self, damaged):
        (damaged / "config.json").write_text("[1]")
        with pytest.raises(ModelError, match="not an object"):
            ImageJudge.load(damaged)

    def test_corrupt_weights(self, damaged):
        weights = damaged / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:100])
        with pytest.raises(ModelError, match="cannot be loaded as a judge") as error:
            ImageJudge.load(damaged)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(("field", "value"), [("temperature", 0), ("reject_threshold", 1.5)])
    def test_numbers_out_of_range(self, damaged, field, value):
        config = json.loads((damaged / "config.json").read_text())
        (damaged / "config.json").write_text(json.dumps({**config, field: value}))
        with pytest.raises(ModelError, match="wanted a temperature above 0"):
            ImageJudge.load(damaged)
