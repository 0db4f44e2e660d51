"""A search on the tiny pipeline: what it chooses, what it leaves out, and how it goes on after an interruption."""

import json

import numpy as np
import pytest
import yaml

from aizheimer.api import load_edit
from aizheimer.backbones.base import backbone_for
from aizheimer.concepts.neighbours import nearest
from aizheimer.errors import GateError, InputError, MissingDependencyError, RunFolderError
from aizheimer.evaluation.evaluate import draw_pairs
from aizheimer.evaluation.judges import Judges
from aizheimer.evaluation.plan import candidates, plan_images
from aizheimer.evaluation.results import EvaluationResult
from aizheimer.evaluation.settings import EvaluationSettings
from aizheimer.recipes import load_recipe
from aizheimer.tuning import looking
from aizheimer.tuning.record import TuneRecord
from aizheimer.tuning.search import tune
from aizheimer.tuning.trials import FRESH, JOURNAL, RECORD
from tests.bad_edits import TARGET, NearestJudge
from tests.tiers import all_but
from tests.tiny import tiny_pipeline, tiny_world

SAMPLES, CHEAP = 9, 5
ASKED = {"require": "UA>=0.6", "search": ["strength=0.02..4"], "samples": SAMPLES, "cheap": CHEAP, "trials": 4}


@pytest.fixture(scope="module")
def backbone():
    return backbone_for(tiny_pipeline(), world=tiny_world())


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIZHEIMER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def judges(backbone, _own_cache):
    """Judges that know what the unedited model draws, in the search's pictures and in the fresh ones."""
    world = backbone.world
    known = NearestJudge(tuple(item.label for item in world.vocabulary)), NearestJudge(world.styles)
    for seed in (0, FRESH):
        for size in (SAMPLES, CHEAP):
            settings = EvaluationSettings.sized(size, seed=seed)
            near = nearest(TARGET.target, candidates(TARGET, world), backbone.embed_concepts, settings.neighbours)
            plan = plan_images(TARGET, world, neighbours=[label for label, _ in near], settings=settings)
            drawn = draw_pairs(backbone.pipe, None, plan=plan, settings=settings, guidance=world.guidance).original
            for judge, name in zip(known, ("object", "style"), strict=True):
                shown = [(p, getattr(i, name)) for p, i in zip(drawn, plan, strict=True) if getattr(i, name)]
                judge.learn(np.stack([p for p, _ in shown]), [label for _, label in shown])
    return Judges(object=known[0], style=known[1])


@pytest.fixture
def search(backbone, judges, tmp_path):
    def run(**changes):
        fields = {"method": load_recipe("uce"), "out": tmp_path / "run", "judges": judges, **ASKED, **changes}
        return tune(backbone, TARGET, **fields)

    return run


@pytest.mark.long
def test_the_weakest_edit_that_meets_the_demand_becomes_a_run(search, tmp_path):
    found = search()
    run = tmp_path / "run"
    record = TuneRecord.load(run / RECORD)
    assert record == found.record
    assert [trial.number for trial in record.trials] == [0, 1, 2, 3]
    assert record.trials[0].settings == {"strength": 1.0}, "the method as it was given comes first"
    met = [trial for trial in record.trials if trial.state == "measured" and trial.values["ua"] >= 0.6]
    chosen = record.trials[record.chosen]
    assert chosen in met
    refused = [c.number for c in record.confirmations if not c.met]
    better = [trial for trial in met if trial.values["ira drop"] < chosen.values["ira drop"] - 1e-9]
    assert all(trial.number in refused for trial in better)
    assert load_edit(run).digest == found.edit.digest
    assert found.edit.provenance.strength == chosen.settings["strength"]
    assert yaml.safe_load((run / "recipe.yaml").read_text())["method"] == "uce"
    assert (run / "tune.png").stat().st_size > 5000
    assert not (run / "made").exists()
    judged = EvaluationResult.load(run / "evaluation.json")
    assert judged.edit == found.edit.digest
    assert judged.settings.seed == FRESH, "what was chosen by looking is measured on pictures it was not chosen by"
    assert judged.ua.value == record.confirmations[-1].values["ua"] >= 0.6


