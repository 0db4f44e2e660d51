"""``aizheimer.shrink``: search for the smallest part of an edit that still meets a demand."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aizheimer import api
from aizheimer.api.models import address_of
from aizheimer.edits.edit import Edit
from aizheimer.edits.shrunk import layers_of, shrunk, size_in_numbers
from aizheimer.engine.run_folder import RunFolder
from aizheimer.errors import EditError, GateError, InputError
from aizheimer.evaluation.generate import StageProgress
from aizheimer.evaluation.judges import Judges
from aizheimer.evaluation.results import EvaluationResult
from aizheimer.evaluation.settings import EvaluationSettings
from aizheimer.tuning.demand import Demand, check_measured, values_of
from aizheimer.tuning.effects import layer_effects
from aizheimer.tuning.looking import Looking
from aizheimer.tuning.record import Cut, ShrinkRecord
from aizheimer.tuning.trials import CONFIRMED, FRESH

SHRINK_RECORD = "shrink.json"


@dataclass(frozen=True, kw_only=True)
class Shrunk:
    """What a search found.

    Attributes:
        edit: The smallest part of the edit that meets the demand.
        result: Its evaluation, on pictures that the search has not seen.
        record: Everything that was tried.
        folder: The run folder that holds them.
    """

    edit: Edit
    result: EvaluationResult
    record: ShrinkRecord
    folder: Path


def shrink(
    edit: Edit | str | Path,
    *,
    require: str | Sequence[str],
    out: str | Path,
    model: api.Model | None = None,
    samples: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    judges: Judges | None = None,
    clip: str | Path | None = None,
    on_trial: Callable[[Cut], None] | None = None,
    progress: StageProgress | None = None,
) -> Shrunk:
    """Search for the smallest part of an edit that still meets a demand, and write it as a run folder.

    First the rank: by bisection over 1, 2, 4, ..., the least at which every layer's best change of that many dimensions
    will do. Then the layers: those that do the least to the concept's prompts for the numbers they take
    (`aizheimer.tuning.effects.layer_effects`) are left out, by bisection as many as can be. The smallest that met the
    demand is measured again on fresh pictures, the next one if it fails there.

    An interrupted search is begun again with the same call: pictures that were drawn are found in the cache.

    Args:
        edit: Changes of weights, or their run folder.
        require: What must hold: ``"UA>=0.95"``, or several.
        out: The run folder.
        model: The edit's base; by default the one that the run names.
        samples: About how many pictures decide, 3 or more.
        seed: The first of the pictures', and of the rollouts that layers are measured on.
        overwrite: Replace the run in ``out``.
        judges: Who looks; by default the model's own.
        clip: Folder of a CLIP to judge with, for a model that brings no judges.
        on_trial: Called with each part when it has been measured.
        progress: Called with (stage, done, total).

    Returns:
        The edit, its evaluation on fresh pictures, and the record. The edit's provenance says what was cut, with the
        figures before and after.

    Raises:
        EditError: The edit acts while pictures are drawn, or is of another base.
        InputError: Something else given cannot be used, or nobody can measure what is asked for.
        GateError: The edit itself does not meet the demand, or no part of it does on fresh pictures.

    Example:
        >>> shrink("runs/santa", require="UA>=0.95", out="runs/santa-small").record.chosen  # doctest: +SKIP
    """
    demands = _demands(require, samples=samples)
    found = _shrinkable(edit)
    backbone = api.load_base_of([edit], model)
    concept = found.provenance.concept.to_concept()
    return _Shrinking(
        looking=Looking.of(backbone, concept, judges=judges, clip=clip, progress=progress),
        edit=found,
        demands=demands,
        full=EvaluationSettings(seed=seed) if samples is None else EvaluationSettings.sized(samples, seed=seed),
        run=RunFolder(Path(out)).create(overwrite=overwrite),
        on_trial=on_trial,
    ).through()


def _demands(require: str | Sequence[str], *, samples: int | None) -> list[Demand]:
    demands = [Demand.parse(text) for text in ([require] if isinstance(require, str) else require)]
    if not demands:
        raise InputError("Got nothing to require; say what must hold, such as 'UA>=0.95'.")
    if samples is not None and samples < 3:
        raise InputError(f"samples: got {samples}; wanted 3 or more.")
    return demands


def _shrinkable(edit: Edit | str | Path) -> Edit:
    found = edit if isinstance(edit, Edit) else api.load_edit(edit)
    hook = found.hook
    if hook is not None or found.is_noop:
        what = "changes nothing" if hook is None else f"acts while pictures are drawn (hook {hook.name!r})"
        raise EditError(f"this edit of the method {found.provenance.method} {what}; give one that changes weights")
    return found


@dataclass(frozen=True, kw_only=True)
class _Shrinking:
    """A search with all that it needs, and the parts it has tried."""

    looking: Looking
    edit: Edit
    demands: list[Demand]
    full: EvaluationSettings
    run: RunFolder
    on_trial: Callable[[Cut], None] | None
    tried: list[Cut] = field(default_factory=list)

    def through(self) -> Shrunk:
        """Search, confirm and write; what ends otherwise leaves the folder as it was found."""
        try:
            self.search()
            return self.conclude()
        except BaseException:
            self.run.undo()
            raise

    def search(self) -> None:
        """Try parts: the least rank that will do, and of that the most layers left out."""
        whole = self.measured(None, ())
        if not whole.met:
            raise GateError(
                f"the edit itself misses the demand: {self.told(whole.values)}; make one that meets it first."
            )
        numbers = {rank: self.numbers(rank, ()) for rank in self.ranks()}
        rank = self.smallest([(rank, ()) for rank in sorted(numbers, key=lambda rank: numbers[rank])])[0]
        order = self.least_first(rank)
        self.smallest([(rank, tuple(order[:count])) for count in range(len(order) - 1, -1, -1)])

    def ranks(self) -> list[int | None]:
        """Return the ranks that make the edit smaller, and None, which leaves it as it is."""
        whole, found, rank = self.numbers(None, ()), [], 1
        while self.numbers(rank, ()) < whole:
            found.append(rank)
            rank *= 2
        return [*found, None]

    def smallest(self, parts: Sequence[tuple[int | None, tuple[str, ...]]]) -> tuple[int | None, tuple[str, ...]]:
        """Return the first part that meets the demand, the last being known to and more of an edit doing more."""
        low, high = 0, len(parts) - 1
        while low < high:
            middle = (low + high) // 2
            if self.measured(*parts[middle]).met:
                high = middle
            else:
                low = middle + 1
        return parts[high]

    def least_first(self, rank: int | None) -> list[str]:
        """Return the layers, first those that do the least for the numbers they take."""
        effects = layer_effects(self.looking.backbone, self.part(rank, ()), self.looking.concept, seed=self.full.seed)
        layers = list(layers_of(self.edit))
        whole = self.numbers(rank, ())
        return sorted(layers, key=lambda layer: effects[layer] / (whole - self.numbers(rank, (layer,))))

    def measured(self, rank: int | None, dropped: tuple[str, ...]) -> Cut:
        """Measure a part, or say again how it was."""
        for known in self.tried:
            if (known.rank, known.dropped) == (rank, dropped):
                return known
        started = time.perf_counter()
        result = self.looking.at(self.part(rank, dropped), self.full, stage="drawing")
        values = values_of(result, strength=self.edit.provenance.strength)
        check_measured([demand.quantity for demand in self.demands], values, reasons=result.warnings)
        cut = Cut(
            rank=rank,
            dropped=dropped,
            numbers=self.numbers(rank, dropped),
            values=values,
            met=self.meets(values) and not result.no_op,
            seconds=round(time.perf_counter() - started, 2),
        )
        self.tried.append(cut)
        if self.on_trial is not None:
            self.on_trial(cut)
        return cut

    def conclude(self) -> Shrunk:
        """Measure the smallest that met the demand on fresh pictures, and write the first that does so there too."""
        fresh = self.full.model_copy(update={"seed": self.full.seed + FRESH})
        whole = self.looking.at(self.edit, fresh, stage="confirming")
        before = values_of(whole, strength=self.edit.provenance.strength)
        confirmed: list[Cut] = []
        for cut in sorted((cut for cut in self.tried if cut.met), key=lambda cut: cut.numbers)[:CONFIRMED]:
            part = self.part(cut.rank, cut.dropped)
            result = self.looking.at(part, fresh, stage="confirming")
            values = values_of(result, strength=self.edit.provenance.strength)
            confirmed.append(cut.model_copy(update={"values": values, "met": self.meets(values)}))
            if confirmed[-1].met:
                return self.written(part, result, before=before, confirmed=confirmed)
        raise GateError(
            f"{len(confirmed)} parts met the demand in the search and none on fresh pictures (the last: "
            f"{self.told(confirmed[-1].values)}); look at more --samples, or ask for more than you need."
        )

    def written(
        self, part: Edit, result: EvaluationResult, *, before: dict[str, float], confirmed: list[Cut]
    ) -> Shrunk:
        cut, demands = confirmed[-1], [str(demand) for demand in self.demands]
        kept = [layer for layer in layers_of(self.edit) if layer not in cut.dropped]
        record = ShrinkRecord(
            target=self.looking.concept.target, method=self.edit.provenance.method, source=self.edit.digest,
            require=demands, numbers=self.numbers(None, ()), layers=len(layers_of(self.edit)), before=before,
            trials=self.tried, confirmations=confirmed,
        )  # fmt: skip
        said: dict[str, Any] = {"from": record.source, "rank": cut.rank, "dropped": list(cut.dropped), "kept": kept}
        said |= {"numbers": [record.numbers, cut.numbers], "require": demands, "before": before, "after": cut.values}
        extra = {**part.provenance.extra, "shrunk": said}
        edit = Edit(part.deltas, part.provenance.model_copy(update={"extra": extra}))
        self.run.write_json("env.json", {"model": address_of(self.looking.backbone), **api.environment()})
        edit.save(self.run.path)
        result.save(self.run.file("evaluation.json"))
        record.save(self.run.file(SHRINK_RECORD))
        self.run.keep()
        return Shrunk(edit=edit, result=result, record=record, folder=self.run.path)

    def part(self, rank: int | None, dropped: tuple[str, ...]) -> Edit:
        return shrunk(self.edit, self.looking.backbone.networks, rank=rank, without=dropped)

    def numbers(self, rank: int | None, dropped: tuple[str, ...]) -> int:
        return size_in_numbers(self.edit, self.looking.backbone.networks, rank=rank, without=dropped)

    def meets(self, values: dict[str, float]) -> bool:
        return all(demand.is_met(values) for demand in self.demands)

    def told(self, values: dict[str, float]) -> str:
        return ", ".join(f"{d.quantity.label} {values[d.quantity.name]:.3f} ({d})" for d in self.demands)
