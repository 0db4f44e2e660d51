"""Gradient rules: what they do to gradients, and what they do inside the loop."""

import math

import pytest
import torch
from torch import nn
from torch.nn import Parameter

from aizheimer._seeding import generator_for
from aizheimer.engine.backward import StepGradients
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.gradient_rules import (
    ConflictProjection,
    EmaStop,
    SaliencyMask,
    added,
    begin_token_detached,
    cosine,
    saliency_masks,
)
from aizheimer.engine.loop import train
from aizheimer.engine.problem import Loss
from aizheimer.engine.run_folder import RunFolder
from aizheimer.engine.settings import TrainSettings
from aizheimer.errors import InputError


class Pull:
    """Two losses on one vector that want opposite things of its first entry, and an adversary."""

    def __init__(self, retain_weight=1.0):
        self.x = Parameter(torch.tensor([1.0, 2.0, -1.0, 0.5]))
        self.idle = Parameter(torch.ones(2))
        self.parameters = {"x": self.x, "idle": self.idle}
        self.retain_weight = retain_weight
        self.clean, self.asked = [], []

    def losses(self, step, generator):
        self.clean.append(self.x.grad is None)
        goal = torch.tensor([3.0, 0.0, 0.0, 0.0]) + 0.1 * torch.randn(4, generator=generator)
        return {
            "forget": Loss((self.x - goal).square().mean(), 2.0, role="erase"),
            "hold": Loss((self.x * self.x[0]).square().mean(), self.retain_weight, role="retain"),
        }

    def monitor(self):
        return {"retention_drift": float(self.x.detach().square().mean())}

    def retention_errors(self, rows):
        self.asked.append(rows)
        yield self.x[:3].square().sum()
        yield self.x[3:].square().sum()


def settings(**options):
    return TrainSettings(**{"steps": 6, "lr": 0.05, "monitor_every": 2, "drift_limit": None} | options)


class TestConflictProjection:
    def test_by_hand(self):
        """g = (-1, 2), r = (2, 0): the part of g against r is (-1, 0), so (0, 2) is left."""
        gradients = {"erase": {"w": torch.tensor([-1.0, 2.0])}, "retain": {"w": torch.tensor([2.0, 0.0])}}
        assert ConflictProjection()(gradients)["w"].tolist() == [0.0, 2.0]
        assert ConflictProjection(strength=0.5)(gradients)["w"].tolist() == [-0.5, 2.0]

    def test_in_conflict_it_is_orthogonal_and_otherwise_untouched(self):
        generator = generator_for(0, "projection")
        for _ in range(20):
            g = {"a": torch.randn(5, 3, generator=generator), "b": torch.randn(7, generator=generator)}
            r = {"a": torch.randn(5, 3, generator=generator), "b": torch.randn(7, generator=generator)}
            result = ConflictProjection()({"erase": g, "retain": r})
            for name in g:
                inner = (g[name] * r[name]).sum()
                if inner < 0:
                    assert abs(float((result[name] * r[name]).sum())) < 1e-5
                else:
                    assert torch.equal(result[name], g[name])

    def test_the_published_code_overshoots(self):
        """The spec's numbers: a gradient of norm 0.2 whose part along r is -0.083 ends at +0.332 along it."""
        g = torch.tensor([-0.083, math.sqrt(0.04 - 0.083**2)])
        gradients = {"erase": {"w": g}, "retain": {"w": torch.tensor([5.0, 0.0])}}
        result = ConflictProjection(fidelity="repository")(gradients)["w"]
        assert result[0].item() == pytest.approx(-0.083 + 0.083 / 0.2, abs=1e-6)
        assert result[1] == g[1]

    def test_the_adversary_is_on_the_erasing_side_and_retention_is_never_stepped_along(self):
        gradients = {
            "adversarial": {"w": torch.tensor([1.0, 0.0])},
            "erase": {"w": torch.tensor([0.0, 1.0])},
            "retain": {"w": torch.tensor([1.0, 1.0]), "only": torch.ones(1)},
        }
        result = ConflictProjection()(gradients)
        assert result["w"].tolist() == [1.0, 1.0]
        assert "only" not in result

    def test_a_retaining_gradient_of_zero_is_no_direction(self):
        gradients = {"erase": {"w": torch.ones(2)}, "retain": {"w": torch.zeros(2)}}
        assert ConflictProjection()(gradients)["w"].tolist() == [1.0, 1.0]


