"""AIzheimer's options do what they say."""

import math
from typing import ClassVar

import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from aizheimer.api.several import takes_several
from aizheimer.backbones.counting import counted
from aizheimer.concepts import Concept
from aizheimer.edits import load_edit
from aizheimer.edits.compose import targets_of
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.loop import train
from aizheimer.engine.run_folder import RunFolder
from aizheimer.errors import SelectorError, TrainingError
from aizheimer.methods.aizheimer import AIzheimer
from aizheimer.methods.closed_distraction import ClosedDistraction
from tests.trained import check_resume, same_edit

SMALL = {
    "retain_neighbours": 2,
    "retain_others": 1,
    "retain_general": 1,
    "retain_batch_size": 2,
    "monitor_examples": 4,
    "rollouts": {"forget": 2, "retain": 3, "holdout": 1, "steps": 2},
    "training": {"steps": 3, "lr": 0.003, "batch_size": 2, "monitor_every": 3, "drift_limit": None},
}
SANTA = Concept("santa claus")


def small(**options):
    training = SMALL["training"] | options.pop("training", {})
    return AIzheimer(**SMALL | options | {"training": training})


def unlearn(backbone, concept=SANTA, *, run=None, **options):
    """Return the edit, and the history rows of its steps."""
    rows = []
    edit = small(**options).unlearn(backbone, concept, run=run, callbacks=Callbacks(on_step=rows.append))
    return edit, rows


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(2):
        Image.new("RGB", (40, 32), (200, 60 * i, 30)).save(folder / f"{i}.png")
    return str(folder)


@pytest.mark.parametrize(
    ("options", "terms"),
    [
        ({"reconstruction": "none"}, ["attention"]),
        ({"reconstruction": "teacher"}, ["attention", "teacher"]),
        ({"reconstruction": "retain"}, ["attention", "retain"]),
        ({"reconstruction": "forget", "images": "generate:2"}, ["attention", "forget"]),
        ({"reconstruction": "teacher", "anchor_weight": 1.0}, ["attention", "teacher", "anchor"]),
        ({"reconstruction": "none", "noise": False, "anchor_weight": 1.0}, ["attention", "anchor"]),
    ],
    ids=str,
)
def test_every_part_of_the_loss_is_logged_by_layer(tiny_backbone, options, terms):
    edit, rows = unlearn(tiny_backbone, **options)
    assert not edit.is_noop
    for row in rows:
        assert list(row["losses"]) == terms
        assert set(row["parts"]["attention"]) == set(tiny_backbone.attention_modules())
        total = sum(row["losses"][name] * row["weights"][name] for name in terms)
        assert row["loss"] == pytest.approx(total)


@pytest.mark.long
def test_photos_are_trained_on(tiny_backbone, photos):
    edit, rows = unlearn(tiny_backbone, images=photos, reconstruction="forget", anchor_weight=0.5)
    assert list(rows[0]["losses"]) == ["attention", "forget", "anchor"]
    other, _ = unlearn(tiny_backbone, images="generate:2", reconstruction="forget", anchor_weight=0.5)
    assert edit.provenance.extra["data"] != other.provenance.extra["data"]


@pytest.mark.parametrize("parts", [("k",), ("q", "out"), ("q", "k", "v", "out")])
def test_only_the_chosen_parts_of_the_chosen_layers_change(tiny_backbone, parts):
    edit, _ = unlearn(tiny_backbone, parts=parts, layers="up_blocks.0")
    words = {"k": "to_k", "q": "to_q", "v": "to_v", "out": "to_out"}
    found = {name.split("attn2.")[1].split(".")[0] for name in edit.deltas}
    assert found == {words[part] for part in parts}
    assert all(name.startswith("unet.up_blocks.0.") for name in edit.deltas)


def test_skipping_the_ends_leaves_them_alone(tiny_backbone):
    layers = list(tiny_backbone.attention_modules())
    edit, rows = unlearn(tiny_backbone, layers="skip_ends")
    assert set(rows[0]["parts"]["attention"]) == set(layers[1:-1])
    assert not any(layers[0] in name or layers[-1] in name for name in edit.deltas)
    _, rows = unlearn(tiny_backbone, layers="notebook")
    skipped = set(layers) - set(rows[0]["parts"]["attention"])
    assert skipped == {layers[0], next(layer for layer in layers if layer.startswith("mid_block"))}


@pytest.mark.long
def test_the_teacher_holds_the_model_in_place(tiny_backbone):
    drift = {}
    for weight in (0.0, 100.0):
        options = {
            "reconstruction_weight": weight,
            "retain_batch_size": 4,
            "rollouts": {"forget": 2, "retain": 6, "holdout": 2, "steps": 3},
            "training": {"steps": 15, "clip": None},
        }
        drift[weight] = unlearn(tiny_backbone, **options)[0].provenance.extra["retention_drift"]
    assert drift[100.0] < drift[0.0] / 2


