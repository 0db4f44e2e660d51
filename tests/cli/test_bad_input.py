"""Bad input: one clear line, the right exit code, nothing half-written, and no old run touched."""

import json
import resource
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

from aizheimer.edits.io import load_edit
from tests.cli.conftest import QUICK
from tests.tiny import save_tiny, tiny_pipeline


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


BAD_WORDS = {
    "unknown method": (["--method", "aizheimr"], "unknown recipe or method 'aizheimr'. Did you mean 'aizheimer'?"),
    "missing recipe file": (["--recipe", "mine.yaml"], "mine.yaml does not exist"),
    "unknown recipe key": (["training.step=5"], "unknown key 'training.step'. Did you mean 'training.steps'"),
    "two concepts and an anchor": (["steps", "--anchor", "tree"], "Got 2 concepts and --anchor; give one concept"),
    "a concept twice": (["Santa Claus"], "is named twice"),
    "negative steps": (["training.steps=-3"], "training.steps: got -3"),
    "unknown loss": (["loss=distracton"], "Did you mean 'distraction'?"),
    "layer pattern": (["layers=upper_blocks.*"], "upper_blocks"),
    "concept cut off by the window": (["santa claus " * 40], "santa claus"),
    "empty concept": ([""], "the concept to forget is empty"),
    "blank concept": (["  "], "the concept to forget is empty"),
    "keep equal to target": (["--keep", "Santa Claus "], "cannot be kept and forgotten at once"),
    "empty keep": (["--keep", ""], "got an empty concept"),
    "missing images": (["--images", "no-such-folder"], "no-such-folder does not exist"),
    "no such number of images": (["--images", "generate:none"], "generate:N"),
    "resume nothing": (["--resume"], "holds no run to resume"),
    "resume and overwrite": (["--resume", "--overwrite"], "choose one"),
    "negative seed": (["--seed", "-1"], "training.seed: got -1"),
    "seed that is no number": (["--seed", "many"], "--seed"),
    "unknown option": (["--keeep", "cat"], "No such option"),
}


@pytest.mark.parametrize(("words", "wanted"), BAD_WORDS.values(), ids=BAD_WORDS)
def test_words_that_cannot_be_used(cli, saved_tiny_pipeline, tmp_path, words, wanted):
    out = tmp_path / "run"
    concept = [] if words[0].strip() == "" or words[0].startswith("santa") else ["santa claus"]
    done = cli("forget", *concept, *words, "--model", saved_tiny_pipeline, "--out", out)
    assert done.code == 2
    assert wanted in done.error
    assert done.err.count("\n") == 1, "an error that stops everything stands alone"
    assert done.out == ""
    assert not out.exists()


@pytest.mark.parametrize("name", [name for name in BAD_WORDS if "resume" not in name])
def test_an_old_run_survives_bad_words(cli, saved_tiny_pipeline, run_folder, name):
    words, _ = BAD_WORDS[name]
    before = snapshot(run_folder)
    concept = [] if words[0].strip() == "" or words[0].startswith("santa") else ["santa claus"]
    done = cli("forget", *concept, *words, "--model", saved_tiny_pipeline, "--out", run_folder, "--overwrite")
    assert done.code == 2
    assert snapshot(run_folder) == before


