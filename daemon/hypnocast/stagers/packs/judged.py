"""What a pack was judged on: what it says so, or what its figures say they were measured on."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hypnocast.core.montage.electrodes import read_label
from hypnocast.core.pictures.recipe import Recipe, builtin
from hypnocast.core.wire.page_facts import JudgedMontages
from hypnocast.errors import RecipeError
from hypnocast.stagers.packs.manifest import Manifest

_WORDS = re.compile(r"[\s,;()]+")


def judged_montages(manifest: Manifest, recipe: Recipe | None = None) -> JudgedMontages:
    """Return the montages that a pack was judged on.

    A pack without ``[[judged]]`` is taken at the word of its figures: ``on`` names the derivation
    in ``single EEG Fpz-Cz``. Figures on the same derivations count once. ``recipe`` is looked up
    among the built-in ones where it is not given.
    """
    one_eeg = _shows_one_eeg(manifest, recipe)
    if manifest.judged:
        named = tuple((each.derivations, each.on) for each in manifest.judged)
        return JudgedMontages(named, one_eeg)
    found: dict[tuple[str, ...], str] = {}
    for metric in manifest.metrics:
        derivations = tuple(dict.fromkeys(_derivations(metric.on)))
        if derivations:
            found.setdefault(derivations, metric.on)
    return JudgedMontages(tuple(found.items()), one_eeg)


def _shows_one_eeg(manifest: Manifest, recipe: Recipe | None) -> bool:
    if recipe is None:
        try:
            recipe = builtin(manifest.recipe)
        except RecipeError:
            return False
    return recipe.channels == "one EEG"


def _derivations(text: str) -> Iterator[str]:
    for word in _WORDS.split(text.replace(":", " ")):
        lead = read_label(word) if "-" in word else None
        if lead is not None and lead.against is not None:
            yield lead.name
