"""Whatever holds a night, as the recording that a replay would read.

Files are opened by the daemon's own door. An ``mne.io.Raw`` is known by what it can do (nothing of
MNE is imported), and an array needs its rate and the names of its channels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.types import (
    Arrival,
    ChannelInfo,
    Chunk,
    ClockReading,
    FloatArray,
    StreamHeader,
    StreamLost,
    StreamOpened,
)
from hypnocast.errors import CommandError
from hypnocast.ports.recordings.files import open_recording
from hypnocast.ports.recordings.recording import Recording

_KEY = "array"
_END = "end of the recording"


@runtime_checkable
class RawLike(Protocol):
    """What is needed of an ``mne.io.Raw``: volts, names, a rate."""

    ch_names: list[str]
    n_times: int

    @property
    def info(self) -> Any:
        """``sfreq`` and ``meas_date``."""
        ...

    def get_data(self, *, start: int, stop: int) -> FloatArray:
        """Give (channels, samples) in volts."""
        ...


Recorded = str | os.PathLike[str] | RawLike | NDArray[Any]
"""What a night can be given as."""


def recording_of(
    source: Recorded,
    *,
    rate: float | None = None,
    channels: Sequence[str] | None = None,
    unit: str = "uV",
    start: datetime | None = None,
    timezone: str = "UTC",
) -> Recording:
    """Open a night. ``rate``, ``channels`` and ``unit`` are for arrays (channels, samples)."""
    if isinstance(source, str | os.PathLike):
        return open_recording(Path(source), timezone=timezone)
    if isinstance(source, RawLike):
        date = source.info["meas_date"]
        return _recording(
            lambda first, last: source.get_data(start=first, stop=last),
            source.n_times,
            float(source.info["sfreq"]),
            [ChannelInfo(name, "V") for name in source.ch_names],
            date if isinstance(date, datetime) else start,
        )
    array = np.asarray(source)
    if array.ndim == 1:
        array = array[None]
    if rate is None or channels is None:
        raise CommandError(
            "an array does not say what it is",
            where="rate, channels",
            remedy="Give stage(array, rate=256, channels=['F4-M1', 'E1-M2'], unit='uV').",
        )
    if array.ndim != 2 or len(channels) != len(array) or array.dtype.kind not in "iuf":
        raise CommandError(
            f"needs numbers as (channels, samples) and a name for each: has {array.dtype} "
            f"{array.shape} and {len(channels)} names",
            where="array",
        )
    return _recording(
        lambda first, last: array[:, first:last],
        array.shape[1],
        rate,
        [ChannelInfo(name, unit) for name in channels],
        start,
    )


def _recording(
    read: Callable[[int, int], NDArray[Any]],
    samples: int,
    rate: float,
    channels: Sequence[ChannelInfo],
    start: datetime | None,
) -> Recording:
    if not 1.0 <= rate <= 100_000.0:
        raise CommandError(f"{rate:g} Hz is no sampling rate", where="rate")
    header = StreamHeader(_KEY, _KEY, "EEG", _KEY, _KEY, "", rate, tuple(channels))

    def play(chunk_s: float) -> Iterator[Arrival]:
        yield StreamOpened(header, 0.0)
        yield ClockReading(_KEY, 0.0, 0.0)
        step = max(1, round(chunk_s * rate))
        for first in range(0, samples, step):
            last = min(samples, first + step)
            stamps = np.arange(first, last) / rate
            yield Chunk(_KEY, np.asarray(read(first, last)).T, stamps, arrived=last / rate)
        yield StreamLost(_KEY, samples / rate, _END)

    return Recording(
        path=Path(_KEY),
        format=_KEY,
        subject="",
        start=None if start is None else start.astimezone(UTC),
        t0=0.0,
        duration_s=samples / rate,
        headers=(header,),
        annotations=(),
        problems=(),
        decisions=(),
        play=play,
    )
