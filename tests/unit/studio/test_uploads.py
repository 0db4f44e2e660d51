"""Uploads: pictures are kept as PIL decodes them; everything else is refused and nothing of it stays."""

import io
import struct
import zlib

import pytest
from PIL import Image

from aizheimer.errors import DataError
from aizheimer.studio import uploads
from aizheimer.studio.uploads import decode, take
from aizheimer.studio.visitors import Visitor, new_token


@pytest.fixture
def visitor(tmp_path):
    return Visitor.of(new_token(), root=tmp_path)


def upload(root, data, name="cat.png", number=0):
    file = root / f"{number:064x}" / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(data)
    return file


def encoded(format="PNG", size=(8, 6), **options):
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, format=format, **options)
    return buffer.getvalue()


def bomb(width=60_000, height=60_000):
    """A PNG of a few hundred bytes whose header promises billions of pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")
    )


def test_pictures_are_written_anew_under_names_of_ours(tmp_path, visitor):
    files = [
        upload(tmp_path, encoded("PNG"), "<img onerror=x>.png", 1),
        upload(tmp_path, encoded("JPEG", size=(3000, 1500)) + b"<?php ?>", "a.php.jpg", 2),
        upload(tmp_path, encoded("WEBP"), "c.webp", 3),
    ]
    folder = take(files, visitor, uploads=tmp_path)
    kept = sorted(folder.iterdir())
    assert [path.name for path in kept] == ["001.png", "002.png", "003.png"]
    assert visitor.owns(folder)
    assert not any(file.exists() for file in files)
    assert b"php" not in kept[1].read_bytes()
    with Image.open(kept[1]) as image:
        assert (image.format, image.size) == ("PNG", (1024, 512))
    again = take([upload(tmp_path, encoded())], visitor, uploads=tmp_path)
    assert again != folder


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no PNG"),
        (b"GIF89a" + bytes(100), "no PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "no PNG"),
        (encoded("GIF"), "no PNG"),
        (encoded("TIFF"), "no PNG"),
        (encoded("PPM"), "no PNG"),
        (encoded()[:44], "no PNG"),
        (bomb(), "too many pixels"),
        (bomb(20_000, 3_000), "20000 x 3000"),
    ],
    ids=["empty", "broken gif", "svg", "gif", "tiff", "ppm", "cut off", "bomb", "large"],
)
def test_what_is_no_picture_or_too_much_of_one_is_refused(tmp_path, visitor, data, reason):
    good, bad = upload(tmp_path, encoded(), number=1), upload(tmp_path, data, number=2)
    with pytest.raises(DataError, match=reason):
        take([good, bad], visitor, uploads=tmp_path)
    assert not good.exists()
    assert not bad.exists()
    assert not visitor.folder.exists()


def test_too_many_bytes_or_files_are_refused(tmp_path, visitor, monkeypatch):
    monkeypatch.setattr(uploads, "MOST_BYTES", 20)
    with pytest.raises(DataError, match="MB"):
        decode(upload(tmp_path, encoded()))
    monkeypatch.setattr(uploads, "MOST_FILES", 1)
    with pytest.raises(DataError, match="got 2 pictures"):
        take([upload(tmp_path, encoded(), number=i) for i in range(2)], visitor, uploads=tmp_path)
    with pytest.raises(DataError, match="got 0 pictures"):
        take([], visitor, uploads=tmp_path)


def test_only_uploads_are_read(tmp_path, visitor):
    other = Visitor.of(new_token(), root=tmp_path)
    (other.folder / "pictures").mkdir(parents=True)
    theirs = other.folder / "pictures" / "x.png"
    theirs.write_bytes(encoded())
    outside = tmp_path.parent / f"{tmp_path.name}-outside.png"
    outside.write_bytes(encoded())
    link = upload(tmp_path, b"", "link.png", 7)
    link.unlink()
    link.symlink_to(theirs)
    for path in (theirs, outside, link, "/etc/passwd", tmp_path / ("0" * 64) / ".." / "visitors"):
        with pytest.raises(DataError, match="not uploaded"):
            take([path], visitor, uploads=tmp_path)
    assert theirs.exists()
    assert outside.exists()
