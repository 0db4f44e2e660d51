"""Try the points of a search, one after the other or on workers, confirm the best, and write the one that was found."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aizheimer import api
from aizheimer._records import flat
from aizheimer.api.models import address_of
from aizheimer.edits.edit import Edit
from aizheimer.engine.run_folder import RunFolder
from aizheimer.errors import AizheimerError, GateError, InputError
from aizheimer.evaluation.results import EvaluationResult
from aizheimer.evaluation.settings import EvaluationSettings
from aizheimer.recipes.load import Recipe
from aizheimer.reports.search import SearchPoint, save_search_picture
from aizheimer.tuning.demand import Demand, Quantity, check_measured, values_of
from aizheimer.tuning.looking import Looking
from aizheimer.tuning.record import Confirmation, Trial, TuneRecord, shortfall
from aizheimer.tuning.space import Range, as_it_is, suggested, with_values
from aizheimer.tuning.storage import Study, open_study, optuna
from aizheimer.tuning.workers import Point, measured_on_ray

JOURNAL, RECORD, PICTURE, MADE = "tune.journal", "tune.json", "tune.png", "made"
FRESH = 1000
"""What is added to the evaluation's seed for pictures that the search has not seen."""

CONFIRMED = 3
"""Trials that are measured again, at most, until one meets the demand on fresh pictures too."""

