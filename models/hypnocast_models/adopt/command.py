"""``hypnocast-models adopt``: which stager, and on which pages the pack is held against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.types import Page
from hypnocast.errors import CommandError
from hypnocast.nights.one_page import pages_of
from hypnocast.ports.recordings.files import open_recording
from hypnocast.stagers.packs.pack import Pack
from hypnocast_models.adopt.gssc import CHECKED, RECIPE, Scaling, adopt_gssc
from hypnocast_models.data import simulated

_SCALINGS: dict[str, Scaling] = {"page": "page", "running": "running"}


def adopt_stager(
    what: str,
    folder: Path,
    *,
    python: Path,
    check: Path | None,
    scaling: str,
    progress: Callable[[str], None],
) -> Pack:
    """Convert a public stager into a pack."""
    for given, known, where in ((what, ("gssc",), "adopt"), (scaling, _SCALINGS, "--scaling")):
        if given not in known:
            raise CommandError(
                f"there is no {given!r}", where=where, remedy=f"Use {' or '.join(known)}."
            )
    return adopt_gssc(folder, python, _pages(check), scaling=_SCALINGS[scaling], progress=progress)


def _pages(check: Path | None) -> Iterator[Page]:
    """Give the pages of a recording, or of a simulated night."""
    recipe = builtin(RECIPE)
    if check is not None:
        return pages_of(open_recording(check), recipe)
    night = simulated.stretch(0, CHECKED)
    gains = np.ones(len(simulated.ROLES))
    return simulated.pages(night, recipe.context_s, recipe.tail_s, gains)
