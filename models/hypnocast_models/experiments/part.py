"""A part of a night: so many pages in a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hypnocast.core.types import Page, Role
from hypnocast_models.readers.night import ScoredNight
from hypnocast_models.readers.scoring import ExpertScoring, Stages


@dataclass(frozen=True, eq=False)
class Part:
    """Some pages of a night, numbered from 0; a scored night itself."""

    whole: ScoredNight
    first: int
    count: int
    roles: tuple[Role, ...] = ()
    """The only channels that are shown; empty for all there are."""

    @classmethod
    def of(cls, night: ScoredNight, pages: int, roles: tuple[Role, ...] = ()) -> Part:
        """Take the stretch with most scored pages, of several the one nearest the middle.

        0 pages are all from the first to the last that was scored.
        """
        scored = [epoch for epoch, stage in enumerate(night.stages) if stage is not None]
        low, high = (scored[0], scored[-1] + 1) if scored else (0, len(night.stages))
        count = min(pages or high - low, high - low)
        middle = low + (high - low - count) // 2
        there = [0]
        for stage in night.stages:
            there.append(there[-1] + (stage is not None))
        first = max(
            range(low, high - count + 1),
            key=lambda start: (there[start + count] - there[start], -abs(start - middle)),
        )
        return cls(night, first, count, roles)

    @property
    def name(self) -> str:
        """The night's name."""
        return self.whole.name

    @property
    def subject(self) -> str:
        """Whose night it is."""
        return self.whole.subject

    @property
    def scorings(self) -> tuple[ExpertScoring, ...]:
        """What each expert scored of the part."""
        end = self.first + self.count
        return tuple(
            replace(scoring, stages=scoring.stages[self.first : end])
            for scoring in self.whole.scorings
        )

    @property
    def stages(self) -> Stages:
        """The first expert's stages."""
        return self.scorings[0].stages

    @property
    def channels(self) -> Mapping[Role, str]:
        """Role → derivation."""
        return self.whole.channels

    @property
    def oddities(self) -> tuple[str, ...]:
        """What is strange about the files."""
        return self.whole.oddities

    def page(self, epoch: int, context_s: float, tail_s: float) -> Page:
        """Cut a page."""
        page = self.whole.page(self.first + epoch, context_s, tail_s)
        shown = {r: s for r, s in page.signals.items() if not self.roles or r in self.roles}
        return replace(page, epoch=epoch, signals=shown)
