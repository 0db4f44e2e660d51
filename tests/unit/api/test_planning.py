"""What is predicted before a run is what the run then takes."""

import pytest
from safetensors import safe_open

from aizheimer._registry import METHODS
from aizheimer.api import load_model, plan, planning
from aizheimer.api._rehearsal import trimmed
from aizheimer.backbones.memory import allocated_peak, parse_size, size_text, weight_bytes
from aizheimer.concepts import Concept
from aizheimer.engine.run_folder import RunFolder
from aizheimer.errors import GateError, InputError
from aizheimer.methods.aizheimer import AIzheimer
from aizheimer.methods.esd import ESD
from tests.snapshot import same_snapshot, snapshot
from tests.trained import SMALL, small, tiny_backbone


@pytest.mark.long
def test_predicted_memory_is_what_is_then_measured_on_the_embedded_model():
    backbone = load_model("emoji")
    method = ESD(
        rollout="teacher",
        retain_weight=1.0,
        retain={"neighbours": 2, "others": 2, "general": 1, "batch_size": 4, "monitor": 8},
        rollouts={"forget": 2, "retain": 2, "holdout": 2, "steps": 2},
        training={"steps": 2, "batch_size": 6, "drift_limit": None},
    )
    found = plan(backbone, "penguin", method=method)
    peak = allocated_peak(lambda: method.unlearn(backbone, Concept("penguin")), backbone.device)
    measured = weight_bytes(backbone.components.values()) + peak
    assert found.memory["peak"] == pytest.approx(measured, rel=0.25)
    assert found.memory["peak"] > 1.3 * found.memory["weights"]  # or the weights alone would be the answer


class TestOnTheTinyModel:
    CUT = small(ESD, rollout="teacher", retain=SMALL["retain"] | {"batch_size": 1}, training={"batch_size": 6})
    METHOD = small(ESD, rollout="teacher", retain_weight=1.0, training={"batch_size": 6})

    @pytest.mark.long
    def test_the_model_is_as_before_and_the_parts_make_the_whole(self):
        backbone = tiny_backbone()
        before = snapshot(backbone.pipe)
        found = plan(backbone, "santa claus", method=self.METHOD)
        assert same_snapshot(before, snapshot(backbone.pipe))
        memory, seconds = found.memory, found.seconds
        assert memory["peak"] >= memory["weights"] + memory["step"]
        assert seconds["total"] > 4 * seconds["step"] > 0
        assert found.disk["checkpoint"] > found.disk["edit"] > 0
        assert found.options == {}

    @pytest.mark.long
    def test_what_does_not_fit_is_cut_and_the_prediction_is_of_the_cut(self, monkeypatch):
        # A process grows from test to test by more than a step of the tiny model takes.
        monkeypatch.setattr(planning, "resident_bytes", lambda: 2**28)
        backbone = tiny_backbone()
        whole = plan(backbone, "santa claus", method=self.CUT)
        fits = plan(backbone, "santa claus", method=self.CUT, fit=whole.needed - whole.memory["step"] // 3)
        assert fits.options["training.batch_size"] * fits.options["training.accumulation"] == 6
        assert fits.memory["step"] < whole.memory["step"]

    @pytest.mark.long
    def test_what_nothing_makes_fit_is_told_with_the_least_there_is(self):
        one = small(ESD, rollout="teacher", retain=SMALL["retain"] | {"batch_size": 1}, training={"batch_size": 1})
        with pytest.raises(GateError, match=r"nothing fits into 1.0 MiB; the least is "):
            plan(tiny_backbone(), "santa claus", method=one, fit=2**20)

    def test_what_does_not_train_is_refused(self):
        with pytest.raises(InputError, match="uce does not train"):
            plan(tiny_backbone(), "santa claus", method="uce")


@pytest.mark.parametrize("kind", [ESD, AIzheimer], ids=lambda kind: kind.name)
def test_a_rehearsal_keeps_everything_but_sizes(kind):
    whole = kind().model_dump()
    cut = trimmed(whole, batch=2, retain=3)
    rehearsed = kind.model_validate(cut)
    assert rehearsed.training.batch_size == 2
    assert rehearsed.training.steps == 2
    assert rehearsed.training.optimizer == kind().training.optimizer
    kept = whole.keys() - {"training", "rollouts", "retain", "retain_batch_size", "monitor_examples", "start", "enough"}
    assert {name: cut[name] for name in kept} == {name: whole[name] for name in kept}


def test_every_trained_method_can_be_rehearsed():
    for name in METHODS.names():
        kind = METHODS.get(name)
        if "training" in kind.model_fields:
            content = kind().model_dump() if name not in ("data-censoring",) else None
            if content is not None:
                assert kind.model_validate(trimmed(content, batch=1, retain=1)).training.steps == 2


@pytest.mark.parametrize(("text", "size"), [("8GiB", 8 * 2**30), ("1.5 GB", 1_500_000_000), ("512MiB", 2**29)])
def test_sizes_are_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["8", "GiB", "-1GiB", "much", "8 gigs"])
def test_bad_sizes_are_refused(text):
    with pytest.raises(InputError, match="wanted a number and a unit"):
        parse_size(text)


def test_sizes_are_written_as_they_are_read():
    assert parse_size(size_text(3 * 2**30)) == 3 * 2**30


@pytest.mark.long
def test_kept_queries_take_the_disk_that_is_predicted(tmp_path, monkeypatch):
    monkeypatch.delenv("AIZHEIMER_CACHE", raising=False)
    options = {
        **{"parts": ("k", "v"), "retain_neighbours": 2, "retain_others": 1, "retain_general": 1},
        **{"retain_batch_size": 1, "monitor_examples": 2, "training": {"steps": 1, "batch_size": 1}},
        "rollouts": {"forget": 2, "retain": 3, "holdout": 1, "steps": 2},
    }
    with_bank, without = AIzheimer(bank={"forget": 4, "retain": 6}, **options), AIzheimer(**options)
    backbone = tiny_backbone()
    disk = [plan(backbone, "santa claus", method=method).disk["cache"] for method in (with_bank, without)]
    run = RunFolder(tmp_path / "run").create()
    with_bank.unlearn(backbone, Concept("santa claus"), run=run)
    written = 0
    for path in (run.path / "cache").glob("*.safetensors"):
        with safe_open(str(path), framework="pt") as file:
            if any("attn2" in name for name in file.keys()):  # noqa: SIM118 - not a dict
                written += sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118
    assert disk[0] - disk[1] == written > 0
