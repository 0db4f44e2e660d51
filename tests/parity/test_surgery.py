"""Surgery: what is cut, the two losses at the frozen model and at the cut, their gradients, and what is refused."""

import pytest
import torch
from pydantic import ValidationError

from aizheimer._seeding import generator_for
from aizheimer.concepts import Concept
from aizheimer.edits.compose import targets_of
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.run_folder import RunFolder
from aizheimer.errors import EditError
from aizheimer.methods import surgery
from aizheimer.methods.surgery import CUT, Surgery
from aizheimer.methods.uce import UCE
from aizheimer.modules.parameters import swapped
from tests.trained import Stopped, check_resume, same_edit, small, tiny_backbone

CONCEPT = Concept("santa claus", keep=("cat",))
FEW = {"retain_neighbours": 2, "retain_others": 1, "retain_general": 1}
QUICK = {"base": "uce", "settings": tuple(f"{key}={value}" for key, value in FEW.items())}


def quick(**options):
    return small(Surgery, **{**QUICK, "cut": 1, "hold_weight": 3.0, **options})


@pytest.fixture
def looked(monkeypatch):
    """Run a method with a look into its problem while the weights are borrowed."""
    learn, found = surgery.learn, {}

    def run(look, method):
        def looking(*args, task, **options):
            def both(material):
                made = task(material)
                look(found, material, made)
                return made

            return learn(*args, task=both, **options)

        monkeypatch.setattr(surgery, "learn", looking)
        backbone = tiny_backbone()
        return found, method.unlearn(backbone, CONCEPT), backbone

    return run


def losses_at(material, made, share):
    """Return the losses of one batch at the original weights plus a share of the cut."""
    there = {name: value + share * made.begin[name] for name, value in material.originals.items()}
    with swapped(material.backbone.denoiser, there):
        return made.problem.losses(1, generator_for(0, "batch"))


def test_the_losses_by_hand(looked):
    """At the frozen model nothing is to be taught and all forgetting is undone; at the cut it is the reverse."""

    def look(found, material, made):
        backbone, words = material.backbone, material.data.forget_embeddings
        with torch.no_grad():
            found["frozen"], found["cut"] = losses_at(material, made, 0), losses_at(material, made, 1)
            retain, hold = made.problem.terms
            generator = generator_for(0, "batch")
            taught = retain.source.draw(2, step=1, generator=generator)
            held = hold.source.draw(2, step=1, generator=generator)
            predict = lambda draw, rows: backbone.predict(draw.x_t, draw.t, rows[draw.prompt_index])  # noqa: E731
            before = predict(held, words), predict(taught, material.retain_embeddings)
            cut = {name: value + made.begin[name] for name, value in material.originals.items()}
            with swapped(backbone.denoiser, cut):
                after = predict(held, words), predict(taught, material.retain_embeddings)
        found["undone"], found["untaught"] = ((a - b).square().mean() for a, b in zip(before, after, strict=True))

    found, edit, _ = looked(look, quick())
    frozen, cut = found["frozen"], found["cut"]
    assert list(frozen) == ["teacher", "erase"]
    assert [frozen[name].weight for name in frozen] == [1.0, 3.0]
    assert [frozen[name].role for name in frozen] == ["retain", "erase"]
    assert found["undone"] > 1e-8
    assert found["untaught"] > 1e-8
    torch.testing.assert_close(frozen["erase"].value, found["undone"], rtol=1e-3, atol=1e-10)
    torch.testing.assert_close(cut["teacher"].value, found["untaught"], rtol=1e-3, atol=1e-10)
    assert frozen["teacher"].value < 1e-5 * found["untaught"]
    assert cut["erase"].value < 1e-5 * found["undone"]
    assert not edit.is_noop


def test_the_gradients_by_finite_differences_and_where_they_vanish(looked):
    """Along the cut each loss is a valley: flat at its bottom, and elsewhere as steep as its values say."""

    def look(found, material, made):
        parameters = material.parameters
        for share in (0.0, 0.45, 0.5, 0.55, 1.0):
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(material.originals[name] + share * made.begin[name])
            for name, loss in made.problem.losses(1, generator_for(0, "batch")).items():
                slopes = torch.autograd.grad(loss.value, list(parameters.values()))
                along = sum(float((s * made.begin[n]).sum()) for n, s in zip(parameters, slopes, strict=True))
                found[name, share] = along, float(loss.value.detach())
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(material.originals[name])

    found, _, _ = looked(look, quick())
    assert abs(found["teacher", 0.0][0]) < 1e-3 * abs(found["teacher", 0.5][0])
    assert abs(found["erase", 1.0][0]) < 1e-3 * abs(found["erase", 0.5][0])
    assert found["teacher", 0.5][0] > 0 > found["erase", 0.5][0]
    for name in ("teacher", "erase"):
        slope = (found[name, 0.55][1] - found[name, 0.45][1]) / 0.1
        assert found[name, 0.5][0] == pytest.approx(slope, rel=0.05)


def test_what_is_cut_is_what_the_base_forgets_in_one_run(looked):
    found, edit, backbone = looked(lambda found, material, made: found.update(made.begin), quick(cut=2))
    near = [name for name, _ in edit.provenance.extra["neighbours"]][:2]
    assert edit.provenance.extra["cut"] == near
    assert "cat" not in near
    assert edit.provenance.extra["cut_by"]["method"] == "uce"
    cut = UCE(**FEW, also=tuple(near)).unlearn(backbone, Concept("santa claus", keep=("cat",)))
    for name, change in found.items():
        torch.testing.assert_close(change, cut.deltas[f"unet.{name}"])


