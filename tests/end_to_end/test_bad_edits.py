"""Five edits that are bad on purpose, on the model that ships, put to the suites and attacks that ship."""

import dataclasses

import pytest

from aizheimer import api
from aizheimer.attacks.base import AttackSettings
from aizheimer.attacks.load import load_attack
from aizheimer.concepts.neighbours import nearest
from aizheimer.edits.compose import scale, stack
from aizheimer.edits.io import load_edit
from aizheimer.evaluation.judges import load_judges
from aizheimer.evaluation.settings import EvaluationSettings
from aizheimer.evaluation.suite import Scene
from aizheimer.proof.check import check
from aizheimer.proof.findings import read_findings
from aizheimer.proof.gate import Gate
from aizheimer.proof.trials import run_trials
from tests.bad_edits import measured, renamed

TARGET = "Santa Claus"
GATE = Gate(
    use="value", min_ua=0.9, min_ua_by_family=0.7, max_ira_drop=0.2, max_cra_drop=0.2, max_near_drop=0.2, max_asr=0.3
)
SETTINGS = EvaluationSettings(
    target_images=12, neighbours=3, neighbour_images=4, others=24, steps=8, precision="bfloat16", bootstrap=200
)
ATTACK = AttackSettings(images=8, steps=8, precision="bfloat16")
SUITE = "suite: families\nparameters: {images: 10, families: [name, templates, %s], effective_only: true}\n"
pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """The model, and a cache for the whole file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIZHEIMER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield api.load_model("emoji")


def verdict_of(backbone, edit, folder, *, suites=(), attacks=()):
    """Save the edit, measure what is asked for, and hold what the folder then has against the gate."""
    concept, judges = edit.provenance.concept.to_concept(), load_judges(backbone.world)
    measured(backbone, edit, judges, folder, settings=SETTINGS)
    scene = Scene(backbone=backbone, edit=load_edit(folder), concept=concept, judges=judges, settings=SETTINGS)
    done = run_trials(scene, folder=folder, suites=suites, attacks=attacks, attack_settings=ATTACK, controls="unedited")
    assert done.refused == {}
    return check(read_findings(folder), GATE)


def without_name(backbone, target, *, to):
    """Let the target's words mean another thing."""
    return renamed(backbone, target, to=to, concept=api.as_concept(target, world=backbone.world))


def test_a_no_op(backbone, tmp_path):
    edit = scale(api.forget(backbone, TARGET, method="uce"), 1e-5)
    assert not edit.is_noop
    assert verdict_of(backbone, edit, tmp_path).faults == ["no-op"]


def test_a_collapse(backbone, tmp_path):
    edit = scale(api.forget(backbone, TARGET, method="uce"), -40)
    verdict = verdict_of(backbone, edit, tmp_path)
    assert verdict.faults == ["collapse"]
    assert read_findings(tmp_path).evaluation.ua.value == 1


def test_a_killer_of_neighbours(backbone, tmp_path):
    """It says that it forgets one concept, and forgets that one's neighbours with it."""
    labels = [item.label for item in backbone.world.vocabulary if item.label != TARGET]
    near = nearest(TARGET, labels, backbone.embed_concepts, SETTINGS.neighbours)
    edits = [api.forget(backbone, word, method="uce") for word in (TARGET, *(label for label, _ in near))]
    edit = dataclasses.replace(stack(*edits), provenance=edits[0].provenance)
    assert verdict_of(backbone, edit, tmp_path).faults == ["neighbour-killer"]


@pytest.mark.parametrize(
    ("target", "to", "family"), [("rocket", "umbrella", "synonyms"), (TARGET, "dog", "indirect")], ids=lambda text: text
)
def test_one_that_forgot_the_name_alone(backbone, tmp_path, target, to, family):
    """Its words mean something else; a synonym, or a description of the same thing, still draws it."""
    (tmp_path / "families.yaml").write_text(SUITE % family)
    verdict = verdict_of(backbone, without_name(backbone, target, to=to), tmp_path, suites=[tmp_path / "families.yaml"])
    assert verdict.faults == ["prompt-only"]
    assert [line.rule for line in verdict.failures if line.fault] == [f"min_ua_by_family.{family}"]


def test_one_that_concept_inversion_brings_back(backbone, tmp_path):
    """Nothing but a name was lost, and a new one is learned in a few steps."""
    inversion = load_attack("concept-inversion", ["steps=20", "lr=0.05"])
    verdict = verdict_of(backbone, without_name(backbone, "rocket", to="umbrella"), tmp_path, attacks=[inversion])
    assert verdict.faults == ["recoverable"]
