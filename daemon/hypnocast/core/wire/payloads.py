"""What Hypnocast publishes: the events and the states. JSON Schemas are generated from here.

Every key is always there, null where it has no value. Ids are pseudonymous. A consumer
ignores keys it does not know; a change that would break one changes the number in ``schema``.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from hypnocast.core.types import MAX_EPOCHS
from hypnocast.core.wire.gear_values import GearValue
from hypnocast.core.wire.page_facts import Evidence, Judged, Share
from hypnocast.core.wire.queue_state import QueueState

StageName = Literal["W", "N1", "N2", "N3", "R"]
ReasonName = Literal[
    "low_coverage",
    "missing_channel",
    "detached",
    "out_of_scale",
    "unknown_unit",
    "too_late",
    "no_model",
    "daemon_down",
    "session_end",
]
FlagName = Literal[
    "missing", "flat", "clipped", "line_noise", "out_of_scale", "detached", "unknown_unit"
]
SourceName = Literal["live", "replay", "simulated"]
StatusName = Literal["provisional", "final", "withheld"]
PhaseName = Literal["setup", "calibration", "recording", "ended"]
LightsName = Literal["on", "off", "unknown"]
MarkKind = Literal["lights_off", "lights_on", "note", "notice", "stream", "phase", "gap"]
StreamState = Literal["live", "silent", "lost", "refused"]
StatisticName = Literal[
    "total_sleep_min",
    "sleep_efficiency_percent",
    "sleep_onset_latency_min",
    "wake_after_sleep_onset_min",
    "rem_latency_min",
]
BedState = Literal["waiting", "warming_up", "live", "stale", "ended"]

Instant = Annotated[
    str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", title="UTC, milliseconds")
]
Epoch = Annotated[int, Meta(ge=0, lt=MAX_EPOCHS)]
Sha256 = Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}$")]
TopicWord = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""Site, node and bed ids: one level of a topic, no wildcard."""


class Message(Struct, frozen=True, kw_only=True):
    """Anything Hypnocast publishes."""


class StageProbabilities(Message, frozen=True, kw_only=True):
    """One probability per stage."""

    W: Share
    N1: Share
    N2: Share
    N3: Share
    R: Share


class ChannelReport(Message, frozen=True, kw_only=True):
    """How good a channel was over the page."""

    coverage: Share
    flags: tuple[FlagName, ...]


class Digests(Message, frozen=True, kw_only=True):
    """What made the verdict, to the bit."""

    pack: Sha256 | None
    recipe: Sha256 | None
    picture: Sha256 | None


class Timing(Message, frozen=True, kw_only=True):
    """Milliseconds after the page's end; null for what did not happen."""

    closed: float | None
    drawn: float | None
    judged: float | None
    journaled: float | None


class StageEvent(Message, frozen=True, kw_only=True):
    """What Hypnocast says of one page, once or (with a provisional verdict first) twice."""

    schema: Literal["hypnocast.stage/1"] = "hypnocast.stage/1"
    id: str
    """Deterministic: session, epoch, revision. A repeat carries the same id."""
    sequence: Annotated[int, Meta(ge=1)]
    """Counts the events of a bed without a hole, over sessions and restarts."""
    source: SourceName
    site: TopicWord
    bed: TopicWord
    session: str
    subject: str | None
    epoch: Epoch
    start: Instant
    end: Instant
    revision: Literal[0, 1]
    """0 provisional, 1 terminal."""
    status: StatusName
    reason: ReasonName | None
    stage: StageName | None
    probabilities: StageProbabilities | None
    raw_probabilities: StageProbabilities | None
    confidence: Share | None
    rationale: str | None
    rules: tuple[str, ...] | None
    channels: dict[str, str]
    """Role → derivation used."""
    quality: dict[str, ChannelReport]
    """Role → coverage and flags."""
    judged: Judged | None = None
    """Whether the pack was judged on such a montage; null where no channel was used."""
    review: bool
    evidence: Evidence | None
    lights: LightsName
    digests: Digests
    provider: str | None
    timing: Timing
    research_use_only: Literal[True] = True


