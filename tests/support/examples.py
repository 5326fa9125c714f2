"""How many examples a property is tried with: enough for every run, many more on demand."""

from __future__ import annotations

import os


def examples(few: int, many: int) -> int:
    """Return ``many`` with ``HYPNOCAST_THOROUGH=1``; for properties whose examples are dear."""
    return many if os.environ.get("HYPNOCAST_THOROUGH") == "1" else few