def test_with_an_anchor_it_is_the_sum_of_the_bases_own_edits():
    backbone, method = tiny_backbone(), quick(cut=2)
    concept = Concept("santa claus", anchor="old man", keep=("cat",))
    near = method._entangled(backbone, concept)
    assert {one.anchor for one in near} == {"old man"}
    cut = method._cut(backbone, concept, Callbacks())
    alone = [UCE(**FEW).unlearn(backbone, one) for one in (concept, *near)]
    for name, change in cut.deltas.items():
        torch.testing.assert_close(change, sum(one.deltas[name] for one in alone))


def test_the_anchor_is_not_cut():
    backbone, method = tiny_backbone(), quick(cut=1)
    (first,) = method._entangled(backbone, Concept("santa claus"))
    (second,) = method._entangled(backbone, Concept("santa claus", anchor=first.target.upper()))
    assert second.target != first.target
    assert second.anchor == first.target.upper()


def test_teaching_brings_the_retained_back_and_not_the_concept():
    looks = []
    more = {
        "hold_weight": 1.0,
        "rollouts": {"forget": 4, "retain": 12, "holdout": 2, "steps": 3, "guidance": 3.0},
        "retain": {"neighbours": 2, "others": 1, "general": 1, "batch_size": 4, "monitor": 6},
    }
    method = quick(**more, training={"steps": 30, "lr": 3e-4, "monitor_every": 30, "batch_size": 4})
    method.unlearn(tiny_backbone(), CONCEPT, callbacks=Callbacks(on_monitor=looks.append))
    before, cut, after = looks
    assert before["erase_error"] == pytest.approx(1.0)
    assert before["retention_drift"] < 1e-9
    assert cut["erase_error"] < 1e-6
    assert after["retention_drift"] < 0.85 * cut["retention_drift"]
    assert after["erase_error"] < 0.1


def test_a_resumed_run_has_the_same_bits_and_does_not_cut_again(tmp_path, monkeypatch):
    method = quick(training={"steps": 6, "checkpoint_every": 2, "monitor_every": 6})
    check_resume(method, CONCEPT, tmp_path / "a", at=5)
    run = RunFolder(tmp_path / "b")

    def stop(row):
        raise Stopped

    with pytest.raises(Stopped):
        method.unlearn(tiny_backbone(), CONCEPT, run=run.create(), callbacks=Callbacks(on_step=stop))
    cuts, cut = [], Surgery._cut
    monkeypatch.setattr(Surgery, "_cut", lambda *args: cuts.append(args) or cut(*args))
    resumed = method.unlearn(tiny_backbone(), CONCEPT, run=run.create(resume=True))
    assert not cuts
    other = quick(cut=2, training={"steps": 1})
    fresh = other.unlearn(tiny_backbone(), CONCEPT, run=run.create(overwrite=True))
    assert len(cuts) == 1, "another run in the same folder makes a cut of its own"
    assert len(fresh.provenance.extra["cut"]) == 2
    assert not same_edit(resumed, fresh)
    assert (run.file(CUT) / "edit.json").is_file()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"base": "nonsense"}, "base: 'nonsense' is no method and no shipped recipe"),
        ({"base": "uce", "settings": ("ridges=1",)}, "base: .*unknown key 'ridges'"),
        ({"base": "surgery", "settings": ()}, "base: surgery changes no weights that could be taught again"),
        ({"base": "sld", "settings": ()}, "base: sld changes no weights that could be taught again"),
        ({"cut": 3}, r"cut=3 of retain\.neighbours=2; raise retain\.neighbours"),
        ({"training": {"drift_limit": 0.1}}, "training.drift_limit would stop at the cut"),
        ({"training": {"stop_mass_ratio": 0.1}}, "training.stop_mass_ratio watches attention"),
    ],
)
def test_what_cannot_be_is_refused(options, said):
    with pytest.raises(ValidationError, match=said):
        quick(**options)


def test_a_base_that_edits_the_text_encoder_is_refused():
    few = ("training.steps=1", "training.drift_limit=null", "retain.monitor=2", "retain.others=1", "rollouts.steps=2")
    few += ("rollouts.forget=1", "rollouts.retain=1", "rollouts.holdout=1")
    with pytest.raises(EditError, match=r"base: hirm edits text_encoder\..*; name a method that edits the denoiser"):
        quick(base="hirm", settings=few).unlearn(tiny_backbone(), CONCEPT)


def test_a_base_that_has_the_field_and_takes_one_cuts_each_alone():
    steps = "training={steps: 1, batch_size: 1, monitor_every: 1}"
    few = [f"retain_{name}=1" for name in ("neighbours", "others", "general")]
    plans = ["rollouts={forget: 2, retain: 2, holdout: 1, steps: 1}", "monitor_examples=1", steps]
    method = quick(cut=1, base="aizheimer", settings=("start=null", "enough=null", *few, *plans))
    backbone = tiny_backbone()
    (near,) = method._entangled(backbone, CONCEPT)
    assert targets_of(method._cut(backbone, CONCEPT, Callbacks())) == (CONCEPT.target, near.target)
