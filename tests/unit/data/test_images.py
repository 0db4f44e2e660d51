"""Folders of pictures: cropped, upright, any format, and honest about what could not be read."""

import pytest
import torch
from PIL import Image

from aizheimer.data.images import read_images
from aizheimer.errors import DataError


def stripes(width=48, height=16):
    """Red, green and blue thirds side by side."""
    image = Image.new("RGB", (width, height))
    for i, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        image.paste(colour, (i * width // 3, 0, (i + 1) * width // 3, height))
    return image


def test_the_centre_is_cut_out_not_squashed(tmp_path):
    stripes().save(tmp_path / "a.png")
    pixels = read_images(tmp_path, 16).pixels
    assert pixels.shape == (1, 3, 16, 16)
    assert torch.equal(pixels[0, 1], torch.ones(16, 16))  # green only
    assert torch.equal(pixels[0, 0], -torch.ones(16, 16))


@pytest.mark.parametrize("suffix", ["png", "PNG", "webp", "bmp", "gif", "tiff", "jpeg"])
def test_any_format_is_read(tmp_path, suffix):
    Image.new("RGB", (20, 20), (255, 255, 255)).save(tmp_path / f"a.{suffix}")
    assert read_images(tmp_path, 8).pixels.min() > 0.98


def test_a_photo_on_its_side_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to show
    tall = stripes(48, 48)
    tall.save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    pixels = read_images(tmp_path, 48).pixels[0]
    assert pixels[0, 4].mean() > 0.9  # red on top, not on the left
    assert pixels[2, -4].mean() > 0.9


def test_transparent_pixels_are_white_and_grey_becomes_colour(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "a.png")
    Image.new("L", (8, 8), 0).save(tmp_path / "b.png")
    pixels = read_images(tmp_path, 8).pixels
    assert pixels[0].min() == 1
    assert pixels[1].shape == (3, 8, 8)
    assert pixels[1].max() == -1


def test_bad_files_are_named_and_hidden_ones_passed_over(tmp_path):
    stripes().save(tmp_path / "b.png")
    stripes().save(tmp_path / "a.png")
    stripes().save(tmp_path / ".hidden.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "folder").mkdir()
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    with pytest.warns(UserWarning, match="not a readable image") as warnings:
        found = read_images(tmp_path, 8)
    assert found.names == ("a.png", "b.png")
    assert found.skipped == ("cut.png", "notes.txt")
    assert ["cut.png" in str(warnings[0].message), "notes.txt" in str(warnings[1].message)] == [True, True]


def test_a_folder_without_images_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no images in"):
        read_images(tmp_path, 8)
    with pytest.raises(DataError, match="does not exist"):
        read_images(tmp_path / "nowhere", 8)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="is a file"):
        read_images(tmp_path / "a.txt", 8)
    with pytest.warns(UserWarning, match="a.txt"), pytest.raises(DataError, match="1 files could not be read"):
        read_images(tmp_path, 8)
