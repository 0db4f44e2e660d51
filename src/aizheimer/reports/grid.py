"""The before/after grid: what was asked to go, what is near it, and what has nothing to do with it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from aizheimer.evaluation.functional.accuracy import matches
from aizheimer.evaluation.results import EvaluationResult, ImageRecord
from aizheimer.reports.pictures import enlarge, save_png

if TYPE_CHECKING:
    from aizheimer.evaluation.evaluate import ImagePairs

GROUPS = {"target": "target", "neighbour": "neighbours", "other": "unrelated"}
"""Role of a picture -> heading of its group, in order."""

EDGE = 192
GAP, MARGIN, LABEL_WIDTH, GROUP_GAP = 6, 24, 84, 28
PAPER, INK, SOFT = (255, 255, 255), (29, 27, 24), (107, 102, 93)


@dataclass(frozen=True)
class GridColumn:
    """One prompt and seed, drawn by both models.

    Attributes:
        group: A heading of :data:`GROUPS`.
        prompt: What was asked for.
        seed: Of the initial noise, the same in both rows.
        original: uint8 (height, width, 3).
        edited: Same shape.
        seen_original: What the judge saw, None for "none of these" or no judge.
        seen_edited: The same of the edited picture.
        judged: Whether there was a judge.
        good: Whether the edit did what it should here: target gone, or the rest still right. None where it could do
            neither, because there was no judge or the original was not right to begin with.
    """

    group: str
    prompt: str
    seed: int
    original: np.ndarray
    edited: np.ndarray
    seen_original: str | None = None
    seen_edited: str | None = None
    judged: bool = False
    good: bool | None = None


def pick_columns(result: EvaluationResult, pairs: ImagePairs, *, each: int = 4) -> list[GridColumn]:
    """Return the columns to show: the first picture of each prompt or concept, never a chosen one.

    Args:
        result: The evaluation.
        pairs: Its pictures.
        each: Columns in a group, at most.
    """
    judged = result.ua is not None or result.ira is not None
    columns: list[GridColumn] = []
    for role, group in GROUPS.items():
        taken: set[str | None] = set()
        for i, image in enumerate(result.images):
            # Target columns differ by prompt; the others by what they show.
            kind = image.prompt if role == "target" else getattr(image, result.kind)
            if image.role != role or kind in taken or len(taken) == each:
                continue
            taken.add(kind)
            columns.append(_column(result, image, group, pairs.original[i], pairs.edited[i], judged=judged))
    return columns


def _column(
    result: EvaluationResult,
    image: ImageRecord,
    group: str,
    original: np.ndarray,
    edited: np.ndarray,
    *,
    judged: bool,
) -> GridColumn:
    before, after = getattr(image, f"original_{result.kind}"), getattr(image, f"edited_{result.kind}")
    wanted = getattr(image, result.kind) or ""
    was_right, is_right = bool(matches([before], [wanted])[0]), bool(matches([after], [wanted])[0])
    return GridColumn(
        group=group,
        prompt=image.prompt,
        seed=image.seed,
        original=original,
        edited=edited,
        seen_original=before,
        seen_edited=after,
        judged=judged,
        good=(is_right != (image.role == "target")) if judged and was_right else None,
    )


def grid_image(columns: Sequence[GridColumn], *, edge: int = EDGE) -> Image.Image:
    """Draw the grid as one picture: rows original and edited, columns by group, each with its prompt.

    Args:
        columns: What to show, groups together; at least one.
        edge: Width of a cell in pixels; small pictures are enlarged by whole factors and stay crisp.

    Raises:
        ValueError: If there are no columns.
    """
    if not columns:
        raise ValueError("grid: got no columns, wanted at least one")
    cells = [(enlarge(c.original, edge=edge), enlarge(c.edited, edge=edge)) for c in columns]
    width, height = cells[0][0].size
    heading, caption, row_label = (_font(size) for size in (26, 17, 19))
    captions = [_wrap(column.prompt, caption, width - 8) for column in columns]
    caption_height = 22 * max(len(lines) for lines in captions) + 8
    top = MARGIN + 40 + caption_height
    lefts = _lefts(columns, width)
    size = (lefts[-1] + width + MARGIN, top + 2 * height + GAP + MARGIN)
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    for row, name in enumerate(("original", "edited")):
        middle = top + row * (height + GAP) + height // 2
        draw.text((MARGIN, middle), name, fill=INK if row else SOFT, font=row_label, anchor="lm")
    for i, (column, left) in enumerate(zip(columns, lefts, strict=True)):
        if i == 0 or columns[i - 1].group != column.group:
            draw.text((left, MARGIN), column.group, fill=INK, font=heading)
        for line, text in enumerate(captions[i]):
            draw.text((left, MARGIN + 40 + 22 * line), text, fill=SOFT, font=caption)
        for row, cell in enumerate(cells[i]):
            canvas.paste(cell, (left, top + row * (height + GAP)))
    return canvas


def save_grid(columns: Sequence[GridColumn], path: Path) -> Path:
    """Write the grid as PNG, all of it or nothing."""
    return save_png(grid_image(columns), path)


def _lefts(columns: Sequence[GridColumn], width: int) -> list[int]:
    """Return where each column begins; a wider gap stands between groups."""
    lefts = [MARGIN + LABEL_WIDTH]
    for before, after in itertools.pairwise(columns):
        lefts.append(lefts[-1] + width + (GAP if before.group == after.group else GROUP_GAP))
    return lefts


def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which matplotlib ships and which knows more letters than Pillow's own."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int, *, lines: int = 3) -> list[str]:
    """Break a prompt at its spaces so that it fits; what does not fit into ``lines`` ends in an ellipsis."""
    rows, row = [], ""
    for word in text.split():
        longer = f"{row} {word}".strip()
        if row and font.getlength(longer) > width:
            rows.append(row)
            longer = word
        row = longer
    rows.append(row)
    if len(rows) > lines:
        rows = [*rows[: lines - 1], rows[lines - 1] + " …"]
    return [_cut(row, font, width) for row in rows]


def _cut(row: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(row) <= width:
        return row
    while row and font.getlength(row + "…") > width:
        row = row[:-1]
    return row.rstrip(" …") + "…"
