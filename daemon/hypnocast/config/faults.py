"""What is wrong with a value of the configuration, and what may be there, in words.

The words for what may be there are made from the types of the configuration themselves, so
that they cannot differ from what is checked.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

import msgspec
from msgspec import inspect

_PATTERNS = {
    r"^RW[A-Za-z0-9+/]{54}$": "a public key of minisign's, which begins with RW",
    r"^[A-Za-z0-9_-]{1,64}$": "1 to 64 letters, digits, _ or -",
    r"^[A-Za-z0-9_/-]{1,64}$": "1 to 64 letters, digits, _, - or /",
}
_SHOWN = 40


def fault(error: msgspec.ValidationError, text: str, table: type) -> tuple[str, str, str]:
    """Return the key that is wrong in a TOML text, what is wrong, and what to do."""
    what, _, path = str(error).partition(" - at `")
    key = path.rstrip("`").removeprefix("$").removeprefix(".")
    tables = msgspec.toml.decode(text)
    expected, value = _at(key, inspect.type_info(table), tables)
    key = by_id(key, tables)
    named = re.search(r"field `(.*)`$", what)
    if named is None or not isinstance(expected, inspect.StructType):
        return key or "top level", f"{_shown(value)} cannot be used", f"Give {allowed(expected)}."
    keys = {field.encode_name: field.type for field in expected.fields}
    if named[1] in keys:
        return key, f"{named[1]} is missing", f"Give {allowed(keys[named[1]])}."
    near = difflib.get_close_matches(named[1], keys, n=1)
    remedy = f"Did you mean {near[0]}?" if near else f"Known are {', '.join(keys)}."
    kind = "key" if key else "table"
    return key or "top level", f"there is no {kind} {named[1][:_SHOWN]!r}", remedy


def by_id(key: str, tables: Any) -> str:
    """Name a bed in a path by its id, where it has one: people do not count tables."""

    def named(match: re.Match[str]) -> str:
        try:
            bed = tables["bed"][int(match[1])]["id"]
        except (KeyError, IndexError, TypeError):
            return match[0]
        return f"bed {bed}" if isinstance(bed, str) else match[0]

    return re.sub(r"^bed\[(\d+)\]", named, key)


def allowed(expected: inspect.Type) -> str:
    """Return what may be where a type is expected, in words."""
    match expected:
        case inspect.Metadata():
            return allowed(expected.type)
        case inspect.UnionType():
            real = (one for one in expected.types if not isinstance(one, inspect.NoneType))
            return " or ".join(map(allowed, real))
        case inspect.VarTupleType():
            words = f"a list, each entry {allowed(expected.item_type)}"
            return words + ("; at least one" if expected.min_length else "")
        case inspect.StructType():
            return f"a table with {', '.join(field.encode_name for field in expected.fields)}"
        case _:
            return _plain(expected)


def _plain(expected: inspect.Type) -> str:
    words = "a table"
    match expected:
        case inspect.LiteralType():
            words = " or ".join(map(_shown, expected.values))
        case inspect.BoolType():
            words = "true or false"
        case inspect.IntType():
            words = "a whole number" + _limits(expected)
        case inspect.FloatType():
            words = "a number" + _limits(expected)
        case inspect.StrType():
            words = _PATTERNS.get(expected.pattern or "", "a text in quotes")
            words += ", not an empty one" if expected.min_length else ""
        case _:
            pass
    return words


def _limits(expected: inspect.IntType | inspect.FloatType) -> str:
    if expected.gt is not None:
        below = "" if expected.le is None else f" and at most {expected.le:g}"
        return f" above {expected.gt:g}{below}"
    return f" from {expected.ge:g} to {expected.le:g}" if expected.ge is not None else ""


def _at(key: str, expected: inspect.Type, value: Any) -> tuple[inspect.Type, Any]:
    """Follow a path such as ``bed[0].streams[1]`` through the types and what was written."""
    for name, place in re.findall(r"([^.\[\]]+)|\[([^\]]*)\]", key):
        while isinstance(expected, inspect.Metadata):
            expected = expected.type
        if isinstance(expected, inspect.UnionType):
            expected = next(one for one in expected.types if not isinstance(one, inspect.NoneType))
        match expected:
            case inspect.StructType():
                expected = next(f.type for f in expected.fields if f.encode_name == name)
                value = value.get(name) if isinstance(value, dict) else None
            case inspect.VarTupleType():
                expected = expected.item_type
                value = value[int(place)] if isinstance(value, list) else None
            case inspect.DictType():
                # Which of the keys it was is not known; their values are of one type.
                return expected.value_type, value
            case _:
                return expected, value
    return expected, value


def _shown(value: Any) -> str:
    match value:
        case dict():
            return "a table"
        case list():
            return "this list"
        case bool():
            return str(value).lower()
        case str():
            return repr(value[:_SHOWN])
        case _:
            return f"{value}"[:_SHOWN]
