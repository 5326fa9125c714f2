"""What is published for a spectrogram of the night under its hypnogram."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

from hypnocast.core.wire.payloads import Epoch, Instant, Message, SourceName, TopicWord

MAX_PAGES: Final = 2880
"""24 hours; of a longer night the newest are published. The whole stays below 256 kB."""

MAX_BINS: Final = 64

BandName = Literal["delta", "theta", "alpha", "sigma", "beta"]


class SpectrumSource(Message, frozen=True, kw_only=True):
    """From which page on the spectrum is of which derivation."""

    epoch: Epoch
    derivation: str


class NightSpectrum(Message, frozen=True, kw_only=True):
    """Power of one EEG, page by page, for people's eyes; never what a model saw.

    A byte of ``levels`` and ``bands`` is 0 for no value, else ``floor_db + step_db * (byte - 1)``.
    """

    schema: Literal["hypnocast.spectrum/1"] = "hypnocast.spectrum/1"
    at: Instant
    source: SourceName
    site: TopicWord
    bed: TopicWord
    session: str
    start: Instant
    """Start of epoch 0; epoch k starts 30 k seconds later."""
    first: Epoch
    """Epoch of the first page here."""
    pages: Annotated[int, Meta(ge=0, le=MAX_PAGES)]
    derivations: Annotated[tuple[SpectrumSource, ...], Meta(max_length=MAX_PAGES)]
    """The first EEG that was drawn; a new entry where it is another than on the page before."""
    lowest_hz: Annotated[float, Meta(ge=0.0, le=1000.0)]
    """Middle of the lowest bin."""
    step_hz: Annotated[float, Meta(gt=0.0, le=100.0)]
    bins: Annotated[int, Meta(ge=1, le=MAX_BINS)]
    bands_hz: Annotated[dict[BandName, tuple[float, float]], Meta(min_length=1, max_length=5)]
    """Band → from and to which frequency; the order of ``bands``."""
    floor_db: Annotated[float, Meta(ge=-200.0, le=200.0)]
    step_db: Annotated[float, Meta(gt=0.0, le=100.0)]
    levels: Annotated[bytes, Meta(max_length=MAX_PAGES * MAX_BINS)]
    """Page by page, from the lowest bin: dB against 1 µV²/Hz."""
    bands: Annotated[bytes, Meta(max_length=MAX_PAGES * 5)]
    """Page by page: dB against 1 µV²."""
    research_use_only: Literal[True] = True