class TestSaliency:
    @pytest.mark.parametrize("fraction", [0.01, 0.25, 0.5, 0.99, 1.0])
    def test_exactly_the_fraction_with_the_largest_gradients(self, fraction):
        generator = generator_for(1, "saliency")
        gradients = {"a": torch.randn(30, 10, generator=generator), "b": 0.1 * torch.randn(200, generator=generator)}
        masks = saliency_masks(gradients, fraction=fraction)
        sizes = torch.cat([g.abs().flatten() for g in gradients.values()])
        marked = torch.cat([masks[name].flatten() for name in gradients])
        assert int(marked.sum()) == round(fraction * 500)
        if fraction < 1:
            assert sizes[marked].min() >= sizes[~marked].max()

    def test_ties_do_not_add_up_to_more(self):
        masks = saliency_masks({"a": torch.tensor([1.0, -1.0, 1.0, 1.0, 2.0, 0.0])}, fraction=0.5)
        assert masks["a"].tolist() == [True, True, False, False, True, False]
        assert int(saliency_masks({"a": torch.zeros(8)}, fraction=0.5)["a"].sum()) == 4

    @pytest.mark.parametrize("fraction", [0.0, 1.5, 1e-6])
    def test_fractions_that_keep_nothing_are_refused(self, fraction):
        with pytest.raises(InputError, match="saliency"):
            saliency_masks({"a": torch.ones(4)}, fraction=fraction)

    def test_masked_entries_never_move(self):
        problem = Pull()
        mask = {"x": torch.tensor([True, False, True, False]), "idle": torch.ones(2, dtype=torch.bool)}
        before = problem.x.detach().clone()
        train(problem, settings(), rule=SaliencyMask(mask))
        moved = problem.x.detach() != before
        assert moved.tolist() == [True, False, True, False]


