"""Unfinished JSON: where the value of a key begins in it, or how to get there."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*("?)|[][{}:,]', re.DOTALL)


def lead_to(text: bytes, key: str) -> tuple[int, bytes]:
    """Return how to get from an answer to the place where the string value of ``key`` begins.

    Returns how much of the text to keep and what to write behind it. Where the key is there,
    that is all up to its value. Where the text breaks off before, an open string is closed, a
    member that is only half there is dropped, and the key is written.
    """
    found = re.search(rb'"' + re.escape(key.encode()) + rb'"\s*:\s*"', text)
    if found is not None:
        return found.end(), b""
    keep, closing = _closing(text)
    opening = b"" if keep else b"{"
    has_members = text[:keep].strip() not in {b"", b"{"}
    comma = b", " if has_members else b""
    return keep, closing + opening + comma + b'"' + key.encode() + b'": "'


def finished_json(text: bytes) -> dict[str, Any]:
    """Read an object that may break off: its whole members, and a string cut short."""
    for end in (b"", b"]}", b'"]}'):
        with contextlib.suppress(ValueError):
            return dict(json.loads(text + end))
    keep, closing = _closing(text)
    return dict(json.loads(text[:keep].rstrip(b", \n") + closing + b"}"))


def _closing(text: bytes) -> tuple[int, bytes]:
    """Return how much of an unfinished object is whole members, and what closes it."""
    depth, whole, in_value = 0, 0, False
    for token in _TOKEN.finditer(text):
        match token[0][:1]:
            case b'"' if not token[1] and in_value and depth == 1:
                return len(_without_broken_end(text)), b'"'
            case b'"' if not token[1]:
                return whole, b""
            case b"{" | b"[":
                depth += 1
            case b"}" | b"]":
                depth -= 1
            case b":" | b"," if depth == 1:
                in_value = token[0] == b":"
        if depth == 1 and token[0] != b":" and (in_value or token[0] in {b"{", b"}", b"]"}):
            whole = token.end()
        elif depth == 1 and token[0] == b",":
            whole = token.start()
    return whole, b""


def _without_broken_end(text: bytes) -> bytes:
    """Drop half an escape sequence or half a character from the end of an open string."""
    escape = re.search(rb"(?<!\\)(?:\\\\)*(\\(?:u[0-9a-fA-F]{0,3})?)$", text)
    if escape is not None:
        text = text[: escape.start(1)]
    return text.decode("utf-8", "ignore").encode()
