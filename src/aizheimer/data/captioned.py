"""Captioned pictures with a concept left out: what a model is trained on when its data are censored."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aizheimer._names import folded
from aizheimer._records import parse_json
from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.concepts.mentions import mention
from aizheimer.concepts.world import World
from aizheimer.data.images import UNREADABLE, existing_folder, read_square
from aizheimer.errors import ConceptError, DataError

METADATA = "metadata.jsonl"
CONTENT = "captioned pictures"


@dataclass(frozen=True, kw_only=True)
class CaptionedImages:
    """Pictures and what may be said of each.

    Args:
        pixels: (images, 3, size, size) in [-1, 1].
        captions: (images,) the captions of each picture, one or more.
        left_out: Records that were left out because they mention the concept.
    """

    pixels: Tensor
    captions: tuple[tuple[str, ...], ...]
    left_out: int


def concept_words(concept: Concept, world: World, synonyms: Sequence[str] | None) -> tuple[str, ...]:
    """Return the words that mean a concept: its own, then synonyms.

    Args:
        concept: The concept.
        world: Names synonyms where none are given: the tags of the concept's own item that no other item has.
        synonyms: Given ones; None for the world's.
    """
    if synonyms is None:
        tags = [tag for item in world.vocabulary for tag in {folded(tag) for tag in item.tags}]
        own = [tag for item in world.vocabulary if folded(item.label) == folded(concept.target) for tag in item.tags]
        synonyms = [tag for tag in own if tags.count(folded(tag)) == 1 and not _is_a_label(tag, world)]
    return tuple(dict.fromkeys(word for word in (concept.target, *synonyms) if word.strip()))


def shows(record: Mapping[str, Any], words: Sequence[str], *, kind: str) -> bool:
    """Whether a record is of a concept: its own column says so, or a caption mentions it.

    A column ``label`` names the thing on the picture and a column ``style`` how it is drawn. Where they name something
    else, their own words in the captions count for nothing: a picture labelled "cat face" is not of the cat because of
    the caption "cat face in noto style", but it is because of "cat face and cat".

    Args:
        record: A row of the metadata; its captions are in ``text``, one or a list of them.
        words: What means the concept.
        kind: ``"object"`` or ``"style"``.
    """
    columns = {name: record.get(name) for name in ("label", "style")}
    names = {name: value for name, value in columns.items() if isinstance(value, str) and value.strip()}
    if folded(names.get("style" if kind == "style" else "label", "")) in {folded(word) for word in words}:
        return True
    texts = list(captions_of(record))
    for name in names.values():
        texts = [mention(name).sub(" ", text) for text in texts]
    return any(mention(word).search(text) for word in words for text in texts)


def captions_of(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a record's captions: its ``text``, one or a list; none if it has none."""
    text = record.get("text")
    found = text if isinstance(text, list) else [text]
    captions = tuple(caption for caption in found if isinstance(caption, str) and caption.strip())
    return captions if len(captions) == len(found) else ()


def other_prompts(backbone: Backbone, concept: Concept, words: Sequence[str]) -> list[str]:
    """Return the prompts for everything in the world's vocabulary that do not mention a concept.

    Raises:
        ConceptError: If there is none.
    """
    world = backbone.world
    records = [
        {"text": text, "label": item.label} for item in world.vocabulary for text in world.prompts_for(item.label)
    ]
    prompts = [str(record["text"]) for record in records if not shows(record, words, kind=concept.kind)]
    if not prompts:
        raise ConceptError(f"the world {world.name!r} has nothing but '{concept.target}'; give a folder as images")
    return list(dict.fromkeys(prompts))


def read_captioned(folder: Path, size: int, *, words: Sequence[str], kind: str) -> CaptionedImages:
    """Read a HuggingFace imagefolder and leave out every record of a concept.

    ``metadata.jsonl`` in the folder has one JSON object a line: ``file_name``, relative to the folder; ``text``, a
    caption or a list of them; and, if known, ``label`` and ``style``, see `shows`. File names are not searched for the
    concept, and pictures are not looked at: what nobody wrote down stays in.

    Args:
        folder: The folder.
        size: Side of the squares that pictures are cropped to, in pixels.
        words: What means the concept.
        kind: ``"object"`` or ``"style"``.

    Returns:
        What is left; pictures that cannot be read are left out with a warning.

    Raises:
        DataError: If the folder or its metadata are missing or damaged, or nothing is left.
    """
    folder = existing_folder(Path(folder), of=CONTENT)
    records = list(_records(folder))
    kept = [record for record in records if not shows(record, words, kind=kind)]
    pixels, captions = [], []
    for record in kept:
        path = folder / record["file_name"]
        try:
            if not path.is_file():
                raise OSError("no such file")
            pixels.append(read_square(path, size))
            captions.append(captions_of(record))
        except UNREADABLE as error:
            warnings.warn(f"skipped {path}: not a readable image ({error})", UserWarning, stacklevel=2)
    if not pixels:
        raise DataError(
            f"of {len(records)} records in {folder / METADATA}, {len(records) - len(kept)} mention {words[0]!r} and "
            f"{len(kept)} have no picture that can be read; give {CONTENT} of other things"
        )
    return CaptionedImages(pixels=torch.stack(pixels), captions=tuple(captions), left_out=len(records) - len(kept))


def check_captioned(folder: Path, *, words: Sequence[str], kind: str) -> None:
    """Refuse a folder that `read_captioned` would refuse, without reading any picture.

    Raises:
        DataError: As `read_captioned`, but for pictures that cannot be read.
    """
    folder = existing_folder(Path(folder), of=CONTENT)
    records = list(_records(folder))  # all of them: a damaged line is told before any work, wherever it is
    if all(shows(record, words, kind=kind) for record in records):
        raise DataError(f"every record in {folder / METADATA} mentions {words[0]!r}; give {CONTENT} of other things")


def _records(folder: Path) -> Iterator[dict[str, Any]]:
    path = folder / METADATA
    if not path.is_file():
        raise DataError(
            f"{folder} has no {METADATA}, so nobody knows what its pictures show; write one JSON object a line there, "
            'such as {"file_name": "cat.png", "text": "a photo of a cat"}'
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not readable as UTF-8 text ({error}); write it anew") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record: Any = parse_json(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or not isinstance(record.get("file_name"), str) or not captions_of(record):
            raise DataError(f"{path}, line {number}: wanted a JSON object with a file_name and a text; correct it")
        if Path(record["file_name"]).is_absolute() or ".." in Path(record["file_name"]).parts:
            raise DataError(f"{path}, line {number}: its file_name leads out of the folder; name a file in it")
        yield record


def _is_a_label(word: str, world: World) -> bool:
    return any(folded(item.label) == folded(word) for item in world.vocabulary)
