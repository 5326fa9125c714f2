"""What people are shown of a bed: words, levels and numbers, worked out from the topics; pure.

The browser lays these out and the terminal prints them; neither decides what they mean.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from hypnocast.core.timing.utc import instant
from hypnocast.core.types import PAGE_S
from hypnocast.core.wire.gear_values import GearValue
from hypnocast.core.wire.payloads import (
    BedState,
    BedStatus,
    FlagName,
    LightsName,
    Night,
    NightMark,
    PhaseName,
    ReasonName,
    SourceName,
    StageEvent,
    StageName,
)
from hypnocast.dashboard.ward import (
    BedView,
    Incoming,
    WardView,
    absorb,
    bed_of,
    refuse,
    seconds,
)

RECENT = 60
"""Pages in a card's small hypnogram: the last 30 minutes."""

NOTICE_S = 600.0
"""How long a notice stays on a card."""

Level = Literal["good", "fair", "bad"]
Mood = Literal["staged", "withheld", "stale", "ended", "waiting", "warming_up", "not_staging"]
"""What a card must show before anything else."""

REASON_WORDS: dict[ReasonName, str] = {
    "low_coverage": "too little signal on the page",
    "missing_channel": "a needed channel is missing",
    "detached": "electrode detached",
    "out_of_scale": "signal out of scale",
    "unknown_unit": "unit of the signal unknown",
    "too_late": "the model answered too late",
    "no_model": "no model can run",
    "daemon_down": "the daemon was down",
    "session_end": "the session ended within the page",
}
_POOR: frozenset[FlagName] = frozenset({"clipped", "line_noise"})
_STATE_MOOD: dict[BedState, Mood] = {
    "stale": "stale",
    "ended": "ended",
    "waiting": "waiting",
    "warming_up": "warming_up",
}


class Electrode(Struct, frozen=True, kw_only=True):
    """Health of one channel in a word and a level."""

    role: str
    derivation: str
    level: Level
    words: str


class Point(Struct, frozen=True, kw_only=True):
    """One page of a small hypnogram."""

    stage: StageName | None
    status: Literal["f", "p", "w", " "]
    """Final, provisional, withheld; blank where nothing is known."""


class Card(Struct, frozen=True, kw_only=True):
    """A bed at a glance."""

    bed: str
    mood: Mood
    state: BedState
    phase: PhaseName | None
    session: str | None
    subject: str | None
    source: SourceName
    stage: StageName | None
    """The newest page's stage; of a stale bed, the last that was known."""
    since: str | None
    """When the run of this stage (or of withheld pages) began."""
    lasted_s: float
    epoch: int | None
    confidence: float | None
    provisional: bool
    review: bool
    reason: ReasonName | None
    reason_words: str | None
    recent: tuple[Point, ...]
    recent_end: str | None
    """End of the newest page in ``recent``."""
    electrodes: tuple[Electrode, ...]
    health: Level | None
    health_words: str
    latency_ms: float | None
    lights: LightsName
    problems: tuple[str, ...]
    gear: tuple[GearValue, ...]
    """Body position and impedances, where a stream carries them."""
    judged: str | None
    """That the pack was not judged on this montage, and on what it was; in words."""
    notice: NightMark | None
    """The newest notice, for a while."""
    seen: float
    """When there was last news, in seconds since 1970. While pages are judged an event comes
    every 30 s; else a bed that has nothing new is as fresh as its daemon's last message."""
    node: str | None
    node_available: bool | None


def fold(ward: WardView, message: Incoming) -> WardView:
    """Return the ward after a message; one that cannot be shown changes no card."""
    after = absorb(ward, message)
    name = bed_of(message.topic)
    bed = after.beds.get(name) if name is not None and after.beds is not ward.beds else None
    if bed is None:
        return after
    try:
        card(bed, after)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        return refuse(ward, message, error)
    return after


