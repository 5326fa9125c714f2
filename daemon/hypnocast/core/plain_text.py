"""What strangers write, as it may be shown: nothing a terminal or a page would obey."""

from __future__ import annotations

MAX_CHARS = 256


def plain(text: str, most: int = MAX_CHARS) -> str:
    """Return a text cut to ``most`` characters, every one of which can be printed."""
    cut = text[:most]
    return cut if cut.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in cut)
