"""What a bench runs, written down: methods, concepts, seeds, and how each edit is measured."""

from __future__ import annotations

import hashlib
import itertools
import json
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from aizheimer.attacks.base import Controls
from aizheimer.attacks.load import LoadedAttack, load_attack
from aizheimer.errors import InputError
from aizheimer.evaluation.settings import EvaluationSettings, Precision
from aizheimer.evaluation.suite_file import load_suites
from aizheimer.recipes.files import checked, read_mapping
from aizheimer.recipes.load import Recipe, load_recipe

LONGEST = 60
"""Letters of a folder's name that stand for a method or a concept: file systems allow 255 in all."""

AtLeastOne = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]


class Entry(BaseModel):
    """One method under test; the same recipe may stand in a bench twice with other parameters.

    Example:
        >>> Entry.model_validate("esd").recipe
        'esd'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, description="What the rows call it.")
    recipe: str = Field(description="A recipe's or method's name, or a recipe file; by default the name.")
    parameters: dict[str, Any] = Field(default_factory=dict, description="Parameters on top, keys dotted.")

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        """Accept a name alone; the recipe is called as the entry where it is not said."""
        if isinstance(value, str):
            value = {"name": value}
        return {"recipe": value["name"], **value} if isinstance(value, Mapping) and "name" in value else value

    @property
    def overrides(self) -> list[str]:
        """The parameters as the command line writes them."""
        return _spelt(self.parameters)


class AttackEntry(BaseModel):
    """One attack, with parameters of its own if need be; the same may stand in a bench twice under two labels.

    Example:
        >>> AttackEntry.model_validate({"name": "quantise", "parameters": {"bits": [4]}}).loaded().attack.bits
        (4,)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str = Field(
        min_length=1, description="What the columns call it: by default the name, else one that begins with it."
    )
    name: str = Field(min_length=1, description="As `aizheimer ls attacks` lists it.")
    parameters: dict[str, Any] = Field(default_factory=dict, description="Parameters on top of its defaults.")

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        """Accept a name alone; the label is the name where it is not said."""
        if isinstance(value, str):
            value = {"name": value}
        if isinstance(value, Mapping) and isinstance(name := value.get("name"), str):
            return {"label": name.replace("_", "-"), **value}
        return value

    def loaded(self) -> LoadedAttack:
        """Return the attack.

        Raises:
            InputError: If it or a parameter is unknown, or the label is none of this attack's.
        """
        return LoadedAttack(label=self.label, attack=load_attack(self.name, _spelt(self.parameters)))


