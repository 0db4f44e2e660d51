"""Import optional packages, or say how to install them."""

from __future__ import annotations

import importlib
from types import ModuleType

from aizheimer.errors import MissingDependencyError


def require(package: str, *, extra: str | None = None, distribution: str | None = None) -> ModuleType:
    """Import and return ``package``, or raise with the exact pip line that installs it.

    Args:
        package: The module to import, such as ``"nudenet"`` or ``"torch.utils.tensorboard"``.
        extra: The extra of aizheimer that brings it, if there is one.
        distribution: Its name on the package index, where that differs from the module's.

    Raises:
        MissingDependencyError: The package is not installed. An installed package that fails on an
            import of its own raises that error unchanged: installing it again would not help.

    Example:
        >>> require("json").dumps([1])
        '[1]'
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        top = package.partition(".")[0]
        if error.name not in (top, package):
            raise
        wanted = f"'aizheimer[{extra}]'" if extra else (distribution or top)
        raise MissingDependencyError(f"{top} is not installed; install it with: pip install {wanted}") from error