class TestInTheLoop:
    @pytest.mark.parametrize("clip", [None, 0.5])
    def test_without_a_rule_it_is_plain_gradient_descent_bit_for_bit(self, clip):
        """The loop as it was before there were rules, written out."""
        chosen = settings(accumulation=2, clip=clip)
        problem, plain = Pull(), Pull()
        train(problem, chosen)
        optimizer = torch.optim.Adam([plain.x, plain.idle], lr=chosen.lr, betas=chosen.betas)
        for step in range(1, chosen.steps + 1):
            optimizer.zero_grad(set_to_none=True)
            for part in range(2):
                losses = plain.losses(step, generator_for(chosen.seed, "step", step, part))
                total = torch.stack([loss.value * loss.weight for loss in losses.values()]).sum()
                (total / 2).backward()
            torch.nn.utils.clip_grad_norm_([plain.x, plain.idle], clip or math.inf)
            optimizer.step()
        assert torch.equal(problem.x, plain.x)

    @pytest.mark.parametrize("rule", [None, ConflictProjection()])
    def test_gradients_start_from_nothing_at_each_step(self, rule):
        problem = Pull()
        train(problem, settings(), rule=rule)
        assert problem.clean == [True] * 6

    @pytest.mark.parametrize("rule", [None, ConflictProjection(), SaliencyMask({"x": torch.ones(4).bool()})])
    def test_the_cosine_is_that_of_the_two_gradients(self, rule):
        problem = Pull()
        expected, rows = [], []

        def watch(row):
            rows.append(row)

        original = problem.losses

        def losses(step, generator):
            found = original(step, generator)
            erase, retain = (
                torch.autograd.grad(found[name].value, problem.x, retain_graph=True)[0] for name in ("forget", "hold")
            )
            expected.append(float(torch.cosine_similarity(erase.double(), retain.double(), dim=0)))
            return found

        problem.losses = losses
        train(problem, settings(), rule=rule, callbacks=Callbacks(on_step=watch))
        assert [row["step"] for row in rows if "cosine" in row] == [2, 4, 6]
        for row in rows[1::2]:
            assert row["cosine"] == pytest.approx(expected[row["step"] - 1], abs=1e-5)
        assert problem.asked == []

    @pytest.mark.parametrize("rule", [None, ConflictProjection(), SaliencyMask({"x": torch.ones(4).bool()})])
    def test_where_no_loss_retains_it_is_that_with_the_held_out_error_for_the_log_only(self, rule):
        """The error is |x|^2, whose gradient is along x; a loss of weight zero is no direction."""
        problem, unwatched, expected, rows = Pull(0.0), Pull(0.0), [], []
        original = problem.losses

        def losses(step, generator):
            found = original(step, generator)
            (erase,) = torch.autograd.grad(found["forget"].value, problem.x, retain_graph=True)
            expected.append(float(torch.cosine_similarity(erase.double(), problem.x.detach().double(), dim=0)))
            return found

        problem.losses = losses
        state = torch.get_rng_state()
        train(problem, settings(batch_size=3), rule=rule, callbacks=Callbacks(on_step=rows.append))
        assert torch.equal(torch.get_rng_state(), state)
        assert [row["step"] for row in rows if "cosine" in row] == [2, 4, 6]
        for row in rows[1::2]:
            assert row["cosine"] == pytest.approx(expected[row["step"] - 1], abs=1e-5)
        assert problem.asked == [3, 3, 3]  # the batch size, on measured steps alone
        train(unwatched, settings(batch_size=3, monitor_every=100), rule=rule)
        assert unwatched.asked == []
        assert torch.equal(unwatched.x, problem.x)

    def test_projection_steps_along_the_projected_gradient(self):
        """One batch by hand against what the rule leaves in the parameters."""
        problem = Pull()
        losses = problem.losses(1, generator_for(0))
        erase = 2 * torch.autograd.grad(losses["forget"].value, problem.x, retain_graph=True)[0]
        retain = torch.autograd.grad(losses["hold"].value, problem.x, retain_graph=True)[0]
        assert (erase * retain).sum() < 0
        gradients = StepGradients(problem.parameters, batches=1, rule=ConflictProjection(), measure=False)
        gradients.add(losses, torch.zeros(()))
        assert gradients.finish() is None
        torch.testing.assert_close(problem.x.grad, erase - (erase @ retain) / (retain @ retain) * retain)
        assert problem.idle.grad is None

    def test_two_batches_are_averaged_before_the_rule(self):
        problem, both = Pull(), []
        gradients = StepGradients(problem.parameters, batches=2, rule=ConflictProjection(), measure=False)
        for part in range(2):
            losses = problem.losses(1, generator_for(0, part))
            for loss in losses.values():
                both.append(torch.autograd.grad(loss.value * loss.weight, problem.x, retain_graph=True)[0])
            gradients.add(losses, torch.zeros(()))
        gradients.finish()
        erase, retain = (both[0] + both[2]) / 2, (both[1] + both[3]) / 2
        expected = ConflictProjection()({"erase": {"x": erase}, "retain": {"x": retain}})["x"]
        torch.testing.assert_close(problem.x.grad, expected)