_TRIAL = "trial"


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What a search found.

    Attributes:
        edit: The weakest edit that meets the demand.
        result: Its evaluation, on pictures that the search has not seen.
        record: Everything that was tried.
        folder: The run folder that holds them.
    """

    edit: Edit
    result: EvaluationResult
    record: TuneRecord
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search with all that it needs; what happens is kept in the study and in the run folder.

    Args:
        looking: How edits are looked at.
        recipe: The method as it was given.
        demands: What must hold.
        wanted: What should be small.
        space: What is searched.
        full: How an edit is measured.
        few: The first look; None for none.
        run: The run folder.
        crew: Makes this search in a worker; None tries one point after the other here.
        workers: Points at a time on workers; None takes every core.
    """

    looking: Looking
    recipe: Recipe
    demands: list[Demand]
    wanted: Quantity
    space: dict[str, Range]
    full: EvaluationSettings
    few: EvaluationSettings | None
    run: RunFolder
    crew: Callable[[], Search] | None = None
    workers: int | None = None

    def through(self, trials: int, *, file: Path | None, on_trial: Callable[[Trial, int], None] | None) -> Tuned:
        """Open the search or take it up again, try what is left, and write what was found; see `tune`."""
        try:
            if not self.run.resuming:
                for name in (JOURNAL, RECORD):
                    self.run.file(name).unlink(missing_ok=True)
                shutil.rmtree(self.run.file(MADE), ignore_errors=True)
            self.run.write_yaml("recipe.yaml", self.recipe.resolved())
            study = open_study(
                file or self.run.file(JOURNAL),
                name=f"{self.looking.concept.target} by {self.recipe.method_name}",
                asked=self.asked(),
                resume=self.run.resuming,
                seed=self.full.seed,
                at_once=self.crew is not None,
            )
            self.try_until(study, trials, on_trial=on_trial)
        except InputError:
            self.run.undo()
            raise
        except BaseException:
            self.run.keep()  # an interrupted search can be resumed
            raise
        return self.conclude(study)

    def asked(self) -> dict[str, Any]:
        """Return what the search is for, as JSON: one that is taken up again must be for the same."""
        return {
            "require": [str(demand) for demand in self.demands],
            "minimise": self.wanted.label,
            "pictures": self.full.model_dump(mode="json"),
            "cheap": None if self.few is None else self.few.model_dump(mode="json"),
            "base": self.looking.backbone.fingerprint(),
            "parameters": self.recipe.resolved()["parameters"],
            "search": {key: own.model_dump() for key, own in self.space.items()},
            "keep": list(self.looking.concept.keep),
            "anchor": self.looking.concept.anchor,
        }

    def try_until(self, study: Study, trials: int, *, on_trial: Callable[[Trial, int], None] | None) -> None:
        """Try points until there are as many as wanted, the method as it was given first."""
        tell = on_trial or (lambda _trial, _total: None)
        if not study.trials:
            study.enqueue_trial(as_it_is(self.space, dict(flat(self.recipe.method.model_dump(mode="json")))))
        while len(recorded(study)) < (trials if self.crew is None else 1):
            point = self._ask(study)
            tell(self._told(study, point.asked, self.outcome(point.base)), trials)
        if self.crew is not None and len(recorded(study)) < trials:
            self._try_on_workers(study, trials, self.crew, tell)

    def _try_on_workers(
        self, study: Study, trials: int, crew: Callable[[], Search], tell: Callable[[Trial, int], None]
    ) -> None:
        """Try what is left on workers; the unedited pictures, which all compare with, are drawn before."""
        self.looking.at(None, self.full, stage="drawing the unedited model")
        asked: set[int] = set()

        def next_point() -> Point | None:
            if len(recorded(study)) + len(asked) >= trials:
                return None
            point = self._ask(study, taken=asked)
            asked.add(point.base["number"])
            return point

        for point, found in measured_on_ray(crew, next_point, workers=self.workers):
            told = failed(point.base, found) if isinstance(found, Exception) else found
            asked.discard(told.number)
            tell(self._told(study, point.asked, told), trials)

    def _ask(self, study: Study, *, taken: Collection[int] = ()) -> Point:
        """Return the next point; its number is the first that no trial has, and none that is being measured."""
        asked = study.ask()
        settings = suggested(asked, self.space)
        used = {*taken, *(trial.number for trial in recorded(study))}
        number = next(i for i in itertools.count() if i not in used)
        folder = self._made(settings)

        def needs() -> str:
            return "" if (folder / "edit.json").is_file() else folder.name

        return Point(asked=asked, base={"number": number, "settings": settings}, needs=needs)

    def outcome(self, base: dict[str, Any]) -> Trial:
        """Return what becomes of a point."""
        started = time.perf_counter()
        try:
            told = self._measured(base)
        except AizheimerError as error:
            if isinstance(error, InputError) and base["number"] == 0:
                raise  # the method as it was given cannot be used: nothing else will do better
            told = failed(base, error)
        return told.model_copy(update={"seconds": round(time.perf_counter() - started, 2)})

    def _told(self, study: Study, asked: Any, told: Trial) -> Trial:
        """Keep what became of a point in the study, and return it."""
        states = optuna().trial.TrialState
        asked.set_user_attr(_TRIAL, told.model_dump(mode="json"))
        if told.state == "failed":
            study.tell(asked, state=states.FAIL)
            return told
        for demand in self.demands:
            asked.set_constraint(str(demand), demand.shortfall(told.values))
        value = told.values.get(self.wanted.name, 0.0)
        if told.state == "pruned":
            asked.report(value, step=0)
            study.tell(asked, state=states.PRUNED)
        else:
            study.tell(asked, value)
        return told

    def _measured(self, base: dict[str, Any]) -> Trial:
        """Make the edit of a point and measure it, first on few pictures."""
        edit = self.edit(base["settings"])
        known = {"change": change_of(edit), "seconds": 0.0, **base}
        quantities = [*(demand.quantity for demand in self.demands), self.wanted]
        if self.few is not None:
            look = self.looking.at(edit, self.few, stage="first look")
            values = values_of(look, strength=base["settings"].get("strength", 1.0))
            check_measured(quantities, values, reasons=look.warnings)
            if any(demand.is_hopeless(look) for demand in self.demands):
                return Trial(**known, state="pruned", values=values)
        result = self.looking.at(edit, self.full, stage="drawing")
        values = values_of(result, strength=base["settings"].get("strength", 1.0))
        check_measured(quantities, values, reasons=result.warnings)
        met = all(demand.is_met(values) for demand in self.demands) and not result.no_op
        return Trial(**known, state="measured", values=values, met=met)

    def edit(self, settings: dict[str, float]) -> Edit:
        """Return the edit of a point; points that differ in strength alone share one."""
        folder = self._made(settings)
        if (folder / "edit.json").is_file():
            made = api.load_edit(folder)
        else:
            made = with_values(self.recipe.method, settings).unlearn(self.looking.backbone, self.looking.concept)
            made.save(folder)
        strength = settings.get("strength", 1.0)
        return made if strength == 1.0 else made.scale(strength)

    def _made(self, settings: dict[str, float]) -> Path:
        """Return where the edit of a point is kept while the search goes on."""
        method = with_values(self.recipe.method, settings)
        text = json.dumps(method.model_dump(mode="json"), sort_keys=True)
        return self.run.file(MADE) / hashlib.sha256(text.encode()).hexdigest()[:16]

    def conclude(self, study: Study) -> Tuned:
        """Confirm the best on fresh pictures, and write the first that still meets the demand as the run.

        Raises:
            GateError: None does.
        """
        record = TuneRecord(
            target=self.looking.concept.target, method=self.recipe.method_name, minimise=self.wanted.label,
            require=[str(demand) for demand in self.demands], space=self.space, trials=recorded(study),
        )  # fmt: skip
        fresh = self.full.model_copy(update={"seed": self.full.seed + FRESH})
        for trial in record.candidates()[:CONFIRMED]:
            edit = self.edit(trial.settings)
            result = self.looking.at(edit, fresh, stage="confirming")
            values = values_of(result, strength=edit.provenance.strength)
            met = all(demand.is_met(values) for demand in self.demands)
            confirmed = Confirmation(number=trial.number, values=values, met=met)
            record = record.model_copy(update={"confirmations": [*record.confirmations, confirmed]})
            if met:
                record = record.model_copy(update={"chosen": trial.number})
                self._write(record, edit, result, trial)
                return Tuned(edit=edit, result=result, record=record, folder=self.run.path)
        self._write_record(record)
        self.run.keep()
        raise GateError(shortfall(record))

    def _write(self, record: TuneRecord, edit: Edit, result: EvaluationResult, trial: Trial) -> None:
        method = with_values(self.recipe.method, trial.settings)
        self.run.write_yaml("recipe.yaml", {**self.recipe.resolved(), "parameters": method.model_dump(mode="json")})
        self.run.write_json("env.json", {"model": address_of(self.looking.backbone), **api.environment()})
        edit.save(self.run.path)
        result.save(self.run.file("evaluation.json"))
        self._write_record(record)
        shutil.rmtree(self.run.file(MADE), ignore_errors=True)
        self.run.keep()

    def _write_record(self, record: TuneRecord) -> None:
        record.save(self.run.file(RECORD))
        first = record.demands[0]
        points = [
            SearchPoint(
                forgotten=trial.values[first.quantity.name],
                cost=trial.values[record.wanted.name],
                state="chosen" if trial.number == record.chosen else trial.state,
                met=trial.met,
            )
            for trial in record.trials
            if trial.state != "failed"
        ]
        save_search_picture(
            points, self.run.file(PICTURE), demand=(first.quantity.label, first.sense, first.bound),
            cost=record.wanted.label, title=f"{record.target} by {record.method}",
        )  # fmt: skip


def recorded(study: Study) -> list[Trial]:
    """Return the trials that have ended, in order; one that was interrupted left nothing and is not counted."""
    found = [Trial.model_validate(trial.user_attrs[_TRIAL]) for trial in study.trials if _TRIAL in trial.user_attrs]
    return sorted(found, key=lambda trial: trial.number)


def failed(base: dict[str, Any], error: Exception) -> Trial:
    """Return the trial of a point that could not be measured."""
    return Trial(**base, state="failed", seconds=0.0, error=" ".join(str(error).split())[:400])


def change_of(edit: Edit) -> float:
    """Return the Frobenius norm of what an edit adds to the weights, its strength included."""
    squares = sum(float(delta.square().sum()) for delta in edit.deltas.values())
    return abs(edit.provenance.strength) * squares**0.5
