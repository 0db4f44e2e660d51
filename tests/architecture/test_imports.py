"""Code flows one way: a file imports from lower layers, its own package, underscored files and errors."""

from pathlib import Path

import pytest

from tests.architecture.source import Module, modules

LAYERS = {
    "concepts": 1,
    "diffusion": 1,
    "recipes": 2,
    "backbones": 2,
    "detectors": 2,
    "data": 3,
    "modules": 3,
    "objectives": 4,
    "engine": 5,
    "edits": 5,
    "methods": 6,
    "evaluation": 7,
    "attacks": 8,
    "proof": 9,
    "reports": 10,
    "api": 11,
    "bench": 12,
    "studio": 12,
    "tuning": 12,
    "cli": 13,
    "__main__": 14,
}
PUBLIC_NAMES = 15  # aizheimer/__init__.py stands above all


def is_free(package: str) -> bool:
    """True for what every file may import and what may itself import nothing of ours but its like."""
    return package == "errors" or (package.startswith("_") and package != "__main__")


def violations(module: Module) -> list[str]:
    found = []
    for line, imported in module.imports():
        reason = _reason(module, imported)
        if reason:
            found.append(f"{module}:{line} imports {'.'.join(('aizheimer', *imported))}: {reason}")
    return found


def _reason(module: Module, imported: tuple[str, ...]) -> str:
    target = imported[0] if imported else ""
    if is_free(target):
        return ""
    if is_free(module.package):
        return "a file that all may import must not import a layer"
    if target == module.package and target:
        return _reason_between_methods(module, imported)
    own = LAYERS[module.package] if module.package else PUBLIC_NAMES
    other = LAYERS.get(target, PUBLIC_NAMES)
    return "" if other < own else f"layer {other} is not below layer {own}"


def _reason_between_methods(module: Module, imported: tuple[str, ...]) -> str:
    if module.package != "methods" or len(module.parts) < 2 or len(imported) < 2:
        return ""
    allowed = imported[1] in {"base", module.parts[1]} or imported[1].startswith("_")
    return "" if allowed else "two methods never import each other"


def test_every_package_has_a_layer():
    unknown = {m.package for m in modules() if m.package and not is_free(m.package)} - LAYERS.keys()
    assert not unknown, f"name the layer of {sorted(unknown)} in LAYERS (docs/architecture.md)"


@pytest.mark.parametrize("module", modules(), ids=str)
def test_imports_point_downwards(module):
    assert violations(module) == []


@pytest.mark.parametrize(
    ("place", "line", "reason"),
    [
        ("concepts/concept.py", "from aizheimer.methods.base import Method", "layer 6 is not below layer 1"),
        ("engine/loop.py", "from aizheimer.edits.edit import Edit", "layer 5 is not below layer 5"),
        ("engine/loop.py", "from ..edits import edit", "layer 5 is not below layer 5"),
        ("engine/loop.py", "def f():\n    import aizheimer.api", "layer 11 is not below layer 5"),
        ("engine/loop.py", "from aizheimer import cli", "layer 13 is not below layer 5"),
        ("data/prepare.py", "import aizheimer", "layer 15 is not below layer 3"),
        ("methods/esd.py", "from .aizheimer import AIzheimer", "two methods never import each other"),
        ("_registry.py", "from aizheimer.concepts import Concept", "a file that all may import"),
        ("methods/esd.py", "from aizheimer.methods.base import Method", ""),
        ("methods/esd.py", "from aizheimer.engine.loop import train", ""),
        ("engine/loop.py", "from aizheimer.errors import TrainingError", ""),
        ("engine/loop.py", "from .checkpoint import save", ""),
        ("engine/loop.py", "import aizheimer._typing", ""),
    ],
)
def test_the_check_itself(tmp_path: Path, place: str, line: str, reason: str):
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.write_text(line)
    found = violations(Module(path, tmp_path))
    assert (reason in found[0] and len(found) == 1) if reason else found == []
