"""How a replayed night compares with the stages that its file brings along."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hypnocast.core.types import STAGES, Stage


@dataclass(frozen=True, slots=True)
class Agreement:
    """Pages that both scored."""

    pages: int
    agreed: int
    kappa: float | None
    """Cohen's; None where one of the two never changes its mind."""
    confusion: tuple[tuple[int, ...], ...]
    """Rows: the file's stage; columns: the model's."""

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "pages": self.pages,
            "agreed": self.agreed,
            "kappa": self.kappa,
            "confusion": [list(row) for row in self.confusion],
            "stages": [stage.value for stage in STAGES],
        }

    def lines(self) -> Iterator[str]:
        """Return it for people."""
        kappa = "undefined" if self.kappa is None else f"{self.kappa:.3f}"
        share = self.agreed / self.pages if self.pages else 0.0
        yield f"against the file's stages: {self.pages} pages, {share:.1%} agree, kappa {kappa}"
        yield "file \\ model " + "".join(f"{stage:>6}" for stage in STAGES)
        for stage, row in zip(STAGES, self.confusion, strict=True):
            yield f"{stage:<12} " + "".join(f"{count:>6}" for count in row)


def compare(expert: Sequence[Stage | None], model: Sequence[Stage | None]) -> Agreement:
    """Compare page by page; pages that either left open do not count."""
    pairs = [(a, b) for a, b in zip(expert, model, strict=False) if a and b]
    counts = Counter(pairs)
    n = len(pairs)
    agreed = sum(counts[stage, stage] for stage in STAGES)
    rows = Counter(a for a, _ in pairs)
    columns = Counter(b for _, b in pairs)
    chance = sum(rows[stage] * columns[stage] for stage in STAGES) / (n * n) if n else 1.0
    kappa = None if chance == 1.0 else (agreed / n - chance) / (1.0 - chance)
    confusion = tuple(tuple(counts[a, b] for b in STAGES) for a in STAGES)
    return Agreement(n, agreed, kappa, confusion)
