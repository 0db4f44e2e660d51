"""What a search tried and found, as JSON that explains itself."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from aizheimer._records import load_record, save_record
from aizheimer.tuning.demand import Demand, Quantity
from aizheimer.tuning.space import Range


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Trial(_Frozen):
    """One point of the search.

    Attributes:
        number: Counted from 0.
        settings: What was chosen, by key: the strength, and fields of the method.
        state: "measured", "pruned" after a look at few pictures, or "failed".
        values: Every quantity of its evaluation, by name; of the few pictures if it was pruned.
        met: Whether all demands are met, by the pictures of the search.
        change: Frobenius norm of what the edit adds to the weights, at this strength; 0 for an edit that acts while
            pictures are drawn.
        seconds: What it took.
        error: Why it failed.
    """

    number: int
    settings: dict[str, float]
    state: Literal["measured", "pruned", "failed"]
    values: dict[str, float] = Field(default_factory=dict)
    met: bool = False
    change: float = 0.0
    seconds: float
    error: str = ""


class Confirmation(_Frozen):
    """A trial measured again, from noise that the search never saw."""

    number: int
    values: dict[str, float]
    met: bool


class TuneRecord(_Frozen):
    """A search: what was asked, what was tried, what was chosen.

    Attributes:
        schema_version: Of this file.
        target: The concept.
        method: The method's name.
        require: The demands, as typed.
        minimise: What was to be small.
        space: What was searched.
        trials: Everything that was tried.
        confirmations: The best of them measured again, in order; the last one is the chosen one if it met the demand.
        chosen: Number of the trial whose edit is in the run folder; None if none met the demand.
    """

    schema_version: Literal[1] = 1
    target: str
    method: str
    require: list[str]
    minimise: str
    space: dict[str, Range]
    trials: list[Trial]
    confirmations: list[Confirmation] = Field(default_factory=list)
    chosen: int | None = None

    @property
    def demands(self) -> list[Demand]:
        """The demands, read again."""
        return [Demand.parse(text) for text in self.require]

    @property
    def wanted(self) -> Quantity:
        """What was to be small."""
        return Quantity.parse(self.minimise, option="--minimise")

    def candidates(self) -> list[Trial]:
        """Return the trials that meet the demand, the weakest edit first.

        The weakest is the one with the least of what is minimised; among equals, the one that changes the weights
        least, then the one of the least strength.
        """
        name = self.wanted.name

        def cost(trial: Trial) -> tuple[float, float, float]:
            return round(trial.values[name], 9), trial.change, trial.settings.get("strength", 1.0)

        return sorted((trial for trial in self.trials if trial.state == "measured" and trial.met), key=cost)

    def nearest(self) -> Trial | None:
        """Return the trial that misses the demand by the least; None if none was measured or pruned."""
        seen = [trial for trial in self.trials if trial.state != "failed"]
        demands = self.demands

        def missed(trial: Trial) -> float:
            return sum(max(0.0, demand.shortfall(trial.values)) for demand in demands)

        return min(seen, key=missed, default=None)

    def save(self, path: str | Path) -> None:
        """Write JSON, all of it or nothing."""
        save_record(self, path)

    @classmethod
    def load(cls, path: str | Path) -> TuneRecord:
        """Read what ``save`` wrote.

        Raises:
            DataError: If the file is missing or is no search.
        """
        return load_record(
            cls, path, missing="run `aizheimer tune` first", damaged="not a search ({reason}); run it again"
        )


class Cut(_Frozen):
    """A part of an edit, measured.

    Attributes:
        rank: Most dimensions of each layer's change; None if every matrix is as it was.
        dropped: Layers that are left out.
        numbers: How many numbers it needs; see `aizheimer.edits.shrunk.size_in_numbers`.
        values: Every quantity of its evaluation, by name.
        met: Whether all demands are met.
        seconds: What measuring it took.
    """

    rank: int | None
    dropped: tuple[str, ...] = ()
    numbers: int
    values: dict[str, float]
    met: bool
    seconds: float


class ShrinkRecord(_Frozen):
    """A search for the smallest part of an edit.

    Attributes:
        schema_version: Of this file.
        target: The concept.
        method: The method that made the edit.
        source: The edit's digest.
        require: The demands, as typed.
        numbers: How many numbers the edit needs, whole.
        layers: How many layers it changes.
        before: Every quantity of the whole edit, on fresh pictures.
        trials: Every part that was tried, in order; the first is the whole edit.
        confirmations: The smallest of them measured again on fresh pictures; the last one is the chosen one.
    """

    schema_version: Literal[1] = 1
    target: str
    method: str
    source: str
    require: list[str]
    numbers: int
    layers: int
    before: dict[str, float]
    trials: list[Cut]
    confirmations: list[Cut]

    @property
    def chosen(self) -> Cut:
        """The part that is in the run folder."""
        return self.confirmations[-1]

    def save(self, path: str | Path) -> None:
        """Write JSON, all of it or nothing."""
        save_record(self, path)

    @classmethod
    def load(cls, path: str | Path) -> ShrinkRecord:
        """Read what ``save`` wrote.

        Raises:
            DataError: If the file is missing or is no such search.
        """
        return load_record(
            cls, path, missing="run `aizheimer shrink` first", damaged="not a search ({reason}); run it again"
        )


def shortfall(record: TuneRecord) -> str:
    """Say how near a search came that found nothing."""
    asked = " and ".join(record.require)
    if record.confirmations:
        last = record.confirmations[-1]
        found = ", ".join(f"{d.quantity.label} {last.values[d.quantity.name]:.3f}" for d in record.demands)
        return (
            f"{len(record.confirmations)} edits met {asked} in the search and none on fresh pictures (the last: "
            f"{found}); give more --trials with --resume, or ask for more than you need and look at more --samples."
        )
    best = record.nearest()
    if best is None:
        return f"every one of {len(record.trials)} trials failed; the first: {record.trials[0].error}"
    found = ", ".join(f"{d.quantity.label} {best.values[d.quantity.name]:.3f}" for d in record.demands)
    settings = ", ".join(f"{key}={value:.4g}" for key, value in best.settings.items())
    return (
        f"no edit of {len(record.trials)} trials met {asked}; the nearest had {found} at {settings}. "
        "Give more --trials with --resume, another --method, or a wider --search."
    )
