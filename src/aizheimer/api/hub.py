"""Edits on the Hugging Face hub: pushed with a card, pulled without pickles."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from aizheimer import _files
from aizheimer.edits.edit import Edit
from aizheimer.edits.io import load_edit
from aizheimer.edits.parts import doing
from aizheimer.errors import AizheimerError, InputError, RunFolderError
from aizheimer.proof.check import check
from aizheimer.proof.findings import read_findings
from aizheimer.proof.gate import load_gate
from aizheimer.proof.verdict import Verdict
from aizheimer.reports.model_card import write_model_card

SENT = (
    *("edit.safetensors", "edit.json", "recipe.yaml", "history.jsonl"),
    *("evaluation.json", "suite-*.json", "attack-*.json", "certificate.json", "*.png"),
)
"""Files of a run that others get; besides, a card and ``env.json`` without the place of the model."""
_FETCHED = ("*.safetensors", "*.json", "*.jsonl", "*.yaml", "*.png", "*.md")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def push(
    run: str | Path,
    repository: str,
    *,
    licence: str = "",
    gate: str | Path | None = None,
    private: bool = False,
) -> str:
    """Upload a run's edit with its card.

    Args:
        run: The run folder.
        repository: ``"owner/name"``; made if it is not there.
        licence: Of the base, as the hub names it; it is the edit's too, which changes that model.
        gate: A gate file or name; the card states whether it holds.
        private: Make a new repository private.

    Returns:
        The address of what was uploaded.

    Raises:
        InputError: The run holds no edit, the repository's name is none, or there is no such gate.
        AizheimerError: The hub did not take it.
    """
    from huggingface_hub import HfApi

    _check_name(repository)
    with tempfile.TemporaryDirectory(prefix="aizheimer-") as place:
        folder = Path(place)
        words = stage(run, folder, licence=licence, gate=gate, repository=repository)
        try:
            api = HfApi()
            api.create_repo(repository, private=private, exist_ok=True)
            sent: Any = api.upload_folder(repo_id=repository, folder_path=folder, commit_message=f"An edit to {words}")
        except Exception as error:
            raise _not_done(f"{repository} could not be pushed to", error) from error
    return str(getattr(sent, "commit_url", "") or f"https://huggingface.co/{repository}")


def stage(
    run: str | Path, folder: Path, *, licence: str = "", gate: str | Path | None = None, repository: str = ""
) -> str:
    """Put what is pushed into an empty folder, and return what the edit makes a model do.

    Raises:
        InputError: The run holds no edit, or there is no such gate.
    """
    run = Path(run)
    load_edit(run)  # a damaged one is not sent
    found = read_findings(run)
    verdict: Verdict | None = None
    if gate is not None:
        verdict = check(found, load_gate(str(gate)), gate_name=str(gate))
    for pattern in SENT:
        for file in sorted(run.glob(pattern)):
            shutil.copyfile(file, folder / file.name)
    _write_environment(run, folder)
    card = {"licence": licence, "base": hub_base(run), "repository": repository}
    write_model_card(folder / "README.md", found, verdict=verdict, **card)
    return doing(found.parts)


def pull(repository: str, out: str | Path, *, revision: str | None = None) -> Edit:
    """Download an edit into a new run folder, whole or not at all.

    Args:
        repository: ``"owner/name"``.
        out: The run folder to make.
        revision: A commit, branch or tag.

    Returns:
        The edit, read and checked.

    Raises:
        RunFolderError: There is something at ``out``.
        EditError: What was downloaded is no edit, or damaged.
        AizheimerError: The hub did not give it.
    """
    from huggingface_hub import snapshot_download

    _check_name(repository)
    out = Path(out)
    if out.exists():
        raise RunFolderError(f"{out} is there already; choose another --out, or delete it")
    with _files.atomic_folder(out) as folder:
        try:
            fetched = snapshot_download(repository, revision=revision, allow_patterns=list(_FETCHED))
        except Exception as error:
            raise _not_done(f"{repository} could not be pulled from", error) from error
        for file in sorted(Path(fetched).iterdir()):
            # Of its own folder only: a repository may hold whatever it likes below.
            if file.is_file() and any(file.match(pattern) for pattern in _FETCHED):
                shutil.copyfile(file, folder / file.name)
        return load_edit(folder)


def _check_name(repository: str) -> None:
    if not _REPOSITORY.fullmatch(repository):
        raise InputError(f"got the repository {repository!r}, wanted owner/name, such as somebody/no-santa-claus.")


def hub_base(run: Path) -> str:
    """Return the hub id of the model that a run is for; "" for a folder, a file, a bundled or an unnamed model."""
    name = str(_environment(run).get("model", "")).partition("@")[0]
    return name if _REPOSITORY.fullmatch(name) and not Path(name).exists() else ""


def _environment(run: Path) -> dict[str, Any]:
    try:
        content = json.loads((run / "env.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_environment(run: Path, folder: Path) -> None:
    """Write ``env.json`` without the place of a model on this machine; a bundled one's name or a hub id stays."""
    content = _environment(run)
    if not content:
        return
    if Path(str(content.get("model", ""))).is_absolute():
        del content["model"]
    _files.write_json(folder / "env.json", content)


def _not_done(what: str, error: Exception) -> AizheimerError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return AizheimerError(f"{what} the hub ({reason}); check the name and the network, or log in: hf auth login")
