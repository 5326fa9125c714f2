"""The small protocol: what every reader gives, whatever its files look like.

A scored night has a name, a subject, one stage per 30-s page, and gives any of its pages as the
daemon would have cut it: from raw samples in µV, with context before and a tail after, NaN where
nothing was recorded. Montage and units are read by the daemon's own rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np

from hypnocast.core.montage.choice import Montage, choose_montage
from hypnocast.core.types import (
    PAGE_S,
    STEPS_PER_MICROVOLT,
    ChannelInfo,
    FloatArray,
    Page,
    Role,
    Signal,
    StreamHeader,
)
from hypnocast.errors import TapeError
from hypnocast.ports.recordings.edf_file import EdfFile
from hypnocast_models.data.recordings import ScoredRecording, page_of
from hypnocast_models.readers.scoring import ExpertScoring, Stages


class ScoredNight(Protocol):
    """One night of one person, with the stages of one expert or more."""

    @property
    def name(self) -> str:
        """What the night is called, unique within its data set."""
        ...

    @property
    def subject(self) -> str:
        """Whose night it is: data are split by this, never by night or page."""
        ...

    @property
    def scorings(self) -> tuple[ExpertScoring, ...]:
        """What each expert scored; the first one counts where one is wanted."""
        ...

    @property
    def stages(self) -> Stages:
        """The first expert's stages."""
        ...

    @property
    def channels(self) -> Mapping[Role, str]:
        """Role → derivation, for the channels there are."""
        ...

    @property
    def oddities(self) -> tuple[str, ...]:
        """What is strange about the files though they can be read."""
        ...

    def page(self, epoch: int, context_s: float, tail_s: float) -> Page:
        """Cut a page."""
        ...


@dataclass(frozen=True, eq=False)
class EdfNight:
    """A night whose signals lie in an EDF or BDF file."""

    name: str
    subject: str
    file: EdfFile
    scorings: tuple[ExpertScoring, ...]
    alias: Mapping[str, str] = field(default_factory=dict)
    """Label in the file → what it is by the data set's documentation."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Label in the file → unit, where something beside the file gives it (BIDS)."""

    @property
    def stages(self) -> Stages:
        """The first expert's stages."""
        return self.scorings[0].stages

    @cached_property
    def duration_s(self) -> float:
        """How long the signals are."""
        return float(self._onsets[-1] + self.file.record_s) if len(self._onsets) else 0.0

    @cached_property
    def montage(self) -> Montage:
        """Which derivation fills each role, by the daemon's rules."""
        return choose_montage([header for header, _ in self._streams.values()])

    @property
    def channels(self) -> Mapping[Role, str]:
        """Role → derivation."""
        return self.montage.channels

    @cached_property
    def oddities(self) -> tuple[str, ...]:
        """What is strange about the files though they can be read."""
        odd = [one for scoring in self.scorings for one in scoring.oddities]
        if self.file.truncated:
            odd.append("the file is shorter than its header says")
        if self.file.discontinuous:
            odd.append("the recording has gaps (EDF+D)")
        for scoring in self.scorings:
            beyond = scoring.anchor + len(scoring.stages) * PAGE_S - self.duration_s
            if beyond >= PAGE_S:
                odd.append("scored beyond the end of the signals")
                break
        odd += [
            f"{role}: {derivation.name} has an unknown unit"
            for role, derivation in self.montage.derivations.items()
            if derivation.microvolts_per_unit is None
        ]
        if len(self.scorings) > 1 and len({len(s.stages) for s in self.scorings}) > 1:
            odd.append("its experts scored different numbers of pages")
        return tuple(odd)

    def page(self, epoch: int, context_s: float, tail_s: float) -> Page:
        """Cut a page."""
        start = self.scorings[0].anchor + epoch * PAGE_S
        signals: dict[Role, Signal] = {}
        raw = self._raw(start - context_s, start + PAGE_S + tail_s)
        for role, derivation in self.montage.derivations.items():
            _, places = self._streams[derivation.stream]
            values = raw[places[derivation.positive]]
            if derivation.negative is not None:
                values = values - raw[places[derivation.negative]]
            microvolts = values * (derivation.microvolts_per_unit or 1.0)
            on_grid = np.rint(microvolts * STEPS_PER_MICROVOLT) / STEPS_PER_MICROVOLT
            signals[role] = Signal(derivation, derivation.rate, on_grid)
        return Page(epoch, MappingProxyType(signals), context_s, tail_s)

    @cached_property
    def _streams(self) -> dict[str, tuple[StreamHeader, list[int]]]:
        """One stream of all signals that share a rate, with their places in the file."""
        by_count: dict[int, list[int]] = {}
        for place, signal in enumerate(self.file.signals):
            if signal.per_record:
                by_count.setdefault(signal.per_record, []).append(place)
        streams = {}
        for count, places in by_count.items():
            rate = count / self.file.record_s
            key = f"{rate:g}-hz"
            infos = tuple(self._info(place) for place in places)
            streams[key] = (StreamHeader(key, key, "PSG", key, key, "", rate, infos), places)
        return streams

    def _info(self, place: int) -> ChannelInfo:
        signal = self.file.signals[place]
        unit = self.units.get(signal.label, signal.unit if signal.calibrated else "")
        return ChannelInfo(self.alias.get(signal.label, signal.label), unit or None)

    @cached_property
    def _onsets(self) -> FloatArray:
        if not self.file.discontinuous:
            return np.arange(self.file.records, dtype=np.float64) * self.file.record_s
        return np.array([self.file.read(k, 1)[0][0] for k in range(self.file.records)])

    @cached_property
    def _wanted(self) -> frozenset[int]:
        found: set[int] = set()
        for derivation in self.montage.derivations.values():
            _, places = self._streams[derivation.stream]
            found.add(places[derivation.positive])
            if derivation.negative is not None:
                found.add(places[derivation.negative])
        return frozenset(found)

    def _raw(self, first_s: float, last_s: float) -> dict[int, FloatArray]:
        """Give each wanted signal over a stretch of time, NaN where there is none."""
        step = self.file.record_s
        rates = {p: self.file.signals[p].per_record / step for p in self._wanted}
        out = {p: np.full(round((last_s - first_s) * rate), np.nan) for p, rate in rates.items()}
        begin = int(np.searchsorted(self._onsets, first_s - step, side="right"))
        end = int(np.searchsorted(self._onsets, last_s, side="left"))
        onsets, values = self.file.read(begin, end - begin) if end > begin else ([], [])
        for record, onset in enumerate(onsets):
            for place, row in out.items():
                at = round((onset - first_s) * rates[place])
                piece = values[place][record]
                low, high = max(0, -at), min(piece.size, row.size - at)
                if low < high:
                    row[at + low : at + high] = piece[low:high]
        return out


