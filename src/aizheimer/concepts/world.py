"""What a model draws, in words: the templates, subjects and styles its prompts are made of.

A pipeline may bring a ``world.json``, in its folder or in the parent folder; any other
Stable Diffusion pipeline gets ``DEFAULT_WORLD``.
"""

from __future__ import annotations

import dataclasses
import json
import string
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from aizheimer.concepts import templates
from aizheimer.concepts.concept import Concept, Kind
from aizheimer.errors import ModelError

FILE_NAME = "world.json"


@dataclass(frozen=True)
class WorldItem:
    """One thing the model draws: its label, its group, words that also mean it, and its name in other languages.

    ``names`` goes from language to name, as CLDR has them: ``{"de": "Katze"}``.
    """

    label: str
    group: str = ""
    tags: tuple[str, ...] = ()
    names: dict[str, str] = field(default_factory=dict, hash=False)

    # Read by pydantic when a world is read from JSON: a misspelt field is an error.
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


@dataclass(frozen=True)
class World:
    """What a model draws, in words.

    Args:
        name: A short name, shown to the user.
        object_templates: Prompts with ``{concept}`` for an object.
        style_templates: Prompts with ``{concept}`` (the style's word) and ``{subject}``.
        subjects: Things to draw when a style is the target.
        styles: The styles' words.
        vocabulary: The things that can be neighbours and be judged.
        general_prompts: Prompts about nothing in particular, to keep the rest of the model in place.
        judges: Folders relative to ``folder``, by what they judge: ``"object"``, ``"style"``, ``"clip"``.
        guidance: The guidance scale the model draws best with.
        folder: Where ``world.json`` was read, if it was.

    Raises:
        ModelError: A template lacks its ``{concept}`` or ``{subject}``, or has another field.

    Example:
        >>> DEFAULT_WORLD.prompts(Concept("Santa Claus"))[0]
        'a photo of Santa Claus'
    """

    name: str
    object_templates: tuple[str, ...]
    style_templates: tuple[str, ...]
    subjects: tuple[str, ...]
    styles: tuple[str, ...]
    vocabulary: tuple[WorldItem, ...]
    general_prompts: tuple[str, ...]
    judges: dict[str, str] = field(default_factory=dict, hash=False)
    guidance: float = 7.5
    folder: Path | None = None

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for template in self.object_templates:
            _check_template(template, "object_templates", {"concept"})
        for template in self.style_templates:
            _check_template(template, "style_templates", {"concept", "subject"})

    @classmethod
    def load(cls, pipeline_folder: Path) -> World:
        """Read the world of a pipeline: from its own folder, else its parent folder, else the default.

        Raises:
            ModelError: ``world.json`` is there and cannot be used; the message names it and its fields.
        """
        for folder in (Path(pipeline_folder), Path(pipeline_folder).resolve().parent):
            path = folder / FILE_NAME
            if path.is_file():
                try:
                    return cls.from_json(path.read_text(encoding="utf-8"), folder=folder)
                except (OSError, UnicodeDecodeError, ModelError) as error:
                    raise ModelError(f"{path}: {error}") from error
        return DEFAULT_WORLD

    @classmethod
    def from_json(cls, text: str, *, folder: Path | None = None) -> World:
        """Read what :meth:`to_json` wrote; ``folder`` is what ``judges`` are relative to.

        Raises:
            ModelError: Not JSON, or fields that are missing, unknown or of another type: all in one line.
        """
        from pydantic import TypeAdapter, ValidationError

        try:
            world = TypeAdapter(cls).validate_json(text)
        except ValidationError as error:
            problems = [f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
            shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
            raise ModelError(f"not a world description: {shown}") from error
        return dataclasses.replace(world, folder=folder)

    def to_json(self) -> str:
        """Return the JSON text of everything but ``folder``."""
        fields = dataclasses.asdict(self)
        del fields["folder"]
        return json.dumps(fields, ensure_ascii=False, indent=1)

    def kind_of(self, target: str) -> Kind:
        """Return ``"style"`` if ``target`` is one of this world's styles, else ``"object"``."""
        return "style" if _key(target) in {_key(style) for style in self.styles} else "object"

    def beside(self, words: str, concept: Concept) -> Concept:
        """Return words that were named without a kind, beside a concept that has one.

        What this world lists is of the kind that it is listed as; anything else is of the concept's kind.

        Raises:
            ConceptError: The words are empty.
        """
        listed = {_key(item.label) for item in self.vocabulary}
        kind = self.kind_of(words)
        return Concept(words, kind=kind if kind == "style" or _key(words) in listed else concept.kind)

    def labels(self, kind: Kind) -> tuple[str, ...]:
        """Return the words that this world lists of a kind."""
        return self.styles if kind == "style" else tuple(item.label for item in self.vocabulary)

    def prompts(self, concept: Concept) -> list[str]:
        """Return every prompt that asks for the concept, to train and to evaluate with."""
        if concept.kind == "object":
            return self.prompts_for(concept.target)
        return [
            template.format(concept=concept.target, subject=subject)
            for template in self.style_templates
            for subject in self.subjects
        ]

    def prompts_for(self, label: str) -> list[str]:
        """Return every prompt that asks for the object ``label``."""
        return [template.format(concept=label) for template in self.object_templates]

    def judge_folder(self, name: str) -> Path | None:
        """Return the folder of the judge ``name``, or None if this world has none on disk."""
        if self.folder is None or name not in self.judges:
            return None
        folder = self.folder / self.judges[name]
        return folder if folder.is_dir() else None


def _key(word: str) -> str:
    return word.strip().casefold()


def _check_template(template: str, name: str, wanted: set[str]) -> None:
    try:
        found = {part for _, part, _, _ in string.Formatter().parse(template) if part is not None}
    except ValueError as error:
        raise ModelError(f"{name}: {template!r} is not a template: {error}") from error
    if found != wanted:
        fields = " and ".join(f"{{{part}}}" for part in sorted(wanted))
        raise ModelError(f"{name}: {template!r} must have {fields}, and no other field.")


DEFAULT_WORLD = World(
    name="default",
    object_templates=templates.OBJECT_TEMPLATES,
    style_templates=templates.STYLE_TEMPLATES,
    subjects=templates.SUBJECTS,
    styles=templates.STYLES,
    vocabulary=tuple(WorldItem(label, group) for group, labels in templates.NOUNS.items() for label in labels),
    general_prompts=templates.GENERAL_PROMPTS,
)
"""The world of a Stable Diffusion pipeline that says nothing about itself."""