class BenchPlan(BaseModel):
    """A grid of jobs: every method forgets every concept with every seed, and each edit is measured the same way."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(default="emoji", description="The base model.")
    methods: tuple[Entry, ...] = Field(min_length=1, description="Names of methods or recipes, or tables of one each.")
    concepts: tuple[str, ...] = Field(min_length=1, description="Targets; a style of the model's world is one by name.")
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1, description="Of the training, one edit each.")
    samples: int | None = Field(default=None, ge=3, description="Pictures of each evaluation; its own default.")
    full: bool = Field(default=False, description="As many pictures as figures to publish need.")
    evaluation_seed: Seed = Field(default=0, description="First seed of the pictures, the same for all edits.")
    suites: tuple[str, ...] = Field(default=(), description="Suites to run on each edit: names, or YAML files.")
    attacks: tuple[AttackEntry, ...] = Field(
        default=(), description="Attacks to run on each edit: names, or tables of a name, parameters and a label."
    )
    steps: AtLeastOne = Field(default=20, description="DDIM steps of each evaluation's pictures.")
    precision: Precision = Field(default="model", description="What is computed in while pictures are drawn.")
    attack_images: AtLeastOne = Field(default=20, description="Pictures that decide on an attack.")
    attack_steps: AtLeastOne = Field(default=20, description="DDIM steps of those.")
    controls: Controls = Field(
        default=True,
        description="Also attack the unedited model, there from a neighbour's words too, and with random words; "
        "`unedited` leaves the last out.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> BenchPlan:
        if self.full and self.samples is not None:
            raise ValueError("got full and samples; choose one")
        named = {"methods": [entry.name for entry in self.methods], "attacks": [entry.label for entry in self.attacks]}
        for what, names in {**named, "concepts": self.concepts}.items():
            slugs = [slug(name) for name in names]
            if twice := [name for name, own in zip(names, slugs, strict=True) if slugs.count(own) > 1]:
                raise ValueError(f"{what}: {' and '.join(map(repr, twice))} would share a folder; name each once")
        return self

    def cells(self) -> list[Cell]:
        """Return the jobs in the order they are run: concept by concept, so that their pictures are found again."""
        grid = itertools.product(self.concepts, self.seeds, self.methods)
        return [Cell(method=entry, concept=concept, seed=seed) for concept, seed, entry in grid]

    def recipe(self, cell: Cell) -> Recipe:
        """Return the method of a cell with all its hyper-parameters.

        Raises:
            RecipeError: If the recipe or a parameter is unknown.
        """
        return load_recipe(cell.method.recipe, cell.method.overrides, seed=cell.seed)

    def settings(self) -> EvaluationSettings:
        """Return how every edit is evaluated."""
        drawn = {"seed": self.evaluation_seed, "steps": self.steps, "precision": self.precision}
        return EvaluationSettings.of_size(self.samples, full=self.full, **drawn)

    def check(self) -> None:
        """Refuse unknown methods, parameters, suites and attacks before anything costs time.

        Raises:
            InputError: With every mistake there is, in one line.
        """
        wrong = []
        asked: list[Callable[[], object]] = [
            *(partial(load_recipe, entry.recipe, entry.overrides, seed=self.seeds[0]) for entry in self.methods),
            partial(load_suites, self.suites),
            *(entry.loaded for entry in self.attacks),
        ]
        for ask in asked:
            try:
                ask()
            except InputError as error:
                wrong.append(str(error).rstrip("."))
        if wrong:
            raise InputError(f"bench: {'; '.join(wrong)}")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One job: a method forgets a concept with a seed."""

    method: Entry
    concept: str
    seed: int

    @property
    def key(self) -> str:
        """The name of its run folder.

        Example:
            >>> Cell(method=Entry.model_validate("esd"), concept="Santa Claus", seed=1).key
            'esd--santa-claus--seed1'
        """
        return f"{slug(self.method.name)}--{slug(self.concept)}--seed{self.seed}"


def _spelt(parameters: Mapping[str, Any]) -> list[str]:
    """Return parameters as the command line writes them."""
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in parameters.items()]


def _spelt_out(letter: str) -> str:
    """Return a letter or digit, a symbol's code point, and a space for anything else."""
    if letter.isalnum():
        return letter
    return f" u{ord(letter):x} " if unicodedata.category(letter)[0] == "S" or letter in "#%&*@" else " "


def slug(text: str) -> str:
    """Return the words of a text joined by dashes: a folder's name; a long one ends in its hash.

    Symbols are told by their code points, since names may differ by nothing else; other punctuation is left out.

    Example:
        >>> slug("Santa Claus!"), slug("🎅"), slug("C++"), slug("C#")
        ('santa-claus', 'u1f385', 'c-u2b-u2b', 'c-u23')
    """
    words = "".join(_spelt_out(letter) for letter in text.casefold()).split()
    name = "-".join(words) or "-".join(f"u{ord(letter):x}" for letter in text)
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def load_plan(path: Path | None, changes: Mapping[str, Any]) -> BenchPlan:
    """Read a bench file and put what was said on the command line on top.

    Args:
        path: A YAML file with the fields of `BenchPlan`; None if all is said on the command line.
        changes: Fields that replace the file's.

    Returns:
        The plan, every name in it known.

    Raises:
        InputError: With every mistake there is, in one line.
    """
    label, content = "bench", {}
    if path is not None:
        label = f"bench file {path}"
        empty = "no bench; wanted keys such as methods and concepts"
        content = read_mapping(path, label=label, empty=empty, error=InputError)
    plan = checked(BenchPlan, {**content, **changes}, label=label, error=InputError)
    plan.check()
    return plan


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> Sequence[str]:
    """Return which fields of two plans would make rows of one table mean different things.

    Methods, concepts, seeds, suites and attacks may be added or left out: rows and their columns are named after them.
    That one of the same name means the same is for those to compare who know what it meant.
    """
    free = {"methods", "concepts", "seeds", "suites", "attacks"}
    return [name for name, value in after.items() if name not in free and before.get(name) != value]
