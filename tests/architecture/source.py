"""What the architecture tests read: the source files as syntax trees, and who imports whom."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SOURCE = REPOSITORY / "src" / "aizheimer"


@dataclass(frozen=True)
class Module:
    """One source file."""

    path: Path
    root: Path = SOURCE

    def __str__(self) -> str:
        return str(self.path.relative_to(self.root))

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, filename=str(self.path))

    @property
    def parts(self) -> tuple[str, ...]:
        """Its place below the package: ("methods", "aizheimer"), or ("methods",) for the package's __init__."""
        inside = self.path.relative_to(self.root).with_suffix("").parts
        return inside[:-1] if inside[-1] == "__init__" else inside

    @property
    def package(self) -> str:
        """The first word of its place, which the layer table names; "" for aizheimer/__init__.py."""
        return self.parts[0] if self.parts else ""

    def imports(self) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Yield (line, parts below aizheimer) of every import of ours, wherever in the file it stands."""
        for node in ast.walk(self.tree):
            for name in self._imported(node):
                parts = tuple(name.split("."))
                if parts[0] == "aizheimer":
                    yield node.lineno, parts[1:]

    def foreign_imports(self) -> Iterator[tuple[int, str]]:
        """Yield (line, top-level name) of every import that is not ours."""
        for node in ast.walk(self.tree):
            for name in self._imported(node):
                if (top := name.split(".")[0]) != "aizheimer":
                    yield node.lineno, top

    def _imported(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                here = ("aizheimer", *self.path.relative_to(self.root).parent.parts)
                base = here[: len(here) - node.level + 1]
                module = ".".join((*base, *filter(None, [module])))
            # "from aizheimer import cli" names a package by its alias
            if module == "aizheimer":
                yield from (f"aizheimer.{alias.name}" for alias in node.names)
            else:
                yield module


def modules(root: Path = SOURCE) -> list[Module]:
    """Return every Python file below ``root``."""
    return [Module(path, root) for path in sorted(root.rglob("*.py")) if "__pycache__" not in path.parts]
