import numpy as np
import pytest
import torch
from PIL import Image

from aizheimer.detectors.base import decide, find_class, to_pixels
from aizheimer.errors import InputError


def gradient(height, width):
    """Red grows to the right, green downwards; every pixel differs from its neighbours."""
    red = np.linspace(0, 255, width).round()[None, :].repeat(height, 0)
    green = np.linspace(0, 255, height).round()[:, None].repeat(width, 1)
    return np.stack([red, green, np.full((height, width), 7.0)], axis=-1).astype(np.uint8)


class TestToPixels:
    def test_array_pil_and_tensor_give_the_same_pixels(self):
        array = gradient(8, 8)[None]
        from_array = to_pixels(array)
        assert torch.equal(from_array, to_pixels([Image.fromarray(array[0])]))
        assert torch.equal(from_array, to_pixels(from_array))

    def test_range_and_channel_order(self):
        pixels = to_pixels(gradient(4, 4)[None])
        assert pixels.shape == (1, 3, 4, 4)
        assert pixels[0, 0, 0, 0] == -1
        assert pixels[0, 0, 0, 3] == 1
        assert pixels[0, 1, 3, 0] == 1
        assert pixels[0, 2].unique().item() == pytest.approx(7 / 127.5 - 1)

    def test_resizes_and_stays_in_range(self):
        pixels = to_pixels(np.kron(np.eye(4), np.ones((8, 8)))[None, :, :, None].repeat(3, -1).astype(np.uint8) * 255,
                           size=24)  # fmt: skip
        assert pixels.shape == (1, 3, 24, 24)
        assert pixels.min() >= -1
        assert pixels.max() <= 1

    def test_mixed_sizes_and_modes(self):
        images = [Image.new("L", (5, 9), 255), Image.new("RGBA", (16, 3), (0, 0, 0, 255))]
        pixels = to_pixels(images, size=8)
        assert pixels.shape == (2, 3, 8, 8)
        assert pixels[0].min() > 0.999
        assert pixels[1].max() < -0.999

    def test_the_array_is_not_shared(self):
        array = gradient(4, 4)[None]
        to_pixels(array).fill_(0)
        assert np.array_equal(array, gradient(4, 4)[None])

    @pytest.mark.parametrize(
        "bad",
        [
            np.zeros((2, 4, 4, 3)),
            np.zeros((4, 4, 3), np.uint8),
            np.zeros((2, 3, 4, 4), np.uint8),
            torch.zeros(2, 4, 4, 3),
            torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
        ],
        ids=["float array", "one image", "channels first", "channels last tensor", "uint8 tensor"],
    )
    def test_other_shapes_are_refused(self, bad):
        with pytest.raises(InputError, match=r"^images: got"):
            to_pixels(bad)


class TestDecide:
    def test_under_the_threshold_is_none_of_these(self):
        probabilities = torch.tensor([[0.6, 0.4], [0.45, 0.55], [0.1, 0.9]])
        result = decide(probabilities, ("cat", "dog"), reject_threshold=0.6)
        assert result.labels == ["cat", None, "dog"]
        assert result.confidence.tolist() == pytest.approx([0.6, 0.55, 0.9])


def test_find_class_ignores_case_and_spaces(colour_folder):
    from aizheimer.detectors.classifier import ImageJudge

    judge = ImageJudge.load(colour_folder)
    assert find_class(judge, " RED ") == "red"
    assert find_class(judge, "redd") is None
