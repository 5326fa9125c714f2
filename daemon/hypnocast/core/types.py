"""What flows through Hypnocast, in the order in which it flows.

    Chunk ─▶ Page | Gap ─▶ Picture ─▶ Opinion ─▶ Verdict ─▶ StageEvent (in :mod:`.wire`)

All of it is frozen and slotted: whoever holds one may keep it, and nobody can change it.
Arrays inside are read-only by convention; whoever makes one hands it over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

PAGE_S = 30.0
"""Length of a page in seconds, by the AASM manual."""

LONGEST_NIGHT_S = 7 * 86400.0
"""A session that runs for so long is ended: nobody sleeps a week, and every reader has a limit."""

MAX_EPOCHS = int(LONGEST_NIGHT_S / PAGE_S) + 1
"""Pages of the longest night; no event, state or command names a page beyond."""

STEPS_PER_MICROVOLT = 64
"""Samples are rounded to this grid before drawing, so arithmetic noise cannot move a pixel."""

FloatArray = NDArray[np.float64]
Pixels = NDArray[np.uint8]


class Stage(StrEnum):
    """A sleep stage by the AASM manual."""

    W = "W"
    N1 = "N1"
    N2 = "N2"
    N3 = "N3"
    R = "R"


STAGES: tuple[Stage, ...] = tuple(Stage)
"""The order of every probability vector: W, N1, N2, N3, R."""


class Role(StrEnum):
    """The place of a derivation in the montage, named by AASM's recommended derivation."""

    F4 = "F4-M1"
    C4 = "C4-M1"
    O2 = "O2-M1"
    E1 = "E1-M2"
    E2 = "E2-M2"
    CHIN = "Chin"
    ECG = "ECG"


EEG_ROLES = (Role.F4, Role.C4, Role.O2)
EOG_ROLES = (Role.E1, Role.E2)


class Reason(StrEnum):
    """Why a page has no stage: a closed list."""

    LOW_COVERAGE = "low_coverage"
    MISSING_CHANNEL = "missing_channel"
    DETACHED = "detached"
    OUT_OF_SCALE = "out_of_scale"
    UNKNOWN_UNIT = "unknown_unit"
    TOO_LATE = "too_late"
    NO_MODEL = "no_model"
    DAEMON_DOWN = "daemon_down"
    SESSION_END = "session_end"


class Flag(StrEnum):
    """What can be wrong with a channel."""

    MISSING = "missing"
    FLAT = "flat"
    CLIPPED = "clipped"
    LINE_NOISE = "line_noise"
    OUT_OF_SCALE = "out_of_scale"
    DETACHED = "detached"
    UNKNOWN_UNIT = "unknown_unit"


SourceKind = Literal["live", "replay", "simulated"]


# --- what arrives -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChannelInfo:
    """One channel as its stream describes it; nothing is interpreted yet."""

    label: str
    unit: str | None = None
    kind: str | None = None
    scale: float | None = None
    """What one count is worth in ``unit``, where the stream carries raw counts."""


@dataclass(frozen=True, slots=True)
class StreamHeader:
    """What a stream announces of itself."""

    key: str
    """Names the stream within its bed: its source_id where it has one, else its name."""
    name: str
    type: str
    source_id: str
    uid: str
    host: str
    rate: float
    """Nominal rate in Hz; 0 for an irregular stream (markers)."""
    channels: tuple[ChannelInfo, ...]
    format: str = "float32"
    created_at: float = 0.0
    xml: str = ""
    """The whole header as LSL's XML, kept for the tape."""


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Samples as they came: raw values, the sender's own timestamps."""

    stream: str
    samples: NDArray[Any]
    """(n, channels), in the stream's own type and unit."""
    stamps: FloatArray
    """(n,), on the sender's LSL clock, in seconds."""
    arrived: float = 0.0
    """The local LSL clock when the chunk was read."""


@dataclass(frozen=True, slots=True)
class ClockReading:
    """``local clock = sender's clock + offset``, measured at local time ``at``."""

    stream: str
    at: float
    offset: float


@dataclass(frozen=True, slots=True)
class OutletChange:
    """A stream comes from another outlet than before in this session."""

    text: str
    moved: bool
    """Whether it comes from another place too: a restart does not."""


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """A stream was found, or found again after it was lost."""

    header: StreamHeader
    at: float
    change: OutletChange | None = None


@dataclass(frozen=True, slots=True)
class StreamLost:
    """A stream fell silent or was closed by its sender."""

    stream: str
    at: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """A text from a marker stream, at the sender's timestamp."""

    stream: str
    stamp: float
    text: str
    arrived: float = 0.0


Arrival = Chunk | ClockReading | StreamOpened | StreamLost | Mark
"""Everything a source can hand over for one bed, in the order in which it came."""