@pytest.mark.long
def test_an_edit_that_few_pictures_rule_out_is_not_measured_further(search, tmp_path, monkeypatch):
    sizes, evaluate = [], looking.evaluate

    def watched(*args, settings, **options):
        sizes.append(settings.target_images)
        return evaluate(*args, settings=settings, **options)

    monkeypatch.setattr(looking, "evaluate", watched)
    # Too weak to change a picture: the method as it was given is clipped into the range too.
    with pytest.raises(GateError, match=r"no edit of 2 trials met UA >= 0\.95; the nearest had UA 0\.000 at strength="):
        search(require="UA>=0.95", search=["strength=0.0001..0.001"], trials=2)
    few = EvaluationSettings.sized(CHEAP).target_images
    assert sizes == [few, few]
    record = TuneRecord.load(tmp_path / "run" / RECORD)
    assert [trial.state for trial in record.trials] == ["pruned", "pruned"]
    assert record.chosen is None
    assert not (tmp_path / "run" / "edit.json").exists()


class Enough(Exception):
    """The moment a search is stopped at."""


@pytest.mark.long
def test_a_search_that_was_killed_goes_on_where_it_was(search, tmp_path):
    def stop(trial, total):
        if trial.number == 1:
            raise Enough

    with pytest.raises(Enough):
        search(on_trial=stop)
    journal = tmp_path / "run" / JOURNAL
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 5, "wor')  # the process died while it wrote
    told = []
    found = search(resume=True, on_trial=lambda trial, total: told.append((trial.number, total)))
    assert told == [(2, 4), (3, 4)]
    assert [trial.number for trial in found.record.trials] == [0, 1, 2, 3]
    again = search(resume=True, on_trial=lambda *_: pytest.fail("there was nothing left to try"))
    assert again.record == found.record


@pytest.mark.long
def test_it_goes_on_only_for_what_it_was_begun_for(search):
    search(trials=1)
    with pytest.raises(RunFolderError, match=r"was for something else \(require\); resume it with the same"):
        search(require="UA>=0.5", resume=True)
    with pytest.raises(RunFolderError, match="already holds a run; add --resume"):
        search()
    assert search(trials=2, overwrite=True).record.trials[1].number == 1


@pytest.mark.long
@pytest.mark.parametrize("name", all_but(["search.db"], ["search.db", "search.journal"]))
def test_a_file_of_ones_own_keeps_the_trials(search, tmp_path, name):
    search(trials=1, storage=tmp_path / name, out=tmp_path / "a")
    with pytest.raises(RunFolderError, match=r"holds a search of santa claus by uce already; add --resume"):
        search(storage=tmp_path / name, out=tmp_path / "b")
    assert not (tmp_path / "b").exists()
    assert len(search(trials=2, storage=tmp_path / name, out=tmp_path / "a", resume=True).record.trials) == 2


@pytest.mark.parametrize("name", ["search.db", "search.journal"])
def test_a_file_that_is_something_else_is_refused_as_it_is(search, tmp_path, name):
    file = tmp_path / name
    file.write_text("a list of groceries\nbread\n")
    with pytest.raises(RunFolderError, match=r"is no file of a search \(.*\); name another with --storage"):
        search(storage=file)
    assert file.read_text() == "a list of groceries\nbread\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_fields_of_the_method_are_searched_with_the_strength(search, tmp_path):
    found = search(search=["preserve_scale=0.01..1:log"], trials=2)
    record = found.record
    assert list(record.trials[1].settings) == ["strength", "preserve_scale"]
    recipe = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert recipe["parameters"]["preserve_scale"] == record.trials[record.chosen].settings["preserve_scale"]
    assert json.loads((tmp_path / "run" / "edit.json").read_text())["provenance"]["recipe"] == recipe["parameters"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"judges": Judges()}, "UA and IRA drop cannot be measured on this model"),
        ({"require": []}, "Got nothing to require"),
        ({"trials": 0}, "trials: got 0; wanted 1 or more"),
        ({"cheap": 2}, "cheap: got 2; wanted 3 or more pictures, or 0"),
        ({"samples": 1}, "samples: got 1; wanted 3 or more"),
        ({"search": ["erase_scal=0..1"]}, "--search: uce has no erase_scal; `aizheimer show uce` lists"),
        ({"search": ["ridge=-2..-1"]}, "ridge: got -1.*; give --search another range"),
    ],
)
def test_what_cannot_be_searched_is_told_in_one_line_and_leaves_nothing(search, tmp_path, changes, said):
    with pytest.raises(InputError, match=said) as caught:
        search(**changes)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_without_optuna_it_says_what_to_install(search, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'aizheimer\[tune\]'"):
        search()
