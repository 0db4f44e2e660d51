"""``evaluate --suite`` and ``ls suites``: what they print and keep, and mistakes before anything is drawn."""

import json

import pytest

from aizheimer.errors import JudgeError
from aizheimer.evaluation.results import EvaluationResult
from aizheimer.evaluation.suite import SuiteResult
from aizheimer.evaluation.suite_file import list_suites
from aizheimer.evaluation.suites.leftovers import Leftovers
from tests.unit.detectors.builders import save_clip, save_colour_judge

SMALL = "suite: families\nparameters: {images: 2, families: [name, languages]}\nsettings: {steps: 1}\n"


@pytest.fixture
def clip(tmp_path):
    return save_clip(tmp_path / "clip")


def test_results_are_printed_and_kept_with_the_run(cli, run_folder, tmp_path, clip):
    (tmp_path / "small.yaml").write_text(SMALL)
    words = ["evaluate", run_folder, "--clip", clip, "--suite", tmp_path / "small.yaml"]
    done = cli(*words)
    assert done.code == 0, done.err
    result = SuiteResult.load(run_folder / "suite-small.json")
    assert (result.suite, result.target, result.settings.steps) == ("families", "santa claus", 1)
    assert "ua.name" in done.out
    assert "not available: languages" in done.out
    again = cli(*words, "--effective-only", "--json")
    assert again.code == 0, again.err
    found = SuiteResult.model_validate(json.loads(again.out)["small"])
    assert found.parameters["effective_only"] is True


def test_a_judge_of_ones_own(cli, run_folder, tmp_path):
    (tmp_path / "small.yaml").write_text(SMALL)
    words = ["evaluate", run_folder, "--suite", tmp_path / "small.yaml", "--judge"]
    folder = save_colour_judge(tmp_path / "mine", names=("santa claus", "green", "blue"))
    done = cli(*words, folder)
    assert done.code == 0, done.err
    assert SuiteResult.load(run_folder / "suite-small.json").figures["ua.name"].judge.startswith("mine classifier ")
    done = cli(*words, save_colour_judge(tmp_path / "other"))
    assert (done.code, "has 3 classes, none of them 'santa claus'" in done.error) == (2, True)


def test_a_judge_of_ones_own_for_the_evaluation_and_for_its_check(cli, run_folder, tmp_path):
    folder = save_colour_judge(tmp_path / "mine", names=("santa claus", "green", "blue"))
    done = cli("evaluate", run_folder, "--samples", "3", "--effective-only", "--judge", folder)
    assert done.code == 0, done.err
    result = EvaluationResult.load(run_folder / "evaluation.json")
    assert result.calibration.judge.startswith("mine classifier ")
    assert result.settings.effective_only
    assert cli("verify", run_folder, "--samples", "2", "--judge", folder).code == 0
    if result.ua is not None:
        done = cli("verify", run_folder, "--samples", "2")
        assert (done.code, "judge of UA" in done.error) == (3, True)
    done = cli("evaluate", run_folder, "--samples", "3", "--judge", save_colour_judge(tmp_path / "other"))
    assert (done.code, "has 3 classes, none of them 'santa claus'" in done.error) == (2, True)


def test_a_suite_that_fails_takes_no_finished_one_with_it(cli, run_folder, tmp_path, clip, monkeypatch):
    (tmp_path / "small.yaml").write_text(SMALL)

    def stop(self, scene, *, progress=None):
        if scene.draws:
            raise JudgeError("the judge went home")

    monkeypatch.setattr(Leftovers, "run", stop)
    done = cli("evaluate", run_folder, "--clip", clip, "--suite", tmp_path / "small.yaml", "--suite", "leftovers")
    assert (done.code, "went home" in done.error) == (1, True)
    assert SuiteResult.load(run_folder / "suite-small.json").suite == "families"


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--suite", "familes"], "unknown suite 'familes'. Did you mean 'families'?"),
        (["--suite", "families", "--suite", "families"], "given more than once"),
        (["--suite", "families", "--samples", "9"], "a suite says itself how much it draws"),
        (["--suite", "quality", "--judge", "nudenet"], "the suite quality asks none"),
        (["--suite", "families"], "no object judge"),
        (["--suite", "families", "--suite", "neighbours", "--effective-only"], "'neighbours' does not know"),
        (["--suite", "canvas-unlearncanvas"], "'santa claus' is none of its 20 objects"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(cli, run_folder, words, wanted):
    before = sorted(path.name for path in run_folder.iterdir())
    done = cli("evaluate", run_folder, *words)
    assert done.code == 2
    assert wanted in done.error
    assert sorted(path.name for path in run_folder.iterdir()) == before


def test_ls(cli):
    done = cli("ls", "suites", "--json")
    assert json.loads(done.out) == {"suites": list_suites()}
    assert "UnlearnCanvas itself" in cli("ls", "suites").out
    assert "families" in cli("ls").out
