"""What a visitor may ask for, checked: the only way from the page to the works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from aizheimer.errors import InputError

LONGEST_WORDS, LONGEST_PROMPT, MOST_KEPT = 80, 300, 24
STRONGEST = 2.0
BOXES = {"partial": "Leave out what a LoRA cannot hold", "ungated": "Let a gated edit (SPM) act on all prompts alike"}
"""What the page calls options of an export, of which the command line's messages speak as ``--partial``."""

Words = Annotated[str, Field(min_length=1, max_length=LONGEST_WORDS)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Strength = Annotated[float, Field(ge=-STRONGEST, le=STRONGEST)]
# A field of Gradio's that is shown for the first time sends 0 for nothing.
Steps = Annotated[Annotated[int, Field(ge=1, le=5000)] | None, BeforeValidator(lambda value: value or None)]

Form = TypeVar("Form", bound=BaseModel)

_RULES = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, allow_inf_nan=False)


class ForgetForm(BaseModel):
    """A concept to forget.

    Args:
        model: A name on the shelf.
        concept: What must go.
        keep: What must stay; it takes the place of the method's own choice of neighbours. Empty leaves that to it.
        method: A method's or recipe's name.
        strength: What the edit is multiplied by.
        anchor: What takes the concept's place.
        steps: Of the optimiser; None or 0 for the recipe's.
        seed: Of everything random.
    """

    model_config = _RULES

    model: Words
    concept: Words
    keep: tuple[Words, ...] = Field(default=(), max_length=MOST_KEPT)
    method: Words = "aizheimer"
    strength: Strength = 1.0
    anchor: str = Field(default="", max_length=LONGEST_WORDS)
    steps: Steps = None
    seed: Seed = 0


class TryForm(BaseModel):
    """A prompt to draw with both models.

    Args:
        run: The edit.
        prompt: What to draw.
        seed: Of the noise, the same for both.
        strength: What the edit is multiplied by.
        words: Words of the prompt whose attention is shown; empty for none.
    """

    model_config = _RULES

    run: Words
    prompt: str = Field(min_length=1, max_length=LONGEST_PROMPT)
    seed: Seed = 0
    strength: Strength = 1.0
    words: tuple[Words, ...] = Field(default=(), max_length=6)


class EvaluateForm(BaseModel):
    """An edit to measure with about so many pictures."""

    model_config = _RULES

    run: Words
    samples: int = Field(default=40, ge=3, le=400)


class AttackForm(BaseModel):
    """An edit to attack; so many pictures decide."""

    model_config = _RULES

    run: Words
    attack: Words
    images: int = Field(default=10, ge=1, le=100)
    controls: bool = True


class StackForm(BaseModel):
    """Edits to add, each with its strength; an edit of strength 0 is left out."""

    model_config = _RULES

    parts: tuple[tuple[Words, Strength], ...] = Field(max_length=8)


class ExportForm(BaseModel):
    """An edit to write as a file of another program."""

    model_config = _RULES

    run: Words
    format: Words = "lora-kohya"
    rank: int = Field(default=32, ge=1, le=1024)
    strength: Strength = 1.0
    partial: bool = False
    ungated: bool = False


def in_page_words(text: str) -> str:
    """Return a message with the names of boxes on the page in the place of the command line's options.

    Example:
        >>> in_page_words("or leave them out with --partial")
        'or leave them out with the box “Leave out what a LoRA cannot hold”'
    """
    for option, label in BOXES.items():
        text = text.replace(f"--{option}", f"the box “{label}”")
    return text


def filled(form: type[Form], values: Mapping[str, Any]) -> Form:
    """Return a form with these values.

    Raises:
        InputError: With every mistake there is, in one line.

    Example:
        >>> filled(EvaluateForm, {"run": "cat", "samples": 10}).samples
        10
    """
    try:
        return form.model_validate(dict(values))
    except ValidationError as error:
        raise InputError("; ".join(_mistake(dict(one)) for one in error.errors()) + ".") from None


def _mistake(error: Mapping[str, Any]) -> str:
    field = str(error["loc"][0]) if error["loc"] else "form"
    if error["type"] in ("string_too_short", "missing", "string_type", "none_required"):
        return f"{field}: nothing is there yet"
    text = str(error["msg"])
    return f"{field}: {text[:1].lower()}{text[1:]}"
