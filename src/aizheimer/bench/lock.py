"""One bench at a time in a folder."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from aizheimer.errors import RunFolderError

FILE_NAME = "bench.lock"


@contextlib.contextmanager
def locked(folder: Path, *, say: Callable[[str], None] = print) -> Iterator[None]:
    """Hold a folder for this process; a second bench is refused, the lock of a process that died is taken over.

    The lock is a file that says who holds it. It is made by one system call that fails if it is there, so two benches
    that start at once cannot both have it. A process is known by its number and, where the system tells, by when it
    started: a number may be given to another process later.

    Args:
        folder: The bench's folder; it must exist.
        say: Told when a dead process's lock is taken over.

    Raises:
        RunFolderError: If a living process, or one of another machine, holds the folder.
    """
    file = folder / FILE_NAME
    while not _take(file):
        holder = _read(file)
        if holder is None:
            continue  # let go between two looks
        if not _is_dead(holder):
            raise RunFolderError(
                f"{folder} is in use by another bench (process {holder.get('pid')} on {holder.get('host')}, since "
                f"{holder.get('since')}); wait for it or give another folder. If it is not running, delete {file}"
            )
        if _remove(file, holder):
            say(f"took over the lock of process {holder.get('pid')}, which is no longer running")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _take(file: Path) -> bool:
    """Make the lock file, whole and at once: it is filled under another name and linked into place."""
    import datetime

    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    mine = {"pid": os.getpid(), "host": platform.node(), "since": now, "started": _started(os.getpid())}
    draft = file.with_name(f".{file.name}.{uuid.uuid4().hex[:12]}.tmp")
    draft.write_text(json.dumps(mine), encoding="utf-8")
    try:
        os.link(draft, file)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True


def _read(file: Path) -> dict[str, Any] | None:
    """Return who holds the lock, None if nobody does any more; a damaged file is held by nobody we know."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        found = None
    return found if isinstance(found, dict) else {"pid": "unknown", "host": "unknown", "since": "unknown"}


def _remove(file: Path, holder: dict[str, Any]) -> bool:
    """Move a dead lock away; another bench that takes it over at the same moment wins or loses as a whole."""
    aside = file.with_name(f".{file.name}.{uuid.uuid4().hex[:12]}.old")
    try:
        file.rename(aside)
    except FileNotFoundError:
        return False
    was_dead = _read(aside) == holder
    if not was_dead:
        with contextlib.suppress(FileExistsError):
            os.link(aside, file)  # somebody else's fresh lock: put it back
    aside.unlink()
    return was_dead


def _is_dead(holder: dict[str, Any]) -> bool:
    pid = holder.get("pid")
    if holder.get("host") != platform.node() or not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return holder.get("started") is not None and holder["started"] != _started(pid)


def _started(pid: int) -> str | None:
    """Return when a process started, in the system's own ticks; None where the system does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]
