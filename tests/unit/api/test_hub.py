"""Push and pull against a hub that is a folder."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import yaml
from huggingface_hub.repocard_data import model_index_to_eval_results

from aizheimer import api
from aizheimer.edits import load_edit
from aizheimer.errors import AizheimerError, EditError, InputError, RunFolderError
from tests.unit.edits.artifacts import CROSS, edit_of_weights
from tests.unit.proof.builders import good


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub whose repositories are folders."""
    root, asked = tmp_path / "hub", []

    class Api:
        def create_repo(self, repo_id, *, private, exist_ok):
            asked.append(("create", repo_id, private))
            assert exist_ok
            (root / repo_id).mkdir(parents=True, exist_ok=True)

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            asked.append(("upload", commit_message))
            shutil.copytree(folder_path, root / repo_id, dirs_exist_ok=True)
            return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

    def snapshot_download(repo_id, *, revision, allow_patterns):
        asked.append(("download", repo_id, revision))
        if not (root / repo_id).is_dir():
            raise OSError("404: no such repository\nand more")
        assert not any("bin" in pattern or "pt" in pattern for pattern in allow_patterns)
        return str(root / repo_id)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return SimpleNamespace(root=root, asked=asked)


@pytest.fixture
def run(tiny_backbone, tmp_path) -> Path:
    from aizheimer.api.artifacts import save_run

    folder = save_run(edit_of_weights(tiny_backbone.pipe, CROSS), tiny_backbone, tmp_path / "run")
    good(edit=load_edit(folder).digest).save(folder / "evaluation.json")
    (folder / "cache").mkdir()
    (folder / "notes.txt").write_text("mine")
    return folder


def test_there_and_back(hub, run, tmp_path, tiny_backbone):
    url = api.push(run, "somebody/no-santa", licence="openrail", gate="quick", private=True)
    assert url == "https://hub/somebody/no-santa/commit/1"
    assert hub.asked == [("create", "somebody/no-santa", True), ("upload", "An edit to forget “santa claus”")]
    repository = hub.root / "somebody/no-santa"
    names = {path.name for path in repository.iterdir()}
    assert names == {"edit.safetensors", "edit.json", "env.json", "evaluation.json", "README.md"}
    for file in repository.glob("*.*"):
        assert str(tiny_backbone.pipe.name_or_path).encode() not in file.read_bytes(), file
    edit = api.pull("somebody/no-santa", tmp_path / "pulled", revision="v1")
    assert edit.digest == load_edit(run).digest
    assert hub.asked[-1] == ("download", "somebody/no-santa", "v1")
    with edit.applied(tiny_backbone.pipe):
        pass


def test_the_card(hub, run):
    api.push(run, "somebody/no-santa", licence="openrail", gate="release")
    card = (hub.root / "somebody/no-santa" / "README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["license"] == "openrail"
    name, results = model_index_to_eval_results(head["model-index"])
    assert name
    assert {result.metric_name: result.metric_value for result in results} == {"UA": 1, "IRA": 1, "CRA": 1}
    assert "## Gate “release”: NOT passed" in card
    assert "- fails: " in card
    assert "What this does not say" in card


@pytest.mark.parametrize(
    ("model", "base"),
    [("somebody/sd", "somebody/sd"), ("somebody/sd@v1", "somebody/sd"), ("emoji", ""), ("/models/sd", ""), (None, "")],
)
def test_a_card_names_a_base_that_the_hub_has(hub, run, model, base):
    content = {} if model is None else {"model": model}
    (run / "env.json").write_text(json.dumps(content), encoding="utf-8")
    api.push(run, "somebody/no-santa")
    card = (hub.root / "somebody/no-santa" / "README.md").read_text(encoding="utf-8")
    assert yaml.safe_load(card.split("---\n")[1]).get("base_model", "") == base
    assert "aizheimer pull somebody/no-santa --out edit" in card
    assert "licence of the base: not stated" in card


def test_figures_of_another_edit_are_not_pushed(hub, run):
    load_edit(run).scale(0.0001).save(run)
    with pytest.raises(InputError, match=r"evaluation\.json was measured on edit"):
        api.push(run, "somebody/no-santa")
    assert hub.asked == []


def test_what_cannot_be(hub, run, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="wanted owner/name"):
        api.push(run, "no-santa")
    with pytest.raises(EditError, match="holds no edit"):
        api.push(tmp_path, "somebody/no-santa")
    with pytest.raises(AizheimerError, match=r"could not be pulled from the hub \(404: no such repository\)"):
        api.pull("somebody/nothing", tmp_path / "out")
    with pytest.raises(RunFolderError, match="is there already"):
        api.pull("somebody/no-santa", run)
    api.push(run, "somebody/no-santa")
    (hub.root / "somebody/no-santa" / "edit.safetensors").write_bytes(b"torn")
    with pytest.raises(EditError, match="is damaged"):
        api.pull("somebody/no-santa", tmp_path / "out")
    assert not (tmp_path / "out").exists()

    def refuse(*_args, **_options):
        raise OSError("401: not logged in")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    with pytest.raises(AizheimerError, match=r"401: not logged in.*hf auth login"):
        api.push(run, "somebody/no-santa")
