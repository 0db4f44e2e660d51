"""What forgetting costs as the task grows: in concepts, resolution, layers and processes.

- concepts: 1, 5, 20 and 100 concepts of the embedded model's world, forgotten by one call. A method that cannot do
  several in one run does one after the other.
- resolution: a few training steps of the AIzheimer method, as its recipe trains, at latents of 16 (the embedded model's
  own) to 64. What is drawn there has no meaning; what it costs has.
- layers: the same steps with the first 1, 2, 4 and all cross-attention layers watched and trained.
- processes: the same steps by 1, 2 and 4 processes, each with its share of the cores; seconds of a step, as the main
  process counts them. More processes than cores make nothing faster.

Figures: seconds in all, seconds of a step (the median), UNet evaluations (of the main process), and memory that the
main process holds at its peak above the loaded model. Every measurement is a process of its own. Resumes: what the
output holds is not measured again.

Usage:
    python benchmarks/scaling.py [--axes concepts layers] [--methods uce] [--output FILE] [--picture FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

AXES: dict[str, tuple[int, ...]] = {
    "concepts": (1, 5, 20, 100),
    "resolution": (16, 24, 32, 48, 64),
    "layers": (1, 2, 4, 7),
    "processes": (1, 2, 4),
}
"""Values by axis; the embedded model has seven layers of cross-attention."""
METHODS = ("closed-distraction", "uce", "speed", "mace")
"""Of the concepts."""
STEP = "aizheimer start=null enough=null"
"""What takes the steps; its overrides for a small run are `small`."""
RESULTS = Path("benchmarks/results/scaling.json")
UNITS = {"step_seconds": "seconds of a step", "seconds": "seconds", "peak_megabytes": "memory, MB"}


def small(steps: int) -> list[str]:
    """Return overrides for a run of few steps and next to no preparation, with the recipe's own batches."""
    return [
        f"training.steps={steps}",
        "training.monitor_every=1000",
        "training.drift_limit=null",
        "monitor_examples=2",
        "rollouts={forget: 2, retain: 2, holdout: 1, steps: 2}",
    ]


def measure(axis: str, value: int, method: str, steps: int) -> dict[str, Any]:
    """Measure one point, in this process; other processes of the same point answer nothing."""
    from measuring import PeakMemory, reference_seconds

    from aizheimer.api import forget, forget_several, load_model
    from aizheimer.backbones.counting import counted
    from aizheimer.engine.callbacks import Callbacks
    from aizheimer.recipes.load import load_recipe

    backbone = load_model("emoji")
    reference = reference_seconds(backbone)
    name, *overrides = method.split()
    overrides += [] if axis == "concepts" else small(steps)
    if axis == "resolution":
        backbone.pipe.unet.register_to_config(sample_size=value)
    if axis == "layers":
        overrides.append(f"layers={json.dumps(list(backbone.attention_modules())[:value])}")
    words = [item.label for item in backbone.world.vocabulary]
    # Evenly over the vocabulary, whose neighbours are alike.
    targets = words[:: len(words) // value][:value] if axis == "concepts" else words[:1]
    recipe, taken = load_recipe(name, overrides), []
    callbacks = Callbacks(on_step=lambda row: taken.append(row["seconds"]))
    memory, started = PeakMemory(), time.perf_counter()
    with counted(backbone) as count:
        if len(targets) > 1:
            forget_several(backbone, targets, method=recipe, callbacks=lambda concept: callbacks)
        else:
            forget(backbone, targets[0], method=recipe, callbacks=callbacks)
    row = {
        "seconds": round(time.perf_counter() - started, 3),
        "unet_evaluations": count.latents,
        "peak_megabytes": round(memory.megabytes(), 1),
        "reference_seconds": round(reference, 4),
    }
    # The first step makes what is made once.
    return row | ({"step_seconds": round(statistics.median(taken[1:] or taken), 4)} if taken else {})


def in_own_processes(axis: str, value: int, method: str, steps: int) -> dict[str, Any]:
    """Measure one point in a process of its own, or in several that work together."""
    count = value if axis == "processes" else 1
    command = [sys.executable, __file__, "--measure", json.dumps([axis, value, method, steps])]
    with tempfile.TemporaryDirectory() as cache:
        own = os.environ | {"AIZHEIMER_CACHE": cache}
        if count > 1:
            own |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"}
            own |= {"MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}
        running = [
            subprocess.Popen(
                command,
                env=own | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {}),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(count)
        ]
        said = [process.communicate() for process in running]
    failed = [i for i, process in enumerate(running) if process.returncode]
    if failed:
        return {"error": (said[failed[0]][1].strip().splitlines() or ["it was killed"])[-1]}
    return json.loads(said[0][0].splitlines()[-1])


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw time and memory along every axis, a line for each method."""
    import matplotlib
    from figures import save_figure

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    axes = [axis for axis in AXES if any(row["axis"] == axis for row in rows)]
    figure, places = plt.subplots(2, len(axes), figsize=(3.4 * len(axes), 5.6), dpi=120, squeeze=False)
    for column, axis in enumerate(axes):
        own = [row for row in rows if row["axis"] == axis and "error" not in row]
        time_name = "seconds" if axis == "concepts" else "step_seconds"
        for place, name in zip(places[:, column], (time_name, "peak_megabytes"), strict=True):
            for method in dict.fromkeys(row["method"] for row in own):
                points = sorted((row["value"], row[name]) for row in own if row["method"] == method and name in row)
                place.plot(*zip(*points, strict=True), marker="o", markersize=4, label=method.split()[0])
            place.set_xscale("log", base=2)
            if name == "seconds":
                place.set_yscale("log")
            else:
                place.set_ylim(bottom=0)
            ticks = sorted({row["value"] for row in own})
            place.set_xticks(ticks, [str(tick) for tick in ticks])
            place.minorticks_off()
            place.set_ylabel(UNITS[name], fontsize=8)
            place.tick_params(labelsize=8)
            place.grid(alpha=0.3)
        places[1, column].set_xlabel(axis)
        if axis == "concepts":
            places[0, column].legend(fontsize=7)
    save_figure(figure, path)


def main() -> None:
    """Measure what is missing, print every row, and draw if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axes", nargs="*", choices=list(AXES), default=list(AXES))
    parser.add_argument("--values", nargs="*", type=int, help="only these, of every axis")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), help="that forget the concepts")
    parser.add_argument("--steps", type=int, default=8, help="training steps of a point on the other axes")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--picture", type=Path, help="draw what is there")
    parser.add_argument("--no-measuring", action="store_true", help="only draw")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(*json.loads(args.measure))))
        return
    from measuring import Rows

    rows = Rows(args.output, key=("axis", "value", "method", "steps"))
    for axis in [] if args.no_measuring else args.axes:
        for method in args.methods if axis == "concepts" else [STEP]:
            for value in AXES[axis]:
                steps = 0 if axis == "concepts" else args.steps
                key = {"axis": axis, "value": value, "method": method, "steps": steps}
                if rows.find(**key) or (args.values and value not in args.values):
                    continue
                row = key | in_own_processes(axis, value, method, steps)
                rows.add(row, cores=os.cpu_count())
                print(row, flush=True)
    if args.picture:
        picture(rows.rows, args.picture)


if __name__ == "__main__":
    main()
