"""What is predicted before a run is what the run then takes."""

import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from aizheimer._registry import METHODS
from aizheimer.api import _rehearsal, load_model, plan, planning
from aizheimer.api._preparation import Preparation
from aizheimer.api._rehearsal import STEPS, rows_without_gradients, trimmed
from aizheimer.api._sizes import Sizes
from aizheimer.api.planning import _Planner
from aizheimer.backbones import backbone_for
from aizheimer.backbones.memory import allocated_peak, parse_size, size_text, weight_bytes
from aizheimer.concepts import Concept
from aizheimer.engine.run_folder import RunFolder
from aizheimer.errors import GateError, InputError
from aizheimer.methods.aizheimer import AIzheimer
from aizheimer.methods.concept_ablation import ConceptAblation
from aizheimer.methods.data_censoring import DataCensoring
from aizheimer.methods.doco import DoCo
from aizheimer.methods.esd import ESD
from aizheimer.methods.forget_me_not import ForgetMeNot
from aizheimer.methods.salun import SalUn
from aizheimer.methods.sepme import SepME
from aizheimer.methods.uce import UCE
from tests.snapshot import same_snapshot, snapshot
from tests.tiny_families import tiny_flux
from tests.trained import SMALL, small, tiny_backbone

LATENTS = ("x_t", "prediction", "null_prediction", "x_0")


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

    def test_what_neither_trains_nor_solves_is_refused(self):
        with pytest.raises(InputError, match="negative-prompt neither trains nor solves"):
            plan(tiny_backbone(), "santa claus", method="negative-prompt")

    def test_a_closed_form_is_solved(self):
        backbone = tiny_backbone()
        found = plan(backbone, "santa claus", method=UCE(retain_neighbours=1, retain_others=1))
        assert not found.trains
        assert found.seconds["total"] == found.seconds["solve"] > 0
        assert found.memory["peak"] == found.memory["weights"] + found.memory["solve"] > found.memory["weights"]
        assert found.disk["edit"] > found.disk["checkpoint"] == 0
        with pytest.raises(GateError, match="nothing fits into"):
            plan(backbone, "santa claus", method=UCE(retain_neighbours=1, retain_others=1), fit=2**20)


def settling(enough):
    """The default method, small, with what it takes for enough."""
    start = {"prior_prompts": 8, "average_of": 4, "residual": 0.3}
    return AIzheimer(
        start=start,
        enough=enough,
        retain_neighbours=1,
        retain_others=1,
        retain_general=1,
        retain_batch_size=1,
        monitor_examples=1,
        rollouts={"forget": 1, "retain": 1, "holdout": 1, "steps": 1},
        training={"steps": 50, "batch_size": 1},
    )


@pytest.mark.long
def test_training_is_planned_only_where_the_closed_form_is_not_enough():
    backbone = tiny_backbone()
    settled, follows = (plan(backbone, "santa claus", method=settling(enough)) for enough in (1.0, 0.0))
    assert (settled.trains, follows.trains) == (False, True)
    assert settled.left == follows.left <= 1
    assert settled.seconds["total"] == settled.seconds["solve"]
    assert follows.seconds["total"] > follows.seconds["solve"] + 50 * follows.seconds["step"] > 0
    assert follows.memory["peak"] >= follows.memory["weights"] + follows.memory["solve"]


