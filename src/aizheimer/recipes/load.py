"""Read a recipe, put the overrides on top and build the method."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from aizheimer._registry import METHODS
from aizheimer.errors import RecipeError, did_you_mean
from aizheimer.recipes.files import checked, parse_yaml, read_mapping
from aizheimer.recipes.schema import RecipeFile, problems

SHIPPED = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A method with all its hyper-parameters.

    Args:
        name: The recipe's name, or its file's.
        description: One line on what it is for.
        method_name: The method's name.
        method: The method, ready to unlearn; its hyper-parameters are resolved.
    """

    name: str
    description: str
    method_name: str
    method: Any

    def resolved(self) -> dict[str, Any]:
        """Return the recipe with every hyper-parameter, as it is written to ``recipe.yaml``.

        Example:
            >>> load_recipe("aizheimer").resolved()["method"]
            'aizheimer'
        """
        parameters = self.method.model_dump(mode="json")
        return {"method": self.method_name, "description": self.description, "parameters": parameters}


def list_recipes() -> dict[str, str]:
    """Return the shipped recipes: name to description."""
    return {name: _read(SHIPPED / f"{name}.yaml").description for name in _shipped_list()}


def recipe_notes(name: str) -> str:
    """Return why a shipped recipe's values are what they are: the comment that its file begins with, on one line.

    Example:
        >>> recipe_notes("uce")
        ''
    """
    if name not in _shipped_list():
        return ""
    lines = (SHIPPED / f"{name}.yaml").read_text("utf-8").splitlines()
    return " ".join(line.removeprefix("#").strip() for line in itertools.takewhile(lambda x: x.startswith("#"), lines))


def load_recipe(name: str | Path, overrides: Sequence[str] = (), *, seed: int | None = None) -> Recipe:
    """Return the recipe of a name or a file, with overrides.

    Args:
        name: A shipped recipe, a YAML file, or the name of a method for its defaults. Names are written with dashes,
            and understood with underscores.
        overrides: ``"key=value"``, keys dotted, values in YAML: ``"training.steps=100"``, ``"layers=skip_ends"``.
        seed: Of everything random, wherever the method keeps it: ``training.seed`` or ``seed``.

    Returns:
        The recipe; its method's parameters are complete and valid.

    Raises:
        RecipeError: With every mistake there is, in one line.

    Example:
        >>> load_recipe("aizheimer-paper", ["training.steps=20"]).method.training.steps
        20
    """
    path, label = _find(name)
    file = RecipeFile(method=label) if path is None else _read(path)
    method_name = METHODS.canonical(file.method)
    method_class: type[BaseModel] = METHODS.get(method_name)
    if seed is not None:
        key = "seed" if "seed" in method_class.model_fields else "training.seed"
        overrides = [*overrides, f"{key}={seed}"]
    method = validated(method_class, overrides, parameters=file.parameters, of=f"recipe '{label}'")
    return Recipe(name=label, description=file.description, method_name=method_name, method=method)


def validated(
    kind: type[BaseModel], overrides: Sequence[str], *, parameters: Mapping[str, Any] | None = None, of: str
) -> Any:
    """Return what has these parameters: a method, an attack.

    Args:
        kind: Its class.
        overrides: See `load_recipe`.
        parameters: What they are put on.
        of: What to call it in an error.

    Raises:
        RecipeError: With every mistake there is, in one line.
    """
    merged = copy.deepcopy(dict(parameters or {}))
    wrong = [mistake for override in overrides if (mistake := _override(merged, override))]
    made: Any = None
    try:
        made = kind.model_validate(merged)
    except ValidationError as error:
        wrong += problems(error, kind)
    if wrong:
        count = f"{len(wrong)} problems: " if len(wrong) > 1 else ""
        raise RecipeError(f"{of}: {count}{'; '.join(wrong)}")
    return made


def _find(name: str | Path) -> tuple[Path | None, str]:
    """Return the recipe's file (None for a bare method) and what to call it."""
    path = Path(name)
    there = _is_file(path)
    if path.suffix in {".yaml", ".yml"} or there:
        if not there:
            raise RecipeError(f"the recipe file {path} does not exist; give a YAML file or one of {_shipped_names()}")
        return path, path.stem
    word = METHODS.canonical(str(name)) if str(name) in METHODS else str(name).replace("_", "-")
    if word in _shipped_list():
        return SHIPPED / f"{word}.yaml", word
    if word in METHODS:
        return None, word
    known = sorted({*_shipped_list(), *METHODS.names()})
    raise RecipeError(f"unknown recipe or method '{name}'.{did_you_mean(word, known)} There are: {', '.join(known)}")


def _is_file(path: Path) -> bool:
    """Whether a name is a file's; one that is too long for any file is not."""
    try:
        return path.is_file()
    except OSError:
        return False


def _read(path: Path) -> RecipeFile:
    empty = "no recipe; wanted the keys method, description and parameters"
    content = read_mapping(path, label=str(path), empty=empty, error=RecipeError)
    return checked(RecipeFile, content, label=str(path), error=RecipeError)


def _override(parameters: dict[str, Any], override: str) -> str:
    """Put one ``key=value`` into the parameters; returns what is wrong with it, or nothing."""
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        return f"override '{override}' is not key=value"
    try:
        value = parse_yaml(text) if text.strip() else ""
    except ValueError:
        return f"override '{override}' has a value that is not YAML; quote it"
    place = parameters
    for part in parts[:-1]:
        inner = place.setdefault(part, {})
        if not isinstance(inner, dict):
            return f"override '{override}': '{part}' is a value, not a group"
        place = inner
    place[parts[-1]] = value
    return ""


def _shipped_list() -> list[str]:
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def _shipped_names() -> str:
    return ", ".join(_shipped_list())
