"""Sessions and events for tests that do not care what is in them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

from hypnocast.core.night.ledger import NightTitle
from hypnocast.core.night.spectra import NightSpectra
from hypnocast.core.types import PageSpectrum
from hypnocast.core.wire import payloads
from hypnocast.ports.journal.records import Batch, EventDraft, SessionRecord

T0 = datetime(2026, 3, 1, 22, 0, tzinfo=UTC)


def instant(seconds: float = 0.0) -> str:
    """Return a moment of the test night."""
    moment = T0 + timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def a_session(bed: str = "bed1", name: str = "") -> SessionRecord:
    """Return a session that records from ``T0`` on."""
    return SessionRecord(
        id=name or f"{bed}-night",
        bed=bed,
        site="lab",
        subject="S001",
        source="simulated",
        opened=instant(),
        phase="recording",
        start=instant(),
    )


def a_night_of_spectra(pages: int = 2) -> NightSpectra:
    """Return a night of so many pages, each with its spectrum, of F4-M1."""
    night = NightSpectra(NightTitle("lab", "bed1", "bed1-night", None, "live", instant()))
    for epoch in range(pages):
        night.add(epoch, PageSpectrum("F4-M1", bytes([1 + epoch % 255] * 60), bytes([100] * 5)))
    return night


def an_event(
    epoch: int = 0,
    *,
    bed: str = "bed1",
    session: str = "",
    stage: payloads.StageName | None = "N2",
    reason: payloads.ReasonName | None = None,
    provisional: bool = False,
    rationale: str | None = None,
) -> payloads.StageEvent:
    """Return an event that has no sequence number yet."""
    session = session or f"{bed}-night"
    revision: Literal[0, 1] = 0 if provisional else 1
    status: Literal["provisional", "final", "withheld"]
    status = "provisional" if provisional else "final"
    probabilities = None
    if reason is not None:
        stage, status = None, "withheld"
    else:
        shares = dict.fromkeys(("W", "N1", "N2", "N3", "R"), 0.05)
        shares[str(stage)] = 0.8
        probabilities = payloads.StageProbabilities(**shares)
    return payloads.StageEvent(
        id=payloads.event_id(session, epoch, revision),
        sequence=1,  # as the daemon drafts it: the journal numbers it
        source="simulated",
        site="lab",
        bed=bed,
        session=session,
        subject="S001",
        epoch=epoch,
        start=instant(30 * epoch),
        end=instant(30 * epoch + 30),
        revision=revision,
        status=status,
        reason=reason,
        stage=stage,
        probabilities=probabilities,
        raw_probabilities=probabilities,
        confidence=None if probabilities is None else 0.8,
        rationale=rationale,
        rules=None,
        channels={"C4-M1": "C4-M1"},
        quality={"C4-M1": payloads.ChannelReport(coverage=1.0, flags=())},
        review=False,
        evidence=None,
        lights="unknown",
        digests=payloads.Digests(pack=None, recipe=None, picture=None),
        provider="cpu",
        timing=payloads.Timing(closed=1000.0, drawn=1002.0, judged=1100.0, journaled=None),
    )


def a_batch(*events: payloads.StageEvent, session: SessionRecord | None = None) -> Batch:
    """Return a batch with these events, and their session where it is new."""
    return Batch(
        sessions=(session,) if session else (),
        events=tuple(EventDraft(event) for event in events),
    )
