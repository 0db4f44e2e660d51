"""The picture of the architecture shows the packages that there are, each with its layer, and loads nothing."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from tests.architecture.test_imports import LAYERS
from tests.docs.snippets import REPOSITORY

PICTURE = REPOSITORY / "docs" / "images" / "architecture.svg"
SVG = "{http://www.w3.org/2000/svg}"
NAMED_BY_ITS_CONTENT = {"edits": "Edit"}
NO_PACKAGE = {"Python", "run folder", "exports"}


def words(kind):
    root = ElementTree.fromstring(PICTURE.read_text(encoding="utf-8"))
    return [node for node in root.iter(f"{SVG}text") if node.get("class") in kind]


def box_around(node):
    """Return the smallest box that a word begins or ends in."""
    root = ElementTree.fromstring(PICTURE.read_text(encoding="utf-8"))
    x, y = float(node.get("x")), float(node.get("y"))
    boxes = [tuple(float(rect.get(key)) for key in ("x", "y", "width", "height")) for rect in root.iter(f"{SVG}rect")]
    inside = [box for box in boxes if box[0] <= x <= box[0] + box[2] and box[1] <= y <= box[1] + box[3]]
    return min(inside, key=lambda box: box[2] * box[3])


def test_every_package_is_drawn_with_its_layer():
    layers = {box_around(node): int(node.text) for node in words({"layer"})}
    names = {name: box_around(node) for node in words({"name", "tight"}) for name in node.text.split(", ")}
    wanted = {NAMED_BY_ITS_CONTENT.get(name, name): layer for name, layer in LAYERS.items() if name != "__main__"}
    assert {name: layers.get(box) for name, box in names.items() if name not in NO_PACKAGE} == wanted


def test_the_table_of_layers_says_the_same():
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = {
        package: int(layer)
        for layer, packages in re.findall(r"^\| (\d+) \| (.*) \|$", page, flags=re.MULTILINE)
        for package in re.findall(r"`(\w+)`", packages)
    }
    assert table == {name: layer for name, layer in LAYERS.items() if name != "__main__"}


def test_it_says_what_it_shows_to_those_who_do_not_see_it():
    root = ElementTree.fromstring(PICTURE.read_text(encoding="utf-8"))
    assert root.findtext(f"{SVG}title")
    assert len(root.findtext(f"{SVG}desc").split()) > 30


@pytest.mark.parametrize("word", ["@import", "@font-face", "href", "<script", "<image", "foreignObject"])
def test_it_loads_nothing(word):
    text = PICTURE.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert word not in text
    assert "http" not in text


def contrast(a, b):
    def light(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(a), light(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_words_are_legible_on_their_boxes_and_lines_on_both_pages():
    """WCAG's 4.5 for words, 3 for lines; the pages are Material's white and its slate."""
    text = PICTURE.read_text(encoding="utf-8")
    boxes = dict(re.findall(r"\.(\w+) \{ fill: (#\w{6}) \}", text))
    assert {name: c for name, fill in boxes.items() if (c := contrast("#ffffff", fill)) < 4.5} == {}
    lines = set(re.findall(r"stroke: (#\w{6})", text))
    assert lines
    assert min(contrast(line, page) for line in lines for page in ("#ffffff", "#1e2129")) >= 3