class TestEmaStop:
    def test_the_mean_by_hand(self):
        stop = EmaStop(loss="c", decay=0.5, below=0.2, after=2)
        for value, mean in ((1.0, 1.0), (0.0, 0.5), (-1.0, -0.25)):
            stop = stop.seen({"c": {"value": value, "parts": {}}})
            assert stop.mean == mean
        assert stop.reached

    def test_of_several_the_largest_counts(self):
        """Means (1, 0), then (0.5, 1), then (0.25, 0.5): the second, which was never the largest before, ends it."""
        stop = EmaStop(loss="a", others=("b",), decay=0.5, below=0.6, after=1)
        for a, b, mean in ((1.0, 0.0, 1.0), (0.0, 2.0, 1.0), (0.0, 0.0, 0.5)):
            assert not stop.reached
            stop = stop.seen({name: {"value": value, "parts": {}} for name, value in (("a", a), ("b", b))})
            assert stop.mean == mean
        assert stop.reached
        assert stop.seen({"a": {"value": 9.0, "parts": {}}}) == stop

    def test_it_waits_and_ignores_steps_without_the_loss(self):
        stop = EmaStop(loss="c", below=1.0, after=2).seen({"other": {"value": 0.0, "parts": {}}})
        assert stop.mean is None
        stop = stop.seen({"c": {"value": 0.0, "parts": {}}})
        assert not stop.reached
        assert stop.seen({"c": {"value": 0.0, "parts": {}}}).reached

    def test_a_resumed_run_stops_at_the_same_step(self, tmp_path):
        def stop():
            return EmaStop(loss="forget", below=1.2, after=2, decay=0.8)

        chosen = settings(steps=60, checkpoint_every=3, monitor_every=50)
        whole = train(Pull(), chosen, stop=stop())
        assert whole.stopped == "loss"
        assert 10 < whole.step < 60
        assert [row["step"] for row in whole.history if row["event"] == "monitor"] == [0, whole.step]

        class Interrupted(Exception):
            pass

        def interrupt(row):
            if row["step"] == 8:
                raise Interrupted

        folder = tmp_path / "run"
        with pytest.raises(Interrupted):
            train(Pull(), chosen, stop=stop(), run=RunFolder(folder).create(), callbacks=Callbacks(on_step=interrupt))
        resumed = train(Pull(), chosen, stop=stop(), run=RunFolder(folder).create(resume=True))
        assert (resumed.stopped, resumed.step) == ("loss", whole.step)
        assert torch.equal(resumed.tensors["x"], whole.tensors["x"])


class Momentum:
    """A companion whose state matters: it remembers every step."""

    def __init__(self):
        self.value = torch.zeros(1)

    def advance(self, step):
        self.value = 0.5 * self.value + step

    def tensors(self):
        return {"value": self.value}

    def load(self, tensors):
        self.value = tensors["value"].clone()


def test_a_companion_goes_on_where_it_was(tmp_path):
    chosen = settings(steps=7, checkpoint_every=2)
    whole, first, second = Momentum(), Momentum(), Momentum()
    train(Pull(), chosen, companion=whole)

    def interrupt(row):
        if row["step"] == 5:
            raise KeyboardInterrupt

    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(Pull(), chosen, companion=first, run=RunFolder(folder).create(), callbacks=Callbacks(on_step=interrupt))
    train(Pull(), chosen, companion=second, run=RunFolder(folder).create(resume=True))
    assert torch.equal(second.value, whole.value)


class Cross(nn.Module):
    def __init__(self):
        super().__init__()
        self.to_k, self.to_v = nn.Linear(3, 2, bias=False), nn.Linear(3, 2, bias=False)


def test_the_begin_token_gets_no_gradient_and_keeps_its_value():
    net = nn.ModuleDict({"attn2": Cross()})
    words = torch.randn(2, 4, 3, generator=generator_for(0, "words"))
    plain = {part: getattr(net["attn2"], part)(words) for part in ("to_k", "to_v")}
    with begin_token_detached(net, ["attn2"]):
        for part in ("to_k", "to_v"):
            module = getattr(net["attn2"], part)
            output = module(words)
            assert torch.equal(output, plain[part])
            output.square().sum().backward()
            # Without the first token: the gradient of the others alone.
            (expected,) = torch.autograd.grad(module.weight @ torch.eye(3), module.weight, torch.zeros(2, 3))
            rest = words[:, 1:].reshape(-1, 3)
            expected = expected + 2 * (rest @ module.weight.detach().T).T @ rest
            torch.testing.assert_close(module.weight.grad, expected)
    assert not net["attn2"].to_k._forward_hooks


def test_cosine_and_sum_over_all_tensors():
    a = {"x": torch.tensor([3.0, 0.0]), "y": torch.tensor([4.0])}
    assert cosine(a, {"x": torch.tensor([1.0, 0.0])}) == pytest.approx(0.6)
    assert cosine(a, {"x": torch.zeros(2)}) is None
    assert added([a, {"y": torch.tensor([1.0])}])["y"].item() == 5.0
