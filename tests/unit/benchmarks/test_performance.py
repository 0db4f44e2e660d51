"""The tables of the page on speed and memory say what the raw figures say."""

import importlib
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
    ways = probe.summary({"plain": [0.002, 0.004], "probe": [0.003, 0.004]}, {"plain": 1000, "probe": 1100})
    said = probe.table({"results": {"a layer": ways}, "by_tokens": {"3": {"plain": 2_000_000, "extra": 500_000}}})
    assert "| a layer | 2.0 | probe | 1.50 | 1.12-1.38 | 1.10 |" in said
    assert "| 3 | 2.00 | 0.50 |" in said
