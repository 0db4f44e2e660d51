"""The fenced blocks of the documentation, and what runs of them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]

RUN = {"ls", "show", "validate", "env", "stack", "diff"}
"""Commands that every test run executes as they stand, on edits of the tiny pipeline."""

REASONS = {
    "forget": "trains or solves on the embedded model; tests/cli/test_forget.py runs it on the tiny one",
    "tune": "makes several edits; tests/cli/test_tune.py runs a short search",
    "shrink": "measures parts of an edit; tests/cli/test_shrink.py and tests/unit/tuning/test_shrink.py",
    "plan": "takes two small steps on the model; tests/cli/test_plan.py runs it",
    "evaluate": "draws 170 pictures; tests/end_to_end/test_forgets.py runs it",
    "attack": "draws and trains for minutes; tests/cli/test_attack.py runs it on the tiny pipeline",
    "compare": "needs evaluated runs; tests/cli/test_compare_and_check.py makes them",
    "check": "needs attacks and suites in the run; tests/cli/test_compare_and_check.py",
    "certificate": "needs an evaluated run; tests/cli/test_bench_and_certificate.py",
    "verify": "draws pictures again; tests/cli/test_bench_and_certificate.py",
    "bench": "makes many edits; tests/cli/test_bench_and_certificate.py runs a small one",
    "report": "needs an evaluated run; tests/end_to_end/test_forgets.py writes one",
    "export": "tests/cli/test_artifacts.py and the table in how-to/artifacts.md",
    "import": "needs a file of another program; tests/cli/test_artifacts.py writes them",
    "push": "needs the hub; tests/unit/api/test_hub.py pushes to a folder",
    "pull": "needs the hub; tests/unit/api/test_hub.py pulls from a folder",
    "generate": "draws pictures; tests/cli/test_commands.py runs it",
    "interference": "draws the pictures of several edits; tests/cli/test_interference.py runs it on the tiny pipeline",
    "studio": "serves until it is stopped; its own tests start it in a browser",
}
"""Why a command is only parsed by default, and what runs it."""


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: Where it is.
        line: The line of its fence.
        language: What is written behind the fence.
        body: What is in it.
        reason: Why it is not run as it stands, from a comment above it; "" if it is.
        small: Whether it is run with fewer pictures, in the long tier.
    """

    page: Path
    line: int
    language: str
    body: str
    reason: str
    small: bool = False

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """Yield every fenced block of a page."""
    text = page.read_text(encoding="utf-8")
    pattern = r"(?:^<!-- (not run|run small): ([^\n]+) -->\n)?^```(\w+)\n(.*?)^```$"
    for match in re.finditer(pattern, text, flags=re.MULTILINE | re.DOTALL):
        line = text[: match.start()].count("\n") + 1
        yield Block(page, line, match[3], match[4], match[2] or "", small=match[1] == "run small")


def lines(block: Block) -> list[str]:
    """Return every line of a console block that is typed, joined where it goes on, without its prompt."""
    return [line[2:] for line in block.body.replace("\\\n", " ").splitlines() if line.startswith("$ ")]


def words_of(line: str) -> list[str]:
    """Return the words of a typed line, without variables that are set before the program."""
    words = shlex.split(line, comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    return words


def aizheimer_words(line: str) -> list[str] | None:
    """Return what a line gives to aizheimer, directly or by accelerate's launcher; None for another program."""
    words = words_of(line)
    if words[:2] == ["accelerate", "launch"] and "-m" in words:
        words = words[words.index("-m") + 1 :]
    return words[1:] if words and Path(words[0]).name == "aizheimer" else None


def commands(block: Block) -> list[list[str]]:
    """Return the words of every aizheimer command of a console block, without the program's name."""
    return [words for line in lines(block) if (words := aizheimer_words(line)) is not None]


def python_lines(page: Path) -> list[list[str]]:
    """Return script and options of every ``python FILE ...`` of a page, in console blocks and between backticks."""
    text = page.read_text(encoding="utf-8")
    inline = re.findall(r"(?<!`)`(python\s+(?:benchmarks|models|docs)/[^`]+)`(?!`)", text)
    typed = [line for block in blocks(page) if block.language == "console" for line in lines(block)]
    found = [words_of(" ".join(line.split())) for line in (*inline, *typed)]
    return [words[1:] for words in found if words and words[0] == "python" and words[1].endswith(".py")]


ALL = [block for page in PAGES for block in blocks(page)]
PYTHON = [block for block in ALL if block.language == "python"]
DATA = [block for block in ALL if block.language in ("yaml", "json", "toml")]
TYPED = [(block, line) for block in ALL if block.language == "console" for line in lines(block)]
SCRIPTS = [(page, words) for page in PAGES for words in python_lines(page)]
COMMANDS = [(block, words) for block in ALL if block.language == "console" for words in commands(block)]
