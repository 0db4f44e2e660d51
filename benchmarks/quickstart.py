r"""How long the quickstart takes, from nothing to an exported LoRA: the page's own commands, in the page's order.

The page's console blocks are run by one shell, as somebody would type them, in a fresh clone of what is committed, with
an empty cache of pip's and of ours; only ``PIP_CONSTRAINT`` is set, to this repository's constraints. The last section
asks for a model of one's own and is left out, as the file says. Nothing but the standard library is needed.

Usage:
    python benchmarks/quickstart.py [--venv FOLDER] [--page docs/quickstart.md] [--output FILE]

Where an index cannot be reached, ``PIP_RETRIES=0`` keeps pip from waiting for it; the file says so.
With ``--venv`` the installation is left out and an environment that has the package is used.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "quickstart.md"
RESULTS = REPOSITORY / "benchmarks" / "results" / "quickstart.json"
OWN_MODEL = "## With a model of your own"
INSTALLATION = "## 1. Install"
Content = dict[str, Any]


def commands(text: str) -> tuple[list[str], list[str]]:
    """Return the commands of the page's installation, and those between it and the section on one's own model."""
    installation, rest = text.split(OWN_MODEL)[0].split(INSTALLATION)[1].split("\n## ", 1)
    return _typed(installation), _typed(rest)


def _typed(text: str) -> list[str]:
    blocks = re.findall(r"^```console\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [line[2:] for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.startswith("$ ")]


def script(lines: list[str], times: Path) -> str:
    """Return a shell script that runs the commands one after the other, and writes seconds and exit code of each."""
    parts = []
    for line in lines:
        parts += ["started=$EPOCHREALTIME", f"printf '$ %s\\n' {shlex.quote(line)}", line, "code=$?"]
        parts.append(f'echo "$started $EPOCHREALTIME $code" >> {shlex.quote(str(times))}')
        parts.append("[ $code = 0 ] || exit $code")
    return "\n".join(parts) + "\n"


def run(lines: list[str], *, folder: Path, venv: Path | None) -> tuple[list[Content], str]:
    """Run the commands in a folder.

    Returns:
        A row for each command that was begun, and all that they printed.
    """
    times = folder.parent / "times"
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV", "PIP_CACHE_DIR")}
    environment |= {
        "PIP_CONSTRAINT": str(folder / "constraints.txt"),
        "PIP_NO_CACHE_DIR": "1",
        "AIZHEIMER_CACHE": str(folder.parent / "cache"),
        "LC_ALL": "C.UTF-8",
    }
    if venv is not None:
        environment["PATH"] = f"{venv.resolve() / 'bin'}{os.pathsep}{environment['PATH']}"
    shell = ["bash", "-c", script(lines, times)]
    printed = []
    pipe: Content = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(shell, cwd=folder, env=environment, **pipe) as running:
        for line in running.stdout or ():
            printed.append(line)
            sys.stderr.write(line)
    measured = times.read_text().splitlines() if times.exists() else []
    return rows_of(lines, measured), "".join(printed)


def rows_of(lines: list[str], measured: list[str]) -> list[Content]:
    """Return what the shell wrote of each command that was begun."""
    rows = []
    for line, told in zip(lines, measured, strict=False):
        begun, ended, code = told.split()
        rows.append({"command": line, "seconds": round(float(ended) - float(begun), 1), "exit": int(code)})
    return rows


def downloaded(printed: str) -> float:
    """Return how much pip says it downloaded, in MB: nothing where the packages were on the disk."""
    scale = {"kB": 1e-3, "MB": 1, "GB": 1e3}
    found = re.findall(r"Downloading \S+ \(([\d.]+) (kB|MB|GB)\)", printed)
    return round(sum(float(number) * scale[unit] for number, unit in found), 1)


def from_disk(printed: str) -> int:
    """Return how many packages pip took from a folder of this machine, which took no time to download."""
    return len(re.findall(r"Processing \S+\.whl", printed))


def measure(*, venv: Path | None = None) -> Content:
    """Follow the page in a fresh clone and return what there is to say of it."""
    installing, using = commands(PAGE.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="quickstart-") as temporary:
        clone = Path(temporary) / "aizheimer"
        subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(REPOSITORY), str(clone)], check=True)
        load, started = os.getloadavg()[0], time.time()
        rows, printed = run(using if venv else installing + using, folder=clone, venv=venv)
        total = round(time.time() - started, 1)
        exported = sorted(clone.glob("exports/*.safetensors"))
        files = {path.name: path.stat().st_size for path in exported}
    return {
        "commands": rows,
        "all_done": len(rows) == len(using if venv else installing + using) and all(r["exit"] == 0 for r in rows),
        "total_seconds": total,
        "exported_bytes": files,
        "downloaded_mb": downloaded(printed),
        "packages_from_disk": from_disk(printed),
        "pip_retries": os.environ.get("PIP_RETRIES", "pip's own"),
        "installed": venv is None,
        "cores": os.cpu_count(),
        "nice": os.nice(0),
        "load_before_and_after": [round(load, 1), round(os.getloadavg()[0], 1)],
        "python": sys.version.split()[0],
        "left_out": "the section on a model of one's own, which needs one",
    }


def sentence(content: Content) -> str:
    """Return what the page says of the measurement."""
    installing = sum(r["seconds"] for r in content["commands"] if "aizheimer " not in r["command"])
    minutes, using = content["total_seconds"] / 60, content["total_seconds"] - installing
    before, after = content["load_before_and_after"]
    disk, priority = content["packages_from_disk"], content["nice"]
    beside = f", beside other work (load {before:g} to {after:g}{f', nice {priority}' if priority else ''})"
    return (
        f"Measured on {content['cores']} cores, from the first command to the LoRA: **{minutes:.1f} minutes**, "
        f"{installing:.0f} seconds of them to install"
        + (f" ({content['downloaded_mb']:.0f} MB downloaded, {disk} packages were on the disk)" if disk else "")
        + f" and {using:.0f} to forget, measure, attack and export"
        + (beside if max(before, after) > 1 else "")
        + ". Command: `python benchmarks/quickstart.py`, raw: `benchmarks/results/quickstart.json`."
    )


def with_sentence(text: str, content: Content) -> str:
    """Return the page with what was measured between its marks, in lines of at most 120 characters."""
    lines, line = [], ""
    for word in sentence(content).split(" "):
        if len(line) + len(word) >= 120:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    block = "\n".join([*lines, line])
    marks = r"(<!-- measured: begin -->\n).*?(<!-- measured: end -->)"
    return re.sub(marks, lambda m: f"{m[1]}\n{block}\n\n{m[2]}", text, flags=re.DOTALL)


def main() -> int:
    """Measure, keep the figures and state them on the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, help="an environment that has the package; nothing is installed then")
    parser.add_argument("--page", type=Path, help="state the total between the marks of this page")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    content = measure(venv=args.venv)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(content, indent=1))
    if args.page is not None:
        args.page.write_text(with_sentence(args.page.read_text(encoding="utf-8"), content), encoding="utf-8")
    return 0 if content["all_done"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
