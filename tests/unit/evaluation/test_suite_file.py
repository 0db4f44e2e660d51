"""Suite files: every shipped one loads, every mistake is one line, and the protocol's settings reach the scene."""

import pytest

from aizheimer._registry import SUITES
from aizheimer.errors import InputError, JudgeError, RecipeError
from aizheimer.evaluation.suite import Suite
from aizheimer.evaluation.suite_file import SHIPPED, LoadedSuite, list_suites, load_suite, run_suites
from aizheimer.evaluation.suites.families import Families
from aizheimer.evaluation.suites.identity import Identity
from tests.unit.evaluation.suites.scenes import counting, learn, scene_of


@pytest.mark.parametrize("name", list(SUITES))
def test_every_registered_suite_is_one_and_has_its_file(name):
    kind = SUITES.get(name)
    assert kind.name == name
    assert isinstance(kind(), Suite)
    assert kind.model_validate(kind().model_dump(mode="json")) == kind()
    assert (SHIPPED / f"{name}.yaml").is_file()


@pytest.mark.parametrize("name", list_suites())
def test_every_shipped_file_loads_and_says_what_it_asks(name):
    loaded = load_suite(name)
    assert loaded.label == name
    assert loaded.description
    assert load_suite(SHIPPED / f"{name}.yaml").suite == loaded.suite


def test_a_file_of_ones_own(tmp_path):
    (tmp_path / "mine.yaml").write_text("suite: families\nparameters: {images: 3}\nsettings: {steps: 7}\n")
    loaded = load_suite(tmp_path / "mine.yaml")
    assert (loaded.label, loaded.suite.images, loaded.settings) == ("mine", 3, {"steps": 7})


def test_the_protocols_settings_win_over_the_scenes(tiny_backbone, tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "suite: families\nparameters: {images: 1, families: [name]}\nsettings: {steps: 2, guidance: 1.5}\n"
    )
    result = load_suite(tmp_path / "mine.yaml").run(scene_of(tiny_backbone))
    assert (result.settings.steps, result.guidance, result.settings.bootstrap) == (2, 1.5, 100)


def test_parameters_can_be_replaced_and_are_never_ignored():
    assert load_suite("families").with_parameters(effective_only=True).suite.effective_only
    having = "families or canvas or identity"
    with pytest.raises(InputError, match=rf"'quality' does not know effective_only, .* or ask {having}, which does"):
        load_suite("quality").with_parameters(effective_only=True)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("suite: families\nparameters: {image: 3}\n", "unknown key 'image'. Did you mean 'images'?"),
        ("suite: families\nparamters: {images: 3}\n", "unknown key 'paramters'. Did you mean 'parameters'?"),
        ("suite: familes\n", "unknown suite 'familes'. Did you mean 'families'?"),
        ("suite: canvas\nparameters: {sedes: [1], prompt: x}\nsettings: {step: 1}\n", "3 problems"),
        ("suite: canvas\nsettings: {step: 1}\n", "settings: unknown key 'step'"),
        ("parameters: {}\n", "suite is missing"),
        ("- a\n", "holds no suite"),
        ("suite: [\n", "not a readable YAML file"),
    ],
)
def test_mistakes_are_one_line(tmp_path, text, wanted):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_suite(tmp_path / "mine.yaml")
    assert wanted in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_that_are_no_suite():
    with pytest.raises(RecipeError, match=r"unknown suite 'canvass'. Did you mean 'canvas'\? There are: canvas"):
        load_suite("canvass")
    with pytest.raises(RecipeError, match=r"the suite file gone\.yaml does not exist"):
        load_suite("gone.yaml")


def test_several_on_one_scene(tiny_backbone, monkeypatch, tmp_path):
    for name, families in (("one", "[name]"), ("two", "[name, templates]")):
        text = f"suite: families\nparameters: {{images: 2, families: {families}}}\n"
        (tmp_path / f"{name}.yaml").write_text(text)
    suites = [load_suite(tmp_path / f"{name}.yaml") for name in ("one", "two")]
    scene = scene_of(tiny_backbone)
    learn(monkeypatch, suites[1].suite, scene)
    told = []
    results = run_suites(suites, scene, progress=lambda *row: told.append(row))
    assert list(results) == ["one", "two"]
    assert ("two", "families", 8, 8) in told
    with pytest.raises(InputError, match="suite 'one' is given more than once"):
        run_suites([suites[0], suites[0]], scene)


SMALL = Families(images=1, families=("name",))


def loaded(label, suite):
    return LoadedSuite(label=label, description="", suite=suite, settings={"steps": 1})


def test_what_cannot_be_asked_is_told_before_the_first_suite_draws(tiny_backbone, monkeypatch):
    """Both reasons in one line, and the suite that could have been asked has drawn nothing."""
    suites = [loaded("first", SMALL), load_suite("canvas-unlearncanvas"), loaded("second", Identity(people=("a", "b")))]
    with counting(monkeypatch) as drawn, pytest.raises(InputError) as caught:
        run_suites(suites, scene_of(tiny_backbone))
    assert drawn == []
    assert "none of its 20 objects" in str(caught.value)
    assert "none of its 2 people" in str(caught.value)


def test_each_result_is_kept_as_soon_as_it_is_there(tiny_backbone):
    class Failing(Families):
        def run(self, scene, *, progress=None):
            if scene.draws:
                raise JudgeError("the judge went home")
            return super().run(scene, progress=progress)

    kept = []
    suites = [loaded("first", SMALL), loaded("second", Failing(images=1, families=("name",)))]
    with pytest.raises(JudgeError):
        run_suites(suites, scene_of(tiny_backbone), keep=lambda *found: kept.append(found))
    ((label, result),) = kept
    assert (label, result.suite) == ("first", "families")
