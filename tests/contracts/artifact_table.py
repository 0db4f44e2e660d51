"""What every method's edit can be exported as: found by exporting, loading with diffusers alone and drawing.

``python -m tests.contracts.artifact_table`` writes the table into docs/how-to/artifacts.md.
"""

from __future__ import annotations

import copy
import functools
import re
import tempfile
from pathlib import Path

import numpy as np

from aizheimer._registry import METHODS
from aizheimer.backbones.base import Backbone, backbone_for
from aizheimer.concepts import Concept
from aizheimer.edits.edit import Edit
from aizheimer.edits.export import FORMATS
from aizheimer.errors import EditError
from tests.contracts.quick import quick_recipe
from tests.tiny import save_tiny, tiny_pipeline, tiny_world
from tests.unit.edits.artifacts import loaded
from tests.unit.edits.running import apart, draw

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "artifacts.md"
PROMPTS = ["santa claus in noto style"]
RANK = 64
"""No layer of the tiny pipeline has more dimensions."""
BEGIN, END = "<!-- method x format: begin -->", "<!-- method x format: end -->"


def edit_of(method: str, backbone: Backbone) -> Edit:
    return quick_recipe(method).method.unlearn(backbone, Concept("santa claus", keep=("cat",)))


def row(edit: Edit, backbone: Backbone, *, base_folder: Path, folder: Path) -> dict[str, str]:
    """Return what each format makes of an edit, having compared the pictures."""
    base = copy.deepcopy(backbone.pipe)
    plain = draw(backbone.pipe, PROMPTS, steps=2)

    @functools.cache
    def wanted(ungated: bool) -> np.ndarray:
        """What the edit itself draws, once for all formats."""
        with (edit.as_weights(backbone.pipe) if ungated else edit).applied(backbone.pipe):
            return draw(backbone.pipe, PROMPTS, steps=2)

    return {
        name: _cell(edit, name, backbone, base=base, base_folder=base_folder, folder=folder, plain=plain, edited=wanted)
        for name in FORMATS
    }


def _cell(edit, name, backbone, *, base, base_folder, folder, plain, edited) -> str:
    lora = not FORMATS[name].exact
    for words, options in (("", {}), ("no biases, norms", {"partial": True}), ("ungated", {"ungated": True})):
        if (words.startswith("no biases") and not lora) or (words == "ungated" and edit.hook is None):
            continue
        path = folder / f"{name}{len(list(folder.iterdir()))}{'' if FORMATS[name].folder else '.safetensors'}"
        try:
            exported = edit.export(backbone.pipe, path, format=name, rank=RANK, **options)
        except EditError:
            continue
        wanted = edited(words == "ungated")
        found = draw(loaded(exported, base=base, base_folder=base_folder), PROMPTS, steps=2)
        if not lora:
            assert np.array_equal(found, wanted), name
        elif exported.left_out:
            changed = np.abs(plain - wanted).mean()
            assert np.abs(found - wanted).mean() <= 5 * exported.error * changed + 1e-4, (name, exported.error)
        else:
            assert exported.error < 1e-5
            assert apart(found, wanted) < 2e-3, name
        said = "by rank" if lora else "exact"
        return f"{said}, {words}" if words else said
    return "-"


def table() -> str:
    """Return the table of all methods as markdown."""
    with tempfile.TemporaryDirectory() as place:
        base_folder = save_tiny(Path(place))
        backbone = backbone_for(tiny_pipeline(), world=tiny_world())
        lines = [f"| method | {' | '.join(FORMATS)} |", f"| --- |{' --- |' * len(FORMATS)}"]
        for method in METHODS.entries:
            folder = Path(place) / method
            folder.mkdir()
            cells = row(edit_of(method, backbone), backbone, base_folder=base_folder, folder=folder)
            lines.append(f"| {method} | {' | '.join(cells[name] for name in FORMATS)} |")
    return "\n".join(lines)


def written_rows() -> dict[str, dict[str, str]]:
    """Return the table that the page shows: cells by method and format."""
    text = PAGE.read_text(encoding="utf-8")
    lines = text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip().splitlines()
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {cells[0]: dict(zip(head[1:], cells[1:], strict=True)) for cells in rows}


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    block = f"{BEGIN}\n{table()}\n{END}"
    PAGE.write_text(re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: block, text, flags=re.S), "utf-8")


if __name__ == "__main__":
    main()
