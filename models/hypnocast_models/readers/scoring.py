"""What experts scored, as one stage per 30-s page.

The files are read by the daemon's own readers (``hypnocast.ports.hypnograms``). R&K and AASM
differ in deep sleep and in movement time: S3 and S4 are N3, movement time is a page without a
stage. Epochs of 20 s are laid on 30-s pages by the stage in force at the middle of a page; that
stage always holds 20 of the 30 s or more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hypnocast.core.types import PAGE_S, Stage
from hypnocast.ports.hypnograms.scored_files import read_scoring
from hypnocast.ports.hypnograms.scoring import Rules, ScoredSpan
from hypnocast.ports.hypnograms.scoring import Scoring as ScoredFile

Stages = tuple[Stage | None, ...]


@dataclass(frozen=True, slots=True)
class ExpertScoring:
    """One expert's night on 30-s pages."""

    stages: Stages
    rules: Rules
    anchor: float = 0.0
    """Seconds after the recording's beginning at which the first page begins."""
    lights_off: float | None = None
    """Seconds after the recording's beginning."""
    lights_on: float | None = None
    oddities: tuple[str, ...] = ()


def expert_scoring(path: Path, *, scheme: str | None = None, shift: float = 0.0) -> ExpertScoring:
    """Read an expert's file; ``shift`` is how many seconds its zero lies after the recording's."""
    return scoring_of(read_scoring(path, scheme=scheme), shift=shift)


def scoring_of(scored: ScoredFile, *, shift: float = 0.0) -> ExpertScoring:
    """Lay a scored night on pages, which keep step with the first epoch scored."""
    anchor = (scored.anchor + shift) % PAGE_S
    pages = int((scored.end + shift - anchor + 1e-6) // PAGE_S)
    odd = [*scored.notes, *_unlike_30_s(scored.spans)]
    if shift:
        odd.append(f"its scoring begins {shift:+g} s from its signals")
    return ExpertScoring(
        stages=scored.pages(anchor - shift, pages),
        rules=scored.rules,
        anchor=anchor,
        lights_off=None if scored.lights_off is None else scored.lights_off + shift,
        lights_on=None if scored.lights_on is None else scored.lights_on + shift,
        oddities=tuple(odd),
    )


def _unlike_30_s(spans: Iterable[ScoredSpan]) -> tuple[str, ...]:
    odd = sorted({span.duration for span in spans if (span.duration % PAGE_S) > 1e-6})
    return (f"scored in epochs of {', '.join(f'{d:g}' for d in odd[:3])} s",) if odd else ()
