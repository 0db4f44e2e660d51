"""Read a suite from its YAML file, shipped or one's own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aizheimer._registry import SUITES
from aizheimer.errors import InputError, RecipeError, did_you_mean
from aizheimer.evaluation.generate import StageProgress
from aizheimer.evaluation.reuse import contents_of
from aizheimer.evaluation.settings import EvaluationSettings
from aizheimer.evaluation.suite import Scene, Suite, SuiteResult, WouldDraw, asked_of
from aizheimer.recipes.files import checked, read_mapping
from aizheimer.recipes.schema import problems

SHIPPED = Path(__file__).parent / "suites"


class SuiteFile(BaseModel):
    """The contents of a suite's file.

    Example:
        >>> SuiteFile(suite="families", parameters={"images": 5}).settings
        {}
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: str = Field(description="Which kind of suite: a name of the registry.")
    description: str = Field(default="", description="One line on what it asks.")
    parameters: dict[str, Any] = Field(default_factory=dict, description="The suite's parameters.")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="How its protocol draws, where that is not the default: steps, guidance."
    )


@dataclass(frozen=True, kw_only=True)
class LoadedSuite:
    """A suite, ready to run.

    Args:
        label: The file's name; names the result's file.
        description: One line on what it asks.
        suite: Its parameters are complete and valid.
        settings: What its protocol wants of `EvaluationSettings`.
    """

    label: str
    description: str
    suite: Suite
    settings: dict[str, Any]

    def run(self, scene: Scene, *, progress: StageProgress | None = None) -> SuiteResult:
        """Run the suite with its protocol's settings on top of the scene's."""
        return self.suite.run(self._scene(scene), progress=progress)

    def asked(self, scene: Scene) -> dict[str, Any]:
        """Return what decides the figures that `run` would give, by field of its result."""
        return asked_of(self.suite, self._scene(scene))

    def described(self) -> dict[str, Any]:
        """Return what the suite asks, whoever is asked: its kind, parameters, settings and the files that it reads."""
        own = {"suite": self.suite.name, "parameters": self.suite.model_dump(mode="json"), "settings": self.settings}
        return {**own, **contents_of(self.suite.model_dump())}

    def _scene(self, scene: Scene) -> Scene:
        return replace(
            scene, settings=EvaluationSettings.model_validate({**scene.settings.model_dump(), **self.settings})
        )

    def with_parameters(self, **parameters: Any) -> LoadedSuite:
        """Return the suite with some parameters replaced.

        Raises:
            InputError: If it does not have one of them; the message names the suites that do.
        """
        known = self.suite.model_dump()
        for name in parameters:
            if name not in known:
                having = [kind for kind in SUITES if name in getattr(SUITES.get(kind), "model_fields", ())]
                raise InputError(
                    f"suite '{self.label}' does not know {name}, which would be ignored; ask it without, "
                    f"or ask {' or '.join(having) or 'another'}, which does"
                )
        return replace(self, suite=type(self.suite).model_validate({**known, **parameters}))

    def rehearse(self, scene: Scene) -> None:
        """Go as far as the first picture, so that what the suite refuses is told before anything is drawn.

        Raises:
            InputError: As `run` would.
        """
        with contextlib.suppress(WouldDraw):
            self.run(replace(scene, draws=False))


def list_suites() -> dict[str, str]:
    """Return the shipped suites, name to description, and those that other packages add."""
    found = {path.stem: _read(path).description for path in sorted(SHIPPED.glob("*.yaml"))}
    return {**found, **{name: "" for name in SUITES if name not in found}}


def ships(name: str) -> bool:
    """Return whether a suite has this name without a file of anybody's own."""
    return name in SUITES or (SHIPPED / f"{name}.yaml").is_file()


def load_suite(name: str | Path) -> LoadedSuite:
    """Return the suite of a name or a file.

    Args:
        name: A shipped suite, a YAML file, or a registered kind of suite for its defaults.

    Returns:
        The suite; a parameter that is missing in the file has its default.

    Raises:
        RecipeError: With every mistake there is, in one line.

    Example:
        >>> load_suite("canvas-unlearncanvas").suite.seeds
        (188, 288, 588, 688, 888)
    """
    path, label = _find(name)
    file = SuiteFile(suite=label) if path is None else _read(path)
    kind: Any = SUITES.get(file.suite)
    wrong: list[str] = []
    suite: Any = None
    for model, values, prefix in ((kind, file.parameters, ""), (EvaluationSettings, file.settings, "settings: ")):
        try:
            made = model.model_validate(values)
            suite = made if model is kind else suite
        except ValidationError as error:
            wrong += [f"{prefix}{problem}" for problem in problems(error, model)]
    if wrong:
        count = f"{len(wrong)} problems: " if len(wrong) > 1 else ""
        raise RecipeError(f"suite '{label}': {count}{'; '.join(wrong)}")
    return LoadedSuite(label=label, description=file.description, suite=suite, settings=file.settings)


