"""A session that ran when the daemon went down, as the journal has it."""

from __future__ import annotations

from concurrent.futures import Future

import structlog

from hypnocast.core.night.session import LightsMark, Phase, Session
from hypnocast.core.timing.utc import seconds_of
from hypnocast.errors import HypnocastError
from hypnocast.live.publishing.bed_worker import KnownNight
from hypnocast.live.staging.carrying import Carried
from hypnocast.ports.journal.reader import JournalReader, NightRecord

_log = structlog.get_logger("ward")


def known_night(reader: JournalReader, session: str) -> KnownNight:
    """Read all that is needed to go on with a session."""
    kept = reader.carried(session)
    return KnownNight(
        night=reader.night(session),
        evidence=reader.evidence(session),
        provisional=reader.provisional(session),
        carried={one.pack: Carried(one.session, one.epoch, one.state) for one in kept},
        beside=reader.beside(session),
    )


def session_of(night: NightRecord, boot_id: str) -> Session:
    """Return a session as the journal has it, on the grid of this boot if it has one."""
    record = night.session
    anchor = night.anchors[-1] if night.anchors else None
    anchor = next((each for each in night.anchors if each.boot_id == boot_id), anchor)
    lights = tuple(
        LightsMark("off" if mark.kind == "lights_off" else "on", seconds_of(mark.at))
        for mark in night.marks
        if mark.kind in ("lights_off", "lights_on")
    )
    return Session(
        id=record.id,
        site=record.site,
        bed=record.bed,
        subject=record.subject,
        source=record.source,
        boot_id=anchor.boot_id if anchor is not None else "",
        opened_utc=seconds_of(record.opened),
        phase=Phase(record.phase),
        anchor_lsl=anchor.lsl_t0 if anchor is not None else None,
        anchor_utc=anchor.utc_t0 if anchor is not None else None,
        lights=lights,
    )


def log_failure(taken_up: Future[None]) -> None:
    """Log why a session could not be resumed."""
    error = taken_up.exception()
    if isinstance(error, HypnocastError):
        _log.error("a session cannot be taken up again", error=str(error))
    elif error is not None:
        _log.error("a session cannot be taken up again", error=repr(error))