# --- retained states --------------------------------------------------------------------------


class StreamHealth(Message, frozen=True, kw_only=True):
    """How one stream of a bed does."""

    name: str
    source_id: str
    host: str
    rate: float
    state: StreamState
    age_s: float | None
    """Seconds since its last sample."""
    problem: str | None


class ChannelHealth(Message, frozen=True, kw_only=True):
    """How one channel did in the last five seconds."""

    derivation: str
    unit: str | None
    flags: tuple[FlagName, ...]
    words: str
    """For people: ``good``, ``flat``, ``detached`` …"""


class BedStatus(Message, frozen=True, kw_only=True):
    """What goes on at a bed."""

    schema: Literal["hypnocast.status/1"] = "hypnocast.status/1"
    at: Instant
    site: TopicWord
    bed: TopicWord
    node: TopicWord
    """The daemon that serves this bed."""
    state: BedState
    phase: PhaseName | None
    session: str | None
    subject: str | None
    source: SourceName
    since: Instant | None
    """When the session's epoch 0 began."""
    epoch: Epoch | None
    """The last epoch that closed."""
    lights: LightsName
    streams: tuple[StreamHealth, ...]
    channels: dict[str, ChannelHealth]
    problems: tuple[str, ...]
    """What is wrong, one line each, with what to do."""
    gear: tuple[GearValue, ...] = ()
    """Body position and impedances, where a stream carries them."""
    judged: Judged | None = None
    """Whether the pack was judged on such a montage; null where there is none yet."""
    latency_ms: float | None
    """From the end of the last page to its event in the journal."""
    provider: str | None
    pack: str | None
    research_use_only: Literal[True] = True


class NightMark(Message, frozen=True, kw_only=True):
    """A marker or note of the night."""

    at: Instant
    kind: MarkKind
    text: str


class StageStatistics(Message, frozen=True, kw_only=True):
    """Minutes and share of sleep per stage."""

    minutes: float
    percent: float | None
    """Of total sleep time; of W, null."""


class NightStatistics(Message, frozen=True, kw_only=True):
    """By the definitions of the AASM manual; null where undefined.

    Pages without a stage are neither sleep nor wake: ``affected_by_withheld`` names what changes.
    """

    time_in_bed_from: Literal["lights_off", "recording_start"]
    """Where the time in bed begins: the recording's start where lights off was not marked."""
    time_in_bed_to: Literal["lights_on", "session_end", "last_page"]
    """Where it ends: the session's end, or the newest page, where lights on was not marked."""
    time_in_bed_min: float | None
    total_sleep_min: float
    sleep_efficiency_percent: float | None
    sleep_onset_latency_min: float | None
    wake_after_sleep_onset_min: float | None
    rem_latency_min: float | None
    stages: dict[StageName, StageStatistics]
    withheld_min: float
    """Time in bed without a stage."""
    affected_by_withheld: tuple[StatisticName, ...]


class Night(Message, frozen=True, kw_only=True):
    """The night so far: a late subscriber needs nothing else."""

    schema: Literal["hypnocast.night/1"] = "hypnocast.night/1"
    at: Instant
    site: TopicWord
    bed: TopicWord
    session: str
    subject: str | None
    source: SourceName
    start: Instant
    """Start of epoch 0; epoch k starts 30 k seconds later."""
    ended: Instant | None
    epochs: Annotated[int, Meta(ge=0, le=MAX_EPOCHS)]
    """How many epochs have an event; the lists below have as many entries."""
    status: str
    """One letter per epoch: f final, p provisional, w withheld, u unknown (lost with a journal)."""
    stages: tuple[StageName | None, ...]
    reasons: tuple[ReasonName | None, ...]
    probabilities: tuple[tuple[int, int, int, int, int] | None, ...]
    """Per epoch W, N1, N2, N3, R in thousandths."""
    review: tuple[Epoch, ...]
    """Epochs marked for review."""
    marks: tuple[NightMark, ...]
    statistics: NightStatistics
    last_sequence: int
    research_use_only: Literal[True] = True


