"""A scored night of any data set through the daemon's own steps, page by page.

Quality, drawing, stager and decider are the daemon's; only arrival is skipped. Where a pack
looks at the next page, the terminal verdict is given: by the look that knows the next page, or
alone where there is none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, repeat

from hypnocast.core.pictures.recipe import Recipe
from hypnocast.core.pictures.render import draw_page, picture_digest
from hypnocast.core.quality import assess, verdict_on
from hypnocast.core.types import (
    FloatArray,
    Look,
    Opinion,
    Page,
    Picture,
    Reason,
    Role,
)
from hypnocast.core.verdicts.decider import decide_night
from hypnocast.stagers.base import Stager
from hypnocast.stagers.one_night import OneNight
from hypnocast.stagers.packs.pack import Pack
from hypnocast.stagers.signal import carries, with_samples
from hypnocast_models.compare.hypnogram import ScoredHypnogram
from hypnocast_models.data.pictures import PictureNight
from hypnocast_models.readers.material import Material

BATCH = 16


@dataclass(frozen=True, eq=False)
class StagedNight:
    """What the daemon would have published of a night."""

    hypnogram: ScoredHypnogram
    reasons: Mapping[int, str]
    """Epoch → why it was withheld."""
    log_probabilities: FloatArray
    """(pages, 5) as the model gave them, NaN where withheld: for other ways to decide."""


def pictures_of(
    night: Material,
    recipe: Recipe,
    *,
    needed: tuple[tuple[Role, ...], ...] = (),
    min_coverage: float = 0.0,
    mains_hz: int = 50,
    change: Callable[[Page], Page] = lambda page: page,
    finish: Callable[[Picture, Page], Picture] = lambda picture, _: picture,
) -> Iterator[Picture | Reason]:
    """Draw every page of a night, or return why it is withheld.

    ``change`` is applied to each page before anything looks at it: for experiments. ``finish``
    puts beside the picture what a pack reads besides.
    """
    if isinstance(night, PictureNight):
        yield from _kept_pictures(night, recipe)
        return
    for epoch in range(len(night.stages)):
        page = change(night.page(epoch, recipe.context_s, recipe.tail_s))
        drawn = picture_of(
            page,
            recipe,
            night.channels,
            needed=needed,
            min_coverage=min_coverage,
            mains_hz=mains_hz,
        )
        yield finish(drawn, page) if isinstance(drawn, Picture) else drawn


def picture_of(
    page: Page,
    recipe: Recipe,
    channels: Mapping[Role, str],
    *,
    needed: tuple[tuple[Role, ...], ...],
    min_coverage: float,
    mains_hz: int,
) -> Picture | Reason:
    """Draw a page, or say why it is withheld."""
    quality = assess(page, recipe.roles, mains_hz)
    reason = verdict_on(quality, needed, min_coverage)
    if reason is None and needed and not any(one.coverage for one in quality.values()):
        reason = Reason.LOW_COVERAGE  # a gap of the night, however little the pack demands
    return draw_page(page, recipe, mains_hz, quality, channels) if reason is None else reason


def _kept_pictures(night: PictureNight, recipe: Recipe) -> Iterator[Picture | Reason]:
    """Give the pictures of a night that is kept as pictures; what was not drawn is withheld."""
    there = frozenset(night.epochs)
    for epoch in range(len(night.stages)):
        if epoch not in there:
            yield Reason.LOW_COVERAGE
            continue
        rgb = night.picture(epoch)
        yield Picture(epoch, rgb, picture_digest(rgb), recipe.digest, {}, {})


def stage_night(
    night: Material,
    pack: Pack,
    stager: Stager,
    *,
    min_coverage: float | None = None,
    mains_hz: int = 50,
    change: Callable[[Page], Page] = lambda page: page,
    advance: Callable[[int], None] = lambda _pages: None,
) -> StagedNight:
    """Stage a night. ``min_coverage`` replaces the pack's own, and is then to be reported."""
    looks = looks_of(night, pack, min_coverage=min_coverage, mains_hz=mains_hz, change=change)
    judging = OneNight(stager, carries=carries(pack))
    reasons: dict[int, str] = {}
    opinions: dict[int, Opinion] = {}
    waiting: list[Look] = []
    for epoch, item in enumerate(looks):
        if isinstance(item, Reason):
            reasons[epoch] = item.value
            continue
        waiting.append(item)
        if len(waiting) == BATCH:
            opinions.update((o.epoch, o) for o in judging.judge(waiting))
            waiting.clear()
            advance(BATCH)
    if waiting:
        opinions.update((o.epoch, o) for o in judging.judge(waiting))
    advance(len(waiting) + len(reasons))
    return _decide(night, pack, opinions, reasons)


def looks_of(
    night: Material,
    pack: Pack,
    *,
    min_coverage: float | None = None,
    mains_hz: int = 50,
    change: Callable[[Page], Page] = lambda page: page,
) -> Iterator[Look | Reason]:
    """Give each page as a pack looks at it, or say why it is withheld."""
    montage = pack.manifest.montage
    drawn = pictures_of(
        night,
        pack.recipe,
        needed=montage.needed,
        min_coverage=montage.min_coverage if min_coverage is None else min_coverage,
        mains_hz=mains_hz,
        change=change,
        finish=lambda picture, page: with_samples(picture, page, pack, mains_hz),
    )
    return _among_neighbours(drawn, pack)


def _among_neighbours(drawn: Iterator[Picture | Reason], pack: Pack) -> Iterator[Look | Reason]:
    """Put each picture among its neighbours, holding no more of them than a look needs."""
    before, after = pack.manifest.context.before, pack.manifest.context.after
    window: deque[Picture | Reason | None] = deque(
        [None] * (before + after + 1), maxlen=before + after + 1
    )
    for seen, item in enumerate(chain(drawn, repeat(None, after)), start=1):
        window.append(item)
        center = window[before]
        if seen <= after:
            continue
        if isinstance(center, Reason):
            yield center
        else:
            shown = tuple(one if isinstance(one, Picture) else None for one in window)
            yield Look(pictures=shown, center=before)


def _decide(
    night: Material,
    pack: Pack,
    opinions: Mapping[int, Opinion],
    reasons: Mapping[int, str],
) -> StagedNight:
    calibration = pack.manifest.calibration
    stages, chances, raw = decide_night(calibration, opinions, len(night.stages))
    name = f"{pack.manifest.name} {pack.manifest.version}"
    hypnogram = ScoredHypnogram(
        name, night.name, night.subject, tuple(stages), probabilities=chances
    )
    return StagedNight(hypnogram, reasons, raw)
