r"""The leaderboard page, from what ``aizheimer bench`` measured by `leaderboard/plan.yaml`.

Keeps the rows and the damage by distance as one JSON file, from which the page and its pictures can be made again, and
in which a bench can be taken up where it was left, in another checkout or on another machine.

Example:
    python benchmarks/leaderboard.py --restore build/leaderboard
    aizheimer bench benchmarks/leaderboard/plan.yaml --out build/leaderboard
    python benchmarks/leaderboard.py build/leaderboard
    python benchmarks/leaderboard.py
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from figures import save_figure
from measuring import replace_text, write_json
from methods_table import write_between

from aizheimer.bench.plan import Cell, load_plan
from aizheimer.bench.rows import ROW, RUNS
from aizheimer.edits.storage import RECORD
from aizheimer.evaluation.distances import MUST_AGREE
from aizheimer.recipes.load import load_recipe
from aizheimer.reports.alike import check_rows
from aizheimer.reports.leaderboard import Mean, Standing, mean_by_concept, standings

matplotlib.use("Agg")

ATTACKS = ("concept-inversion", "soft-prompt", "relearn", "noise-inversion", "quantise")
STATED = (".judge", ".attack", ".parameters", *(f".{field}" for field in MUST_AGREE))
"""Ends of columns that say how a number was measured, the same in nearly all rows: each is kept once."""
OMITTED = (*STATED, ".seconds")
"""Columns that are not kept with their rows; other work on the machine moves the seconds."""
BINS = np.array([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.2])
"""Of the distance (one minus the cosine of the text embeddings), for the damage curve."""
LEAST_PICTURES = 10
"""Of a bin, to be drawn: one picture of fewer would be a peak."""
OWN_JUDGE = "judge-filter"
PLAN = Path(__file__).parent / "leaderboard" / "plan.yaml"
Content = dict[str, Any]
EMPTY: Content = {"rows": [], "found": {}, "stated": {}, "unassigned": {}}


def collect(folders: Sequence[Path], earlier: Content) -> Content:
    """Return the rows of benches by one plan, and what was found about each, on top of what was kept before.

    Args:
        folders: Of the benches; a job that is in several is taken from the last.
        earlier: What an earlier call returned, `EMPTY` if nothing.

    Returns:
        ``rows`` in the plan's order, rounded; ``found``, by job: the damage by distance and the worst family;
        ``stated``, by column: who judged, by what protocol, of how many pictures, all values that rows have; and
        ``unassigned``, the sums of what was found over jobs whose own was not kept.

    Raises:
        InputError: If rows were not measured alike.
    """
    whole = {_key(row): row for row in earlier["rows"]}
    found = dict(earlier["found"])
    for folder in folders:
        for row in map(json.loads, (folder / "results.jsonl").read_text().splitlines()):
            if (key := _key(row)) in whole and not (folder / row["run"] / RECORD).is_file():
                continue  # restored: it says nothing new
            whole[key] = row
            if row["status"] == "done":
                found[key] = _found(folder / row["run"])
    check_rows(list(whole.values()))
    order = {_name(cell): place for place, cell in enumerate(load_plan(PLAN, {}).cells())}
    keys = sorted(whole, key=lambda key: order.get(key, len(order)))
    return {
        "rows": [_kept(whole[key]) for key in keys],
        "found": {key: found[key] for key in keys if key in found},
        "stated": _stated(list(whole.values()), earlier.get("stated", {})),
        "unassigned": earlier["unassigned"],
    }


def write_content(path: Path, content: Content) -> None:
    """Replace the file at once, with each row and each finding in one line: a row has more than a hundred columns."""
    parts = []
    for name, own in content.items():
        if isinstance(own, dict):
            (opening, closing), lines = "{}", [f"{_line_of(key)}: {_line_of(value)}" for key, value in own.items()]
        else:
            (opening, closing), lines = "[]", [_line_of(value) for value in own]
        parts.append(f'"{name}": {opening}\n' + ",\n".join(lines) + f"\n{closing}")
    replace_text(path, "{\n" + ",\n".join(parts) + "\n}\n")


def _line_of(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def restore(content: Content, folder: Path) -> int:
    """Write the kept rows where a bench looks for those that are done; what is there already is left.

    Returns:
        How many were written.
    """
    kept = {_key(row): row for row in content["rows"]}
    written = 0
    for cell in load_plan(PLAN, {}).cells():
        place = folder / RUNS / cell.key
        if (row := kept.get(_name(cell))) is not None and not place.exists():
            place.mkdir(parents=True)
            write_json(place / ROW, row)
            written += 1
    return written


def _key(row: Content) -> str:
    return f"{row['method']} / {row['concept']} / {row['seed']}"


def _name(cell: Cell) -> str:
    return _key({"method": cell.method.name, "concept": cell.concept, "seed": cell.seed})


def _kept(row: Content) -> Content:
    """Leave out what no table needs, and round."""
    return {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in row.items()
        if value is not None and not (name.endswith(OMITTED) and name != "quality.kid.extractor")
    }


def _stated(rows: list[Content], earlier: Content) -> Content:
    """Add what rows say of how they were measured to what earlier ones said, by column."""
    values = {name: set(own) for name, own in earlier.items()}
    for row in rows:
        for name, value in row.items():
            if name.endswith(STATED) and value is not None:
                values.setdefault(name, set()).add(value)
    return {name: sorted(own) for name, own in values.items()}


def _found(run: Path) -> Content:
    """Return what the suites of a run tell beside their figures."""
    found: Content = {}
    if (file := run / "suite-neighbours.json").is_file():
        concepts = json.loads(file.read_text())["tables"]["concepts"]
        found["damage"] = _binned(np.array([[one["distance"], one["unedited"], one["edited"]] for one in concepts]))
    if (file := run / "suite-families.json").is_file():
        found["worst"] = [one["family"] for one in json.loads(file.read_text())["tables"].get("worst", [])]
    return found


def _binned(found: np.ndarray) -> list[list[float]]:
    """Sum distance, accuracy before and accuracy after by distance: a line for each bin, the pictures first."""
    places = np.digitize(found[:, 0], BINS[1:-1])
    chosen = [found[places == place] for place in range(len(BINS) - 1)]
    return [[len(some), *(round(float(total), 4) for total in some.sum(axis=0))] for some in chosen]


def damage(content: Content, method: str) -> list[Content]:
    """Average accuracy before and after by distance, over all concepts around all of a method's targets."""
    sums = [np.array(one["damage"]) for one in _of(content, method) if "damage" in one]
    if method in content["unassigned"]:
        sums.append(np.array(content["unassigned"][method]["damage"]))
    return [
        {"pictures": int(n), "distance": distance / n, "unedited": unedited / n, "edited": edited / n}
        for n, distance, unedited, edited in (sum(sums) if sums else [])
        if n
    ]