@pytest.mark.long
def test_the_anchor_pulls_the_forget_prompts_to_its_own_picture(tiny_backbone):
    options = {"attention_weight": 0.0, "anchor_weight": 1.0, "reconstruction": "none", "training": {"steps": 15}}
    _, rows = unlearn(tiny_backbone, Concept("santa claus", anchor="old man"), parts=("q", "k", "v", "out"), **options)
    first, last = (sum(row["losses"]["anchor"] for row in part) for part in (rows[:4], rows[-4:]))
    assert last < first


def test_a_style_can_be_forgotten(tiny_backbone):
    edit, rows = unlearn(tiny_backbone, Concept("noto", kind="style"), anchor_weight=1.0)
    assert not edit.is_noop
    assert rows[0]["losses"]["anchor"] > 0
    assert {name for name, _ in edit.provenance.extra["neighbours"]} == {"flat", "twemoji"}


@pytest.mark.long
def test_refreshed_rollouts_are_the_unedited_models_and_repeat_on_resume(tiny_backbone, tmp_path):
    options = {"refresh_every": 2, "training": {"steps": 6, "checkpoint_every": 3}}
    whole, _ = unlearn(tiny_backbone, **options)
    fixed, _ = unlearn(tiny_backbone, training=options["training"])
    assert any(not torch.equal(whole.deltas[name], fixed.deltas[name]) for name in whole.deltas)

    class StopError(Exception):
        pass

    def stop(row):
        if row["step"] == 5:
            raise StopError

    run = RunFolder(tmp_path / "run").create()
    with pytest.raises(StopError):
        small(**options).unlearn(tiny_backbone, SANTA, run=run, callbacks=Callbacks(on_step=stop))
    resumed, _ = unlearn(tiny_backbone, run=run.create(resume=True), **options)
    assert all(torch.equal(whole.deltas[name], resumed.deltas[name]) for name in whole.deltas)


def test_divergence_saves_the_best_state_and_restores_the_model(tiny_backbone, tmp_path):
    run = RunFolder(tmp_path / "run").create()
    before = tiny_backbone.fingerprint()
    with pytest.raises(TrainingError, match=r"lower training.lr"):
        unlearn(tiny_backbone, run=run, training={"lr": 1e30, "monitor_every": 1, "clip": None})
    assert tiny_backbone.fingerprint() == before
    edit = load_edit(run.path)
    assert edit.provenance.extra["stopped"] == "diverged"
    assert all(delta.isfinite().all() for delta in edit.deltas.values())


def test_the_provenance_tells_the_end(tiny_backbone):
    edit, _ = unlearn(tiny_backbone, training={"stop_mass_ratio": 0.999, "monitor_every": 1, "steps": 20})
    extra = edit.provenance.extra
    assert extra["stopped"] == "mass"
    assert extra["mass_ratio"] <= 0.999
    assert 1 <= extra["step"] < 20
    assert math.isfinite(extra["retention_drift"])
    assert "/" not in edit.provenance.base_name.replace("/", "", 1)  # two parts of a path, never a whole one


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"reconstruction": "forget"}, "needs the concept's images"),
        ({"reconstruction": "forget", "images": "x", "noise": False}, "set noise to true"),
        ({"images": "generate:none"}, "generate:N"),
        ({"parts": []}, "at least 1"),
        ({"parts": ["z"]}, "'q', 'k', 'v' or 'out'"),
        ({"attention_weight": -1}, "greater than or equal to 0"),
        ({"loss": "unknown"}, "'resteering', 'distraction' or 'random_stimulus'"),
        ({"nonsense": 1}, "Extra inputs"),
    ],
    ids=str,
)
def test_nonsense_is_refused(options, said):
    with pytest.raises(ValidationError) as error:
        AIzheimer(**options)
    assert said in str(error.value)


def test_an_unknown_layer_is_named(tiny_backbone):
    with pytest.raises(SelectorError, match="nowhere"):
        unlearn(tiny_backbone, layers=["nowhere"])


def test_train_is_what_runs():
    """The method has no loop of its own."""
    from aizheimer.methods import _trained, aizheimer

    assert aizheimer.learn is _trained.learn
    assert _trained.train is train


CLOSED = {"average_of": 3, "prior_prompts": 8, "pictures": 1, "picture_steps": 1, "retain_neighbours": 2}


