"""``hypnocast corrections``: scorers' stages of a night, beside Hypnocast's."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

from hypnocast.config.tables import Config
from hypnocast.core.night.agreement import compare
from hypnocast.core.timing.utc import file_time, instant
from hypnocast.core.types import PAGE_S
from hypnocast.errors import CommandError
from hypnocast.nights.night_view import NightView, journal_of
from hypnocast.ports.hypnograms.scored_files import read_scoring
from hypnocast.ports.hypnograms.scoring import Scoring
from hypnocast.ports.journal.corrections import write_corrections
from hypnocast.ports.journal.records import Correction

_FARTHEST_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Added:
    """What was added to the journal."""

    pages: int
    offset_pages: float
    """How many pages of the night lie before the file's first."""
    outside: int
    """Pages of the file that lie outside the night."""
    format: str
    """What the file was read as."""
    notes: tuple[str, ...] = ()
    """What the scorer should know of how it was read."""


def add_scoring(
    config: Config,
    view: NightView,
    path: Path,
    *,
    scorer: str,
    offset: int | None = None,
    scheme: str | None = None,
) -> Added:
    """Read a scored file and add its stages to the journal as a scorer's corrections.

    Without ``offset`` (the night's page that is the file's first) a file that gives its time is
    laid on the night by it, and any other begins with page 0. ``scheme`` names the scheme of bare
    digits.
    """
    if not scorer.strip():
        raise CommandError("a scoring needs a scorer", where="--scorer", remedy="Give an id.")
    scoring = read_scoring(path, scheme=scheme)
    anchor = _anchor(scoring, view, ZoneInfo(config.site.timezone), path, offset)
    pages = scoring.pages(anchor, view.night.epochs)
    at = instant(time.time())
    corrections = [
        Correction(view.session.id, epoch, stage.value, scorer.strip(), at, path.name)
        for epoch, stage in enumerate(pages)
        if stage is not None
    ]
    if not corrections:
        raise CommandError(
            "none of its pages lies in this night",
            where=str(path),
            remedy="Say with --offset which page of the night is the file's first.",
        )
    write_corrections(journal_of(config), corrections)
    staged = sum(round(span.duration / PAGE_S) for span in scoring.spans if span.stage is not None)
    outside = max(0, staged - len(corrections))
    return Added(len(corrections), 0.0 - anchor / PAGE_S, outside, scoring.format, scoring.notes)


def _anchor(
    scoring: Scoring, view: NightView, zone: ZoneInfo, path: Path, offset: int | None
) -> float:
    """Return the night's beginning on the file's time."""
    if offset is not None:
        return -PAGE_S * offset
    behind = scoring.behind(file_time(view.start, zone))
    if behind is None:
        return 0.0
    if abs(behind) > _FARTHEST_S:
        raise CommandError(
            f"begins {scoring.start}, and the night {file_time(view.start, zone):%Y-%m-%d %H:%M}",
            where=str(path),
            remedy="Say with --offset which page of the night is the file's first.",
        )
    return behind


def comparisons(view: NightView) -> dict[str, dict[str, object]]:
    """Return for each scorer how far the night agrees with him or her."""
    compared: dict[str, dict[str, object]] = {}
    for name, theirs in view.scorers.items():
        against = compare(view.stages, theirs)
        compared[name] = {
            "pages": against.pages,
            "agreement": against.agreed,
            "kappa": against.kappa,
            "confusion": [list(row) for row in against.confusion],
            "scorer_only": against.not_ours,
            "hypnocast_only": against.not_theirs,
        }
    return compared


def as_text(view: NightView) -> list[str]:
    """Return the comparisons for people."""
    if not view.scorers:
        return ["Nobody has scored this night yet: give --add FILE --scorer ID."]
    names = ("W", "N1", "N2", "N3", "R")
    lines = []
    for name, theirs in view.scorers.items():
        against = compare(view.stages, theirs)
        agreed = "undefined" if against.agreed is None else f"{against.agreed:.1%}"
        kappa = "undefined" if against.kappa is None else f"{against.kappa:.3f}"
        alone = f"{against.not_ours} by the scorer alone, {against.not_theirs} by Hypnocast alone"
        lines += [
            f"{name}: {against.pages} pages staged by both, agreement {agreed}, κ {kappa}; {alone}",
            "      " + "".join(f"{stage:>6}" for stage in names) + "   (columns: Hypnocast)",
        ]
        lines += [
            f"  {stage:>4}" + "".join(f"{count:>6}" for count in row)
            for stage, row in zip(names, against.confusion, strict=True)
        ]
    return lines
