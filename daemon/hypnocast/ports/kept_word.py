"""Words that nobody can guess, made once and kept in the state folder over restarts."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import Final

MQTT_CLIENT: Final = "mqtt-client"
"""The random part of the daemon's MQTT client id. A broker gives an id to whoever connects last, so
a guessable one lets any login switch the daemon off. Kept, because the broker then ends the
connection that a crash left half open."""

WARD_TOKEN: Final = "ward-token"  # noqa: S105 - the name of a file
"""What opens the ward page where it has no logins. Kept, so that a restart in the night shuts no
browser out."""


def kept_word(folder: Path, name: str, size: int) -> str:
    """Return the word of so many random bytes that a state folder keeps under a name.

    It is made where there is none; where it cannot be written it lasts as long as this process.
    """
    path = folder / name
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), encoding="ascii") as file:
            kept = file.read(4 * size).strip()
    except (OSError, UnicodeDecodeError):
        kept = ""
    if re.fullmatch(rf"[0-9a-f]{{{2 * size}}}", kept):
        return kept
    word = secrets.token_hex(size)
    try:
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(word)
    except OSError:
        return word
    return word