def worst(content: Content, method: str) -> list[tuple[str, int]]:
    """Return how often each family of prompts was the worst of a target, the most frequent first."""
    counter = Counter(dict(content["unassigned"].get(method, {}).get("worst", [])))
    counter.update(name for one in _of(content, method) for name in one.get("worst", []))
    return counter.most_common()


def _of(content: Content, method: str) -> list[Content]:
    return [
        content["found"][key]
        for key in map(_key, content["rows"])
        if key.startswith(f"{method} / ") and key in content["found"]
    ]


def share(mean: Mean | None, of: float = 1.0) -> str:
    """Return a share as part of another, with its interval over targets if there are several."""
    if mean is None or not of:
        return ""
    low, high = (100 * end / of for end in mean.interval)
    return f"{100 * mean.value / of:.0f} %" + (f" ({low:.0f}-{high:.0f})" if mean.concepts > 1 else "")


def originals(rows: list[Content], method: str, name: str) -> float:
    """Return the unedited model's figure on the targets of a method."""
    return _mean(rows, method, lambda row: row[f"{name}.original"]) or 0.0


def table(content: Content) -> str:
    """Return the methods, best score first, as Markdown."""
    rows = content["rows"]
    asr = [f"after {attack}" for attack in ATTACKS]
    heads = ["method", "jobs", "score", "UA", "worst family", "IRA kept", "CRA kept", "nearest kept"]
    heads += ["KID more", "before", *asr, "steps to relearn", "seconds", "MB"]
    lines = [f"| {' | '.join(heads)} |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for standing in standings(rows):
        lines.append(f"| {' | '.join(_line(standing, content))} |")
    return "\n".join(lines) + "\n"


def _line(standing: Standing, content: Content) -> list[str]:
    rows, figures, method = content["rows"], standing.figures, standing.method
    score = "" if standing.score is None else f"{100 * standing.score:.1f}{' ≈' if standing.alike else ''}"
    name = f"[{method}](methods/{load_recipe(method).method_name}.md)" + (" †" if method == OWN_JUDGE else "")
    families = worst(content, method)
    hardest = "" if not families else f"{families[0][0]}, {share(figures.get('families.ua.worst'))}"
    kept = [share(figures.get(key), originals(rows, method, key)) for key in ("ira", "cra", "neighbours.ira.nearest")]
    kid = _mean(rows, method, lambda row: row["quality.kid"] - row["quality.kid.original"])
    before = _mean(rows, method, lambda row: row[f"asr.{ATTACKS[0]}.before"])
    attacked = [figures.get(f"asr.{attack}") for attack in ATTACKS]
    relearnt = figures.get("asr.relearn.steps_survived")
    costs = [figures.get(key) for key in ("seconds_forget", "megabytes")]
    return [
        name,
        f"{standing.done}" + (f", {standing.failed} failed" if standing.failed else ""),
        score,
        share(figures.get("ua")),
        hardest,
        *kept,
        "" if kid is None else f"{kid:.3f}",
        "" if before is None else f"{100 * before:.0f} %",
        *("" if rate is None else f"{100 * rate.value:.0f} %" for rate in attacked),
        "" if relearnt is None else f"{relearnt.value:.0f}",
        *("" if cost is None else f"{cost.value:.3g}" for cost in costs),
    ]


def _mean(rows: list[Content], method: str, of: Any) -> float | None:
    """Average over targets, each of them the mean of its seeds."""
    found = []
    for row in rows:
        if row["method"] == method and row["status"] == "done":
            with contextlib.suppress(KeyError):
                found.append((row["concept"], of(row)))
    return float(mean_by_concept(found).mean()) if found else None


def controls(content: Content) -> str:
    """Return what each attack reaches on the unedited model, from its words and a neighbour's, as Markdown."""
    lines = ["| attack | on the unedited model | there, from a neighbour's words |", "| --- | ---: | ---: |"]
    for attack in ATTACKS:
        own = _extreme(content, f"asr.{attack}.unedited", min, "least")
        if own:
            near = _extreme(content, f"asr.{attack}.neighbour", max, "most")
            lines.append(f"| [{attack}](attacks/{attack}.md) | {own} | {near} |")
    return "\n".join(lines) + "\n"


def _extreme(content: Content, key: str, of: Callable[..., str], word: str) -> str:
    """Return a column's mean over targets, and one extreme with its target; "" if no row has it."""
    found = {row["concept"]: row[key] for row in content["rows"] if key in row}
    if not found:
        return ""
    extreme = of(found, key=lambda concept: found[concept])
    return f"{100 * np.mean(list(found.values())):.0f} % ({word}: {extreme}, {100 * found[extreme]:.0f} %)"


def state(content: Content) -> str:
    """Return how much of the plan is measured, while it is not the whole."""
    cells = load_plan(PLAN, {}).cells()
    there = {(row["method"], row["concept"], row["seed"]) for row in content["rows"]}
    done = [cell for cell in cells if (cell.method.name, cell.concept, cell.seed) in there]
    if len(done) == len(cells):
        return ""
    targets = ", ".join(dict.fromkeys(cell.concept for cell in done))
    return (
        f"**Not finished: {len(done):,} of {len(cells):,} jobs are measured; targets so far: {targets}.** Means are "
        "over what is there, which for some methods is less than for others."
    )


def attack_picture(content: Content, path: Path) -> None:
    """Draw the rate of each attack on each method, most resistant first, beside how much it keeps."""
    from matplotlib import pyplot as plt

    names = ("before", *ATTACKS)
    found = [standing for standing in standings(content["rows"]) if f"asr.{ATTACKS[0]}" in standing.figures]
    values = np.full((len(found), len(names)), np.nan)
    for place, standing in enumerate(found):
        before = _mean(content["rows"], standing.method, lambda row: row[f"asr.{ATTACKS[0]}.before"])
        rates = [standing.figures.get(f"asr.{attack}") for attack in ATTACKS]
        values[place] = [np.nan if before is None else before, *(np.nan if r is None else r.value for r in rates)]
    order = np.argsort(np.nanmean(values, axis=1), kind="stable")
    figure, axis = plt.subplots(figsize=(8.2, 1.2 + 0.32 * len(found)), dpi=120)
    axis.imshow(values[order], cmap="Reds", vmin=0, vmax=1, aspect="auto")
    for y, place in enumerate(order):
        for x, value in enumerate(values[place]):
            if not np.isnan(value):
                dark = value > 0.6
                axis.text(
                    x, y, f"{100 * value:.0f}", ha="center", va="center", color="w" if dark else "#333", fontsize=9
                )
    axis.set_xticks(range(len(names)), ["without attack", *ATTACKS], fontsize=9)
    axis.xaxis.tick_top()
    axis.set_yticks(range(len(found)), [found[place].method for place in order], fontsize=9)
    axis.tick_params(length=0)
    axis.set_xlabel("pictures in which the judge sees the forgotten concept, %: low resists", fontsize=9)
    save_figure(figure, path)


def damage_picture(content: Content, path: Path) -> None:
    """Draw what was lost by distance to the target, a line for each method that forgets at least half."""
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(9, 5), dpi=120)
    shown = [s for s in standings(content["rows"]) if s.figures.get("ua") and s.figures["ua"].value >= 0.5]
    colours = plt.get_cmap("tab20").colors
    ends = []
    for place, standing in enumerate(shown):
        bins = [one for one in damage(content, standing.method) if one["pictures"] >= LEAST_PICTURES]
        lost = [one["unedited"] - one["edited"] for one in bins]
        style = "-" if place % 2 else "--"
        axis.plot([one["distance"] for one in bins], lost, style, color=colours[place % 20], label=standing.method)
        ends.append((lost[0] if lost else 0.0, place))
    handles, labels = axis.get_legend_handles_labels()
    order = [place for _, place in sorted(ends, reverse=True)]
    axis.legend(
        [handles[i] for i in order], [labels[i] for i in order], loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8,
        title="most damage nearby first", title_fontsize=8,
    )  # fmt: skip
    axis.axhline(0, color="#999", linewidth=0.8)
    axis.set_xlabel("distance to the target (1 - cosine of the text embeddings)")
    axis.set_ylabel("accuracy lost")
    axis.grid(alpha=0.3)
    save_figure(figure, path)


def main() -> None:
    """Collect benches if any are given; then write the page's table and its pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*", help="of benches, to be kept on top of what was before")
    parser.add_argument("--restore", type=Path, metavar="FOLDER", help="write what is kept there for a bench to go on")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/leaderboard.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/leaderboard.md"))
    parser.add_argument("--pictures", type=Path, default=Path("docs/images"))
    args = parser.parse_args()
    content = json.loads(args.output.read_text()) if args.output.exists() else EMPTY
    if args.restore is not None:
        print(f"{restore(content, args.restore)} of {len(content['rows'])} rows written to {args.restore}")
        return
    if args.folders:
        content = collect(args.folders, content)
        write_content(args.output, content)
    for name, written in (("leaderboard", table), ("state", state), ("controls", controls)):
        write_between(args.page, name, written(content))
    attack_picture(content, args.pictures / "leaderboard-attacks.png")
    damage_picture(content, args.pictures / "leaderboard-damage.png")
    print(table(content))


if __name__ == "__main__":
    main()
