import io

import numpy as np
from rich.console import Console

from aizheimer.attacks.results import Rate
from aizheimer.reports.table import markdown_table, result_table, rows
from aizheimer.reports.wording import caution, headline, interval, points
from tests.unit.reports.builders import metric, result_of


def printed(result):
    console = Console(file=io.StringIO(), width=120)
    console.print(result_table(result))
    return console.file.getvalue()


class TestRows:
    def test_every_figure_has_both_models_and_a_meaning(self):
        by_name = {row.name: row for row in rows(result_of())}
        ua = by_name["UA, forgotten"]
        assert (ua.edited, ua.original, ua.n) == ("67%", "0%", "3 images")
        assert by_name["IRA, other objects kept"].n == "3 concepts"
        assert by_name["CLIP score, target"].edited == "19.0"
        assert by_name["CLIP score, target"].original == "27.3"
        assert by_name["Unchanged target pictures"].edited == "25%"
        assert (by_name["Blank or noise"].edited, by_name["Blank or noise"].original) == ("12%", "0%")
        assert by_name["… of what was to be kept"].edited == "6%"
        assert all(row.meaning for row in by_name.values())

    def test_what_was_not_measured_is_left_out(self):
        names = [row.name for row in rows(result_of(ua=None, cra=None, clip_target=None, broken_retain=None))]
        assert not any(name.startswith(("UA", "CRA", "CLIP", "… of what")) for name in names)

    def test_a_style_swaps_the_words(self):
        names = [row.name for row in rows(result_of(kind="style"))]
        assert "IRA, other styles kept" in names
        assert "CRA, objects kept" in names


def test_terminal_table_shows_neighbours_and_warnings_and_no_markup():
    result = result_of(target="[bold]x[/bold]", warnings=["collapse: [red]IRA[/red] fell"])
    text = printed(result)
    assert "[bold]x[/bold]" in text
    assert "[red]IRA[/red]" in text
    assert "Mrs. Claus" in text


def test_markdown_has_the_same_cells_in_every_line():
    lines = markdown_table(result_of()).strip().splitlines()
    assert {line.count("|") for line in lines} == {6}
    assert "| UA, forgotten | 67% |" in lines[2]


class TestWording:
    def test_interval_and_points(self):
        assert interval(metric([0] * 4, [1, 1, 1, 0])) == "25 to 100%"

    def test_where_all_agree_it_is_the_rule_of_threes_as_in_a_gate(self):
        assert interval(metric([0] * 20, [1] * 20)) == "85 to 100%"
        assert interval(Rate.of(np.zeros(20, dtype=bool), seed=0)) == "0 to 15%"
        assert interval(metric([0] * 2, [0] * 2)) == "0 to 100%"
        assert points(0.123) == "+12 points"
        assert points(-0.1) == "−10 points"
        assert points(-0.001) == "no change"

    def test_caution_where_the_interval_has_no_width(self):
        assert "as low as 88%" in caution(metric([0] * 25, [1] * 25))
        assert "as high as 12%" in caution(metric([0] * 25, [0] * 25))
        assert "as low as 0%" in caution(metric([0] * 2, [1] * 2))
        assert caution(metric([0] * 25, [1] * 24 + [0])) == ""

    def test_headline(self):
        assert headline(result_of()).startswith("“Santa Claus” is gone from 2 of 3 pictures")
        assert "67% is left" in headline(result_of())
        assert headline(result_of(no_op=True)).startswith("Nothing changed")
        assert "do not use" in headline(result_of(collapse=True))
        assert "in only 1 picture of 3" in headline(result_of(ua=metric([1, 1, 0], [1, 1, 1])))
        assert "could not be measured" in headline(result_of(ua=None))
