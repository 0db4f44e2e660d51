"""What people are told to type beside aizheimer itself: scripts take the options, extras and targets exist."""

import argparse
import importlib
import re
import sys
import tomllib

import pytest

from tests.docs.snippets import REPOSITORY, SCRIPTS, TYPED, aizheimer_words, words_of

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NO_OPTIONS = {"docs/reference.py"}
UNIQUE = {" ".join(words): words for _, words in SCRIPTS}


class Understood(Exception):
    """The options were parsed: the script has nothing more to do."""


@pytest.fixture
def parsed(monkeypatch):
    """Run a script up to its parser, and return what it made of the options."""
    genuine = argparse.ArgumentParser.parse_args

    def only_parse(self, args=None, namespace=None):
        raise Understood(genuine(self, args, namespace))

    def run(words):
        path = REPOSITORY / words[0]
        monkeypatch.syspath_prepend(str(path.parent))
        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
        monkeypatch.setattr(sys, "argv", list(words))
        before = set(sys.modules)
        try:
            module = importlib.import_module(path.stem)
            with pytest.raises(Understood) as said:
                module.main()
        finally:  # another folder may have a script of the same name
            for name in set(sys.modules) - before:
                if getattr(sys.modules[name], "__file__", None) and str(path.parent) in sys.modules[name].__file__:
                    del sys.modules[name]
        return said.value.args[0]

    return run


@pytest.mark.parametrize("words", UNIQUE.values(), ids=UNIQUE)
def test_scripts_take_the_options_that_pages_give_them(words, parsed):
    if words[0] in NO_OPTIONS:
        return
    options = vars(parsed(words))
    given = {word.lstrip("-").replace("-", "_") for word in words if word.startswith("--")}
    assert given <= set(options), "an abbreviation that argparse guesses is no option of the script"


def test_a_wrong_option_of_a_script_would_be_found(parsed, capsys):
    with pytest.raises(SystemExit):
        parsed(["benchmarks/methods.py", "--no-such-option"])
    assert "--no-such-option" in capsys.readouterr().err


def test_every_script_that_is_named_exists_and_most_are_collected():
    assert [words[0] for _, words in SCRIPTS if not (REPOSITORY / words[0]).is_file()] == []
    assert len(UNIQUE) >= 20


KNOWN = {
    "make": lambda words: words[1] in targets(),
    "pip": lambda words: is_installable(words),
    "git": lambda words: words[1] == "clone",
    "source": lambda words: words[1:] == [".venv/bin/activate"],
    "python3": lambda words: words[1:] == ["-m", "venv", ".venv"],
    "python": lambda words: (REPOSITORY / words[1]).is_file(),
    "pre-commit": lambda words: words[1:] == ["install"],
}


def targets():
    return set(re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


def is_installable(words):
    """Whether pip is asked for this package, with extras that it has."""
    asked = re.fullmatch(r"(?:aizheimer|\.)(?:\[([\w,]+)\])?", words[-1])
    extras = set((asked[1] or "").split(",")) - {""} if asked else None
    return words[1] == "install" and extras is not None and extras <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("line", list(dict.fromkeys(line for _, line in TYPED if aizheimer_words(line) is None)))
def test_other_programs_are_asked_for_what_there_is(line):
    words = words_of(line)
    program = words[0].rpartition("/")[2]
    assert program in KNOWN, "say in tests/docs/test_typed_lines.py what this program is asked for"
    assert KNOWN[program](words)


def test_an_extra_that_does_not_exist_would_be_found():
    assert is_installable(["pip", "install", "aizheimer[tune,ray]"])
    assert not is_installable(["pip", "install", "aizheimer[tunes]"])
    assert not is_installable(["pip", "install", "another"])