# --- pages ------------------------------------------------------------------------------------

DerivationKind = Literal["recommended", "mirrored", "substitute", "assumed_reference"]


@dataclass(frozen=True, slots=True)
class Derivation:
    """How a role is filled: from which electrodes of which streams, and how far from ideal."""

    role: Role
    name: str
    """As shown to people and in events: ``F4-M1``, ``F3-M2 (mirrored)``, ``Fpz-Cz`` …"""
    stream: str
    positive: int
    negative: int | None
    """Channel index subtracted, or None where the stream gives the derivation ready-made."""
    microvolts_per_unit: float | None
    """What one value of the stream is worth in µV; None where its unit is unknown."""
    kind: DerivationKind = "recommended"
    rate: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Signal:
    """One derivation around one page: the context before it, the page, the tail after it."""

    derivation: Derivation
    rate: float
    samples: FloatArray
    """In µV on the 1/64 µV grid, from ``page start − context_s`` to ``page end + tail_s``;
    NaN where no sample ever came."""


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """30 s on the session's grid, with what is needed to filter it."""

    epoch: int
    signals: Mapping[Role, Signal]
    context_s: float
    tail_s: float

    @property
    def channels(self) -> Mapping[Role, str]:
        """Role → the name of its derivation."""
        return {role: signal.derivation.name for role, signal in self.signals.items()}


@dataclass(frozen=True, slots=True)
class ChannelQuality:
    """How good one channel was over the page."""

    coverage: float
    """Share of the page's samples that came, 0 … 1."""
    flags: frozenset[Flag] = frozenset()


Quality = Mapping[Role, ChannelQuality]


@dataclass(frozen=True, slots=True)
class Gap:
    """A page that cannot be shown to a model, and why."""

    epoch: int
    reason: Reason
    quality: Quality = field(default_factory=lambda: MappingProxyType({}))
    channels: Mapping[Role, str] = field(default_factory=lambda: MappingProxyType({}))
    """Role → derivation, for the channels there are."""


@dataclass(frozen=True, slots=True)
class PageSpectrum:
    """Power of a page's first EEG, in levels; see :mod:`.pictures.page_spectrum`."""

    derivation: str
    levels: bytes
    """One byte for each half hertz from 0.5 to 30 Hz."""
    bands: bytes
    """Delta, theta, alpha, sigma, beta."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """The pixels of one page, exactly as the model sees them."""

    epoch: int
    rgb: Pixels
    """(height, width, 3)."""
    digest: str
    """``sha256:`` and 64 hex digits over the RGB bytes."""
    recipe: str
    """Digest of the recipe that drew it."""
    quality: Quality
    channels: Mapping[Role, str]
    """Role → derivation drawn."""
    samples: Mapping[Role, FloatArray] | None = None
    """The page's conditioned samples, for a model that reads signals instead of pixels."""
    spectrum: PageSpectrum | None = None
    """Where the night's spectrogram is wanted."""


# --- opinions and verdicts --------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What a stager is shown for one page: the page among its neighbours.

    ``pictures`` has ``context.before + 1 + context.after`` places; a neighbour that does not
    exist (first page, withheld page, page still to come) is None.
    """

    pictures: tuple[Picture | None, ...]
    center: int = 0
    carried: bytes | None = None
    """What a recurrent model carried over from the pages before; None at the start."""

    @property
    def page(self) -> Picture:
        """The page that is judged."""
        picture = self.pictures[self.center]
        if picture is None:
            msg = "a Look needs the picture of the page it is about"
            raise ValueError(msg)
        return picture


@dataclass(frozen=True, slots=True, eq=False)
class Opinion:
    """The model's answer for one page, before calibration and filtering."""

    epoch: int
    log_probabilities: FloatArray
    """(5,) natural logarithms in the order of :data:`STAGES`, normalised."""
    provider: str
    """What computed it: ``cpu``, ``cuda``, ``tensorrt``, ``remote:host`` …"""
    rationale: str | None = None
    rules: tuple[str, ...] | None = None
    coverage: float = 1.0
    """How much of the page was there to be seen; see :func:`.quality.coverage_of`."""
    carried: bytes | None = None
    """What a recurrent model carries over to the next page, in the pack's own encoding."""


@dataclass(frozen=True, slots=True, eq=False)
class Staged:
    """A stage for a page."""

    epoch: int
    stage: Stage
    probabilities: FloatArray
    """(5,) after calibration and filtering."""
    raw_probabilities: FloatArray
    """(5,) as the model gave them."""
    provisional: bool
    provider: str
    rationale: str | None = None
    rules: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Withheld:
    """No stage for a page, and why. Always terminal."""

    epoch: int
    reason: Reason


Verdict = Staged | Withheld
