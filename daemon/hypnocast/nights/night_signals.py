"""A night's signals from its tape, laid on the night's pages, in the 16 bits of an EDF file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hypnocast.config.tables import Config
from hypnocast.core.pages.page_builder import PageNeeds
from hypnocast.core.types import (
    EEG_ROLES,
    EOG_ROLES,
    PAGE_S,
    STEPS_PER_MICROVOLT,
    FloatArray,
    Page,
    Role,
    Signal,
)
from hypnocast.errors import TapeError
from hypnocast.nights.night_view import NightView
from hypnocast.nights.redraw import pages_of_night, tapes_of
from hypnocast.ports.hypnograms.night_files import FIRST_COUNT, LAST_COUNT, NightSignal
from hypnocast.ports.recordings.files import open_recording

_STEPS_PER_UV = (STEPS_PER_MICROVOLT, 32, 16, 8)
"""The finest that a night's range allows is taken: the first loses nothing of what is drawn."""
_LABEL = 16
"""Characters that EDF has for a label."""
_NEEDS = PageNeeds(tuple(Role), context_s=0.0, tail_s=0.0)

_Key = tuple[Role, str, int]
"""Role, derivation and samples a page: another derivation is another signal."""


@dataclass(slots=True)
class _Found:
    """The first reading of a signal."""

    medians: list[float] = field(default_factory=list)
    lowest: float = np.inf
    highest: float = -np.inf

    def add(self, known: FloatArray) -> None:
        """Take in what a page has of it."""
        self.medians.append(float(np.median(known)))
        self.lowest = min(self.lowest, float(known.min()))
        self.highest = max(self.highest, float(known.max()))

    @property
    def centre(self) -> int:
        """Whole µV about which the signal lies: an amplifier may have an offset."""
        return round(float(np.median(self.medians)))

    @property
    def steps_per_uv(self) -> int:
        """The finest steps in which all of it fits; what does not fit in the coarsest is cut."""
        for steps in _STEPS_PER_UV:
            low, high = (self.lowest - self.centre) * steps, (self.highest - self.centre) * steps
            if low >= FIRST_COUNT and high <= LAST_COUNT:
                return steps
        return _STEPS_PER_UV[-1]


def night_signals(config: Config, view: NightView, tape: Path | None = None) -> list[NightSignal]:
    """Read every derivation of a night.

    The tapes are read twice, so that no more than 16 bits a sample are ever held.
    """
    pages = view.night.epochs
    tapes = [tape] if tape is not None else tapes_of(config, view, max(0, pages - 1))
    found: dict[_Key, _Found] = {}
    for page in _pages(config, view, tapes):
        for key, samples in _of_page(page):
            found.setdefault(key, _Found()).add(samples[np.isfinite(samples)])
    if not found:
        raise TapeError(
            f"no tape has signals of {view.session.id}",
            where=str(tape or config.tape_dir),
            remedy="Name the recording with --tape, or leave --signals out.",
        )
    counts = {key: np.zeros((pages, key[2]), np.int16) for key in found}
    missing = {key: np.ones((pages, key[2]), np.bool_) for key in found}
    for page in _pages(config, view, tapes):
        for key, samples in _of_page(page):
            # After a restart two tapes have a part of one page each.
            new = np.isfinite(samples) & missing[key][page.epoch]
            steps = np.rint((samples[new] - found[key].centre) * found[key].steps_per_uv)
            counts[key][page.epoch, new] = steps.clip(FIRST_COUNT, LAST_COUNT)
            missing[key][page.epoch, new] = False
    return [
        NightSignal(
            _label(role, name),
            width / PAGE_S,
            counts[role, name, width].ravel(),
            found[role, name, width].centre,
            found[role, name, width].steps_per_uv,
            tuple(_stretches(missing[role, name, width].ravel(), width / PAGE_S)),
        )
        for role, name, width in sorted(found, key=lambda key: list(Role).index(key[0]))
    ]


def _pages(config: Config, view: NightView, tapes: list[Path]) -> Iterator[Page]:
    """Give what the tapes have of the night's pages."""
    for path in tapes:
        recording = open_recording(path, timezone=config.site.timezone)
        for page in pages_of_night(config, view, recording, _NEEDS):
            if page.epoch < view.night.epochs:
                yield page


def _of_page(page: Page) -> Iterator[tuple[_Key, FloatArray]]:
    for role, signal in page.signals.items():
        if np.isfinite(signal.samples).any():
            yield (role, signal.derivation.name, _width(signal)), signal.samples[: _width(signal)]


def _width(signal: Signal) -> int:
    return round(signal.rate * PAGE_S)


def _label(role: Role, derivation: str) -> str:
    """Name a signal as EDF+ does: its kind and its derivation, without what is in brackets."""
    kind = "EEG" if role in EEG_ROLES else "EOG" if role in EOG_ROLES else ""
    kind = kind or {Role.CHIN: "EMG", Role.ECG: "ECG"}[role]
    name = re.sub(r" \(.*\)$", "", derivation)
    words = name if name.upper().startswith(kind) else f"{kind} {name}"
    return re.sub(r"[^ -~]", "_", words)[:_LABEL]


def _stretches(missing: NDArray[np.bool_], rate: float) -> Iterator[tuple[float, float]]:
    """Give onset and duration of every run of samples that were not recorded."""
    edges = np.flatnonzero(np.diff(missing.astype(np.int8), prepend=0, append=0))
    for first, last in edges.reshape(-1, 2):
        yield round(float(first) / rate, 4), round(float(last - first) / rate, 4)
