"""What fuzzed inputs are made of: values that parsers stumble over, and changes of real bytes."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

NASTY_TEXT = (
    *(
        "",
        " ",
        "\x00",
        "null",
        "~",
        "-1",
        "1e999",
        ".nan",
        "._",
        "0b_",
        "=",
        "<<",
        "!!int ''",
        "!!timestamp x",
        "&a [*a]",
    ),
    *(
        "9" * 5000,
        "[" * 3000,
        "{" * 3000,
        "a" * 5000,
        "../../etc/passwd",
        "/",
        "..",
        "C:\\x",
        "é\u0301",
        "\u202e",
        "🎅",
    ),
    *("%s%n", "{concept}", "{0.__class__}", "[red]x[/]", "\ud800", "true", "2020-99-99", "!!python/object:os.system x"),
)

texts = st.sampled_from(NASTY_TEXT) | st.text(max_size=20)
numbers = (
    st.integers(-3, 3) | st.floats(width=32) | st.sampled_from([2**63, -(2**63), 10**400, math.inf, math.nan, 1e308])
)
scalars = st.none() | st.booleans() | numbers | texts


def nested(leaves: st.SearchStrategy[Any] = scalars, *, keys: st.SearchStrategy[Any] = texts) -> st.SearchStrategy[Any]:
    """Return JSON-like values, a few levels deep."""
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
    )


@st.composite
def changed_bytes(draw: st.DrawFn, content: bytes, *, pieces: tuple[bytes, ...] = ()) -> bytes:
    """Return a file's bytes with a few of them replaced, removed or repeated, or cut off."""
    data = bytearray(content)
    for _ in range(draw(st.integers(0, 5))):
        at, end = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
        end = min(end, at + draw(st.sampled_from([1, 4, 40, len(data)])))
        new = draw(st.binary(max_size=8) | st.sampled_from(pieces or (b"\x00", b"\xff" * 8)))
        data[at:end] = data[at:end] * 2 if draw(st.booleans()) and end - at < 1000 else new
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.integers(0, 9)) == 0 else bytes(data)


@st.composite
def changed_record(draw: st.DrawFn, record: Any) -> Any:
    """Return JSON with one to three of its values, wherever they are, replaced, removed or added."""
    for _ in range(draw(st.integers(1, 3))):
        record = _changed(draw, record)
    return record


def _changed(draw: st.DrawFn, value: Any) -> Any:
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 5)) == 0:
        return draw(nested())
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    key = draw(st.sampled_from(list(copy) if isinstance(copy, dict) else range(len(copy))))
    what = draw(st.integers(0, 5))
    if what == 0:
        del copy[key]
    elif what == 1 and isinstance(copy, dict):
        copy[draw(texts)] = draw(nested())
    else:
        copy[key] = _changed(draw, copy[key])
    return copy