class TestPreparation:
    """What is drawn before the first step, and what the frozen model keeps of it."""

    def test_is_as_many_rollouts_as_the_method_makes(self):
        plan = {"forget": 5, "retain": 7, "holdout": 2, "steps": 3}
        for method, wanted in (
            (ESD(rollout="teacher", retain_weight=1.0, rollouts=plan), (7, 9)),
            (ESD(rollout="teacher", rollouts=plan), (7, 3)),
            (ESD(rollout="student", rollouts=plan), (3, 3)),
            (AIzheimer(rollouts=plan), (7, 9)),
        ):
            found = Preparation.of(method)
            assert (found.forget, found.retain, found.pictures) == (*wanted, 0)
            assert found.steps == sum(wanted) * 3

    @pytest.mark.parametrize("kind", [ConceptAblation, DoCo, SepME, SalUn, ForgetMeNot, DataCensoring])
    def test_has_the_pictures_that_are_drawn(self, kind):
        found = Preparation.of(kind(images="generate:40", rollouts={"picture_steps": 6, "steps": 2, "holdout": 1}))
        assert (found.forget, found.pictures, found.most) == (0, 40, 16)
        assert found.steps == 40 * 6 + found.retain * 2
        assert found.banks(10) == (0, found.retain * 10 * 4 * 7, 40 * 10 * 4 * 19)
        assert Preparation.of(kind(images="a/folder")).pictures == 0

    def test_pictures_of_several_concepts_are_all_drawn(self):
        assert Preparation.of(SepME(images="generate:3", also=("cat", "dog"))).pictures == 9

    @pytest.mark.long
    def test_is_what_a_run_then_draws_and_keeps(self, tmp_path, monkeypatch):
        monkeypatch.delenv("AIZHEIMER_CACHE", raising=False)
        backbone, method = tiny_backbone(), small(ConceptAblation, images="generate:3", empty_anchor="null")
        run, drawn = RunFolder(tmp_path / "run").create(), Preparation.of(method)
        method.unlearn(backbone, Concept("santa claus"), run=run)
        kept = [load_file(path) for path in (run.path / "cache").glob("*.safetensors")]
        banks = [bank for bank in kept if "null_prediction" in bank]
        latents = sum(sum(bank[name].nbytes for name in LATENTS) for bank in banks)
        assert latents == sum(drawn.banks(math.prod(backbone.latent_shape)))


@pytest.mark.parametrize(("family", "rows"), [("sd", 2), ("flux", 3)])
def test_a_guided_prediction_takes_the_rows_of_its_family(family, rows):
    backbone = tiny_backbone() if family == "sd" else backbone_for(tiny_flux())
    assert rows_without_gradients(backbone, guidance=3.0).guided == rows


def test_seconds_are_those_of_an_unwatched_call(monkeypatch):
    """Under the profiler a pass takes about half as long again."""
    watched, inside = [], []
    backbone, peak = tiny_backbone(), _rehearsal.allocated_peak

    def watching(action, device):
        watched.append(True)
        try:
            return peak(action, device)
        finally:
            watched.pop()

    timed = _rehearsal._timed
    monkeypatch.setattr(_rehearsal, "allocated_peak", watching)
    monkeypatch.setattr(_rehearsal, "_timed", lambda *given: (inside.append(bool(watched)), timed(*given))[1])
    assert rows_without_gradients(backbone, guidance=3.0).seconds > 0
    assert inside == [False]


@pytest.mark.long
def test_what_preparing_holds_does_not_hide_what_an_example_adds():
    method = small(ESD, rollout="teacher", training={"batch_size": 8})
    one, two = (_rehearsal.rehearse(tiny_backbone(), Concept("santa claus"), method, batch=n, retain=1) for n in (1, 2))
    assert two.peak > 1.1 * one.peak > 0
    assert one.prepared > 0
    assert one.prompts > 3


def test_as_many_examples_are_rehearsed_as_surely_fit(monkeypatch):
    one = _rehearsal.Rehearsal(
        batch=1, retain=1, peak=10, prepared=0, prompts=1, step_seconds=1.0, edit_bytes=0, checkpoint_bytes=0,
        network="unet", parameters=(),
    )  # fmt: skip
    for room, wanted in ((0, 2), (39, 2), (100, 5), (10_000, 8)):
        monkeypatch.setattr(_rehearsal, "available_bytes", lambda device, room=room: room)
        assert one.larger(8, torch.device("cpu")) == wanted
    assert one.larger(1, torch.device("cpu")) == 1


