"""The part of the daemon's MQTT client id that nobody can guess, kept over restarts.

A broker gives a client id to whoever connects last, so a guessable one lets any login switch the
daemon off. Kept, because the broker then ends the connection that a crash left half open.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

NAME = "mqtt-client"
_WORD = re.compile(r"[0-9a-f]{12}")


def client_word(folder: Path) -> str:
    """Return the word kept in the state folder, made where there is none."""
    path = folder / NAME
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), encoding="ascii") as file:
            kept = file.read(64).strip()
    except (OSError, UnicodeDecodeError):
        kept = ""
    if _WORD.fullmatch(kept):
        return kept
    word = secrets.token_hex(6)
    try:
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(word)
    except OSError:
        return word
    return word
