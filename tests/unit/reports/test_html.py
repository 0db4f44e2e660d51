import re
from html.parser import HTMLParser

import numpy as np
import pytest

from aizheimer.reports.grid import pick_columns
from aizheimer.reports.heatmaps import HeatmapPair
from aizheimer.reports.html import ReportContent, render, write_report
from tests.unit.reports.builders import pairs_of, result_of
from tests.unit.reports.test_curves import HISTORY

ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
VOID = {"meta", "img", "br", "line", "polyline", "hr"}


class Page(HTMLParser):
    """Collects tags and attributes and checks that every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def content_of(target="Santa Claus", **changes):
    result = result_of(target, **changes)
    heat = np.linspace(0, 0.4, 64).reshape(8, 8)
    picture = np.full((8, 8, 3), 99, np.uint8)
    return ReportContent(
        result=result,
        columns=pick_columns(result, pairs_of(result)),
        heatmaps=[HeatmapPair(f"{target} in noto style", 3, picture, picture, heat, heat / 4)],
        history=HISTORY,
        provenance={"method": "aizheimer", "concept": {"target": target}},
        recipe={"loss": "resteering"},
        environment={"python": "3.11"},
    )


@pytest.fixture(scope="module")
def page():
    return Page(render(content_of()))


class TestPage:
    def test_opens_with_the_grid(self):
        text = render(content_of())
        order = ["before and after</h1>", 'class="band"', "<h2>The numbers", "<table>", "<h2>The neighbours",
                 "<h2>Where the model looks", "<h2>Training", "<h2>Settings and provenance"]  # fmt: skip
        places = [text.index(mark) for mark in order]
        assert places == sorted(places)

    def test_every_column_has_its_prompt_and_both_pictures(self, page):
        alts = [value for tag, name, value in page.attributes if (tag, name) == ("img", "alt")]
        for prompt in ("Santa Claus in noto style", "old man in noto style", "tree in noto style"):
            assert f"original: {prompt}" in alts
            assert f"edited: {prompt}" in alts

    def test_asks_the_network_for_nothing(self, page):
        sources = [value for _, name, value in page.attributes if name in ("src", "href", "srcset", "data", "action")]
        assert len(sources) == 14
        assert all(value.startswith("data:image/png;base64,") for value in sources)
        assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
        text = render(content_of())
        assert not re.search(r"url\(|@import|https?://", text)

    def test_says_what_the_numbers_say(self, page):
        text = " ".join(" ".join(page.text).split())
        assert "“Santa Claus” is gone from 2 of 3 pictures that asked for it." in text
        assert "similarity 0.91" in text
        assert "1 → 0 of 1" in text
        assert '"loss": "resteering"' in text
        assert '"guidance": 5.0' in text
        assert "seen as none of these" not in text

    def test_small_pictures_stay_crisp_and_large_ones_are_shrunk(self):
        small = content_of()
        assert '<body class="pixelated">' in render(small)
        result = result_of()
        large = ReportContent(result, pick_columns(result, pairs_of(result, size=400)))
        assert '<body class="pixelated">' not in render(large)

    def test_both_colour_schemes_and_narrow_screens(self):
        text = render(content_of())
        assert "prefers-color-scheme: dark" in text
        assert 'name="viewport"' in text
        assert "max-width: 640px" in text


class TestEscaping:
    def test_names_that_are_code_stay_text(self):
        result = content_of(ATTACK, warnings=[ATTACK], model_name=ATTACK).result
        neighbours = [n.model_copy(update={"label": ATTACK}) for n in result.neighbours]
        content = content_of(ATTACK, warnings=[ATTACK], model_name=ATTACK, neighbours=neighbours, others=neighbours)
        text = render(content)
        page = Page(text)
        assert "<script" not in text
        assert not [a for a in page.attributes if a[1].startswith("on")]
        assert all(value != "x" for _, name, value in page.attributes if name == "src")
        assert ATTACK in "".join(page.text)

    def test_history_provenance_recipe_and_environment_too(self):
        content = content_of()
        rows = [{"event": "step", "step": i, "loss": i, "losses": {ATTACK: i, "b": i}} for i in (1, 2)]
        evil = ReportContent(
            content.result, content.columns, history=rows, provenance={ATTACK: ATTACK}, recipe={"a": ATTACK},
            environment={"b": ATTACK},
        )  # fmt: skip
        page = Page(render(evil))
        assert "script" not in page.tags
        assert not [a for a in page.attributes if a[1].startswith("on")]


class TestEmptyParts:
    def test_without_judges_training_or_heatmaps(self):
        result = result_of(ua=None, ira=None, cra=None, near=None, neighbours=[], others=[], clip_target=None)
        text = render(ReportContent(result, pick_columns(result, pairs_of(result))))
        Page(text)
        for absent in ("<h2>The neighbours", "<h2>Training", "<h2>Where the model looks", 'class="figures"', "seen as"):
            assert absent not in text

    def test_warnings_are_shown(self):
        text = render(content_of(no_op=True, warnings=["no-op: nothing"]))
        assert "no-op: nothing" in text
        assert "Nothing changed" in text
        assert 'class="warnings"' not in render(content_of())


def test_write_is_whole(tmp_path):
    path = write_report(tmp_path / "run" / "report.html", content_of())
    assert path.read_text(encoding="utf-8") == render(content_of())
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
