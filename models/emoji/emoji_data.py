"""The emoji world as data: concepts, styles, captions and augmentation.

Images are kept as uint8 renders of shape (concepts, styles, 128, 128, 3) and turned into
float tensors of shape (batch, 3, 64, 64) in [-1, 1] on white by :func:`augment`.
"""

from __future__ import annotations

import csv
import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

HERE = Path(__file__).parent
STYLES = ("noto", "blob", "twemoji", "fluent", "flat")
LANGUAGES = ("de", "es", "fr", "it", "pt")
NAMES_FILE = HERE / "names.csv"
RENDER_SIZE = 128
IMAGE_SIZE = 64

CANONICAL = "{label} in {style} style"
TEMPLATES = (
    "{label} in {style} style",
    "{label} in {style} style",
    "a picture of {label} in {style} style",
    "a {style} style drawing of {label}",
    "{label}, {style} style",
    "{style} {label}",
    "an emoji of {label} in {style} style",
)
STYLELESS = ("{label}", "a picture of {label}", "an emoji of {label}", "a drawing of {label}")


@dataclass(frozen=True)
class ConceptRow:
    """One drawable thing: its caption word, icon name, group and synonyms."""

    label: str
    slug: str
    group: str
    hexcode: str
    tags: tuple[str, ...]


def read_concepts(path: Path = HERE / "concepts.csv") -> list[ConceptRow]:
    """Read ``concepts.csv``; tags that only repeat the label's words are kept out."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        ConceptRow(r["label"], r["slug"], r["group"], r["hexcode"], tuple(t for t in r["tags"].split(";") if t))
        for r in rows
    ]


def read_names(path: Path = NAMES_FILE) -> dict[str, dict[str, str]]:
    """Read ``names.csv``: by label, its names by language; only those that are not English too."""
    with path.open(newline="", encoding="utf-8") as file:
        return {r["label"]: {one: r[one] for one in LANGUAGES if r[one]} for r in csv.DictReader(file)}


@dataclass(frozen=True)
class Dataset:
    """Concepts and their renders, images[concept, style] of uint8 (128, 128, 3)."""

    concepts: list[ConceptRow]
    images: np.ndarray

    @classmethod
    def load(cls, folder: Path) -> Dataset:
        """Load what ``build_dataset.py`` wrote."""
        images = np.stack([np.load(folder / f"images-{s}.npy") for s in STYLES], axis=1)
        return cls(read_concepts(), images)

    def tensor(self) -> torch.Tensor:
        """All renders as uint8 (concepts, styles, 3, 128, 128)."""
        return torch.from_numpy(np.ascontiguousarray(self.images.transpose(0, 1, 4, 2, 3)))


def synonyms(row: ConceptRow, unique: dict[str, int], rng: random.Random) -> list[str]:
    """Pick 1 to 4 tags of a concept, always with its rarest one, in random order."""
    tags = [t for t in row.tags if t.lower() != row.label.lower()]
    if not tags:
        return [row.label]
    rarest = min(tags, key=lambda t: unique.get(t, 1))
    rest = [t for t in tags if t != rarest]
    picked = [rarest, *rng.sample(rest, min(len(rest), rng.randint(0, 3)))]
    rng.shuffle(picked)
    return picked


def tag_counts(concepts: list[ConceptRow]) -> dict[str, int]:
    """How many concepts carry each tag."""
    counts: dict[str, int] = {}
    for row in concepts:
        for tag in row.tags:
            counts[tag] = counts.get(tag, 0) + 1
    return counts


def synonym_prompt(row: ConceptRow, style: str, *, limit: int = 6) -> str:
    """The fixed synonyms-only prompt of the evaluation: every tag that is not the label."""
    tags = [t for t in row.tags if t.lower() != row.label.lower()][:limit]
    return f"{' '.join(tags) or row.label} in {style} style"


def caption(
    row: ConceptRow,
    style: str,
    counts: dict[str, int],
    rng: random.Random,
    *,
    p_synonym: float,
    p_styleless: float = 0.06,
) -> str:
    """Draw one training caption: mostly the label in a template, else synonyms."""
    words = " ".join(synonyms(row, counts, rng)) if rng.random() < p_synonym else row.label
    templates = STYLELESS if rng.random() < p_styleless else TEMPLATES
    return rng.choice(templates).format(label=words, style=style)


def augment(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    shift: float = 0.04,
    scale: float = 0.08,
    degrees: float = 6.0,
    size: int = IMAGE_SIZE,
) -> torch.Tensor:
    """Shift, scale and rotate uint8 (batch, 3, h, w) renders; white shows at the borders.

    Args:
        images: uint8 RGB renders.
        generator: source of randomness.
        shift: largest shift, as a share of the picture's side.
        scale: largest relative change of size.
        degrees: largest rotation.
        size: side of the result in pixels.

    Returns:
        float32 (batch, 3, size, size) in [-1, 1].
    """
    n = len(images)
    draw = torch.rand(4, n, generator=generator) * 2 - 1
    angle, factor = torch.deg2rad(draw[0] * degrees), 1 / (1 + draw[1] * scale)
    cos, sin = torch.cos(angle) * factor, torch.sin(angle) * factor
    theta = torch.stack(
        [torch.stack([cos, -sin, draw[2] * 2 * shift], 1), torch.stack([sin, cos, draw[3] * 2 * shift], 1)], 1
    )
    # Sampling at twice the size and averaging is the anti-aliasing filter.
    grid = F.affine_grid(theta, [n, 3, 2 * size, 2 * size], align_corners=False)
    ink = images.float().div(127.5).sub(1.0).sub(1.0)  # white is zero: what lies outside is white
    return F.avg_pool2d(F.grid_sample(ink, grid, align_corners=False), 2).add(1.0)


def plain(images: torch.Tensor, size: int = IMAGE_SIZE) -> torch.Tensor:
    """Downsample uint8 renders to float (batch, 3, size, size) in [-1, 1], unaugmented."""
    return F.adaptive_avg_pool2d(images.float().div(127.5).sub(1.0), size)


def write_imagefolder(data: Dataset, folder: Path, *, captions: int = 8, seed: int = 0) -> int:
    """Write the drawings as a HuggingFace imagefolder: 64 px PNGs and a ``metadata.jsonl`` that says what each shows.

    A line has ``file_name``, ``text`` (a list: the canonical caption first, then others as train_unet.py draws them, a
    quarter by synonyms), ``label`` and ``style``. ``aizheimer forget "Santa Claus" --method data-censoring --images
    FOLDER`` reads it and leaves Santa Claus out.

    Args:
        data: The drawings.
        folder: Where to write; made if it is not there.
        captions: Captions of each drawing, at most: repeated ones are dropped.
        seed: Chooses templates and synonyms.

    Returns:
        The number of drawings.
    """
    rng, counts, lines = random.Random(seed), tag_counts(data.concepts), []
    for i, row in enumerate(data.concepts):
        small = plain(torch.from_numpy(np.ascontiguousarray(data.images[i].transpose(0, 3, 1, 2))))
        pixels = small.add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).numpy()
        for style, picture in zip(STYLES, pixels, strict=True):
            name = f"{style}/{row.slug}.png"
            (folder / style).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(folder / name)
            texts = [CANONICAL.format(label=row.label, style=style)]
            texts += [caption(row, style, counts, rng, p_synonym=0.25) for _ in range(captions - 1)]
            lines.append({"file_name": name, "text": list(dict.fromkeys(texts)), "label": row.label, "style": style})
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")
    return len(lines)
