"""Many edits in one picture, as the paper's Table III: a row for each, the same prompts and noise in every column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image, ImageDraw

from aizheimer.evaluation.evaluate import draw_pairs
from aizheimer.evaluation.results import EvaluationResult, ImageRecord
from aizheimer.reports.grid import GAP, GROUP_GAP, GROUPS, INK, MARGIN, PAPER, SOFT, _font, _wrap
from aizheimer.reports.pictures import enlarge, save_png

if TYPE_CHECKING:
    from aizheimer.backbones.base import Backbone
    from aizheimer.edits.edit import Edit
    from aizheimer.evaluation.generate import Progress

EDGE = 128
LINE = 22
"""Height of a line of a caption."""


@dataclass(frozen=True, kw_only=True)
class PictureRows:
    """What the picture shows.

    Args:
        columns: Prompt and seed of each column, groups together.
        rows: The pictures of each row by its name, uint8 (columns, height, width, 3).
    """

    columns: Sequence[ImageRecord]
    rows: Mapping[str, np.ndarray]


def first_pictures(result: EvaluationResult, *, each: int = 4) -> list[ImageRecord]:
    """Return the first picture of each prompt of the target, and of each other concept: never a chosen one.

    Args:
        result: An evaluation.
        each: Pictures in a group, at most.
    """
    found: list[ImageRecord] = []
    for role in GROUPS:
        taken: dict[str | None, ImageRecord] = {}
        for image in result.images:
            if image.role == role:
                taken.setdefault(image.prompt if role == "target" else getattr(image, result.kind), image)
        found += list(taken.values())[:each]
    return found


def draw_rows(
    backbone: Backbone,
    edits: Mapping[str, Edit],
    result: EvaluationResult,
    *,
    unedited: str,
    each: int = 4,
    cache_dir: Path | str | Literal[False] | None = None,
    progress: Progress | None = None,
) -> PictureRows:
    """Get the pictures of several evaluations back: from the cache, or drawn again.

    Args:
        backbone: The unedited model.
        edits: By the name of their row.
        result: The evaluation of any of them: they were measured alike.
        unedited: What to call the first row.
        each: Columns in a group, at most.
        cache_dir: As in `aizheimer.evaluation.generate.generate`.
        progress: Called with (pictures done, pictures in all).
    """
    columns = first_pictures(result, each=each)
    options: dict[str, Any] = {"plan": columns, "settings": result.settings, "guidance": result.guidance}
    rows: dict[str, np.ndarray] = {}
    for done, (name, edit) in enumerate(edits.items()):
        pairs = draw_pairs(backbone.pipe, edit, cache_dir=cache_dir, **options)
        rows.setdefault(unedited, pairs.original)
        rows[name] = pairs.edited
        if progress is not None:
            progress((done + 1) * len(columns), len(edits) * len(columns))
    return PictureRows(columns=columns, rows=rows)


def rows_image(picture: PictureRows, *, edge: int = EDGE) -> Image.Image:
    """Draw a row for each edit, columns by group, each with its prompt.

    Args:
        picture: At least one row and one column.
        edge: Width of a cell in pixels; small pictures are enlarged by whole factors and stay crisp.

    Raises:
        ValueError: If there is nothing to show.
    """
    if not picture.columns or not picture.rows:
        raise ValueError("picture: got no rows or no columns, wanted at least one of each")
    cells = {name: [enlarge(image, edge=edge) for image in images] for name, images in picture.rows.items()}
    width, height = next(iter(cells.values()))[0].size
    heading, caption, label = (_font(size) for size in (24, 15, 17))
    captions = [_wrap(column.prompt, caption, width - 6) for column in picture.columns]
    names = {name: _wrap(name, label, 170) for name in cells}
    label_width = max(round(label.getlength(line)) for lines in names.values() for line in lines) + 16
    lefts = _lefts(picture.columns, start=MARGIN + label_width, width=width)
    top = MARGIN + 40 + LINE * max(map(len, captions)) + 8
    canvas = Image.new("RGB", (lefts[-1] + width + MARGIN, top + len(cells) * (height + GAP) + MARGIN), PAPER)
    draw = ImageDraw.Draw(canvas)
    for i, (column, left) in enumerate(zip(picture.columns, lefts, strict=True)):
        if i == 0 or picture.columns[i - 1].role != column.role:
            draw.text((left, MARGIN), GROUPS[column.role], fill=INK, font=heading)
        for line, text in enumerate(captions[i]):
            draw.text((left, MARGIN + 40 + LINE * line), text, fill=SOFT, font=caption)
    for row, (name, images) in enumerate(cells.items()):
        above = top + row * (height + GAP)
        text = "\n".join(names[name])
        draw.multiline_text((MARGIN, above + height // 2), text, fill=INK if row else SOFT, font=label, anchor="lm")
        for image, left in zip(images, lefts, strict=True):
            canvas.paste(image, (left, above))
    return canvas


def save_rows(picture: PictureRows, path: Path) -> Path:
    """Write the picture as PNG, all of it or nothing."""
    return save_png(rows_image(picture), path)


def _lefts(columns: Sequence[ImageRecord], *, start: int, width: int) -> list[int]:
    """Return where each column begins; a wider gap stands between groups."""
    lefts = [start]
    for i in range(1, len(columns)):
        gap = GAP if columns[i - 1].role == columns[i].role else GROUP_GAP
        lefts.append(lefts[-1] + width + gap)
    return lefts
