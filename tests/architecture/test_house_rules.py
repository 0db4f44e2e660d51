"""The house rules that a machine can hold: sizes, docstrings, names, safe files, declared dependencies."""

import ast
import functools
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator

import pytest

from tests.architecture.source import REPOSITORY, modules

FILE_LINES = 350
FUNCTION_LINES = 60
DOCUMENTED = {("tuning/search.py", "tune"): "its 24 parameters and what is said of them take 68 lines by themselves"}
"""Functions that only their documentation makes longer; what they do is held to the same length without it."""
VAGUE = {"utils", "util", "common", "core", "helpers", "helper", "misc", "shared"}
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {("torch", "load"), ("torch", "save"), ("np", "save"), ("numpy", "save")}

every_module = pytest.mark.parametrize("module", modules(), ids=str)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def all_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return a function's length, signature and docstring included: it is read on one page."""
    return function.end_lineno - function.lineno + 1


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return a function's length, signature included and docstring not."""
    if ast.get_docstring(function) is None:
        return all_lines(function)
    docstring = function.body[0]
    return all_lines(function) - (docstring.end_lineno - docstring.lineno + 1)


def head_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the length of a function's signature and docstring."""
    first = function.body[0]
    before = first.end_lineno if ast.get_docstring(function) is not None else first.lineno - 1
    return before - function.lineno + 1


def public_names_without_docstring(tree: ast.Module) -> list[str]:
    """Return the public classes, functions and methods that say nothing; what is inside a function is private."""
    missing = [] if ast.get_docstring(tree) else ["the module"]

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                if node.name.startswith("_") or _is_overload(node):
                    continue
                if ast.get_docstring(node) is None:
                    missing.append(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    visit(node.body, f"{prefix}{node.name}.")

    visit(tree.body, "")
    return missing


def _is_overload(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    names = {ast.unparse(decorator).split(".")[-1] for decorator in node.decorator_list}
    return bool(names & {"overload", "setter"})


def unsafe_names(tree: ast.AST) -> list[str]:
    """Return what could read or write a pickle; torch's restricted reader, asked for by name, runs nothing."""
    found = []
    restricted = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call) and _weights_only(node)}
    for node in ast.walk(tree):
        if id(node) in restricted:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in UNSAFE_MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNSAFE_MODULES:
            found.append(node.module)
        elif isinstance(node, ast.ImportFrom) and node.module == "torch":
            found += [f"torch.{alias.name}" for alias in node.names if ("torch", alias.name) in UNSAFE_CALLS]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found += [f"{node.value.id}.{node.attr}"] if (node.value.id, node.attr) in UNSAFE_CALLS else []
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            found.append("allow_pickle")
    return found


def _weights_only(call: ast.Call) -> bool:
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    value = given.get("weights_only")
    return ast.unparse(call.func) == "torch.load" and isinstance(value, ast.Constant) and value.value is True


@every_module
def test_files_are_short(module):
    assert len(module.text.splitlines()) <= FILE_LINES


@every_module
def test_functions_are_short(module):
    lines = {f: code_lines(f) if (str(module), f.name) in DOCUMENTED else all_lines(f) for f in functions(module.tree)}
    assert {f.name: n for f, n in lines.items() if n > FUNCTION_LINES} == {}, "split it; nobody should save on words"


def test_only_documentation_excuses_a_long_function():
    found = [(str(module), f) for module in modules() for f in functions(module.tree)]
    assert {(place, f.name) for place, f in found if head_lines(f) > FUNCTION_LINES} == set(DOCUMENTED)


@every_module
def test_every_public_name_has_a_docstring(module):
    assert public_names_without_docstring(module.tree) == []


@every_module
def test_no_module_is_a_drawer(module):
    assert not {part.strip("_") for part in module.parts} & VAGUE, "a helper belongs to a stage: name the stage"


@every_module
def test_nothing_reads_or_writes_a_pickle(module):
    assert unsafe_names(module.tree) == []


@every_module
def test_no_bare_assert(module):
    lines = [node.lineno for node in ast.walk(module.tree) if isinstance(node, ast.Assert)]
    assert lines == [], "an assert vanishes under python -O: raise an error of aizheimer.errors"


@every_module
def test_every_import_is_declared(module):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    declared = {_canonical(re.match(r"[\w.-]+", line)[0]) for line in project["dependencies"]}
    owners = _owners()
    for line, name in module.foreign_imports():
        if name in sys.stdlib_module_names:
            continue
        distributions = {_canonical(owner) for owner in owners.get(name, [name])}
        assert distributions & declared, f"{module}:{line} imports {name}, which pyproject.toml does not declare"


@functools.cache
def _owners() -> dict[str, list[str]]:
    """Return which distributions each top-level name is from; reading that takes a third of a second."""
    return dict(importlib.metadata.packages_distributions())


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_constraints_pin_every_dependency():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [re.match(r"[\w.-]+", line)[0] for line in project["dependencies"] + extras["dev"]]
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pinned = {_canonical(line.split("==")[0]) for line in lines if "==" in line and not line.startswith("#")}
    assert {_canonical(name) for name in wanted} <= pinned


class TestTheChecksThemselves:
    def test_a_docstring_does_not_count_as_code(self):
        (function,) = functions(ast.parse('def f():\n    """One.\n\n    Three.\n    """\n    x = 1\n    return x\n'))
        assert code_lines(function) == 3
        assert head_lines(function) == 5
        assert all_lines(function) == 7

    def test_without_a_docstring_all_lines_are_code(self):
        (function,) = functions(ast.parse("def f(\n    a,\n):\n    x = a\n    return x\n"))
        assert (head_lines(function), code_lines(function), all_lines(function)) == (3, 5, 5)

    def test_missing_docstrings_are_found(self):
        tree = ast.parse('"""Doc."""\nclass A:\n  def f(self): ...\n  def _g(self): ...\ndef h():\n  """Doc."""\n')
        assert public_names_without_docstring(tree) == ["A", "A.f"]

    @pytest.mark.parametrize(
        "line",
        [
            *("import pickle", "from torch import load", "torch.load('x')", "np.load('x', allow_pickle=True)"),
            *("torch.load('x', weights_only=False)", "torch.load('x', weights_only=flag)"),
        ],
    )
    def test_unsafe_names_are_found(self, line):
        assert len(unsafe_names(ast.parse(line))) == 1

    def test_safe_names_are_not(self):
        safe = "json.load(f)\nedit.save(folder)\n'never pickle'\ntorch.load('x', weights_only=True)"
        assert unsafe_names(ast.parse(safe)) == []
