"""What is measured of two scorers: agreement, borders, restlessness, the night's statistics.

Tables and the figures over them are those of :mod:`hypnocast_models.compare.figures`; a page that
the other scorer gave no stage agrees with nothing, a page that the reference gave none is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.night.ledger import statistics
from hypnocast.core.types import PAGE_S, STAGES, FloatArray, Stage
from hypnocast.core.wire.payloads import StageName
from hypnocast_models.compare.figures import (
    Interval,
    accuracy,
    confusion,
    kappa,
    macro_f1,
    stage_f1,
)

Numbers = NDArray[np.int64]
Table = NDArray[np.int64]
_T = TypeVar("_T")

ROUNDS = 1000
"""Times that subjects are drawn anew for an interval."""
BORDER_REACH_PAGES = 10
"""A border is looked for within five minutes."""
_EPOCH_0 = "2000-01-01T00:00:00.000Z"


def balanced_accuracy(table: Table) -> float:
    """Mean share of a stage's pages that agree, over the stages the reference gave."""
    given = table.sum(axis=1)
    hits = np.diag(table[:, : len(STAGES)])
    return float((hits[given > 0] / given[given > 0]).mean())


def _f1_of(place: int) -> Callable[[Table], float]:
    return lambda table: float(stage_f1(table)[place])


FIGURES: Mapping[str, Callable[[Table], float]] = {
    "kappa": kappa,
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    **{f"f1_{stage.value}": _f1_of(place) for place, stage in enumerate(STAGES)},
}
"""Every figure that a confusion table gives."""


def table_of(reference: Numbers, other: Numbers) -> Table:
    """Count the pages that the reference gave a stage."""
    scored = reference >= 0
    return confusion(reference[scored], other[scored])


@dataclass(frozen=True, slots=True)
class Borders:
    """How the other scorer follows the reference's changes of stage."""

    delays_s: tuple[float, ...]
    """The other's borders minus the reference's, where found; positive is later."""
    missed: int


def borders(reference: Numbers, other: Numbers) -> Borders:
    """Find for each change of stage the nearest page at which the other enters the same stage.

    It counts if it is nearer to this border than to the reference's next one into that stage.
    """
    mine, theirs = _entries(reference), _entries(other)
    delays: list[float] = []
    missed = 0
    for at, stage in mine:
        same = [page for page, s in mine if s == stage]
        near = [
            page - at
            for page, s in theirs
            if s == stage
            and abs(page - at) <= BORDER_REACH_PAGES
            and abs(page - at) == min(abs(page - one) for one in same)
        ]
        if near:
            delays.append(min(near, key=abs) * PAGE_S)
        else:
            missed += 1
    return Borders(tuple(delays), missed)


def _entries(stages: Numbers) -> list[tuple[int, int]]:
    """Pages at which a stage begins right after another one."""
    return [
        (page, int(stages[page]))
        for page in range(1, stages.size)
        if stages[page] >= 0 and stages[page - 1] >= 0 and stages[page] != stages[page - 1]
    ]


def transitions_per_hour(stages: Numbers) -> float:
    """Count changes of stage between neighbouring scored pages, per hour of such pairs."""
    pairs = int(((stages[1:] >= 0) & (stages[:-1] >= 0)).sum())
    return len(_entries(stages)) / (pairs * PAGE_S / 3600.0) if pairs else float("nan")


def night_statistics(stages: Sequence[Stage | None]) -> dict[str, float | None]:
    """Give the sleep statistics of a night, by the definitions that the daemon publishes by."""
    names: list[StageName | None] = [None if s is None else s.value for s in stages]
    figures = statistics(names, _EPOCH_0)
    return {
        "total_sleep_min": figures.total_sleep_min,
        "sleep_efficiency_percent": figures.sleep_efficiency_percent,
        "sleep_onset_latency_min": figures.sleep_onset_latency_min,
        "wake_after_sleep_onset_min": figures.wake_after_sleep_onset_min,
        "rem_latency_min": figures.rem_latency_min,
        **{f"{name}_min": figures.stages[name].minutes for name in ("N1", "N2", "N3", "R")},
    }


@dataclass(frozen=True, slots=True)
class BlandAltman:
    """Agreement of a statistic over nights: the mean difference and its limits."""

    nights: int
    bias: float
    low: float
    """Bias − 1.96 standard deviations of the differences."""
    high: float
    pairs: tuple[tuple[float, float], ...]
    """(reference, other) of each night in which both are defined."""


def bland_altman(pairs: Sequence[tuple[float | None, float | None]]) -> BlandAltman | None:
    """Compare a statistic over nights; None where no night has it on both sides."""
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not both:
        return None
    differences = np.array([b - a for a, b in both])
    bias = float(differences.mean())
    spread = 1.96 * float(differences.std(ddof=1)) if len(both) > 1 else float("nan")
    return BlandAltman(len(both), bias, bias - spread, bias + spread, tuple(both))


def bootstrap(
    by_subject: Mapping[str, _T],
    figure: Callable[[Sequence[_T]], float],
    rounds: int = ROUNDS,
    seed: int = 0,
) -> Interval:
    """Give a figure with the interval of drawing subjects anew, with replacement.

    Rounds in which the figure is undefined are left out; with one subject there is no interval.
    """
    parts = list(by_subject.values())
    value = figure(parts)
    if len(parts) < 2:
        return Interval(value, float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    drawn: FloatArray = np.array(
        [figure([parts[k] for k in rng.integers(0, len(parts), len(parts))]) for _ in range(rounds)]
    )
    return _interval(value, drawn)


def _interval(value: float, drawn: FloatArray) -> Interval:
    drawn = drawn[np.isfinite(drawn)]
    if not drawn.size:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def bootstrap_table(tables: Mapping[str, Table], figure: Callable[[Table], float]) -> Interval:
    """Give a figure over confusion tables, one table a subject."""
    return bootstrap_sums({s: (t,) for s, t in tables.items()}, lambda one: figure(one[0]))


def paired_difference(
    ours: Mapping[str, Table],
    theirs: Mapping[str, Table],
    figure: Callable[[Table], float],
) -> Interval:
    """Give ours minus theirs, the same subjects drawn for both."""
    if ours.keys() != theirs.keys():
        msg = "a paired difference needs the same subjects on both sides"
        raise ValueError(msg)
    pairs = {s: (ours[s], theirs[s]) for s in ours}
    return bootstrap_sums(pairs, lambda both: figure(both[0]) - figure(both[1]))


def bootstrap_sums(
    by_subject: Mapping[str, tuple[Table, ...]],
    figure: Callable[[NDArray[np.int64]], float],
    seed: int = 0,
) -> Interval:
    """Give a figure of tables summed over subjects; all of a subject's tables go together."""
    stacked = np.array(list(by_subject.values()))
    count = len(stacked)
    value = figure(stacked.sum(axis=0))
    if count < 2:
        return Interval(value, float("nan"), float("nan"))
    drawn = np.random.default_rng(seed).integers(0, count, (ROUNDS, count))
    times = np.apply_along_axis(np.bincount, 1, drawn, minlength=count)
    sums = np.tensordot(times, stacked, axes=1)
    return _interval(value, np.array([figure(one) for one in sums]))
