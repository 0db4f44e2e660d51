"""The tables of the page on speed and memory say what the raw figures say."""

import importlib
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    return importlib.import_module


def test_ratios_of_a_step_are_of_the_same_round(script):
    step = script("full_size_step")
    rounds = [
        {"limit": {"seconds": a, "peak_bytes": 2**30}, "attention": {"seconds": b, "peak_bytes": 2**29}}
        for a, b in ((10.0, 11.0), (20.0, 18.0), (30.0, 30.0))
    ]
    rounds[0]["notebook"] = rounds[1]["notebook"] = rounds[2]["notebook"] = {"failed": -9}
    said = step.table({"summary": step.summary(rounds)})
    assert "| attention | 18.0 |  | 1.00 (0.90-1.10) | 0.50 |  | 0.50 (0.50-0.50) |" in said
    assert "| notebook | failed |" in said


def test_reading_is_told_against_plain_attention(script):
    probe = script("attention_probe")
    times = {"plain": [0.002, 0.004], "probe": [0.003, 0.004], "explicit": [0.002, 0.003]}
    ways = probe.summary(times, {"plain": 1000, "probe": 1100, "explicit": 1500})
    content = {"results": {"a layer": ways}, "by_tokens": {"3": {"plain": 2_000_000, "extra": 500_000}}}
    said = probe.table(content)
    assert "| a layer | 2.0 | probe | 1.25 | 1.12-1.38 | 1.10 |" in said
    assert "| 3 | 2.00 | 0.50 |" in said
    assert "is 1.05 of plain attention's time. The median is above it in 1 of 1 rows: a layer (1.25)." in said
    assert "faster than the probe** in 1 of 1 rows on this CPU: 0.88 to 0.88 of plain, the probe 1.25 to 1.25." in said


def test_the_page_says_what_the_raw_figures_of_reading_say(script):
    probe = script("attention_probe")
    raw = json.loads((BENCHMARKS / "results" / "attention_probe.json").read_text())
    page = (BENCHMARKS.parent / "docs" / "performance.md").read_text()
    assert probe.table(raw) in page
    for ways in raw["results"].values():
        for row in ways.values():
            low, median, high = row["time_ratio_quartiles"]
            assert low <= median <= high


def test_a_page_can_be_written_without_measuring(script, monkeypatch, tmp_path, capsys):
    probe = script("attention_probe")
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- probe -->\nafter\n")
    monkeypatch.setattr(probe, "cases", None)
    monkeypatch.setattr(sys, "argv", ["attention_probe", "--page-only", "--page", str(page)])
    probe.main()
    assert "**The bar**" in page.read_text()
    assert page.read_text().endswith("after\n")
    monkeypatch.setattr(sys, "argv", ["attention_probe", "--page-only"])
    with pytest.raises(SystemExit):
        probe.main()
    assert "--page-only: wanted --page as well" in capsys.readouterr().err