def test_all_mistakes_of_a_recipe_are_told_at_once(cli, tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("method: aizheimer\nparameters: {lss: distraction, parts: [q, z], training: {steps: -1}}\n")
    done = cli("validate", recipe)
    assert done.code == 2
    for part in ("3 problems", "'lss'", "parts", "training.steps: got -1"):
        assert part in done.error


class TestModel:
    def forget(self, cli, model, out):
        return cli("forget", "santa claus", "--model", model, "--out", out, *QUICK)

    @pytest.fixture
    def out(self, tmp_path):
        path = tmp_path / "run"
        yield path
        assert not path.exists()

    def test_missing_folder(self, cli, tmp_path, out):
        done = self.forget(cli, tmp_path / "gone", out)
        assert done.code == 2
        assert "no such folder" in done.error

    def test_folder_that_is_no_pipeline(self, cli, tmp_path, out):
        (tmp_path / "photos").mkdir()
        done = self.forget(cli, tmp_path / "photos", out)
        assert done.code == 2
        assert "no model_index.json" in done.error

    def test_pipeline_of_another_family(self, cli, tiny_folder, out):
        index = tiny_folder / "model_index.json"
        index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": "KolorsPipeline"}))
        done = self.forget(cli, tiny_folder, out)
        assert done.code == 2
        assert "KolorsPipeline" in done.error

    def test_corrupt_safetensors(self, cli, tiny_folder, out):
        weights = next((tiny_folder / "unet").glob("*.safetensors"))
        weights.write_bytes(weights.read_bytes()[:-100])
        done = self.forget(cli, tiny_folder, out)
        assert done.code == 2
        assert str(weights) in done.error

    def test_missing_part(self, cli, tiny_folder, out):
        shutil.rmtree(tiny_folder / "vae")
        done = self.forget(cli, tiny_folder, out)
        assert done.code == 2
        assert "vae" in done.error


class TestImages:
    @pytest.mark.parametrize("content", [{}, {"notes.txt": "no picture"}, {".hidden.png": "no picture"}])
    def test_a_folder_without_images(self, cli, saved_tiny_pipeline, tmp_path, content):
        photos = tmp_path / "photos"
        photos.mkdir()
        for name, text in content.items():
            (photos / name).write_text(text)
        out = tmp_path / "run"
        done = cli("forget", "santa claus", "--model", saved_tiny_pipeline, "--images", photos, "--out", out, *QUICK)
        assert done.code == 2
        assert "no images in" in done.error
        assert not out.exists()


class TestRunFolder:
    def test_that_holds_a_run(self, cli, saved_tiny_pipeline, run_folder):
        before = snapshot(run_folder)
        done = cli("forget", "santa claus", "--model", saved_tiny_pipeline, "--out", run_folder, *QUICK)
        assert done.code == 2
        assert "--resume" in done.error
        assert "--overwrite" in done.error
        assert snapshot(run_folder) == before

    def test_that_holds_other_files(self, cli, saved_tiny_pipeline, tmp_path):
        folder = tmp_path / "thesis"
        folder.mkdir()
        (folder / "chapter-1.txt").write_text("It was a dark and stormy night.")
        done = cli("forget", "santa claus", "--model", saved_tiny_pipeline, "--out", folder, "--overwrite", *QUICK)
        assert done.code == 2
        assert snapshot(folder) == {"chapter-1.txt": b"It was a dark and stormy night."}

    def test_that_is_a_file(self, cli, saved_tiny_pipeline, tmp_path):
        (tmp_path / "run").write_text("mine")
        done = cli("forget", "santa claus", "--model", saved_tiny_pipeline, "--out", tmp_path / "run", *QUICK)
        assert done.code == 2
        assert "is a file" in done.error
        assert (tmp_path / "run").read_text() == "mine"

    def test_resumed_with_other_parameters(self, cli, saved_tiny_pipeline, run_folder):
        before = snapshot(run_folder)
        done = cli(
            "forget",
            "santa claus",
            "--model",
            saved_tiny_pipeline,
            "--out",
            run_folder,
            "--resume",
            "loss=random_stimulus",
        )
        assert done.code == 2
        assert "other parameters (start, enough, loss" in done.error
        assert snapshot(run_folder) == before

    def test_resumed_with_another_concept(self, cli, saved_tiny_pipeline, run_folder):
        before = snapshot(run_folder)
        words = ["--recipe", run_folder / "recipe.yaml", "--keep", "cat", "--out", run_folder, "--resume"]
        done = cli("forget", "red apple", "--model", saved_tiny_pipeline, *words)
        assert done.code == 2
        assert "concept.target was 'santa claus', is 'red apple'" in done.error
        assert snapshot(run_folder) == before

    @pytest.mark.parametrize("command", ["show", "evaluate", "report"])
    def test_without_an_edit(self, cli, tmp_path, command):
        (tmp_path / "empty").mkdir()
        done = cli(command, tmp_path / "empty")
        assert done.code == 2
        assert "holds no edit" in done.error

    def test_with_a_damaged_edit(self, cli, run_folder):
        path = run_folder / "edit.safetensors"
        path.write_bytes(path.read_bytes()[:-8])
        done = cli("show", run_folder)
        assert done.code == 2
        assert "damaged" in done.error


@contextmanager
def no_room_for_files_over(size: int):
    """The system refuses to let a file grow beyond ``size`` bytes, as a full disk does: in mid-write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk(cli, saved_tiny_pipeline, session_run, tmp_path):
    size = (session_run / "checkpoint.safetensors").stat().st_size
    out = tmp_path / "run"
    words = ["santa claus", "--keep", "cat", "--model", saved_tiny_pipeline, "--out", out, *QUICK]  # its data is cached
    with no_room_for_files_over(size // 2):
        done = cli("forget", *words)
    assert done.code == 1
    assert "--resume" in done.error
    assert str(out) in done.error
    files = snapshot(out)
    assert "checkpoint.safetensors" not in files
    assert "edit.safetensors" not in files
    assert not [name for name in files if name.endswith(".tmp")]
    done = cli("forget", *words, "--resume")
    assert done.code == 0, done.err
    assert not load_edit(out).is_noop


def test_a_loss_that_is_not_a_number(cli, saved_tiny_pipeline, tmp_path):
    out = tmp_path / "run"
    words = [*QUICK, "training.lr=1e30", "training.clip=null", "training.drift_limit=null", "training.monitor_every=4"]
    done = cli("forget", "santa claus", "--model", saved_tiny_pipeline, "--out", out, *words)
    assert done.code == 1
    assert "training.lr" in done.error
    assert load_edit(out).is_noop, "the last good state is the one before the first step"


def test_an_edit_of_another_base(cli, run_folder, tmp_path):
    other = save_tiny(tmp_path / "other", pipe=tiny_pipeline(seed=1))
    done = cli("generate", "santa claus in noto style", "--model", other, "--edit", run_folder, "--steps", "1")
    assert done.code == 2
    assert "made for" in done.error
    assert not list(Path().rglob("*.png"))


class TestGenerate:
    @pytest.mark.parametrize(
        ("words", "wanted"),
        [
            (["  "], "empty prompt"),
            (["cat", "--steps", "-4"], "--steps"),
            (["cat", "--count", "0"], "--count"),
            (["cat", "--strength", "0.5"], "--edit"),
            (["cat", "--edit", "gone"], "gone holds no edit"),
        ],
    )
    def test_bad_words(self, cli, saved_tiny_pipeline, words, wanted):
        done = cli("generate", *words, "--model", saved_tiny_pipeline)
        assert done.code == 2
        assert wanted in done.error
        assert not Path("pictures").exists()


class TestEvaluate:
    @pytest.mark.parametrize("text", ["ua", "ua=", "ua=2", "ua=-1", "uva=0.5", "ira=101%", "ua=high"])
    def test_a_requirement_that_is_none(self, cli, run_folder, text):
        done = cli("evaluate", run_folder, "--require", text)
        assert done.code == 2
        assert f"'{text}'" in done.error
        assert not (run_folder / "evaluation.json").exists()

    def test_two_sizes(self, cli, run_folder):
        done = cli("evaluate", run_folder, "--full", "--samples", "9")
        assert done.code == 2
        assert "choose one" in done.error

    def test_a_run_that_does_not_name_its_model(self, cli, run_folder):
        (run_folder / "env.json").unlink()
        done = cli("evaluate", run_folder)
        assert done.code == 2
        assert "--model" in done.error


def test_errors_are_json_for_machines(cli, tmp_path):
    done = cli("forget", "", "--json", "--out", tmp_path / "run")
    assert done.out == ""
    assert json.loads(done.err)["error"]["exit_code"] == done.code == 2
