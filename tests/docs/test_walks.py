"""Whole pages are followed on the embedded model, from first command to last, in one folder, with few pictures."""

import functools
import shutil
from pathlib import Path

import pytest

import aizheimer
from aizheimer.cli import main
from aizheimer.cli.picture import FILE_NAME, draw_before_after
from tests.docs.snippets import PYTHON, REPOSITORY, RUN, blocks
from tests.docs.walks import PAGES_WALKED, WALK, cheaper

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.timeout(900)]
DRAWN_OUT = {"README.md", "quickstart.md"}
"""Pages whose runs draw the picture before and after; on the others it is left out."""

ALLOWED = {"check": {0, 3}, "evaluate": {0, 3}}
"""With so few pictures a requirement may be missed; that is what the commands then say."""


def undrawn(backbone, edit, folder, *, progress=None):
    """Stand in for the picture that ends every run, which takes three times as long as the edit."""
    return folder / FILE_NAME


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the runs that pages take for granted, a cache of its own, and one picture of each group."""
    folder = tmp_path_factory.mktemp("walk")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("AIZHEIMER_CACHE", str(folder / "cache"))
        patch.setattr("aizheimer.cli.picture.EACH", 1)
        patch.setattr("aizheimer.cli.forget.draw_before_after", undrawn)
        for words in ("Santa Claus", "cat", "dog", "fox"):
            assert main(["forget", words, "--method", "uce"]) == 0
        assert main(["evaluate", "runs/santa-claus", "--samples", "8"]) == 0
        shutil.copytree("runs/cat", "runs/cat-2")
        for name in ("santa-claus-small", "esd", "uce", "aizheimer"):  # as `shrink` and other methods leave them
            shutil.copytree("runs/santa-claus", f"runs/{name}")
        assert main(["stack", "runs/cat", "runs/dog", "--out", "runs/pets"]) == 0
        shutil.copytree("runs", "prepared")
        gate = next(b for b in blocks(REPOSITORY / "docs" / "release-gate.md") if b.language == "yaml")
        Path("my-gate.yaml").write_text(gate.body, encoding="utf-8")
        yield folder


def fresh(folder):
    """Have the prepared runs again, and nothing that an earlier page left; pictures stay in the cache."""
    for path in folder.iterdir():
        if path.name not in {"cache", "prepared", "my-gate.yaml"}:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    shutil.copytree(folder / "prepared", folder / "runs")


@pytest.fixture(scope="module")
def done():
    """Commands that an earlier page has run on the same runs: they would do the same."""
    return set()


def alone(page):
    """Whether each block of a page is an example of its own, and not a step after the one before."""
    return page.parent.name == "reference" or page.name == "index.md"


@pytest.mark.parametrize("page", PAGES_WALKED, ids=lambda page: page.name)
def test_pages_can_be_followed(page, folder, done, capsys, monkeypatch):
    fresh(folder)
    if page.name in DRAWN_OUT:
        monkeypatch.setattr("aizheimer.cli.forget.draw_before_after", draw_before_after)
    before = None
    for block, words in WALK:
        if block.page != page or words[0] in RUN - {"stack", "diff"}:
            continue
        if alone(page) and block != before:
            fresh(folder)
        before = block
        run = cheaper(words)
        if alone(page) and tuple(run) in done:
            continue
        code = main(run)
        told = capsys.readouterr()
        assert code in ALLOWED.get(words[0], {0}), f"{block}: {' '.join(words)}\n{told.err[-1000:]}"
        assert told.out.strip(), f"{block}: {' '.join(words)} says nothing"
        done.add(tuple(run))
        if "--out" in words:
            assert (folder / words[words.index("--out") + 1]).exists()


@pytest.mark.parametrize("block", [block for block in PYTHON if block.small], ids=str)
def test_python_blocks_run_small(block, folder, monkeypatch):
    """As they stand, but for the method and the number of pictures; a pipeline on disk is the embedded one's folder."""
    fresh(folder)
    (folder / "path" / "to").mkdir(parents=True, exist_ok=True)
    pipeline = folder / "path" / "to" / "pipeline"
    if not pipeline.exists():
        pipeline.symlink_to(aizheimer.load_model("emoji").pipe.config._name_or_path)
    monkeypatch.setattr(aizheimer, "forget", functools.partial(aizheimer.forget, method="uce"))
    monkeypatch.setattr(aizheimer, "evaluate", functools.partial(aizheimer.evaluate, samples=8))
    names = {"__name__": "documentation"}
    exec(compile(block.body, str(block), "exec"), names)
    assert names["edit"].deltas
    assert (folder / "runs" / "santa-claus" / "edit.safetensors").is_file()
