"""One training loop for every method."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import Tensor

from aizheimer._processes import processes
from aizheimer._row_shares import rows_shared
from aizheimer._seeding import generator_for
from aizheimer.engine.backward import StepGradients
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.checkpoint import Checkpoint, load_everywhere
from aizheimer.engine.gradient_rules import EmaStop, GradientRule
from aizheimer.engine.guard import Guard
from aizheimer.engine.logged import mean, numbers
from aizheimer.engine.optim import build_optimizer, load_optimizer, optimizer_tensors
from aizheimer.engine.problem import Companion, Problem
from aizheimer.engine.run_folder import RunFolder
from aizheimer.engine.schedule import Plateau, scheduled_rate
from aizheimer.engine.settings import TrainSettings
from aizheimer.errors import ModelError, TrainingError

Begin = Mapping[str, Tensor] | Callable[[], Mapping[str, Tensor]]
"""Changes by parameter name, or what finds them and leaves the parameters as they were."""
Stopped = Literal["steps", "mass", "drift", "loss", "asked"]
ROLLED_BACK = ("drift", "asked")


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a run ends with.

    Args:
        tensors: Values of the trained parameters, by name.
        history: The run's events, as in ``history.jsonl``.
        stopped: Why it ended: ``"steps"`` (all done), ``"mass"`` (forgotten enough), ``"loss"`` (the running mean of a
            loss fell below its threshold), ``"drift"`` (the guard went back to the best state) or ``"asked"`` (a
            caller wanted it to end, and got the best state).
        step: The step whose state ``tensors`` is.
    """

    tensors: dict[str, Tensor]
    history: list[dict[str, Any]]
    stopped: Stopped
    step: int


def train(
    problem: Problem,
    settings: TrainSettings,
    *,
    run: RunFolder | None = None,
    callbacks: Callbacks | None = None,
    identity: Mapping[str, Any] | None = None,
    rule: GradientRule | None = None,
    stop: EmaStop | None = None,
    companion: Companion | None = None,
    begin: Begin | None = None,
) -> TrainResult:
    """Minimise the weighted sum of the problem's losses, watching the held-out set.

    Every step draws from a generator that is a function of (seed, step), so a run that is killed and resumed from its
    checkpoint gives the same bits as one that is not. Which state is kept is said at `Guard`.

    Several processes (`aizheimer._processes`) share the rows of every batch and end with the same parameters; the main
    one keeps the history and the checkpoints, from which any number of processes goes on.

    Args:
        problem: Parameters, losses and monitor. The parameters are trained in place and left at the returned values.
        settings: Hyper-parameters of the loop.
        run: Where checkpoints and history go, and where to resume from if its ``resuming`` is set; None keeps nothing.
        callbacks: Told about every step and every look at the held-out set.
        identity: JSON values beside the settings that a resumed run must share with the one it continues.
        rule: Combines the gradients of losses of different roles; None adds them up.
        stop: Ends the run early on a loss's running mean.
        companion: Learns after every step of the parameters; its state goes into the checkpoint.
        begin: Changes by parameter name, added before the first step; attention mass counts from before them. A
            function is asked for them then, and not at all by a run that goes on from a checkpoint.

    Returns:
        The parameters' values and the history.

    Raises:
        TrainingError: If a loss, a gradient or a held-out value is not finite; the best state is in the parameters and
            in the checkpoint.
        RunFolderError: If the checkpoint to resume is damaged or of another run.
        ProcessError: If another process has ended.
    """
    loop = _Loop(
        problem,
        settings,
        run=run,
        callbacks=callbacks or Callbacks(),
        identity=dict(identity or {}),
        rule=rule,
        stop=stop,
        companion=companion,
        begin=begin or {},
    )
    loop.start()
    while not loop.stopped and loop.step < settings.steps:
        loop.advance()
    loop.finish()
    tensors = {name: parameter.detach().clone() for name, parameter in problem.parameters.items()}
    step = loop.guard.best_step if loop.stopped in ROLLED_BACK else loop.step
    return TrainResult(tensors=tensors, history=loop.history, stopped=cast(Stopped, loop.stopped), step=step)


