"""How far two people, or a person and a model, agree on a night; pure.

Only pages that both have staged are compared: a page withheld is no disagreement, and is
counted beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypnocast.core.types import STAGES
from hypnocast.core.wire.payloads import StageName

_NAMES: tuple[StageName, ...] = ("W", "N1", "N2", "N3", "R")


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two hypnograms, page by page."""

    confusion: tuple[tuple[int, ...], ...]
    """Rows: the scorer's stage; columns: ours; both in the order W, N1, N2, N3, R."""
    not_ours: int
    """Pages the scorer staged and we did not."""
    not_theirs: int
    """Pages we staged and the scorer did not."""

    @property
    def pages(self) -> int:
        """Pages that both have staged."""
        return sum(map(sum, self.confusion))

    @property
    def same(self) -> int:
        """Pages with the same stage."""
        return sum(self.confusion[k][k] for k in range(len(STAGES)))

    @property
    def agreed(self) -> float | None:
        """Share of the pages with the same stage; None without pages."""
        return self.same / self.pages if self.pages else None

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa; None where it is undefined, as with one stage throughout."""
        agreed, pages = self.agreed, self.pages
        if agreed is None:
            return None
        columns = [sum(row[k] for row in self.confusion) for k in range(len(STAGES))]
        by_chance = sum(
            sum(row) * column for row, column in zip(self.confusion, columns, strict=True)
        )
        if by_chance == pages * pages:
            return None
        chance = by_chance / (pages * pages)
        return (agreed - chance) / (1.0 - chance)


def compare(ours: Sequence[StageName | None], theirs: Sequence[StageName | None]) -> Agreement:
    """Lay a scorer's hypnogram beside ours; the shorter one lacks its last pages."""
    counts = [[0] * len(_NAMES) for _ in _NAMES]
    not_ours = not_theirs = 0
    for epoch in range(max(len(ours), len(theirs))):
        our = ours[epoch] if epoch < len(ours) else None
        their = theirs[epoch] if epoch < len(theirs) else None
        if our is not None and their is not None:
            counts[_NAMES.index(their)][_NAMES.index(our)] += 1
        elif their is not None:
            not_ours += 1
        elif our is not None:
            not_theirs += 1
    return Agreement(tuple(map(tuple, counts)), not_ours, not_theirs)


def parted(ours: Sequence[StageName | None], theirs: Sequence[StageName | None]) -> tuple[int, ...]:
    """Return the epochs that both have staged, each differently."""
    return tuple(
        epoch
        for epoch, (one, other) in enumerate(zip(ours, theirs, strict=False))
        if one is not None and other is not None and one != other
    )
