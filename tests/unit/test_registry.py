from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from aizheimer import _imports, _registry
from aizheimer._registry import Registry
from aizheimer.errors import MissingDependencyError, RecipeError, SelectorError

GROUP = "aizheimer.testing"


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A distribution on the path that brings three entry points, one of them broken."""
    (tmp_path / "plugin_of_a_test.py").write_text("VALUE = 'third party'\n")
    info = tmp_path / "plugin_of_a_test-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-of-a-test\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{GROUP}]\nzeta = plugin_of_a_test:VALUE\nsqrt = plugin_of_a_test:VALUE\nbroken = not_there_at_all:x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture
def registry() -> Iterator[Registry]:
    _registry._installed.cache_clear()
    yield Registry("function", {"sqrt": "math:sqrt", "floor": "math:floor"}, group=GROUP)
    _registry._installed.cache_clear()


def test_get_imports_the_attribute_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imported_late_by_a_test.py").write_text("VALUE = 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry("thing", {"late": "imported_late_by_a_test:VALUE"})
    assert "late" in registry
    assert "imported_late_by_a_test" not in sys.modules
    assert registry.get("late") == 42


def test_unknown_name_suggests_and_lists(registry: Registry) -> None:
    with pytest.raises(RecipeError) as caught:
        registry.get("sqr")
    message = str(caught.value)
    assert "unknown function 'sqr'" in message
    assert "Did you mean 'sqrt'?" in message
    assert "floor" in message
    assert "\n" not in message


def test_names_are_written_with_dashes_and_understood_with_underscores(plugin: Path) -> None:
    registry = Registry("function", {"is-close": "math:isclose"}, group=GROUP, aliases={"near": "is-close"})
    assert registry.get("is_close")(1.0, 1.0)
    assert registry.get("near") is registry.get("is-close")
    assert "is_close" in registry
    assert "near" in registry
    assert "is__close" not in registry
    assert registry.canonical("near") == registry.canonical("is_close") == "is-close"
    assert registry.canonical("zeta") == "zeta"
    assert "near" not in registry.names()
    with pytest.raises(RecipeError, match="Did you mean 'is-close'"):
        registry.canonical("is_clos")
    with pytest.raises(RecipeError, match="Did you mean 'near'"):
        registry.get("nera")


def test_the_error_class_is_the_callers() -> None:
    with pytest.raises(SelectorError, match="There are: none"):
        Registry("layer", {}, error=SelectorError).get("x")


def test_third_party_names_come_after_and_never_replace(registry: Registry, plugin: Path) -> None:
    assert registry.names() == ("sqrt", "floor", "broken", "zeta")
    assert registry.get("zeta") == "third party"
    assert registry.get("sqrt")(9.0) == 3.0
    assert list(registry) == list(registry.names())
    assert len(registry) == 4


def test_a_broken_third_party_names_itself(registry: Registry, plugin: Path) -> None:
    with pytest.raises(RecipeError, match=r"function 'broken' \(not_there_at_all:x\) cannot be imported"):
        registry.get("broken")


def test_two_packages_with_one_name_are_refused(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("same", "math:ceil", GROUP), EntryPoint("same", "math:exp", GROUP)]
    monkeypatch.setattr(_registry, "entry_points", lambda group: points)
    with pytest.raises(RecipeError, match=r"given by several packages \(math:ceil, math:exp\)"):
        registry.get("same")


def test_one_package_found_twice_is_one(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_registry, "entry_points", lambda group: [EntryPoint("same", "math:exp", GROUP)] * 2)
    assert registry.get("same")(0) == 1.0
    assert registry.names().count("same") == 1


def test_require_returns_the_module() -> None:
    assert _imports.require("os.path").join("a", "b")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"extra": "nudity"}, "pip install 'aizheimer[nudity]'"),
        ({"distribution": "some-name"}, "pip install some-name"),
        ({}, "pip install package_that_nobody_wrote"),
    ],
)
def test_require_gives_the_pip_line(arguments: dict[str, str], line: str) -> None:
    with pytest.raises(MissingDependencyError) as caught:
        _imports.require("package_that_nobody_wrote.part", **arguments)
    assert str(caught.value).endswith(line)
    assert caught.value.exit_code == 1


def test_require_does_not_hide_a_broken_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_package_of_a_test.py").write_text("import its_own_dependency_that_is_missing\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="its_own_dependency_that_is_missing"):
        _imports.require("broken_package_of_a_test")
