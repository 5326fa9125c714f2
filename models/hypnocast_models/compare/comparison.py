"""One comparison: a scorer against a reference over nights, as data, text, CSV and HTML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hypnocast.core.types import STAGES
from hypnocast.errors import CommandError
from hypnocast_models.compare.consensus import consensus, density_agreement
from hypnocast_models.compare.figures import Interval
from hypnocast_models.compare.hypnogram import ScoredHypnogram, align
from hypnocast_models.compare.measures import (
    FIGURES,
    BlandAltman,
    Borders,
    Table,
    bland_altman,
    bootstrap,
    bootstrap_table,
    borders,
    night_statistics,
    paired_difference,
    table_of,
    transitions_per_hour,
)

Nights = Mapping[str, ScoredHypnogram]


@dataclass(frozen=True, eq=False)
class Comparison:
    """What came out of comparing a scorer with a reference."""

    reference: str
    other: str
    nights: tuple[str, ...]
    only_one_has: tuple[str, ...]
    """Nights that one of the two lacks: not compared."""
    pages: int
    pages_without_partner: int
    table: Table
    tables: Mapping[str, Table]
    """By subject."""
    figures: Mapping[str, Interval]
    delay_s: Interval
    """Mean of the borders found; positive where the other is later."""
    borders_found: Interval
    """Share of the reference's borders that the other has."""
    transitions: Mapping[str, Interval]
    """Per hour, of ``reference`` and of ``other``."""
    statistics: Mapping[str, BlandAltman]
    density: float | None
    """Agreement of hypnodensities, where both sides have one."""

    def to_json(self) -> dict[str, Any]:
        """Give it as plain data."""
        return {
            "reference": self.reference,
            "other": self.other,
            "nights": list(self.nights),
            "subjects": len(self.tables),
            "only_one_has": list(self.only_one_has),
            "pages": self.pages,
            "pages_without_partner": self.pages_without_partner,
            "confusion": self.table.tolist(),
            "figures": {name: _plain(value) for name, value in self.figures.items()},
            "border_delay_s": _plain(self.delay_s),
            "borders_found": _plain(self.borders_found),
            "transitions_per_hour": {k: _plain(v) for k, v in self.transitions.items()},
            "statistics": {
                name: {
                    "nights": one.nights,
                    "bias": number(one.bias),
                    "low": number(one.low),
                    "high": number(one.high),
                }
                for name, one in self.statistics.items()
            },
            "hypnodensity_agreement": None if self.density is None else number(self.density),
        }

    def lines(self) -> Iterator[str]:
        """Return it in words for people."""
        yield f"{self.other} against {self.reference}"
        yield (
            f"  {len(self.nights)} nights of {len(self.tables)} subjects, {self.pages} pages"
            f" ({self.pages_without_partner} without a partner)"
        )
        for night in self.only_one_has:
            yield f"  left out, one side only: {night}"
        for name, value in self.figures.items():
            yield f"  {name:<18} {value}"
        yield f"  {'border delay (s)':<18} {_short(self.delay_s)}"
        yield f"  {'borders found':<18} {self.borders_found}"
        for name, value in self.transitions.items():
            yield f"  transitions/h      {_short(value)}  {name}"
        if self.density is not None:
            yield f"  {'hypnodensity':<18} {self.density:.3f} (mean cosine)"
        names = [s.value for s in STAGES]
        yield "  " + " ".join(f"{n:>7}" for n in ["", *names, "none"])
        for name, row in zip(names, self.table, strict=True):
            yield "  " + " ".join(f"{n:>7}" for n in [name, *row])
        for name, one in self.statistics.items():
            yield (
                f"  {name:<28} bias {one.bias:+7.1f}  limits {one.low:+7.1f} … {one.high:+7.1f}"
                f"  ({one.nights} nights)"
            )


