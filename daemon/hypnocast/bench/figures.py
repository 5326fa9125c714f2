"""What a benchmark found: raw samples, what they come to, and how that compares to a target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Bound = Literal["at most", "at least"]
Statistic = Literal["median", "p99", "worst"]


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure ought to be."""

    bound: Bound
    value: float
    of: Statistic = "median"

    def met(self, figure: Figure) -> bool:
        """Return whether a figure holds it."""
        reached = figure.statistic(self.of)
        return reached <= self.value if self.bound == "at most" else reached >= self.value

    def words(self) -> str:
        """Return it in a few characters."""
        return f"{self.of} {'≤' if self.bound == 'at most' else '≥'} {self.value:g}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured."""

    group: str
    name: str
    unit: str
    samples: Sequence[float]
    targets: tuple[Target, ...] = ()
    note: str = ""

    def statistic(self, which: Statistic) -> float:
        """Return the median, the 99th percentile or the worst of the samples."""
        if which == "median":
            return float(np.median(self.samples))
        if which == "p99":
            return float(np.quantile(self.samples, 0.99))
        return float(np.max(self.samples))

    @property
    def met(self) -> bool | None:
        """Whether every target is held; None where there is none."""
        return all(target.met(self) for target in self.targets) if self.targets else None

    def to_json(self) -> dict[str, Any]:
        """Return it for programs, raw samples included."""
        return {
            "group": self.group,
            "name": self.name,
            "unit": self.unit,
            "median": self.statistic("median"),
            "p99": self.statistic("p99"),
            "count": len(self.samples),
            "targets": [target.words() for target in self.targets],
            "met": self.met,
            "note": self.note,
            "samples": [round(float(sample), 6) for sample in self.samples],
        }

    def row(self) -> tuple[str, ...]:
        """Return it for the table."""
        several = len(self.samples) > 1
        word = {True: "held", False: "MISSED", None: ""}[self.met]
        return (
            self.group,
            self.name,
            _number(self.statistic("median")),
            _number(self.statistic("p99")) if several else "",
            self.unit,
            str(len(self.samples)),
            ", ".join(target.words() for target in self.targets),
            word,
        )


@dataclass(slots=True)
class Report:
    """Everything one run found."""

    conditions: dict[str, Any]
    figures: list[Figure] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    """What was not measured, and why, one line each."""

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "schema": "hypnocast.bench/1",
            "conditions": self.conditions,
            "figures": [figure.to_json() for figure in self.figures],
            "not_measured": self.passed_over,
        }

    def lines(self) -> Iterator[str]:
        """Return the table, line by line."""
        head = ("group", "figure", "median", "p99", "unit", "n", "target", "")
        rows = [head, *(figure.row() for figure in self.figures)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        right = {2, 3, 5}
        for row in rows:
            cells = (
                cell.rjust(width) if column in right else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            yield "  ".join(cells).rstrip()
        for figure in self.figures:
            if figure.note:
                yield f"  {figure.group} {figure.name}: {figure.note}"
        for line in self.passed_over:
            yield f"  not measured: {line}"


def _number(value: float) -> str:
    if value == 0.0:
        return "0"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"