def _find(name: str | Path) -> tuple[Path | None, str]:
    """Return the suite's file (None for a bare kind) and what to call it."""
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        if not path.is_file():
            known = ", ".join(list_suites())
            raise RecipeError(f"the suite file {path} does not exist; give a YAML file or one of {known}")
        return path, path.stem
    word = str(name).replace("_", "-")
    if (shipped := SHIPPED / f"{word}.yaml").is_file():
        return shipped, word
    if word in SUITES:
        return None, SUITES.canonical(word)
    known = list(list_suites())
    raise RecipeError(f"unknown suite '{name}'.{did_you_mean(word, known)} There are: {', '.join(known)}")


def _read(path: Path) -> SuiteFile:
    empty = "no suite; wanted the keys suite, description and parameters"
    content = read_mapping(path, label=str(path), empty=empty, error=RecipeError)
    return checked(SuiteFile, content, label=str(path), error=RecipeError)


Report = Callable[[str, str, int, int], None]
"""Called with (suite, stage, done, total)."""


def require_judged(suites: Sequence[LoadedSuite]) -> None:
    """Refuse suites that would ignore a judge given for them.

    Raises:
        InputError: Naming them.
    """
    if deaf := [loaded.label for loaded in suites if not getattr(loaded.suite, "asks_judge", True)]:
        raise InputError(f"got a judge, and the suite {' and '.join(deaf)} asks none; ask it without --judge")


def load_suites(names: Sequence[str | Path]) -> list[LoadedSuite]:
    """Return suites, no two of one label: one result would replace the other.

    Args:
        names: Of suites, or their YAML files.

    Raises:
        RecipeError: With every mistake of every suite, in one line.
    """
    found, wrong = [], []
    for name in names:
        try:
            found.append(load_suite(name))
        except RecipeError as error:
            wrong.append(str(error).rstrip("."))
    labels = [loaded.label for loaded in found]
    twice = dict.fromkeys(label for label in labels if labels.count(label) > 1)
    wrong += [f"suite '{label}' is given more than once; name each once" for label in twice]
    if wrong:
        raise RecipeError("; ".join(wrong))
    return found


def run_suites(
    suites: list[LoadedSuite],
    scene: Scene,
    *,
    progress: Report | None = None,
    keep: Callable[[str, SuiteResult], None] | None = None,
) -> dict[str, SuiteResult]:
    """Run suites one after the other on one scene; pictures that two of them want are drawn once.

    Args:
        suites: What is asked.
        scene: The edit, the judges and the cache.
        progress: Told how far each stage of each suite is.
        keep: Given each label and result as soon as it is there: a later suite may still fail.

    Returns:
        Results by the suites' labels.

    Raises:
        RecipeError: If two suites have the same label: one result would replace the other.
        InputError: If the model or the target cannot be asked some of them: with every reason that is known before a
            picture is drawn, and before one is.
    """
    labels = [loaded.label for loaded in suites]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise RecipeError(f"suite '{twice[0]}' is given more than once; name each once")
    if len(suites) > 1:
        _rehearse(suites, scene)
    results = {}
    for loaded in suites:
        told = None if progress is None else _told(progress, loaded.label)
        results[loaded.label] = loaded.run(scene, progress=told)
        if keep is not None:
            keep(loaded.label, results[loaded.label])
    return results


def _rehearse(suites: Sequence[LoadedSuite], scene: Scene) -> None:
    wrong = []
    for loaded in suites:
        try:
            loaded.rehearse(scene)
        except InputError as error:
            wrong.append(str(error).rstrip("."))
    if wrong:
        raise InputError("; ".join(dict.fromkeys(wrong)))


def _told(progress: Report, label: str) -> StageProgress:
    return lambda stage, done, total: progress(label, stage, done, total)
