"""The page of edits in company, from what `interference.py` measured.

Example:
    python benchmarks/interference_page.py
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from figures import save_figure
from methods_table import write_between

matplotlib.use("Agg")

WAYS = {
    "alone": "each alone",
    "stack": "the edits added",
    "onto": "one onto the other",
    "together": "all in one run",
}
Content = dict[str, Any]


def table(content: Content) -> str:
    """Return a line for each method, number of concepts and way, as Markdown."""
    heads = ["method", "concepts", "how", "UA", "least UA", "forgotten", "others kept", "95 % interval", "seconds"]
    lines = [f"| {' | '.join(heads)} |", "| --- | ---: | --- |" + " ---: |" * (len(heads) - 3)]
    for method in sorted(content["matrix"]):
        if (alone := _alone(content, method)) is not None:
            lines.append(_line(method, "alone", alone))
        company = {key: row for key, row in content["rows"].items() if key.startswith(f"{method} / ")}
        for key in sorted(company, key=lambda key: (int(n) if (n := key.split(" / ")[2]).isdigit() else 0, key)):
            _, way, size = key.split(" / ")
            if way != "alone" and "error" not in company[key]:
                lines.append(_line(method, way, company[key], int(size)))
    return "\n".join(lines) + "\n"


def _alone(content: Content, method: str) -> Content | None:
    """Return the edits of single targets as one row, the mean of what each keeps; None if there are none."""
    rows = [row for key, row in content["rows"].items() if key.startswith(f"{method} / alone / ") and "ua" in row]
    if not rows:
        return None
    ua = {target: value for row in rows for target, value in row["ua"].items()}
    kept = np.array([row["retained"] / row["retained_original"] for row in rows])
    return {"ua": ua, "kept": float(kept.mean()), "least": float(kept.min())}


def _line(method: str, way: str, row: Content, size: int = 1) -> str:
    ua = np.array(list(row["ua"].values()))
    if way == "alone":
        kept, span = row["kept"], f"least {100 * row['least']:.0f} %"
    else:
        ends = [row["retained"], *row["retained_interval"]]
        kept, low, high = (end / row["retained_original"] for end in ends)
        span = f"{100 * low:.0f}-{100 * high:.0f}"
    cells = [f"[{method}](methods/{method}.md)", f"{size}", WAYS[way], f"{100 * ua.mean():.0f} %"]
    cells += [f"{100 * ua.min():.0f} %", f"{int((ua >= 0.9).sum())} of {len(ua)}", f"{100 * kept:.0f} %", span]
    return f"| {' | '.join([*cells, str(round(row['seconds'])) if 'seconds' in row else ''])} |"


def picture(content: Content, method: str, path: Path) -> None:
    """Draw the matrix of one method: what every edit alone (a row) leaves of every target (a column)."""
    from matplotlib import pyplot as plt

    matrix = content["matrix"][method]
    names = [target for target in matrix if matrix[target]]
    values = np.array([[matrix[row][column] for column in names] for row in names])
    figure, axis = plt.subplots(figsize=(9, 8), dpi=120)
    axis.imshow(values, cmap="Greens", vmin=0, vmax=1)
    for y, x in np.ndindex(*values.shape):
        if x == y or values[y, x] < 1:
            shade = "w" if values[y, x] > 0.6 else "#333"
            axis.text(x, y, f"{100 * values[y, x]:.0f}", ha="center", va="center", color=shade, fontsize=7)
    for place in range(len(names)):
        axis.add_patch(plt.Rectangle((place - 0.5, place - 0.5), 1, 1, fill=False, edgecolor="#b00", linewidth=1.5))
    axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_xlabel("pictures of it judged right, % (100 where nothing is written); framed: the edit's own target")
    axis.set_ylabel(f"edited to forget it alone, by {method}")
    axis.tick_params(length=0)
    save_figure(figure, path)


def main() -> None:
    """Write the page's table and its picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, default=Path("benchmarks/results/interference.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/interference.md"))
    parser.add_argument("--method", default="closed-distraction", help="whose matrix is drawn")
    parser.add_argument("--picture", type=Path, default=Path("docs/images/interference.png"))
    args = parser.parse_args()
    content = json.loads(args.input.read_text(encoding="utf-8"))
    write_between(args.page, "interference", table(content))
    picture(content, args.method, args.picture)
    print(table(content))


if __name__ == "__main__":
    main()
