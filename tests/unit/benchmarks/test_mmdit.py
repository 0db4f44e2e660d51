"""The table of forgetting on the second embedded model, by hand."""

import json
from pathlib import Path

import pytest

from aizheimer._registry import METHODS
from aizheimer.bench.plan import load_plan

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def row(method: str, concept: str, ua: float, ira: float) -> dict:
    shares = {"ua": ua, "ira": ira, "cra": 0.8, "near": 0.5}
    before = {f"{name}.original": 0.0 if name == "ua" else 0.8 for name in shares}
    return {
        "method": method,
        "concept": concept,
        "seed": 0,
        "status": "done",
        "seconds_forget": 2.0,
        **shares,
        **before,
    }


def test_the_table_by_hand(script, tmp_path):
    mmdit = script("mmdit")
    rows = [row("esd", "cat", 1.0, 0.6), row("esd", "rocket", 0.9, 0.6), row("uce", "cat", 0.7, 0.8)]
    rows += [row("uce", "rocket", 0.9, 0.72), {"method": "salun", "concept": "cat", "seed": 0, "status": "failed"}]
    found = mmdit.summary(rows)
    assert [line["method"] for line in found] == ["uce", "esd", "salun"]
    assert [line["real"] for line in found] == [True, False, False]
    assert found[0]["ua"] == pytest.approx(0.8)
    assert found[0]["ira"] == pytest.approx((1.0 + 0.9) / 2)
    assert found[0]["worst"]["concept"] == "cat"
    bench = tmp_path / "bench"
    bench.mkdir()
    (bench / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- mmdit: begin -->\n<!-- mmdit: end -->\n")
    mmdit.main(["--bench", str(bench), "--page", str(page), "--output", str(tmp_path / "out.json")])
    text = page.read_text().replace("\N{NO-BREAK SPACE}", " ")
    assert "| [uce](methods/uce.md) | 80 % | cat, 70 % | 95 % | 100 % | 62 % | 2 | yes |" in text
    assert "| [salun](methods/salun.md) | failed | | | | | | no |" in text
    assert "which 1 of 3 methods reach" in text


def test_its_plan_is_of_methods_that_are_defined_there(monkeypatch):
    monkeypatch.chdir(BENCHMARKS.parent)
    plan = load_plan(BENCHMARKS / "mmdit" / "plan.yaml", {})
    assert plan.model == "emoji-mmdit"
    for cell in plan.cells():
        method = plan.recipe(cell).method_name
        assert "sd3" in METHODS.get(method).info.families, method