def test_what_the_closed_form_settles_is_not_trained(tiny_backbone):
    solved, rows = [], []
    callbacks = Callbacks(on_step=rows.append, on_solved=solved.append)
    edit = small(start=CLOSED, enough=1.0, parts=("k", "v")).unlearn(tiny_backbone, SANTA, callbacks=callbacks)
    closed = ClosedDistraction(**CLOSED).unlearn(tiny_backbone, SANTA)
    assert rows == []
    assert [row["residual"] for row in solved] == [edit.provenance.extra["residual"]]
    assert edit.deltas.keys() == closed.deltas.keys()
    assert all(torch.equal(edit.deltas[name], closed.deltas[name]) for name in closed.deltas)
    assert (edit.provenance.method, edit.provenance.recipe["enough"]) == ("aizheimer", 1.0)


def test_pictures_that_are_given_are_trained_on(tiny_backbone, photos):
    rows = []
    method = small(start=CLOSED, enough=1.0, parts=("k", "v"), images=photos, training={"steps": 1})
    method.unlearn(tiny_backbone, SANTA, callbacks=Callbacks(on_step=rows.append))
    assert len(rows) == 1


def test_what_it_does_not_settle_is_trained_from_there(tiny_backbone):
    before = {name: tensor.clone() for name, tensor in tiny_backbone.denoiser.state_dict().items()}
    seen = []
    options = {"parts": ("k", "v"), "training": {"steps": 1, "lr": 1e-9, "monitor_every": 1}}
    method = small(start=CLOSED, enough=0.0, **options)
    edit = method.unlearn(tiny_backbone, SANTA, callbacks=Callbacks(on_monitor=seen.append))
    closed = ClosedDistraction(**CLOSED).unlearn(tiny_backbone, SANTA)
    for name, change in closed.deltas.items():
        torch.testing.assert_close(edit.deltas[name], change, atol=1e-6, rtol=1e-4)
    # The first look is at the unchanged model, the second at the closed form; the mass counts from the first.
    assert [row["step"] for row in seen] == [0, 0, 1]
    assert (seen[0]["mass_ratio"], seen[0]["retention_drift"]) == (1.0, pytest.approx(0, abs=1e-9))
    assert seen[1]["mass_ratio"] != 1.0
    after = tiny_backbone.denoiser.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_the_start_takes_the_methods_layers_parts_and_seed(tiny_backbone):
    options = {"layers": "up_blocks.0", "parts": ("q", "v"), "training": {"seed": 3}}
    edit = small(start=CLOSED, enough=1.0, **options).unlearn(tiny_backbone, SANTA)
    closed = ClosedDistraction(**CLOSED, layers="up_blocks.0", parts=("v",), seed=3).unlearn(tiny_backbone, SANTA)
    assert edit.deltas.keys() == closed.deltas.keys()
    assert all(torch.equal(edit.deltas[name], closed.deltas[name]) for name in closed.deltas)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"enough": 0.5}, "enough judges the closed form that start names"),
        ({"start": {}, "parts": ("q", "out")}, "put k or v into parts"),
        ({"start": {"also": ("cat",)}}, r"start\.also: the closed form forgets what the method does"),
        ({"start": {"pictures": 0}}, "start.pictures"),
    ],
)
def test_a_start_that_cannot_be_is_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        AIzheimer(**options)


