"""A pack and what else could stage the same nights, at several gains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hypnocast.stagers.packs.pack import Pack
from hypnocast_models.compare import figures
from hypnocast_models.compare.evaluate import Evaluation, evaluate, rounded
from hypnocast_models.compare.figures import ScoredPages
from hypnocast_models.readers.material import Material
from hypnocast_models.scorers import beside

ByGain = dict[float, list[ScoredPages]]
"""What a scorer made of the same nights at each gain; empty where it was not to be had."""


@dataclass(frozen=True, eq=False)
class SideBySide:
    """Several scorers on the same nights; the first is the pack that is judged."""

    scorers: Mapping[str, ByGain]

    @property
    def own(self) -> ByGain:
        """What the pack made of the nights."""
        return next(iter(self.scorers.values()))

    def difference(self, name: str, gain: float) -> figures.Interval | None:
        """κ of the pack minus κ of another, over the same subjects; None where it has none."""
        other = self.scorers[name].get(gain)
        ours = self.own[gain]
        if not other or {n.subject for n in other} != {n.subject for n in ours}:
            return None
        return figures.bootstrap_difference(ours, other)

    def to_json(self) -> dict[str, Any]:
        """Give κ of every scorer at every gain, and how far the pack is ahead."""
        return {
            name: {
                f"{gain:g}": {
                    "kappa": rounded(figures.bootstrap(nights)),
                    "pack_minus_this": rounded(difference)
                    if (difference := self.difference(name, gain))
                    else None,
                }
                for gain, nights in by_gain.items()
                if nights
            }
            for name, by_gain in self.scorers.items()
        }


@dataclass(frozen=True, eq=False)
class Others:
    """Who else is to stage the nights."""

    packs: Sequence[Pack]
    """Packs beside: an adopted GSSC, an older version."""
    yasa: Path | None
    """Python of the environment that has YASA; None: this one's, if it has it."""
    database: Sequence[Material]
    """All nights there are: gradient boosting is fitted on subjects that are not judged."""


def set_side_by_side(
    pack: Pack,
    own: Mapping[float, Evaluation],
    nights: Sequence[Material],
    others: Others,
    *,
    min_coverage: float | None,
    mains_hz: int,
    advance: Callable[[int], None] = lambda _: None,
) -> SideBySide:
    """Let everybody stage the nights at the gains that the pack was judged at."""
    eegs = [eeg for night in nights if (eeg := beside.single_eeg(night)) is not None]
    every = [eeg for night in others.database if (eeg := beside.single_eeg(night)) is not None]
    found: dict[str, ByGain] = {
        title(pack): {gain: made.scored for gain, made in own.items()},
        "its model alone, unfiltered": {gain: made.unfiltered for gain, made in own.items()},
    }
    for other in others.packs:
        name = title(other)
        found[name if name not in found else f"{name} ({other.digest[7:15]})"] = {
            gain: evaluate(
                other,
                nights,
                gain=gain,
                min_coverage=min_coverage,
                mains_hz=mains_hz,
                advance=advance,
            ).scored
            for gain in own
        }
    found["gradient boosting, fitted on other subjects"] = {
        gain: beside.gradient_boosting(
            every, [replace(eeg, rows=eeg.rows * gain) for eeg in eegs], seed=0
        )
        for gain in own
    }
    found["YASA, whole night in view"] = {
        gain: beside.yasa(eegs, gain, others.yasa) for gain in own
    }
    found["always N2"] = dict.fromkeys(own, beside.majority(eegs))
    return SideBySide(found)


def title(pack: Pack) -> str:
    """Give what a pack is called in tables."""
    return f"{pack.manifest.name} {pack.manifest.version}"
