"""What a recording may cost, looked at where its bytes come in, before anything is allocated.

No night comes near these. The numbers are in ``docs/security.md#limits``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hypnocast.errors import TapeError

MAX_RECORD_BYTES: Final = 16 * 1024 * 1024
"""One data record of EDF or BDF: ten minutes of 32 channels at 256 Hz are 10 MiB."""

MIN_RECORD_S: Final = 0.01
"""How long a data record is at least."""

MAX_DURATION_S: Final = 31 * 86_400.0
"""From the first to the last sample of a recording."""

MAX_TIME: Final = 1e12
"""A time stamp further from zero than this is damage: Unix time in milliseconds is 2e12."""

MAX_ANNOTATIONS: Final = 200_000
"""Annotations and markers of one recording."""

MAX_TEXT_CHARS: Final = 4096
"""Of one annotation or marker; more is cut off."""

MAX_CHUNK_SAMPLES: Final = 8 * 1024 * 1024
"""Samples in one chunk of an XDF file."""

MAX_TEXT_CHUNK_BYTES: Final = 4 * 1024 * 1024
"""One chunk of texts in an XDF file."""

MAX_DAMAGES: Final = 1000
"""Damaged places that are stepped over in one file; what follows more of them is left out."""

MAX_INFLATION: Final = 50
"""How many times its size a compressed recording may become; signals become two to five times."""

FREE_INFLATION_BYTES: Final = 16 * 1024 * 1024
"""How large any compressed recording may become."""


def check_duration(seconds: float, path: Path) -> None:
    """Refuse a recording that is longer than a month, or of no length at all."""
    if not 0.0 <= seconds <= MAX_DURATION_S:
        raise TapeError(f"its samples lie {seconds / 86_400:.4g} days apart", where=str(path))


def check_annotations(count: int, path: Path) -> None:
    """Refuse a recording with more annotations than a night can have."""
    if count > MAX_ANNOTATIONS:
        raise TapeError(f"has more than {MAX_ANNOTATIONS} annotations", where=str(path))
