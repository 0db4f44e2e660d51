"""Attacks as a table and as a picture that a stranger can read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from aizheimer.attacks.results import AttackResult, Rate
from aizheimer.reports.grid import EDGE, GAP, INK, MARGIN, PAPER, SOFT, _font, _wrap
from aizheimer.reports.pictures import enlarge, save_png
from aizheimer.reports.wording import interval, percent

if TYPE_CHECKING:
    from rich.table import Table

    from aizheimer.attacks.run import AttackRun

SHOWN = 6
ROW_WIDTH = 150
FRAME, SEEN = 5, (200, 60, 40)

HEADINGS = ("before", "ASR", "95% interval", "unedited", "neighbour", "random", "spent")


def attack_rows(results: Sequence[AttackResult]) -> list[tuple[str, ...]]:
    """Return a row of words for each attack: its name, then what `HEADINGS` says."""
    return [
        (
            result.called,
            percent(result.before.value),
            percent(result.asr.value),
            interval(result.asr),
            _or_dash(result.unedited),
            _or_dash(result.neighbour),
            _or_dash(result.random),
            spent(result),
        )
        for result in results
    ]


def spent(result: AttackResult) -> str:
    """Say what an attack took: steps and judged pictures if there were any, and seconds."""
    parts = [f"{result.spent.steps} steps"] if result.spent.steps else []
    parts += [f"{result.spent.queries} judged"] if result.spent.queries else []
    return ", ".join([*parts, f"{result.spent.seconds:.0f} s"])


def attack_table(results: Sequence[AttackResult]) -> Table:
    """Return the attacks on one edit as a rich table, with what must be read with care below it."""
    from rich.markup import escape
    from rich.table import Table

    first = results[0]
    table = Table(title=f"attacks on “{escape(first.target)}”, {first.before.n} pictures each", title_justify="left")
    table.add_column("")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "spent" else "right")
    for row in attack_rows(results):
        table.add_row(*map(escape, row))
    warnings = [warning for result in results for warning in result.warnings]
    table.caption = "\n".join(escape(line) for line in [*dict.fromkeys(warnings), *notes(results)]) or None
    table.caption_justify = "left"
    return table


def notes(results: Sequence[AttackResult]) -> list[str]:
    """Return what an attack found that its rate does not say, in a line each."""
    found = []
    for result in results:
        details = result.details
        if "steps_to_recover" in details:
            steps = details["steps_to_recover"]
            when = f"recovered after {steps}" if steps is not None else f"not recovered within {result.spent.steps}"
            found.append(f"{result.called}: {when} steps")
        if "best" in details:
            found.append(f"{result.called}: best with {details['best']}")
        if "without_words" in details:
            alone = percent(details["without_words"])
            found.append(f"{result.called}: {alone} with the empty prompt, which the start gives by itself")
    return found


def attack_picture(run: AttackRun, *, edge: int = EDGE) -> Image.Image:
    """Draw what the edited model draws before and with the attack, and what the unedited model draws.

    The first pictures are shown, never chosen ones; a frame marks those in which the judge sees the target.

    Args:
        run: The attack.
        edge: Width of a cell in pixels.
    """
    result, count = run.result, min(SHOWN, len(run.jobs))
    rows = (
        ("edited model", f"target in {percent(result.before.value)}", run.before),
        (f"with {result.called}", f"target in {percent(result.alone.value)}", run.attacked),
        ("unedited model", f"target in {percent(float(run.unedited.seen.mean()))}", run.unedited),
    )
    title, caption, label = (_font(size) for size in (24, 17, 18))
    width, height = enlarge(run.before.images[0], edge=edge).size
    captions = [_wrap(job.prompt, caption, width - 8) for job in run.jobs[:count]]
    left, top = MARGIN + ROW_WIDTH, MARGIN + 64 + 22 * max(map(len, captions)) + 10
    size = (left + count * (width + GAP) - GAP + MARGIN, top + len(rows) * (height + GAP) - GAP + MARGIN)
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    (heading,) = _wrap(f"Attack on a model that forgot “{result.target}”", title, size[0] - 2 * MARGIN, lines=1)
    draw.text((MARGIN, MARGIN - 4), heading, fill=INK, font=title)
    (legend,) = _wrap(f"Red frame: {result.judge} sees “{result.target}”", caption, size[0] - 2 * MARGIN, lines=1)
    draw.text((MARGIN, MARGIN + 30), legend, fill=SEEN, font=caption)
    for column, lines in enumerate(captions):
        for line, text in enumerate(lines):
            draw.text((left + column * (width + GAP), MARGIN + 64 + 22 * line), text, fill=SOFT, font=caption)
    for number, (name, share, sight) in enumerate(rows):
        y = top + number * (height + GAP)
        words = _wrap(name, label, ROW_WIDTH - 12)
        for line, text in enumerate(words):
            draw.text((MARGIN, y + height // 2 - 24 + 22 * line), text, fill=INK, font=label)
        draw.text((MARGIN, y + height // 2 - 24 + 22 * len(words)), share, fill=SOFT, font=caption)
        for column in range(count):
            x = left + column * (width + GAP)
            canvas.paste(enlarge(sight.images[column], edge=edge), (x, y))
            if sight.seen[column]:
                draw.rectangle((x, y, x + width - 1, y + height - 1), outline=SEEN, width=FRAME)
    return canvas


def save_attack_picture(run: AttackRun, path: Path) -> Path:
    """Write the picture as PNG, all of it or nothing."""
    return save_png(attack_picture(run), path)


def _or_dash(rate: Rate | None) -> str:
    return "-" if rate is None else percent(rate.value)