@pytest.mark.long
def test_on_an_accelerator_what_waits_elsewhere_counts_while_it_is_there(monkeypatch):
    """Rollouts have the text encoder beside them, and no bank, which is on the CPU."""
    method = small(ESD, rollout="teacher", rollouts={"forget": 40, "steps": 40})
    on_cpu = plan(tiny_backbone(), "santa claus", method=method)
    backbone = tiny_backbone()
    parked = weight_bytes([backbone.pipe.vae, backbone.pipe.text_encoder])
    planner = _Planner(**{**vars(caught(monkeypatch, backbone, method)), "backbone": Elsewhere(backbone)})
    memory = planner._memory(planner.sizes)
    assert memory["weights"] == on_cpu.memory["weights"] - parked
    assert memory["rollouts"] == max(planner.rows.peak(2 * 16), planner.one.prepared) + parked
    assert on_cpu.memory["rollouts"] > memory["bank"] > 0


def caught(monkeypatch, backbone, method):
    """Return the planner that a plan is made by."""
    made = []
    monkeypatch.setattr(_Planner, "plan", lambda planner, _: made.append(planner))
    plan(backbone, "santa claus", method=method)
    return made[0]


class Elsewhere:
    """A backbone that says it is on a GPU."""

    device = torch.device("cuda")

    def __init__(self, backbone):
        self._backbone = backbone

    def __getattr__(self, name):
        return getattr(self._backbone, name)


@pytest.mark.parametrize("kind", [ESD, AIzheimer], ids=lambda kind: kind.name)
def test_a_rehearsal_keeps_everything_but_sizes(kind):
    whole = kind().model_dump()
    cut = trimmed(whole, batch=2, retain=3)
    rehearsed = kind.model_validate(cut)
    assert rehearsed.training.batch_size == 2
    assert rehearsed.training.steps == STEPS
    assert rehearsed.training.optimizer == kind().training.optimizer
    kept = whole.keys() - {"training", "rollouts", "retain", "retain_batch_size", "monitor_examples", "start", "enough"}
    assert {name: cut[name] for name in kept} == {name: whole[name] for name in kept}


def test_every_trained_method_can_be_rehearsed():
    for name in METHODS.names():
        kind = METHODS.get(name)
        if "training" in kind.model_fields:
            content = kind().model_dump() if name not in ("data-censoring",) else None
            if content is not None:
                assert kind.model_validate(trimmed(content, batch=1, retain=1)).training.steps == STEPS


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        (small(ESD, retain_weight=1.0, retain={"batch_size": 4}, training={"batch_size": 6}), [(6, 4, 1), (3, 2, 2)]),
        (
            small(ESD, retain={"batch_size": 4}, training={"batch_size": 6}),
            [(6, 4, 1), (3, 4, 2), (2, 4, 3), (1, 4, 6)],
        ),
        (AIzheimer(retain_batch_size=3, training={"batch_size": 6}), [(6, 3, 1), (2, 1, 3)]),
        (AIzheimer(reconstruction="none", retain_batch_size=3, training={"batch_size": 2}), [(2, 3, 1), (1, 3, 2)]),
        (
            small(ESD, retain_weight=1.0, retain={"batch_size": 2}, training={"batch_size": 2, "accumulation": 3}),
            [(2, 2, 3), (1, 1, 6)],
        ),
    ],
)
def test_a_cut_makes_the_same_step(method, wanted):
    """All parts together have the forget and the retain rows of the whole; what weighs nothing need not be cut."""
    sizes = Sizes.of(method)
    cuts = sizes.cuts()
    assert [(cut.batch, cut.retain, cut.parts) for cut in cuts] == wanted
    assert {cut.batch * cut.parts for cut in cuts} == {sizes.batch * sizes.parts}
    if sizes.retains:
        assert {cut.retain * cut.parts for cut in cuts} == {sizes.retain * sizes.parts}


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
