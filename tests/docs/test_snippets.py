"""What the documentation shows is run: cheap commands and Python blocks as they stand; others have a reason."""

import json
import shutil
from collections import Counter

import pytest

from aizheimer import api
from aizheimer.cli import main
from aizheimer.edits.compose import stack
from aizheimer.recipes import load_recipe
from tests.docs.snippets import COMMANDS, PYTHON, REASONS, REPOSITORY, RUN
from tests.docs.walks import WALK

RUNS = ("santa-claus", "cat", "cat-2", "dog", "fox", "apple")
SUMS = {"all": ("cat", "dog", "fox"), "pets": ("cat", "dog")}
CHEAP = list(dict.fromkeys(tuple(words) for _, words in COMMANDS if words[0] in RUN))
RUNNABLE = [block for block in PYTHON if not block.reason]


@pytest.fixture(scope="module")
def sandbox(saved_tiny_pipeline, tmp_path_factory):
    """A folder with the runs and files that pages name, of the tiny pipeline."""
    folder = tmp_path_factory.mktemp("docs")
    recipe = load_recipe("uce", ["retain_others=2", "retain_neighbours=2"])
    model = api.load_model(saved_tiny_pipeline)
    for name in RUNS:
        words = name.partition("-2")[0].replace("-", " ")
        api.forget(model, words, method=recipe, out=folder / "runs" / name)
    for name, parts in SUMS.items():
        stack(*(api.load_edit(folder / "runs" / part) for part in parts)).save(folder / "runs" / name)
        shutil.copy(folder / "runs" / "cat" / "env.json", folder / "runs" / name)
    (folder / "my-recipe.yaml").write_text("method: uce\nparameters: {ridge: 0.1}\n")
    return folder


@pytest.mark.parametrize("words", CHEAP, ids=" ".join)
def test_cheap_commands_do_what_they_say(words, sandbox, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(sandbox)
    words = [str(tmp_path / word) if words[i - 1] == "--out" else word for i, word in enumerate(words)]
    assert main(words) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.strip()


def test_every_other_command_has_a_reason():
    verbs = Counter(words[0] for _, words in COMMANDS)
    assert set(verbs) <= RUN | set(REASONS), "say in tests/docs/snippets.py why it is not run, or run it"
    assert set(verbs) >= RUN
    here = sum(n for verb, n in verbs.items() if verb in RUN)
    walked = sum(words[0] not in RUN for _, words in WALK)
    launched = sum("accelerate launch" in block.body for block, _ in COMMANDS)
    print(
        f"{here} of {len(COMMANDS)} commands are run here, {walked} more by tests/docs/test_walks.py, and the like of "
        f"{launched} by tests/contracts/test_sharded.py; the others are parsed, and run by the tests named"
    )
    assert here >= 25
    assert here + walked + launched >= 0.55 * len(COMMANDS), "the documentation shows more that nobody runs"


@pytest.mark.parametrize("block", RUNNABLE, ids=str)
@pytest.mark.slow
def test_python_blocks_run(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block.body, f"{block.page}:{block.line}", "exec"), {"__name__": "documentation"})


def test_what_is_not_run_says_why():
    """The comment is a choice that somebody made; there are few, and they do not become many unnoticed."""
    skipped = [block for block in PYTHON if block.reason and not block.small]
    assert len(skipped) <= 5, [str(block) for block in skipped]
    assert len(RUNNABLE) >= 5


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_notebook_runs(tmp_path, monkeypatch):
    """Its cells as one script: no kernel is needed for that."""
    monkeypatch.chdir(tmp_path)
    cells = json.loads((REPOSITORY / "examples" / "quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict = {"__name__": "notebook"}
    for number, cell in enumerate(cell for cell in cells if cell["cell_type"] == "code"):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    assert names["result"].ua.value >= names["result"].ua.original
    assert names["exported"].path.is_file()
    assert (names["before"] != names["after"]).any()
