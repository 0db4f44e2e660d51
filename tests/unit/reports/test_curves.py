import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aizheimer.reports.curves import HEIGHT, WIDTH, Chart, _ticks, charts_from_history, svg

HISTORY = [
    {"event": "step", "step": 1, "loss": 3.0, "losses": {"attention": 1.0, "teacher": 2.0}},
    {"event": "monitor", "step": 1, "mass_ratio": 1.0, "retention_drift": 0.0},
    {"event": "step", "step": 2, "loss": float("nan"), "losses": {"attention": 0.5, "teacher": 2.1}},
    {"event": "step", "step": 3, "loss": 2.0, "losses": {"attention": 0.2}},
    {"event": "monitor", "step": 3, "mass_ratio": 0.4, "retention_drift": 0.1},
    {"event": "stop", "step": 3, "kept_step": 3},
]


def polylines(text):
    root = ET.fromstring(text)
    lines = [e for e in root.iter() if e.tag.endswith("polyline")]
    return [[tuple(map(float, p.split(","))) for p in line.get("points").split()] for line in lines]


class TestFromHistory:
    def test_every_number_finds_its_curve(self):
        charts = {c.title: c for c in charts_from_history(HISTORY)}
        assert list(charts["Total loss"].steps) == [1, 3]
        assert list(charts["Total loss"].values) == [3.0, 2.0]
        assert list(charts["Attention loss"].values) == [1.0, 0.5, 0.2]
        assert list(charts["Teacher loss"].steps) == [1, 2]
        assert list(charts["Attention on the target"].values) == [1.0, 0.4]
        assert list(charts["Drift of what is kept"].values) == [0.0, 0.1]
        assert {c.kept_step for c in charts.values()} == {3}

    def test_what_is_not_known_is_drawn_under_its_own_name(self):
        rows = [{"event": "step", "step": i, "loss": 1.0, "losses": {"erase": 1.0, "own_term": i}} for i in (1, 2)]
        looks = [{"event": "monitor", "step": i, "erase_error": 1 / i, "own_watch": i, "best_step": 0} for i in (1, 2)]
        charts = {chart.title: chart for chart in charts_from_history([*rows, *looks, {"event": "stop", "step": 2}])}
        assert list(charts) == ["Total loss", "Erasing loss", "Own term", "Distance to the target", "Own watch"]
        assert list(charts["Distance to the target"].values) == [1.0, 0.5]

    def test_the_cosine_of_the_gradients_is_a_curve(self):
        rows = [{"event": "step", "step": i, "loss": 1.0, "losses": {}, "cosine": -i} for i in (1, 2)]
        assert [list(chart.values) for chart in charts_from_history(rows)][1] == [-1.0, -2.0]

    def test_a_single_term_is_not_shown_twice(self):
        rows = [{"event": "step", "step": i, "loss": 1 / i, "losses": {"attention": 1 / i}} for i in (1, 2)]
        assert [c.title for c in charts_from_history(rows)] == ["Total loss"]

    def test_no_history_no_curves(self):
        assert charts_from_history([]) == []
        assert charts_from_history(HISTORY[:1]) == []


class TestSvg:
    def test_falls_on_the_page_as_the_numbers_fall(self):
        (line,) = polylines(svg(Chart("t", "", [0, 10, 20], [1.0, 0.5, 0.0])))
        (x0, y0), (x1, y1), (x2, y2) = line
        assert x1 - x0 == pytest.approx(x2 - x1)
        assert y1 - y0 == pytest.approx(y2 - y1, abs=0.2)
        assert y0 < y2  # SVG counts downwards

    def test_long_curves_get_a_smooth_line_over_the_raw_one(self):
        values = [1.0, 0.0] * 50
        raw, smooth = polylines(svg(Chart("t", "", list(range(100)), values)))
        assert len(raw) == len(smooth) == 100
        middle = [y for _, y in smooth[10:-10]]
        assert max(middle) - min(middle) < 0.5 * (max(y for _, y in raw) - min(y for _, y in raw))

    def test_marks_the_kept_step(self):
        assert 'class="kept"' in svg(Chart("t", "", [1, 5], [1, 0], kept_step=3))
        assert 'class="kept"' not in svg(Chart("t", "", [1, 5], [1, 0], kept_step=9))
        assert 'class="kept"' not in svg(Chart("t", "", [1, 5], [1, 0]))

    def test_titles_are_escaped(self):
        text = svg(Chart('<script>"&', "", [1, 2], [1, 2]))
        assert "<script" not in text
        ET.fromstring(text)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.floats(-1e12, 1e12), min_size=2, max_size=60))
    def test_stays_inside_its_box_whatever_the_numbers(self, values):
        for line in polylines(svg(Chart("t", "", list(range(len(values))), values))):
            assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in line)

    @settings(max_examples=60, deadline=None)
    @given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
    def test_ticks_are_few_and_inside(self, low, width):
        ticks = _ticks(low, low + width)
        assert 2 <= len(ticks) <= 6
        assert all(low - 1e-6 * abs(low) <= t <= low + width * (1 + 1e-6) + 1e-6 * abs(low) for t in ticks)