def compare(reference: Nights, other: Nights) -> Comparison:
    """Compare a scorer with a reference over the nights that both have.

    Two single nights are compared whatever they are called.
    """
    names = _matched(reference, other)
    by_subject: dict[str, list[tuple[ScoredHypnogram, ScoredHypnogram]]] = {}
    lost = 0
    for mine, theirs in names:
        one, two, fell = align(reference[mine], other[theirs])
        lost += fell
        by_subject.setdefault(one.subject, []).append((one, two))
    nights = {subject: pairs for subject, pairs in by_subject.items() if _scored(pairs)}
    if not nights:
        raise CommandError("the reference scored none of the common pages", where="compare")
    tables = {s: _table(pairs) for s, pairs in nights.items()}
    found = {s: [borders(a.numbers, b.numbers) for a, b in p] for s, p in nights.items()}
    every = [pair for pairs in nights.values() for pair in pairs]
    pairs_of = [(night_statistics(a.stages), night_statistics(b.stages)) for a, b in every]
    agreed = {k: bland_altman([(a[k], b[k]) for a, b in pairs_of]) for k in pairs_of[0][0]}
    table: Table = np.sum(list(tables.values()), axis=0)
    used = {mine for mine, _ in names} | {theirs for _, theirs in names}
    return Comparison(
        reference=every[0][0].scorer,
        other=every[0][1].scorer,
        nights=tuple(mine for mine, _ in names),
        only_one_has=tuple(sorted((set(reference) | set(other)) - used)),
        pages=int(table.sum()),
        pages_without_partner=lost,
        table=table,
        tables=tables,
        figures={name: bootstrap_table(tables, figure) for name, figure in FIGURES.items()},
        delay_s=bootstrap(found, _mean_delay),
        borders_found=bootstrap(found, _share_found),
        transitions={
            name: bootstrap(
                {
                    s: [transitions_per_hour(p[side].numbers) for p in ps]
                    for s, ps in nights.items()
                },
                _mean_of_all,
            )
            for side, name in enumerate(("reference", "other"))
        },
        statistics={k: one for k, one in agreed.items() if one is not None},
        density=_density(every),
    )


def differences(reference: Nights, ours: Nights, theirs: Nights) -> dict[str, Interval]:
    """Give each figure of ours minus that of theirs, over subjects that both staged."""
    shared = set(ours) & set(theirs)
    if len(ours) == len(theirs) == 1:
        first, second = compare(reference, ours), compare(reference, theirs)
    else:
        first = compare(reference, {k: v for k, v in ours.items() if k in shared})
        second = compare(reference, {k: v for k, v in theirs.items() if k in shared})
    both = first.tables.keys() & second.tables.keys()
    mine = {s: t for s, t in first.tables.items() if s in both}
    other = {s: second.tables[s] for s in mine}
    return {name: paired_difference(mine, other, figure) for name, figure in FIGURES.items()}


def agree_on(experts: Sequence[Nights]) -> dict[str, ScoredHypnogram]:
    """Give the experts' consensus for each night that all of them scored."""
    if all(len(nights) == 1 for nights in experts):
        only = [next(iter(nights.values())) for nights in experts]
        return {only[0].night: consensus(only)}
    names = set.intersection(*(set(nights) for nights in experts))
    if not names:
        raise CommandError("the experts have no night in common", where="--consensus")
    return {name: consensus([nights[name] for nights in experts]) for name in sorted(names)}


def _matched(reference: Nights, other: Nights) -> list[tuple[str, str]]:
    if len(reference) == len(other) == 1:
        return [(next(iter(reference)), next(iter(other)))]
    names = [name for name in reference if name in other]
    if not names:
        raise CommandError(
            "the two have no night in common",
            where="compare",
            remedy="Nights are matched by the names of their files, or by session.",
        )
    return [(name, name) for name in names]


def _scored(pairs: Sequence[tuple[ScoredHypnogram, ScoredHypnogram]]) -> bool:
    return any(stage is not None for a, _ in pairs for stage in a.stages)


def _table(pairs: Sequence[tuple[ScoredHypnogram, ScoredHypnogram]]) -> Table:
    total: Table = np.sum([table_of(a.numbers, b.numbers) for a, b in pairs], axis=0)
    return total


def _mean_delay(parts: Sequence[Sequence[Borders]]) -> float:
    delays = [d for part in parts for one in part for d in one.delays_s]
    return float(np.mean(delays)) if delays else float("nan")


def _share_found(parts: Sequence[Sequence[Borders]]) -> float:
    found = sum(len(one.delays_s) for part in parts for one in part)
    missed = sum(one.missed for part in parts for one in part)
    return found / (found + missed) if found + missed else float("nan")


def _mean_of_all(parts: Sequence[Sequence[float]]) -> float:
    values = [v for part in parts for v in part if np.isfinite(v)]
    return float(np.mean(values)) if values else float("nan")


def _density(pairs: Sequence[tuple[ScoredHypnogram, ScoredHypnogram]]) -> float | None:
    both = [
        (a.probabilities, b.probabilities)
        for a, b in pairs
        if a.probabilities is not None and b.probabilities is not None
    ]
    if not both:
        return None
    ours, theirs = (np.concatenate(side) for side in zip(*both, strict=True))
    return density_agreement(ours, theirs)


def _plain(interval: Interval) -> dict[str, float | None]:
    ends = {"value": interval.value, "low": interval.low, "high": interval.high}
    return {name: number(value) for name, value in ends.items()}


def number(value: float) -> float | None:
    """Give a figure as JSON can hold it: none where it is undefined."""
    return round(value, 6) if np.isfinite(value) else None


def _short(interval: Interval) -> str:
    if np.isnan(interval.low):
        return f"{interval.value:.1f}"
    return f"{interval.value:.1f} [{interval.low:.1f}, {interval.high:.1f}]"
