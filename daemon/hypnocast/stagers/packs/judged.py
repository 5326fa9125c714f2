"""What a pack was judged on: what it says so, or what its figures say they were measured on."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hypnocast.core.montage.electrodes import read_label
from hypnocast.core.wire.page_facts import JudgedMontages
from hypnocast.stagers.packs.manifest import Manifest

_WORDS = re.compile(r"[\s,;()]+")


def judged_montages(manifest: Manifest) -> JudgedMontages:
    """Return the montages that a pack was judged on.

    A pack without ``[[judged]]`` is taken at the word of its figures: ``on`` names the derivation
    in ``single EEG Fpz-Cz``. Figures on the same derivations count once.
    """
    if manifest.judged:
        return JudgedMontages(tuple((each.derivations, each.on) for each in manifest.judged))
    found: dict[tuple[str, ...], str] = {}
    for metric in manifest.metrics:
        derivations = tuple(dict.fromkeys(_derivations(metric.on)))
        if derivations:
            found.setdefault(derivations, metric.on)
    return JudgedMontages(tuple(found.items()))


def _derivations(text: str) -> Iterator[str]:
    for word in _WORDS.split(text.replace(":", " ")):
        lead = read_label(word) if "-" in word else None
        if lead is not None and lead.against is not None:
            yield lead.name