class OutboxCounters(Message, frozen=True, kw_only=True):
    """What waits for the broker."""

    waiting: int
    oldest_s: float | None
    sent: int


class DaemonState(Message, frozen=True, kw_only=True):
    """How the daemon itself does; every 30 s."""

    schema: Literal["hypnocast.daemon/1"] = "hypnocast.daemon/1"
    at: Instant
    site: TopicWord
    node: TopicWord
    version: str
    pack: str
    pack_version: str
    pack_digest: Sha256
    recipe: str
    provider: str
    degraded: tuple[str, ...]
    """What is not as it should be: ``journal_degraded``, ``provider: cuda → cpu`` …"""
    uptime_s: float
    beds: tuple[TopicWord, ...]
    counters: dict[str, int]
    """``pages``, ``final``, ``judged`` …: docs/numbers.md has them all."""
    queues: dict[str, QueueState] = {}
    outbox: OutboxCounters
    research_use_only: Literal[True] = True


class Rolling(Message, frozen=True, kw_only=True):
    """A verdict on the last 30 s, between page closes. Never terminal, never journaled."""

    schema: Literal["hypnocast.rolling/1"] = "hypnocast.rolling/1"
    site: TopicWord
    bed: TopicWord
    session: str
    end: Instant
    stage: StageName | None
    reason: ReasonName | None
    probabilities: StageProbabilities | None
    latency_ms: float
    research_use_only: Literal[True] = True


class SecondOpinion(Message, frozen=True, kw_only=True):
    """What one pack beside says of the night; nothing it says changes a stage."""

    pack: str
    digest: str
    provider: str | None
    epoch: int | None
    """The newest page it has a verdict on."""
    stage: StageName | None
    reason: ReasonName | None
    probabilities: StageProbabilities | None
    review: bool
    """Whether the pack that speaks gave that page another stage."""
    stages: tuple[StageName | None, ...]
    """Per epoch of the night; None where it has no stage, or has not judged the page."""
    parted: tuple[int, ...]
    """Epochs to which the two gave different stages."""
    compared: int
    """Pages that both have staged."""
    kappa: float | None
    shed: int
    """Pages it was not asked about, because there was too much to do."""


class Beside(Message, frozen=True, kw_only=True):
    """What the packs beside the one that speaks say of the night so far."""

    schema: Literal["hypnocast.beside/1"] = "hypnocast.beside/1"
    at: Instant
    site: TopicWord
    bed: TopicWord
    session: str
    source: SourceName
    packs: tuple[SecondOpinion, ...]
    research_use_only: Literal[True] = True


class Explanation(Message, frozen=True, kw_only=True):
    """How much the stage's probability falls when a part is blanked; reasons written later."""

    epoch: Epoch
    stage: StageName
    sentence: str
    """``R rests on E1-M2 and Chin``, or the model's own reasons where only they were asked."""
    probability: float
    """The stage's, by the model alone, on the page as it is."""
    channels: dict[str, float]
    """Role → fall of the stage's probability; empty where only reasons were asked."""
    alone: dict[str, float]
    """Kind of channels (EEG, eyes, chin) → the stage's probability where only it is left."""
    patches: tuple[tuple[float, ...], ...] | None
    """Rows of patches, top to bottom; null where only channels were asked."""
    rationale: str | None = None
    rules: tuple[str, ...] | None = None


class Explained(Explanation, frozen=True, kw_only=True):
    """What a page's terminal stage rests on, published unasked; never journaled."""

    schema: Literal["hypnocast.explanation/1"] = "hypnocast.explanation/1"
    site: TopicWord
    bed: TopicWord
    session: str
    source: SourceName
    event: str
    """Id of the event that is explained: its digests name model and picture."""
    research_use_only: Literal[True] = True


_encoder = msgspec.json.Encoder()


def encode(message: Message) -> bytes:
    """Write a message as UTF-8 JSON."""
    return _encoder.encode(message)


def event_id(session: str, epoch: int, revision: int) -> str:
    """Return the deterministic id of an event."""
    return f"{session}/{epoch}/{revision}"
