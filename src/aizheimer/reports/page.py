"""Pages that need no second file: templates that share one look, filled with escaped text."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from aizheimer._version import __version__
from aizheimer.reports import wording

if TYPE_CHECKING:
    from jinja2 import Environment


def render_page(template: str, **content: Any) -> str:
    """Return a page as HTML. All text that came from outside is escaped; a name without a value is an error.

    Args:
        template: A file in ``reports/templates``, such as ``"certificate.html"``.
        **content: What it shows.
    """
    return _environment().get_template(template).render(version=__version__, **content)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_read), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = wording.percent
    environment.filters |= wording.DISTANCE_FILTERS
    return environment


def _read(name: str) -> str:
    return resources.files("aizheimer.reports").joinpath(f"templates/{name}").read_text(encoding="utf-8")
