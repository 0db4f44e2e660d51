"""What the documentation tells people to type is understood by the command line and by Python."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

import aizheimer
from aizheimer.cli import app

REPOSITORY = Path(__file__).parents[2]
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]
EXAMPLES = sorted((REPOSITORY / "examples").glob("*.py"))


def blocks(page: Path, *languages: str) -> list[str]:
    """Return the fenced blocks of a page in any of the languages."""
    fenced = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [body for language, body in fenced if language in languages]


def commands(page: Path) -> list[list[str]]:
    """Return every aizheimer command of a page's console blocks, prompts and line ends removed."""
    found = []
    for block in blocks(page, "console", "bash", "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words and Path(words[0]).name == "aizheimer":
                found.append(words[1:])
    return found


def parse(words: list[str]) -> dict:
    """Parse one command as the program would, without running it; a mistake raises."""
    group = typer.main.get_command(app)
    name, *rest = words
    command = group.commands[name]
    with command.make_context(name, list(rest)) as context:
        return context.params


ALL_COMMANDS = [(page, words) for page in PAGES for words in commands(page)]


@pytest.mark.parametrize(
    ("page", "words"), ALL_COMMANDS, ids=[f"{page.name}: {' '.join(words)}" for page, words in ALL_COMMANDS]
)
def test_commands_parse(page, words):
    params = parse(words)
    overrides = params.get("overrides") or []
    assert all("=" in word for word in overrides), f"{page.name}: {overrides} are no key=value pairs"


def test_the_readme_shows_the_commands_that_make_a_report():
    names = [words[0] for page, words in ALL_COMMANDS if page.name == "README.md"]
    assert names[:3] == ["forget", "evaluate", "report"]


def test_a_wrong_command_would_be_found():
    with pytest.raises(Exception, match="No such option"):
        parse(["forget", "x", "--keeep", "y"])
    with pytest.raises(KeyError):
        parse(["forgot", "x"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_use_names_that_exist(page):
    for block in blocks(page, "python"):
        check_names(ast.parse(block))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples_use_names_that_exist(example):
    check_names(ast.parse(example.read_text(encoding="utf-8")))


def check_names(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "aizheimer":
            assert node.attr in aizheimer.__all__, f"aizheimer.{node.attr} is not public"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    links = re.findall(r"(?<!!)\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


def test_every_page_is_in_the_navigation():
    navigation = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())["nav"]
    listed = set(files_of(navigation))
    pages = {str(path.relative_to(REPOSITORY / "docs")) for path in (REPOSITORY / "docs").rglob("*.md")}
    assert listed == pages


def files_of(entries: list) -> list[str]:
    """Return the pages of a navigation, however deep its sections are."""
    found = []
    for entry in entries:
        for value in entry.values():
            found += files_of(value) if isinstance(value, list) else [value]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names_exists(page):
    for file, name in re.findall(r"`(\w[\w/]*\.py)::(\w+)`", page.read_text(encoding="utf-8")):
        tree = ast.parse((REPOSITORY / "tests" / file).read_text(encoding="utf-8"))
        there = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert name in there, f"{file} has no {name}"
