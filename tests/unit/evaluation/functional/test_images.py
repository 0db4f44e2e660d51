import numpy as np
import pytest
import torch

from aizheimer.evaluation.functional.images import blank, broken, noise, unchanged, unchanged_share


def disc(size=64, *, background=255, colour=(200, 30, 30)):
    """A picture of a thing: a coloured disc on a plain ground."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    image = np.full((size, size, 3), background, dtype=np.uint8)
    image[(x**2 + y**2) < 0.1] = colour
    return image


def white_noise(n=4, size=64):
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3)).astype(np.uint8)


class TestUnchanged:
    @pytest.mark.parametrize(("step", "same"), [(0, True), (2, True), (3, False)])
    def test_two_levels_are_allowed(self, step, same):
        image = disc()[None]
        other = image.copy()
        other[0, 5, 5, 1] -= step
        assert unchanged(image, other).tolist() == [same]
        assert unchanged(other, image).tolist() == [same]

    def test_the_difference_does_not_wrap_around(self):
        black, white = np.zeros((1, 4, 4, 3), np.uint8), np.full((1, 4, 4, 3), 255, np.uint8)
        assert not unchanged(black, white).any()

    def test_share(self):
        image = np.stack([disc()] * 4)
        other = image.copy()
        other[0] = 0
        assert unchanged_share(image, other) == 0.75
        assert unchanged_share(image, image, levels=0) == 1

    def test_refuses_floats_and_other_shapes(self):
        with pytest.raises(ValueError, match="wanted equal uint8"):
            unchanged(disc()[None].astype(float), disc()[None].astype(float))
        with pytest.raises(ValueError, match="wanted equal uint8"):
            unchanged(disc()[None], np.stack([disc()] * 2))


class TestBlankAndNoise:
    def test_flat_tones_are_blank_and_not_noise(self):
        flat = np.stack([np.full((64, 64, 3), v, np.uint8) for v in (0, 128, 255)])
        flat[1, ::2] += 3
        assert blank(flat).all()
        assert not noise(flat).any()

    @pytest.mark.parametrize("size", [16, 64, 256])
    def test_things_are_neither(self, size):
        things = np.stack([disc(size), disc(size, background=0), disc(size, colour=(255, 255, 0))])
        assert not broken(things).any()

    @pytest.mark.parametrize("size", [32, 64, 256])
    def test_white_noise_is_noise(self, size):
        assert noise(white_noise(size=size)).all()

    def test_enlarged_latent_noise_is_noise(self):
        # What a decoder makes of latents that never became a picture: blotches of about the downsampling factor.
        generator = torch.Generator().manual_seed(0)
        latents = torch.randn(8, 3, 16, 16, generator=generator)
        blotches = torch.nn.functional.interpolate(latents, scale_factor=4, mode="bicubic")
        images = ((blotches * 60 + 128).clamp(0, 255)).permute(0, 2, 3, 1).numpy().astype(np.uint8)
        assert noise(images).mean() >= 0.75

    def test_a_little_grain_is_no_noise(self):
        grain = np.random.default_rng(0).normal(0, 8, (64, 64, 3))
        assert not noise((disc().astype(float) + grain).clip(0, 255).astype(np.uint8)[None]).any()