def card(bed: BedView, ward: WardView) -> Card:
    """Return what is shown of a bed."""
    status = bed.status
    session = _session(bed)
    night = bed.night if bed.night is not None and bed.night.session == session else None
    event = bed.stage if bed.stage is not None and bed.stage.session == session else None
    points = history(night, event)
    run = _run(points)
    start = night.start if night is not None else None
    if start is None and event is not None:
        start = instant(seconds(event.start) - PAGE_S * event.epoch)
    newest = points[-1] if points else None
    electrodes = _electrodes(status)
    node = ward.node_of(bed)
    mood = _mood(status, newest)
    judged = mood in ("staged", "withheld")
    return Card(
        bed=bed.name,
        mood=mood,
        state=status.state if status is not None else "waiting",
        phase=status.phase if status is not None else None,
        session=session,
        subject=status.subject if status is not None else None,
        source=_source(bed),
        stage=newest.stage if newest is not None else None,
        since=instant(seconds(start) + PAGE_S * (len(points) - run)) if start and run else None,
        lasted_s=PAGE_S * run,
        epoch=len(points) - 1 if points else None,
        confidence=event.confidence if event is not None else None,
        provisional=newest is not None and newest.status == "p",
        review=event.review if event is not None else False,
        reason=(reason := _reason(points, night, event)),
        reason_words=REASON_WORDS[reason] if reason is not None else None,
        recent=points[-RECENT:],
        recent_end=instant(seconds(start) + PAGE_S * len(points)) if start and points else None,
        electrodes=electrodes,
        health=_health(electrodes),
        health_words=_health_words(electrodes),
        latency_ms=status.latency_ms if status is not None else None,
        lights=status.lights if status is not None else "unknown",
        problems=status.problems if status is not None else (),
        gear=status.gear if status is not None else (),
        judged=status.judged.words if status is not None and status.judged is not None else None,
        notice=_notice(night, len(points)),
        seen=bed.seen if judged or node is None else max(bed.seen, node.seen),
        node=status.node if status is not None else None,
        node_available=node.available if node is not None else None,
    )


def history(night: Night | None, event: StageEvent | None) -> tuple[Point, ...]:
    """Return every page so far: the night, and the newest event where it is ahead of it."""
    points = (
        []
        if night is None
        else [
            Point(stage=stage, status=_letter(letter))
            for stage, letter in zip(night.stages, night.status, strict=True)
        ]
    )
    if event is not None and event.epoch >= len(points) - 1:
        blank = Point(stage=None, status=" ")
        points += [blank] * (event.epoch + 1 - len(points))
        points[event.epoch] = Point(stage=event.stage, status=_letter(event.status[0]))
    return tuple(points)


def _notice(night: Night | None, pages: int) -> NightMark | None:
    """Return the newest notice of the night, unless it is old by the night's own time."""
    notices = () if night is None else [mark for mark in night.marks if mark.kind == "notice"]
    if night is None or not notices:
        return None
    now = seconds(night.start) + PAGE_S * pages
    return notices[-1] if now - seconds(notices[-1].at) < NOTICE_S else None


def _letter(letter: str) -> Literal["f", "p", "w", " "]:
    match letter:
        case "f" | "p" | "w":
            return letter
        case _:
            return " "


def _session(bed: BedView) -> str | None:
    """Return the session the bed is about: a new one outdates what is still retained of the old."""
    if bed.status is not None and bed.status.session is not None:
        return bed.status.session
    if bed.stage is not None:
        return bed.stage.session
    return bed.night.session if bed.night is not None else None


def _source(bed: BedView) -> SourceName:
    for word in (bed.status, bed.stage, bed.night):
        if word is not None:
            return word.source
    return "live"


def _mood(status: BedStatus | None, newest: Point | None) -> Mood:
    if status is not None and status.state in _STATE_MOOD:
        return _STATE_MOOD[status.state]
    if status is not None and status.phase != "recording":
        return "not_staging"
    if newest is None:
        return "waiting"
    return "withheld" if newest.status == "w" else "staged"


def _run(points: tuple[Point, ...]) -> int:
    """Return for how many pages the newest stage has lasted."""
    if not points:
        return 0
    newest = points[-1]
    run = 0
    for point in reversed(points):
        if point.stage != newest.stage or (point.status == "w") != (newest.status == "w"):
            break
        run += 1
    return run


def _reason(
    points: tuple[Point, ...], night: Night | None, event: StageEvent | None
) -> ReasonName | None:
    if not points or points[-1].status != "w":
        return None
    if event is not None and event.epoch == len(points) - 1:
        return event.reason
    return night.reasons[-1] if night is not None else None


def _electrodes(status: BedStatus | None) -> tuple[Electrode, ...]:
    if status is None:
        return ()
    return tuple(
        Electrode(
            role=role,
            derivation=health.derivation,
            level=_level(health.flags),
            words=health.words,
        )
        for role, health in status.channels.items()
    )


def _level(flags: tuple[FlagName, ...]) -> Level:
    if not flags:
        return "good"
    return "fair" if set(flags) <= _POOR else "bad"


def _health(electrodes: tuple[Electrode, ...]) -> Level | None:
    for level in ("bad", "fair", "good"):
        if any(electrode.level == level for electrode in electrodes):
            return level
    return None


def _health_words(electrodes: tuple[Electrode, ...]) -> str:
    if not electrodes:
        return "no electrode seen"
    faulty: dict[str, list[str]] = {}
    for electrode in electrodes:
        if electrode.level != "good":
            faulty.setdefault(electrode.words, []).append(electrode.role.split("-")[0])
    if not faulty:
        return f"all {len(electrodes)} good" if len(electrodes) > 1 else "good"
    return "; ".join(f"{', '.join(roles)} {words}" for words, roles in faulty.items())