class TestBank:
    """Keys and values trained on kept queries, layer by layer."""

    OPTIONS: ClassVar = {"parts": ("k", "v"), "anchor_weight": 0.5, "bank": {"forget": 4, "retain": 6}}

    def test_the_network_is_asked_for_queries_alone(self, tiny_backbone):
        with counted(tiny_backbone) as count:
            edit, rows = unlearn(tiny_backbone, **self.OPTIONS)
        # Guided rollouts of 7 trajectories, two steps each; inputs of each kind, to train on and held out.
        assert count.latents == 7 * 2 * 2 + 4 + 6 + 2 + 2
        assert [row["step"] for row in rows] == [1, 2, 3]
        assert list(rows[0]["losses"]) == ["attention", "teacher", "anchor"]
        assert rows[0]["losses"]["teacher"] == 0
        assert {name.split(".")[-2] for name in edit.deltas} == {"to_k", "to_v"}

    def test_attention_falls_in_the_network_too(self, tiny_backbone):
        options = self.OPTIONS | {"training": {"steps": 20, "monitor_every": 20}}
        edit, _ = unlearn(tiny_backbone, **options)
        looks = []
        with edit.applied(tiny_backbone.pipe):
            method = small(parts=("k",), training={"steps": 1, "lr": 1e-9})
            method.unlearn(tiny_backbone, SANTA, callbacks=Callbacks(on_monitor=looks.append))
        plain = []
        method.unlearn(tiny_backbone, SANTA, callbacks=Callbacks(on_monitor=plain.append))
        assert looks[0]["attention_mass"] < 0.9 * plain[0]["attention_mass"]

    @pytest.mark.parametrize("warm_start", [None, 4])
    def test_a_run_that_is_stopped_goes_on_to_the_same_bits(self, tiny_backbone, tmp_path, warm_start):
        bank = self.OPTIONS["bank"] | {"warm_start": warm_start}
        method = small(**self.OPTIONS | {"bank": bank, "training": {"checkpoint_every": 1}})
        check_resume(method, SANTA, tmp_path / "run", at=2)

    def test_training_through_the_network_begins_where_the_bank_ends(self, tiny_backbone):
        before = tiny_backbone.fingerprint()
        alone, _ = unlearn(tiny_backbone, **self.OPTIONS | {"training": {"steps": 4}})
        bank = self.OPTIONS["bank"] | {"warm_start": 4}
        looks, stages = [], []
        callbacks = Callbacks(on_monitor=looks.append, on_progress=lambda *event: stages.append(event))
        method = small(**self.OPTIONS | {"bank": bank, "training": {"steps": 1, "lr": 1e-3, "monitor_every": 1}})
        edit = method.unlearn(tiny_backbone, SANTA, callbacks=callbacks)
        assert tiny_backbone.fingerprint() == before
        assert [event for event in stages if event[0] == "steps on the bank"][-1][1:] == (4, 4)
        # The first look is at the unchanged model, the second at what the bank left: mass counts from before it.
        assert [row["step"] for row in looks] == [0, 0, 1]
        assert looks[1]["attention_mass"] < looks[0]["attention_mass"]
        assert edit.deltas.keys() == alone.deltas.keys()

    def test_lean_options_leave_what_is_trained(self, tiny_backbone):
        whole, _ = unlearn(tiny_backbone, **self.OPTIONS)
        half = {"precision": "bf16", "weights": "bf16", "checkpointing": True}
        lean, rows = unlearn(tiny_backbone, **self.OPTIONS | {"training": half})
        assert lean.deltas.keys() == whole.deltas.keys()
        assert all(math.isfinite(row["loss"]) for row in rows)
        assert all(delta.isfinite().all() for delta in lean.deltas.values())

    def test_the_bank_may_begin_from_the_closed_form(self, tiny_backbone):
        looks = []
        method = small(**self.OPTIONS | {"start": CLOSED})
        method.unlearn(tiny_backbone, SANTA, callbacks=Callbacks(on_monitor=looks.append))
        assert [row["step"] for row in looks] == [0, 0, 3]

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"parts": ("q", "v"), "bank": {}}, "bank trains keys, which attention looks at; put k into parts"),
            ({"parts": ("q", "k"), "bank": {}}, "parts has q; leave it out, or set bank.warm_start"),
            ({"parts": ("k",), "bank": {}, "reconstruction": "retain"}, "set reconstruction to teacher or none"),
            ({"parts": ("k",), "bank": {}, "refresh_every": 2}, "set it to 0"),
            ({"bank": {"warm_start": 0}}, "greater than or equal to 1"),
            ({"bank": {"keep": "int8"}}, "'float16' or 'float32'"),
        ],
        ids=str,
    )
    def test_what_it_cannot_do_is_refused(self, options, said):
        with pytest.raises(ValidationError) as error:
            AIzheimer(**options)
        assert said in str(error.value)


SOLVED = {"start": {"average_of": 4, "prior_prompts": 8, "pictures": 1, "picture_steps": 1, "drift": None}}


class TestSeveral:
    def test_what_is_solved_is_the_closed_forms_own_edit(self, tiny_backbone):
        method = AIzheimer(**SOLVED, enough=1.0, parts=("k", "v"), also=("cat",))
        edit = method.unlearn(tiny_backbone, SANTA)
        alone = method.start.model_copy(update={"also": ("cat",), "seed": method.training.seed, "layers": "all"})
        assert same_edit(edit, alone.unlearn(tiny_backbone, SANTA))
        assert edit.provenance.method == "aizheimer"
        assert targets_of(edit) == (SANTA.target, "cat")

    def test_more_left_than_enough_is_told_and_nothing_is_trained(self, tiny_backbone):
        with pytest.raises(TrainingError, match=r"left of 2 concepts where 0% is enough"):
            AIzheimer(**SOLVED, enough=0.0, also=("cat",)).unlearn(tiny_backbone, SANTA)

    @pytest.mark.parametrize("options", [{}, SOLVED, {**SOLVED, "enough": 0.5, "images": "generate:4"}])
    def test_what_would_be_trained_takes_one(self, options):
        assert not takes_several(AIzheimer(**options))
        with pytest.raises(ValidationError, match="also: several concepts are solved for"):
            AIzheimer(**options, also=("cat",))
