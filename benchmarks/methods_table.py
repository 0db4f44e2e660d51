r"""The comparison of methods as a table and a picture, from what `methods.py` measured.

The table goes between the marks of a page; with ``--pages`` every method's own page gets its own rows.

Example:
    python benchmarks/methods_table.py --table docs/comparison.md --picture docs/images/methods.png \
        --pages docs/methods --readme README.md
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import textwrap
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

RETAINED = ("ira", "near", "cra")
COSTS = ("cpu_seconds", "unet_evaluations", "peak_megabytes", "artifact_megabytes")
BAR = 0.8
"""UA and share of IRA from which a target counts as done."""
OWN_JUDGE = ("judge-filter",)
"""Rows that decide by the judge which then scores them: their UA is right by construction, so they are on no front."""

PAPERS = ("doco", "concept-ablation", "spm", "forget-me-not", "sepme", "esd")
"""What the AIzheimer paper names."""

RETRAINED = "data-censoring start=scratch"
NOTES = {
    "judge-filter": (" †", "blocks what the judge names, and is scored by the same judge; not compared for the front."),
    RETRAINED: (
        " ‡",
        "the oracle: trained from nothing without any of the six objects and people, once (`oracle_distance.py`). It "
        "knows the two styles.",
    ),
}
"""What is said of a row below the table, and its mark."""


def mean(cells: list[dict[str, Any]], name: str, key: str = "value") -> float | None:
    """Average a figure over a method's cells that have it."""
    values = [c[name][key] for c in cells if c.get(name)]
    return statistics.mean(values) if values else None


def summary(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each method: means over its targets, retained shares as part of the unedited model's.

    Seconds are the processor's, which other work beside it hardly changes. Memory is the largest: only a
    process's first target finds nothing that an earlier one has left allocated.
    """
    rows = []
    measured = [c for c in cells if "ua" in c]
    for method in dict.fromkeys(c["method"] for c in measured):
        own = [c for c in measured if c["method"] == method]
        row: dict[str, Any] = {"method": method, "targets": len(own), "ua": mean(own, "ua")}
        row["synonyms"] = mean(own, "synonyms")
        for name in RETAINED:
            edited, original = mean(own, name), mean(own, name, "original")
            row[name] = edited / original if edited is not None and original else None
        for name in COSTS:
            known = [c[name] for c in own if name in c]
            combine = max if name == "peak_megabytes" else statistics.mean
            row[name] = combine(known) if known else None
        row["done"] = sum(is_done(c) for c in own)
        distances = [c["oracle"]["relative"] for c in own if c.get("oracle")]
        row["oracle"] = statistics.mean(distances) if distances else None
        rows.append(row)
    return sorted(rows, key=lambda row: -(row["ua"] + row["ira"]))


def is_done(cell: dict[str, Any]) -> bool:
    """Whether a target is forgotten and other concepts are not: UA at least 0.8, IRA at least 0.8 of the original."""
    return cell["ua"]["value"] >= BAR and cell["ira"]["value"] >= BAR * cell["ira"]["original"]


def is_dominated(row: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
    """Whether another method both forgets and retains better, or the row cannot be on the front.

    It cannot if it is judged by itself, is not finished, or forgets or keeps less than half: to do nothing keeps
    everything, and to draw nothing forgets everything.
    """
    targets = max(o["targets"] for o in rows)
    others = [
        o for o in rows if o["method"] not in OWN_JUDGE and o["targets"] == targets and min(o["ua"], o["ira"]) >= 0.5
    ]
    ahead = any(o["ua"] > row["ua"] and o["ira"] > row["ira"] for o in others)
    return ahead or row not in others


def table(rows: list[dict[str, Any]], *, among: list[dict[str, Any]] | None = None) -> str:
    """Return rows as Markdown; those on the Pareto front of all, or of ``among``, are bold."""

    def share(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.0f} %"

    lines = [
        "| method | UA | by synonyms | IRA kept | nearest kept | CRA kept | done | CPU seconds "
        "| passes | memory, MB | artifact, MB | to oracle |",
        "| --- |" + " ---: |" * 11,
    ]
    for row in rows:
        name = row["method"] + NOTES.get(row["method"], ("", ""))[0]
        name = name if is_dominated(row, among or rows) else f"**{name}**"
        figures = [share(row[key]) for key in ("ua", "synonyms", "ira", "near", "cra")]
        figures.append(f"{row['done']}/{row['targets']}")
        forms = {"cpu_seconds": ".1f", "unet_evaluations": ",.0f", "peak_megabytes": ".0f", "artifact_megabytes": ".2f"}
        figures += ["" if row[key] is None else format(row[key], form) for key, form in forms.items()]
        figures.append("" if row["oracle"] is None else f"{row['oracle']:.2f}")
        lines.append(f"| {' | '.join([name, *figures])} |")
    for row in rows:
        if row["method"] in NOTES:
            lines += ["", " ".join(NOTES[row["method"]]).strip()]
    return "\n".join(lines) + "\n"


NAMED = ("aizheimer", "closed-distraction", "mace", "hirm", "uce", *PAPERS)
"""Rows of the README's table."""


def brief(rows: list[dict[str, Any]]) -> str:
    """Return the front, the systems that the paper names and UCE as Markdown of few columns, for the README."""
    lines = ["| method | UA | by synonyms | IRA kept | nearest kept | CPU seconds |", "| --- |" + " ---: |" * 5]
    for row in rows:
        if row["method"] in NAMED:
            name = row["method"] if is_dominated(row, rows) else f"**{row['method']}**"
            shares = [f"{100 * row[key]:.0f} %" for key in ("ua", "synonyms", "ira", "near")]
            lines.append(f"| {' | '.join([name, *shares, format(row['cpu_seconds'], '.0f')])} |")
    return "\n".join(lines) + "\n"


WINDOW = {"ua": 0.7, "ira": 0.92}
"""The picture begins here; what is further out is said in words, so that the rest can be told apart."""


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw forgetting against retention, a point for each method, the front joined, the names in a column beside it."""
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(9, 6), dpi=120)
    inside = [row for row in rows if all(row[key] >= least for key, least in WINDOW.items())]
    front = sorted((row for row in inside if not is_dominated(row, rows)), key=lambda row: row["ira"])
    axis.plot([r["ira"] for r in front], [r["ua"] for r in front], color="#c44", linewidth=1, zorder=1)
    inside.sort(key=lambda row: (-row["ua"], -row["ira"]))
    for place, row in enumerate(inside):
        axis.scatter(row["ira"], row["ua"], s=36, color="#c44" if row in front else "#567", zorder=2)
        axis.annotate(
            row["method"],
            (row["ira"], row["ua"]),
            xytext=(1.03, 0.98 - 0.96 * place / max(1, len(inside) - 1)),
            textcoords="axes fraction",
            fontsize=9,
            fontweight="bold" if row in front else "normal",
            arrowprops={"arrowstyle": "-", "color": "#bbb", "linewidth": 0.6, "shrinkB": 3},
            va="center",
            annotation_clip=False,
        )
    outside = [
        f"{row['method']} ({100 * row['ua']:.0f} %, {100 * row['ira']:.0f} %)" for row in rows if row not in inside
    ]
    if outside:
        said = textwrap.fill(f"Outside, with UA and IRA: {', '.join(outside)}.", 130)
        figure.text(0.08, 0.075, said, fontsize=8, color="#444", va="top")
    axis.set_xlabel("other concepts kept (IRA, share of the unedited model's)")
    axis.set_ylabel("target forgotten (UA)")
    axis.grid(alpha=0.3)
    figure.subplots_adjust(left=0.08, right=0.78, top=0.97, bottom=0.16)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def between_marks(text: str, name: str, content: str) -> str:
    """Return a page with what is between its marks of a name replaced; a lone ``<!-- name -->`` becomes a pair."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = text.replace(f"<!-- {name} -->", f"{begin}\n{end}")
    block = f"{begin}\n\n{content.strip()}\n\n{end}"
    return re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: block, text, flags=re.DOTALL)