@dataclass(frozen=True, eq=False)
class ArrayNight:
    """A night of the ``.npz`` kind: one EEG, perhaps only the beginning of each page."""

    recording: ScoredRecording

    @property
    def name(self) -> str:
        """The subject and the night's number."""
        return f"{self.recording.subject}-night{self.recording.night}"

    @property
    def subject(self) -> str:
        """Whose night it is."""
        return self.recording.subject

    @cached_property
    def scorings(self) -> tuple[ExpertScoring, ...]:
        """The expert's stages; pages that the file lacks have none."""
        from hypnocast.core.types import STAGES

        rows = self.recording.row_of_epoch
        stages = tuple(
            STAGES[self.recording.stages[rows[epoch]]] if epoch in rows else None
            for epoch in range(int(self.recording.epochs.max()) + 1)
        )
        return (ExpertScoring(stages, "R&K"),)

    @property
    def stages(self) -> Stages:
        """The expert's stages."""
        return self.scorings[0].stages

    @property
    def channels(self) -> Mapping[Role, str]:
        """The one channel."""
        return {self.recording.own_role: self.recording.channel}

    @property
    def oddities(self) -> tuple[str, ...]:
        """Return how much of a page there is."""
        seconds = self.recording.rows.shape[1] / self.recording.rate
        odd = () if seconds >= PAGE_S else (f"only the first {seconds:g} s of a page",)
        gaps = len(self.stages) - len(self.recording.stages)
        return (*odd, "some pages of the night are not in the file") if gaps else odd

    def page(self, epoch: int, context_s: float, tail_s: float) -> Page:
        """Cut a page."""
        row = self.recording.row_of_epoch.get(epoch)
        if row is not None:
            return self.recording.page(row, context_s, tail_s)
        rate = self.recording.rate
        nothing = np.full(round((context_s + PAGE_S + tail_s) * rate), np.nan)
        channels = {self.recording.own_role: (nothing, rate, self.recording.channel)}
        return page_of(channels, epoch, context_s, tail_s)


def amplified(page: Page, gain: float) -> Page:
    """Give a page as another amplifier would have: every sample times ``gain``."""
    if gain == 1.0:
        return page
    louder = {
        role: replace(
            signal,
            samples=np.rint(signal.samples * gain * STEPS_PER_MICROVOLT) / STEPS_PER_MICROVOLT,
        )
        for role, signal in page.signals.items()
    }
    return replace(page, signals=MappingProxyType(louder))


def need(path: Path, what: str) -> Path:
    """Return a file that belongs to a recording; raise where it is missing."""
    if not path.is_file():
        raise TapeError(f"{what} is missing", where=str(path))
    return path


def first_there(paths: Sequence[Path], what: str) -> Path:
    """Return the first of several possible files that is there."""
    for path in paths:
        if path.is_file():
            return path
    return need(paths[0], what)
