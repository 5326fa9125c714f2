"""Hides what ``HYPNOCAST_HIDDEN`` names from every Python that has this folder in its path."""

from __future__ import annotations

import os
import sys
from importlib.abc import MetaPathFinder

HIDDEN = frozenset(os.environ.get("HYPNOCAST_HIDDEN", "").split())


class Hiding(MetaPathFinder):
    """Ends the search for a hidden module, and finds nothing itself."""

    def find_spec(self, fullname: str, *_: object) -> None:
        """Raise as if the module were not installed."""
        if fullname.partition(".")[0] in HIDDEN:
            msg = f"No module named {fullname!r}"
            raise ModuleNotFoundError(msg, name=fullname)


sys.meta_path.insert(0, Hiding())