@dataclass(kw_only=True)
class _Loop:
    """The state of one run. Mutable, private, and all of it that matters is in `_checkpoint`."""

    problem: Problem = field(kw_only=False)
    settings: TrainSettings = field(kw_only=False)
    run: RunFolder | None
    callbacks: Callbacks
    identity: dict[str, Any]
    rule: GradientRule | None = None
    stop: EmaStop | None = None
    companion: Companion | None = None
    begin: Begin = field(default_factory=dict)
    step: int = 0
    stopped: str = ""
    plateau: Plateau = field(default_factory=Plateau)
    history: list[dict[str, Any]] = field(default_factory=list)
    kept_companion: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = list(self.problem.parameters)
        check_parameters(self.problem.parameters)
        self.optimizer = build_optimizer(self.problem.parameters, self.settings)
        self.guard = Guard(self.settings)
        self.identity |= {"training": self.settings.model_dump(mode="json"), "parameters": ", ".join(self.names)}

    def start(self) -> None:
        """Resume from the checkpoint, or look at the unchanged model and keep it as the first best state."""
        found = None
        if self.run is not None:
            found = load_everywhere(self.run, identity=self.identity) if self.run.resuming else None
            self.history = processes().tell(self.run.rewind_history(found.step if found else -1))
        processes().make_same(self.problem.parameters.values())
        if found is not None:
            self._restore(found)
            return
        self._look()
        begin = self.begin() if callable(self.begin) else self.begin
        if begin:
            with torch.no_grad():
                for name, change in begin.items():
                    self.problem.parameters[name].add_(change.to(self.problem.parameters[name]))
            processes().make_same(self.problem.parameters.values())
            self._look()

    def advance(self) -> None:
        """Do one step, and whatever is due after it."""
        started = time.perf_counter()
        step = self.step + 1
        rate = scheduled_rate(step, self.settings) * self.plateau.scale
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with rows_shared():
            losses, norm, cosine = processes().tell(self._update(step))
        self.step = step
        total = sum(losses[name]["value"] * losses[name]["weight"] for name in losses)
        self.plateau = self.plateau.after(total, self.settings)
        row = {
            "event": "step",
            "step": step,
            "steps": self.settings.steps,
            "loss": total,
            "losses": {name: loss["value"] for name, loss in losses.items()},
            "weights": {name: loss["weight"] for name, loss in losses.items()},
            "parts": {name: loss["parts"] for name, loss in losses.items()},
            "lr": rate,
            "grad_norm": norm,
            "seconds": time.perf_counter() - started,
        }
        if cosine is not None:
            row["cosine"] = cosine
        self._record(row)
        self.callbacks.on_step(row)
        if self.stop is not None:
            self.stop = self.stop.seen(losses)
        ended = self.stop is not None and self.stop.reached
        asked = self.callbacks.should_stop()
        if step % self.settings.monitor_every == 0 or step == self.settings.steps or ended or asked:
            self._look()
        if (ended or asked) and not self.stopped:
            self.stopped = "loss" if ended else "asked"
            if asked and not ended:
                self._set_parameters(self.guard.best)
        if self.run is not None and step % self.settings.checkpoint_every == 0 and not self.stopped:
            self._save(self.run)

    def finish(self) -> None:
        """Say why it ended and save the end, so that resuming an ended run is no work."""
        if any(row["event"] == "stop" for row in self.history):
            return
        self.stopped = self.stopped or "steps"
        kept = self.guard.best_step if self.stopped in ROLLED_BACK else self.step
        self._record({"event": "stop", "step": self.step, "stopped": self.stopped, "kept_step": kept})
        if self.run is not None:
            self._save(self.run)

    def _update(self, step: int) -> tuple[dict[str, dict[str, Any]], float, float | None]:
        """Average the gradients of the step's batches and apply them.

        Returns the mean losses, the gradient norm, and now and then the cosine between erasing and retaining.
        """
        self.optimizer.zero_grad(set_to_none=True)
        measure = step % self.settings.monitor_every == 0
        gradients = StepGradients(
            self.problem.parameters, batches=self.settings.accumulation, rule=self.rule, measure=measure
        )
        batches = []
        for part in range(self.settings.accumulation):
            with self._precision():
                losses = self.problem.losses(step, generator_for(self.settings.seed, "step", step, part))
            total = torch.stack([loss.value * loss.weight for loss in losses.values()]).sum()
            if not torch.isfinite(total):
                bad = [name for name, loss in losses.items() if not torch.isfinite(loss.value)]
                self._diverged(f"the loss ({', '.join(bad) or 'their sum'}) is not a number", step)
            gradients.add(losses, total)
            batches.append({name: numbers(loss) for name, loss in losses.items()})
        gradients.watch(self.problem, rows=self.settings.batch_size, precision=self._precision)
        cosine = gradients.finish()
        parameters = list(self.problem.parameters.values())
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.settings.clip or math.inf))
        if not math.isfinite(norm):
            self._diverged("the gradient is not finite", step)
        self.optimizer.step()
        if self.companion is not None:
            self.companion.advance(step)
        return mean(batches), norm, cosine

    def _look(self) -> None:
        started = time.perf_counter()
        with torch.no_grad(), self._precision(), rows_shared():
            values = processes().tell(dict(self.problem.monitor()))
        verdict = self.guard.look(values)
        if verdict.keep:
            self.guard.keep(self.step, verdict.mass_ratio, self.problem.parameters)
            if self.companion is not None:
                self.kept_companion = {name: tensor.clone() for name, tensor in self.companion.tensors().items()}
        row: dict[str, Any] = {"event": "monitor", "step": self.step, "steps": self.settings.steps}
        layers = {name.removeprefix("layers/"): v for name, v in values.items() if name.startswith("layers/")}
        row |= {name: value for name, value in values.items() if not name.startswith("layers/")}
        row |= {"mass_ratio": verdict.mass_ratio, "layers": layers, "best_step": self.guard.best_step}
        row["seconds"] = time.perf_counter() - started
        if verdict.stop == "diverged":
            self._diverged("a held-out value is not a number", self.step)
        self._record(row)
        self.callbacks.on_monitor(row)
        if verdict.roll_back:
            self._set_parameters(self.guard.best)
        self.stopped = verdict.stop

    def _diverged(self, what: str, step: int) -> None:
        """Go back to the best state, save it and raise."""
        if self.guard.best:
            self._set_parameters(self.guard.best)
        if self.companion is not None and self.kept_companion:
            self.companion.load(self.kept_companion)
        self._record({"event": "stop", "step": step, "stopped": "diverged", "kept_step": self.guard.best_step})
        if self.run is not None:
            self.step = self.guard.best_step
            self.optimizer = build_optimizer(self.problem.parameters, self.settings)
            self._save(self.run)
        raise TrainingError(
            f"{what} at step {step}; the state of step {self.guard.best_step} was kept; "
            f"lower training.lr (now {self.settings.lr:g}) or the weights of the losses"
        )

    def _set_parameters(self, values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.problem.parameters.items():
                parameter.copy_(values[name])

    def _record(self, row: dict[str, Any]) -> None:
        self.history.append(row)
        if self.run is not None:
            self.run.append_history(row)

    def _save(self, run: RunFolder) -> None:
        tensors = {f"parameters/{name}": parameter for name, parameter in self.problem.parameters.items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self.guard.best.items()}
        tensors |= {f"optimizer/{k}": t for k, t in optimizer_tensors(self.optimizer, self.names).items()}
        if self.companion is not None:
            tensors |= {f"companion/{name}": tensor for name, tensor in self.companion.tensors().items()}
        state = {
            "stopped": self.stopped,
            "stop": None if self.stop is None else {"means": dict(self.stop.means), "steps": self.stop.steps},
            "plateau": dataclasses.asdict(self.plateau),
            "baseline": self.guard.baseline,
            "best_step": self.guard.best_step,
            "best_ratio": self.guard.best_ratio,
        }
        Checkpoint(step=self.step, tensors=tensors, state=state, identity=self.identity).save(run)

    def _restore(self, found: Checkpoint) -> None:
        self._set_parameters(found.group("parameters"))
        load_optimizer(self.optimizer, self.names, found.group("optimizer"))
        self.step, self.stopped = found.step, found.state["stopped"]
        if self.companion is not None:
            self.companion.load(found.group("companion"))
        if self.stop is not None:
            self.stop = dataclasses.replace(self.stop, **found.state["stop"])
        plateau = found.state["plateau"]
        self.plateau = Plateau(**plateau | {"losses": tuple(plateau["losses"])})
        device = next(iter(self.problem.parameters.values())).device
        best = {name: tensor.to(device) for name, tensor in found.group("best").items()}
        state = found.state
        self.guard = Guard(self.settings, state["baseline"], state["best_step"], state["best_ratio"], best)

    @contextlib.contextmanager
    def _precision(self) -> Iterator[None]:
        device = next(iter(self.problem.parameters.values())).device.type
        enabled = self.settings.precision == "bf16"
        with torch.autocast(device, dtype=torch.bfloat16, enabled=enabled):
            yield


def check_parameters(parameters: Mapping[str, Tensor]) -> None:
    """Refuse to train what is not in float32, where small steps would be rounded away.

    Raises:
        ModelError: Naming the first such parameter.
    """
    half = [name for name, parameter in parameters.items() if parameter.dtype != torch.float32]
    if half:
        raise ModelError(
            f"cannot train {half[0]} in {parameters[half[0]].dtype}; load the pipeline in float32 "
            "(training.precision=bf16 saves time on CUDA)"
        )
