"""Rolling verdicts judged: how right they are while sleep goes on, and how soon they follow it.

A verdict on the last 30 s every few seconds, between page closes, as the daemon publishes it: drawn
and judged by the same code, decided as if the window were the night's next page, and gone when the
page closes. At a page's close the page's own verdict stands. What is true at a moment is the stage
that the expert gave the page in which the moment lies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.types import (
    PAGE_S,
    STAGES,
    FloatArray,
    Look,
    Opinion,
    Page,
    Picture,
    Signal,
)
from hypnocast.core.verdicts.decider import Decider, NightState
from hypnocast.errors import CommandError
from hypnocast.stagers.base import Stager
from hypnocast.stagers.packs.pack import Pack
from hypnocast.stagers.signal import carries, with_samples
from hypnocast_models.compare.figures import accuracy, confusion, kappa
from hypnocast_models.readers.night import ScoredNight
from hypnocast_models.staging.night import picture_of

REACH_S = 300.0
"""A change of stage is looked for within five minutes."""
SURE = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Probabilities above which one might act."""


@dataclass(frozen=True, eq=False)
class RolledNight:
    """The verdicts of one night, one at every hop from the end of page 0 on."""

    night: str
    subject: str
    hop_s: float
    ends: FloatArray
    """When each window ended, in seconds after page 0 began."""
    expert: NDArray[np.int64]
    """The stage that the expert gave the page in which a window ended; −1 where none."""
    ours: NDArray[np.int64]
    """−1 where withheld."""
    probabilities: FloatArray
    """(windows, 5) as published; NaN where withheld."""
    tail_s: float
    """Signal that a verdict waits for after its window."""
    changes: tuple[tuple[float, int], ...]
    """When the expert's stage changed, and to what."""

    def every(self, hop_s: float) -> RolledNight:
        """Give what a longer hop would have published: a part of the same verdicts."""
        kept = np.isclose(self.ends % hop_s, 0.0) | np.isclose(self.ends % hop_s, hop_s)
        return replace(
            self, hop_s=hop_s, ends=self.ends[kept], expert=self.expert[kept],
            ours=self.ours[kept], probabilities=self.probabilities[kept],
        )  # fmt: skip


def roll_night(
    night: ScoredNight,
    pack: Pack,
    stager: Stager,
    hop_s: float,
    *,
    min_coverage: float | None = None,
    mains_hz: int = 50,
    advance: Callable[[int], None] = lambda _pages: None,
) -> RolledNight:
    """Judge every window of a night."""
    if pack.manifest.context.after or carries(pack):
        raise CommandError(
            "looks at the page after, or carries a state: its rolling verdicts are not judged",
            where=f"{pack.manifest.name} {pack.manifest.version}",
        )
    if not 1.0 <= hop_s <= PAGE_S or not (PAGE_S / hop_s).is_integer():
        raise CommandError(
            f"{hop_s:g} s is no hop", where="--hop", remedy="30 s must be a multiple of it."
        )
    rolling = _Rolling(night, pack, stager, min_coverage, mains_hz)
    steps = round(PAGE_S / hop_s)
    rows = []
    for epoch in range(len(night.stages)):
        rows += rolling.page(epoch, [step * hop_s for step in range(1, steps)] if epoch else [])
        advance(1)
    ends = np.array([end for end, _ in rows])
    chances = np.array([chances for _, chances in rows])
    there = np.isfinite(chances).all(axis=1)
    stages = np.array([-1 if s is None else STAGES.index(s) for s in night.stages], np.int64)
    # A window that ends with its page ends in it: the next page has not begun.
    pages = np.ceil(ends / PAGE_S - 1e-9).astype(int) - 1
    return RolledNight(
        night=night.name,
        subject=night.subject,
        hop_s=hop_s,
        ends=ends,
        expert=stages[pages],
        ours=np.where(there, np.nan_to_num(chances).argmax(axis=1), -1),
        probabilities=chances,
        tail_s=pack.recipe.tail_s,
        changes=tuple(
            (epoch * PAGE_S, int(stages[epoch]))
            for epoch in range(1, len(stages))
            if min(stages[epoch], stages[epoch - 1]) >= 0 and stages[epoch] != stages[epoch - 1]
        ),
    )


class _Rolling:
    """One night, rolled: the state of the decider and the pictures of the pages before."""

    def __init__(
        self,
        night: ScoredNight,
        pack: Pack,
        stager: Stager,
        min_coverage: float | None,
        mains_hz: int,
    ) -> None:
        montage = pack.manifest.montage
        self._night, self._pack, self._stager = night, pack, stager
        self._least = montage.min_coverage if min_coverage is None else min_coverage
        self._mains_hz = mains_hz
        self._decider, self._state = Decider(pack.manifest.calibration), NightState()
        self._before: list[Picture | None] = [None] * pack.manifest.context.before

    def page(self, epoch: int, offsets: Sequence[float]) -> list[tuple[float, FloatArray]]:
        """Give the verdicts of the windows that end inside a page, and the page's own."""
        recipe = self._pack.recipe
        windows = []
        if offsets:
            longer = self._night.page(epoch - 1, recipe.context_s, recipe.tail_s + PAGE_S)
            windows = [self._picture(_moved(longer, by, recipe.tail_s)) for by in offsets]
        windows.append(self._picture(self._night.page(epoch, recipe.context_s, recipe.tail_s)))
        looks = [
            Look((*self._before, one), len(self._before)) for one in windows if one is not None
        ]
        opinions = iter(self._stager.judge(looks) if looks else [])
        rows = []
        for by, picture in zip((*offsets, PAGE_S), windows, strict=True):
            opinion = next(opinions) if picture is not None else None
            rows.append((epoch * PAGE_S + by, self._verdict(epoch, by, opinion)))
        self._before = [*self._before, windows[-1]][1:] if self._before else []
        return rows

    def _verdict(self, epoch: int, by: float, opinion: Opinion | None) -> FloatArray:
        nothing = np.full(len(STAGES), np.nan)
        if by < PAGE_S:
            if opinion is None:
                return nothing
            as_next = replace(opinion, epoch=self._state.newest)
            chances: FloatArray = self._decider.step(self._state, as_next)[1].probabilities
            return chances
        if opinion is None:
            self._state, _ = self._decider.withhold(self._state, epoch)
            return nothing
        self._state, staged = self._decider.step(self._state, replace(opinion, epoch=epoch))
        return staged.probabilities

    def _picture(self, page: Page) -> Picture | None:
        drawn = picture_of(
            page,
            self._pack.recipe,
            self._night.channels,
            needed=self._pack.manifest.montage.needed,
            min_coverage=self._least,
            mains_hz=self._mains_hz,
        )
        if not isinstance(drawn, Picture):
            return None
        return with_samples(drawn, page, self._pack, self._mains_hz)


