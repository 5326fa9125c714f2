"""Running ``hypnocast-models`` in this process."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from unittest.mock import patch

from hypnocast_models.cli import main


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code."""
    with patch.object(sys, "argv", ["hypnocast-models", *arguments]):
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0
