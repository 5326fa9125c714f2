"""``hypnocast nights --compare``: whether the pack should be changed for the one beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hypnocast.config.tables import Config
from hypnocast.core.night.agreement import Agreement, compare
from hypnocast.core.wire.payloads import StageName
from hypnocast.nights.night_view import NightView, journal_of, view_of
from hypnocast.ports.journal.reader import JournalReader

Stages = Sequence[StageName | None]

_DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Against:
    """Both packs against one scorer, on the pages that all three have staged."""

    scorer: str
    speaking: Agreement
    beside: Agreement


@dataclass(frozen=True, slots=True)
class ComparedNight:
    """One night, as two packs judged it."""

    session: str
    bed: str
    beside: str
    """Name of the pack beside."""
    between: Agreement
    against: tuple[Against, ...]


def compare_nights(
    config: Config, *, bed: str | None = None, limit: int = 1000
) -> list[ComparedNight]:
    """Compare the packs of every night that was judged by more than one."""
    with JournalReader(journal_of(config)) as reader:
        views = (view_of(reader.night(one.id)) for one in reader.nights(bed, limit))
        return [compared for view in views for compared in _compared(view)]


def _compared(view: NightView) -> Iterator[ComparedNight]:
    for second in view.seconds:
        against = tuple(
            Against(
                name,
                _common(view.stages, theirs, second.stages),
                _common(second.stages, theirs, view.stages),
            )
            for name, theirs in view.scorers.items()
        )
        between = compare(view.stages, second.stages)
        yield ComparedNight(view.session.id, view.session.bed, second.name, between, against)


def _common(ours: Stages, theirs: Stages, also: Stages) -> Agreement:
    """Compare two hypnograms on the pages that a third has staged too."""
    there = range(min(len(ours), len(theirs), len(also)))
    kept = [epoch for epoch in there if also[epoch] is not None and theirs[epoch] is not None]
    return compare([ours[epoch] for epoch in kept], [theirs[epoch] for epoch in kept])


def pooled(several: Iterable[Agreement]) -> Agreement:
    """Lay the pages of several nights together."""
    tables = [np.asarray(one.confusion) for one in several]
    whole = sum(tables[1:], tables[0])
    return Agreement(tuple(tuple(int(n) for n in row) for row in whole), 0, 0)


def gain(nights: Sequence[ComparedNight], scorer: str) -> tuple[float, float, float] | None:
    """Return by how much the pack beside agrees better with a scorer, with a 95 % interval.

    The interval is drawn over nights; None where there are fewer than two, or κ is undefined.
    """
    pairs = [one for night in nights for one in night.against if one.scorer == scorer]
    if len(pairs) < 2:
        return None
    rng = np.random.default_rng(0)
    picks = [range(len(pairs)), *rng.integers(0, len(pairs), (_DRAWS, len(pairs)))]
    found = [_difference([pairs[int(at)] for at in pick]) for pick in picks]
    known = [one for one in found if one is not None]
    if found[0] is None or not known:
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return found[0], float(low), float(high)


def _difference(pairs: Sequence[Against]) -> float | None:
    ours = pooled(one.speaking for one in pairs).kappa
    theirs = pooled(one.beside for one in pairs).kappa
    return None if ours is None or theirs is None else theirs - ours


def compared_lines(nights: Sequence[ComparedNight]) -> Iterator[str]:
    """Return a comparison for people: each night, all together, and how scorers staged it."""
    if not nights:
        yield "no night was judged by a pack beside: name one with [[pack.beside]]"
        return
    width = max(len(night.session) for night in nights)
    for name in dict.fromkeys(night.beside for night in nights):
        own = [night for night in nights if night.beside == name]
        yield f"{name} beside the pack that spoke"
        for night in own:
            yield f"  {night.session:<{width}}  {_words(night.between)}"
        yield f"  {'all':<{width}}  {_words(pooled(night.between for night in own))}"
        for scorer in dict.fromkeys(one.scorer for night in own for one in night.against):
            yield from _scorer_lines(own, name, scorer)


def _scorer_lines(nights: Sequence[ComparedNight], name: str, scorer: str) -> Iterator[str]:
    pairs = [one for night in nights for one in night.against if one.scorer == scorer]
    ours, theirs = pooled(p.speaking for p in pairs), pooled(p.beside for p in pairs)
    line = f"  against {scorer}, {ours.pages} pages: the pack that spoke κ {_kappa(ours)}, "
    line += f"{name} κ {_kappa(theirs)}"
    found = gain(nights, scorer)
    if found is None:
        yield f"{line}; two corrected nights at least are needed to say more"
        return
    better, low, high = found
    verdict = "no clear difference"
    if low > 0.0:
        verdict = f"{name} agrees better"
    elif high < 0.0:
        verdict = "the pack that spoke agrees better"
    yield f"{line}; difference {better:+.3f} ({low:+.3f} … {high:+.3f}, over nights): {verdict}"


def _words(found: Agreement) -> str:
    same = "–" if found.agreed is None else f"{found.agreed:.1%}"
    return f"{found.pages:>6} pages  {same:>6} the same  κ {_kappa(found)}"


def _kappa(found: Agreement) -> str:
    return "undefined" if found.kappa is None else f"{found.kappa:.3f}"


def compared_json(nights: Sequence[ComparedNight]) -> list[dict[str, object]]:
    """Return a comparison for programs."""
    return [
        {
            "session": night.session,
            "bed": night.bed,
            "beside": night.beside,
            "pages": night.between.pages,
            "agreed": night.between.agreed,
            "kappa": night.between.kappa,
            "confusion": night.between.confusion,
            "against": [
                {
                    "scorer": one.scorer,
                    "pages": one.speaking.pages,
                    "kappa_speaking": one.speaking.kappa,
                    "kappa_beside": one.beside.kappa,
                }
                for one in night.against
            ],
        }
        for night in nights
    ]
