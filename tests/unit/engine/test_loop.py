"""The loop: it learns, watches, stops, rolls back, resumes to the same bits, and survives divergence."""

import math

import pytest
import torch

from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.loop import train
from aizheimer.engine.run_folder import RunFolder
from aizheimer.engine.settings import TrainSettings
from aizheimer.errors import ModelError, RunFolderError, TrainingError
from tests.unit.engine.problems import Chase

OFF = {"drift_limit": None, "clip": None}


def settings(**options):
    return TrainSettings(**{"steps": 30, "lr": 0.1, "monitor_every": 5, **OFF} | options)


def rows(result, event):
    return [row for row in result.history if row["event"] == event]


def timeless(history):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


class Interrupted(Exception):
    """The moment a test stops a run at."""


def interrupt_at(step):
    def on_step(row):
        if row["step"] == step:
            raise Interrupted

    return Callbacks(on_step=on_step)


def test_it_learns_and_logs_every_part():
    problem = Chase()
    result = train(problem, settings())
    assert (result.stopped, result.step) == ("steps", 30)
    assert (problem.x - 1).abs().max() < 0.2
    assert torch.equal(result.tensors["x"], problem.x)
    assert torch.equal(problem.idle, torch.ones(2))
    steps = rows(result, "step")
    assert [row["step"] for row in steps] == list(range(1, 31))
    assert steps[-1]["loss"] < steps[0]["loss"] / 10
    first = steps[0]
    assert first["losses"]["idle"] == 0
    assert first["loss"] == pytest.approx(2 * first["losses"]["chase"])
    assert first["losses"]["chase"] == pytest.approx(
        (first["parts"]["chase"]["first"] + 3 * first["parts"]["chase"]["rest"]) / 4
    )