def _moved(longer: Page, by_s: float, tail_s: float) -> Page:
    """Cut a page so many seconds later out of one whose tail reaches so far."""
    signals = {}
    for role, signal in longer.signals.items():
        first = round(by_s * signal.rate)
        length = round((longer.context_s + PAGE_S + tail_s) * signal.rate)
        signals[role] = Signal(
            signal.derivation, signal.rate, signal.samples[first : first + length]
        )
    return Page(longer.epoch, signals, longer.context_s, tail_s)


# --- figures --------------------------------------------------------------------------------------


def rolling_figures(nights: Sequence[RolledNight]) -> dict[str, Any]:
    """Give agreement, delay at changes of stage, restlessness, and what acting when sure is worth.

    The delay is from the expert's change to the first verdict of the new stage, with the signal
    after the window that the recipe waits for, without the time that the model takes.
    """
    table = np.sum([_counted(night) for night in nights], axis=0)
    delays, missed, flips, hours = _followed(nights)
    return {
        "hop_s": nights[0].hop_s,
        "verdicts": int(table.sum()),
        "kappa": round(kappa(table), 4),
        "accuracy": round(accuracy(table), 4),
        "changes": len(delays) + missed,
        "changes_found": len(delays),
        "delay_s": {
            name: None if not delays else round(float(np.percentile(delays, share)), 1)
            for name, share in (("p10", 10), ("median", 50), ("p90", 90))
        },
        "verdict_changes_per_hour": round(flips / hours, 1) if hours else None,
        "sure": [_sure(nights, place, least) for place in range(len(STAGES)) for least in SURE],
    }


def rolling_lines(figures: dict[str, Any]) -> list[str]:
    """Say it to people."""
    delay, found = figures["delay_s"], f"{figures['changes_found']} of {figures['changes']}"
    spread = f"{delay['median']} s (p10 {delay['p10']}, p90 {delay['p90']})"
    agreed = f"κ {figures['kappa']:.3f}, accuracy {figures['accuracy']:.3f}"
    return [
        f"every {figures['hop_s']:g} s: {agreed} over {figures['verdicts']} verdicts",
        f"  {found} changes of stage found, delay {spread}",
        f"  {figures['verdict_changes_per_hour']} changes of the verdict an hour",
        "  act only when sure: stage, probability at least, precision, share of the stage's time",
        *(
            f"    {row['stage']:<2} {row['least']:.2f}  {row['precision']:.3f}  "
            f"{row['share']}  ({row['verdicts']} verdicts)"
            for row in figures["sure"]
            if row["verdicts"]
        ),
    ]


def _counted(night: RolledNight) -> NDArray[np.int64]:
    scored = night.expert >= 0
    return confusion(night.expert[scored], night.ours[scored])


def _followed(nights: Sequence[RolledNight]) -> tuple[list[float], int, int, float]:
    """Give the delays of the changes found, how many were missed, verdict changes, and hours."""
    delays: list[float] = []
    missed, flips, hours = 0, 0, 0.0
    for night in nights:
        entries = np.flatnonzero((np.diff(night.ours) != 0) & (night.ours[1:] >= 0)) + 1
        flips += len(entries)
        hours += float(night.ends[-1] - night.ends[0]) / 3600 if len(night.ends) else 0.0
        known_at = night.ends + night.tail_s
        for at, stage in night.changes:
            same = np.array([other for other, s in night.changes if s == stage])
            near = [
                float(known_at[entry] - at)
                for entry in entries.tolist()
                if night.ours[entry] == stage
                and abs(known_at[entry] - at) <= REACH_S
                and abs(known_at[entry] - at) == np.abs(known_at[entry] - same).min()
            ]
            if near:
                delays.append(min(near, key=abs))
            else:
                missed += 1
    return delays, missed, flips, hours


def _sure(nights: Sequence[RolledNight], place: int, least: float) -> dict[str, Any]:
    """Say what acting on a stage is worth where its probability is at least so high."""
    acts = hits = time = 0
    for night in nights:
        scored = night.expert >= 0
        sure = scored & (np.nan_to_num(night.probabilities[:, place]) >= least)
        acts += int(sure.sum())
        hits += int((night.expert[sure] == place).sum())
        time += int((night.expert == place).sum())
    return {
        "stage": STAGES[place].value,
        "least": least,
        "verdicts": acts,
        "precision": round(hits / acts, 4) if acts else None,
        "share": round(hits / time, 4) if time else None,
    }