def percent(share: float) -> str:
    """Return a share in words that a narrow column does not part."""
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def write_between(page: Path, name: str, content: str) -> None:
    """Replace what is `between_marks` of a name in a page's file."""
    page.write_text(between_marks(page.read_text(encoding="utf-8"), name, content), encoding="utf-8")


def own_rows(rows: list[dict[str, Any]], cells: list[dict[str, Any]], method: str) -> str:
    """Return what a method's page says of it: its rows of the table, and each target's UA and kept IRA."""
    own = [row for row in rows if method_of(row["method"]) == method]
    names = [row["method"] for row in own]
    lines = ["| target | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    for target in dict.fromkeys(cell["target"] for cell in cells):
        found = {cell["method"]: cell for cell in cells if cell["target"] == target and cell["method"] in names}
        lines.append(f"| {target} | {' | '.join(_both(found.get(name)) for name in names)} |")
    return (
        "On the embedded model, by the recipe's settings (all methods: [comparison](../comparison.md)):\n\n"
        f"{table(own, among=rows)}\n"
        "UA by name, and the share of IRA that was kept, target by target:\n\n" + "\n".join(lines)
    )


def method_of(row: str) -> str:
    """Return the method whose page a row belongs to: of a recipe such as aizheimer-paper, the method that it sets."""
    name = row.split()[0]
    return "aizheimer" if name.startswith("aizheimer") else name


def _both(cell: dict[str, Any] | None) -> str:
    if cell is None or "ua" not in cell:
        return "" if cell is None else "refused"
    return f"{100 * cell['ua']['value']:.0f} %, {100 * cell['ira']['value'] / cell['ira']['original']:.0f} %"


def write_pages(folder: Path, rows: list[dict[str, Any]], cells: list[dict[str, Any]]) -> None:
    """Write every measured method's rows into its page."""
    for method in dict.fromkeys(method_of(row["method"]) for row in rows):
        page = folder / f"{method}.md"
        write_between(page, "measured", own_rows(rows, cells, method))


def main() -> None:
    """Print the table; write it, the pages and the picture if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/methods.json"))
    parser.add_argument("--table", type=Path, help="write the table between the marks of this page")
    parser.add_argument("--pages", type=Path, help="write each method's rows into its page in this folder")
    parser.add_argument("--readme", type=Path, help="write a short table between the marks of this page")
    parser.add_argument("--picture", type=Path, help="write the picture here")
    args = parser.parse_args()
    cells = json.loads(args.results.read_text())["cells"]
    rows = summary(cells)
    print(table(rows))
    if args.table:
        write_between(args.table, "comparison", table(rows))
    if args.readme:
        write_between(args.readme, "methods", brief(rows))
    if args.pages:
        write_pages(args.pages, rows, cells)
    if args.picture:
        picture(rows, args.picture)


if __name__ == "__main__":
    main()