def test_it_looks_at_the_start_every_so_often_and_at_the_end():
    seen = []
    result = train(Chase(), settings(steps=12), callbacks=Callbacks(on_monitor=seen.append))
    looks = rows(result, "monitor")
    assert [row["step"] for row in looks] == [0, 5, 10, 12]
    assert looks == seen
    assert looks[0]["mass_ratio"] == 1
    assert looks[-1]["mass_ratio"] == pytest.approx(looks[-1]["attention_mass"] / looks[0]["attention_mass"])
    assert looks[-1]["layers"] == {"only": pytest.approx(looks[-1]["layers"]["only"])}


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    a, b, c = (train(Chase(), settings(seed=seed)).tensors["x"] for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_it_stops_early():
    result = train(Chase(), settings(stop_mass_ratio=0.5, monitor_every=1))
    assert result.stopped == "mass"
    looks = rows(result, "monitor")
    assert looks[-1]["mass_ratio"] <= 0.5 < looks[-2]["mass_ratio"]
    assert result.step == looks[-1]["step"] < 30


def test_the_guard_rolls_back_to_the_best_state():
    problem = Chase()
    result = train(problem, settings(drift_limit=0.2, monitor_every=1))
    assert result.stopped == "drift"
    looks = rows(result, "monitor")
    assert looks[-1]["retention_drift"] > 0.2 >= looks[-2]["retention_drift"]
    assert result.step == looks[-2]["step"] == rows(result, "stop")[0]["kept_step"]
    assert problem.monitor()["retention_drift"] == looks[-2]["retention_drift"]
    assert torch.equal(result.tensors["x"], problem.x)


def test_overfitting_on_purpose_goes_to_the_end():
    result = train(Chase(), settings(drift_limit=0.2, monitor_every=1, allow_overfit=True))
    assert result.stopped == "steps"
    assert rows(result, "monitor")[-1]["retention_drift"] > 0.2


def test_the_plateau_really_fires():
    options = {"schedule": "plateau", "plateau_every": 2, "plateau_patience": 1, "steps": 60, "lr": 0.3}
    result = train(Chase(noise=1.0), settings(**options))
    rates = [row["lr"] for row in rows(result, "step")]
    assert rates[0] == 0.3
    assert min(rates) < 0.03 * 1.001
    means = [sum(row["loss"] for row in rows(result, "step")[i : i + 2]) / 2 for i in range(0, 60, 2)]
    fell = next(i for i, rate in enumerate(rates) if rate < 0.3)
    assert fell % 2 == 0  # at an epoch's end
    assert min(means[: fell // 2 - 2]) <= min(means[fell // 2 - 2 : fell // 2])  # after two epochs without a new best


def test_accumulation_averages_gradients():
    """Two halves of one noiseless batch are the batch."""
    whole = train(Chase(noise=0), settings(steps=4))
    halves = train(Chase(noise=0), settings(steps=4, accumulation=2))
    torch.testing.assert_close(whole.tensors["x"], halves.tensors["x"])
    problem = Chase()
    train(problem, settings(steps=2, accumulation=3))
    assert problem.steps == [1, 1, 1, 2, 2, 2]


def test_parts_of_a_step_draw_differently():
    noisy = train(Chase(noise=1.0), settings(steps=1, accumulation=64))
    once = train(Chase(noise=1.0), settings(steps=1))
    mean = rows(noisy, "step")[0]["losses"]["chase"]
    assert mean == pytest.approx(2.0, abs=0.5)  # E[(0 - 1 - noise)^2] = 2
    assert mean != rows(once, "step")[0]["losses"]["chase"]


def test_clipping_limits_the_gradient():
    problem = Chase(goal=1e4, noise=0)
    result = train(problem, settings(steps=1, clip=0.5))
    assert rows(result, "step")[0]["grad_norm"] > 0.5
    assert problem.x.grad.norm() == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("killed_at", [1, 7, 8, 10, 29])
@pytest.mark.parametrize("options", [{"schedule": "plateau", "plateau_every": 3, "plateau_patience": 0}, {"warmup": 9}])
def test_a_resumed_run_has_the_same_bits_and_history(tmp_path, killed_at, options):
    chosen = settings(**{"checkpoint_every": 4, "weight_decay": 0.01} | options)
    whole = train(Chase(), chosen)
    with pytest.raises(Interrupted):
        train(Chase(), chosen, run=RunFolder(tmp_path / "run").create(), callbacks=interrupt_at(killed_at))
    problem = Chase()
    run = RunFolder(tmp_path / "run").create(resume=True)
    resumed = train(problem, chosen, run=run)
    assert problem.steps[0] == (killed_at - 1) // 4 * 4 + 1 if killed_at % 4 else killed_at - 3
    assert torch.equal(resumed.tensors["x"], whole.tensors["x"])
    assert timeless(resumed.history) == timeless(run.history()) == timeless(whole.history)


def test_a_run_that_stopped_early_resumes_to_the_same_end(tmp_path):
    chosen = settings(drift_limit=0.2, monitor_every=1, checkpoint_every=2)
    whole = train(Chase(), chosen)
    run = RunFolder(tmp_path / "run").create()
    with pytest.raises(Interrupted):
        train(Chase(), chosen, run=run, callbacks=interrupt_at(3))
    resumed = train(Chase(), chosen, run=RunFolder(run.path).create(resume=True))
    assert (resumed.stopped, resumed.step) == (whole.stopped, whole.step)
    assert torch.equal(resumed.tensors["x"], whole.tensors["x"])


@pytest.mark.parametrize("options", [{}, {"drift_limit": 0.2}])
def test_resuming_an_ended_run_is_no_work(tmp_path, options):
    chosen = settings(monitor_every=1, **options)
    first = train(Chase(), chosen, run=RunFolder(tmp_path / "run").create())
    problem = Chase()
    again = train(problem, chosen, run=RunFolder(tmp_path / "run").create(resume=True))
    assert problem.steps == []
    assert torch.equal(again.tensors["x"], first.tensors["x"])
    assert (again.stopped, again.step, again.history) == (first.stopped, first.step, first.history)


def test_resuming_something_else_is_refused(tmp_path):
    train(Chase(), settings(), run=RunFolder(tmp_path / "run").create(), identity={"concept": "cat"})
    run = RunFolder(tmp_path / "run").create(resume=True)
    with pytest.raises(RunFolderError, match=r"concept was 'cat', is 'dog'; training.lr was 0.1, is 0.2"):
        train(Chase(), settings(lr=0.2), run=run, identity={"concept": "dog"})


def poison(at):
    def spoil(step, x):
        if step == at:
            with torch.no_grad():
                x[0] = math.nan

    return spoil


def test_a_loss_that_is_not_a_number_keeps_the_last_good_state(tmp_path):
    problem = Chase(spoil=poison(8))
    run = RunFolder(tmp_path / "run").create()
    said = r"loss \(chase\) is not a number at step 8; the state of step 5 was kept; lower training.lr"
    with pytest.raises(TrainingError, match=said):
        train(problem, settings(), run=run)
    expected = train(Chase(), settings(steps=5))
    assert torch.equal(problem.x, expected.tensors["x"])
    assert run.history()[-1] == {"event": "stop", "step": 8, "stopped": "diverged", "kept_step": 5}
    resumed = Chase()
    train(resumed, settings(), run=RunFolder(run.path).create(resume=True))
    assert resumed.steps[0] == 6
    assert bool(resumed.x.isfinite().all())


def test_a_gradient_that_is_not_finite_never_reaches_the_parameters():
    problem = Chase()
    problem.x.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(TrainingError, match="gradient is not finite at step 1; the state of step 0 was kept"):
        train(problem, settings())
    assert torch.equal(problem.x, torch.zeros(4))


def test_a_held_out_value_that_is_not_a_number_stops_the_run():
    class Blind(Chase):
        def monitor(self):
            values = super().monitor()
            return values | {"retention_drift": math.nan} if len(self.steps) > 5 else values

    with pytest.raises(TrainingError, match="held-out value is not a number at step 10; the state of step 5"):
        train(Blind(), settings())


def test_half_precision_parameters_are_refused():
    problem = Chase()
    problem.parameters["x"] = torch.nn.Parameter(torch.zeros(2, dtype=torch.float16))
    with pytest.raises(ModelError, match=r"cannot train x in torch.float16; load the pipeline in float32"):
        train(problem, settings())


def test_a_caller_who_asks_gets_the_best_state(tmp_path):
    class Worse(Chase):
        """From the third look on, attention rises again."""

        def monitor(self):
            self.looks = getattr(self, "looks", 0) + 1
            return {"attention_mass": {1: 1.0, 2: 0.5, 3: 0.4}.get(self.looks, 0.9), "retention_drift": 0.0}

    problem, states = Worse(), {}

    def on_step(row):
        states[row["step"]] = problem.x.detach().clone()

    heard = Callbacks(on_step=on_step, should_stop=lambda: len(states) == 17)
    run = RunFolder(tmp_path / "run").create()
    result = train(problem, settings(), run=run, callbacks=heard)
    assert (result.stopped, result.step, len(states)) == ("asked", 10, 17)
    assert torch.equal(result.tensors["x"], states[10])
    assert torch.equal(problem.x, states[10])
    last = rows(result, "stop")
    assert [(row["stopped"], row["kept_step"]) for row in last] == [("asked", 10)]
    resumed = train(Worse(), settings(), run=RunFolder(tmp_path / "run").create(resume=True))
    assert (resumed.stopped, resumed.step) == ("asked", 10)
    assert torch.equal(resumed.tensors["x"], states[10])
