"""What late subscribers see of one bed, kept up to date on the broker.

Everything here is retained state. It follows the journal: nothing is shown that is not durable.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from hypnocast.core.night.ledger import NightLedger, NightTitle
from hypnocast.core.night.rules import mark_of
from hypnocast.core.night.session import Session
from hypnocast.core.night.spectra import NightSpectra
from hypnocast.core.pages.moving_traces import WINDOW_S
from hypnocast.core.pictures.compressed import png
from hypnocast.core.timing.utc import instant, seconds_of
from hypnocast.core.types import PageSpectrum
from hypnocast.core.wire import payloads
from hypnocast.core.wire.notices import Notice
from hypnocast.core.wire.page_facts import JudgedMontages
from hypnocast.core.wire.topics import Topics
from hypnocast.core.wire.traces import TraceColumns, Traces
from hypnocast.live.bed.bed_updates import SignalsSeen, TracesSeen
from hypnocast.live.publishing.bed_health import (
    STALE_S,
    channel_health,
    gear_values,
    silence_of,
    stream_health,
)
from hypnocast.live.publishing.bed_log import BedLog
from hypnocast.live.staging.bed_stager import StagedEvent
from hypnocast.ports.journal.reader import NightRecord
from hypnocast.ports.journal.records import Committed, StoredEvent
from hypnocast.ports.lsl.problems import StreamProblem
from hypnocast.ports.mqtt.link import MqttLink

NIGHT_EVERY_S = 1.0
"""The night is shown at most this often, however fast pages come."""


class LslStages(Protocol):
    """Who sends stages over LSL, stamped at the local LSL time at which what they judge ended."""

    def announce(self, bed: str) -> None:
        """Announce a bed's streams before there is anything to send."""
        ...

    def event(self, bed: str, payload: bytes, at: float) -> None:
        """Send a stage event as it was stored."""
        ...

    def rolling(self, verdict: payloads.Rolling, at: float) -> None:
        """Send a verdict between page closes."""
        ...


@dataclass(frozen=True, slots=True)
class SiteStates:
    """What the publishers of all beds have in common."""

    topics: Topics
    node: str
    source: payloads.SourceName
    pack: str
    show_pages: bool
    show_spectrum: bool
    done: Callable[[payloads.StageEvent], None]
    """Called with every event that has become durable."""
    problems: Callable[[str], tuple[StreamProblem, ...]]
    """What is wrong with a bed's streams, beyond what its signals show."""
    judged: JudgedMontages
    """What the pack was judged on."""
    lsl: LslStages | None = None
    """None: nothing is sent over LSL."""


class BedPublisher:
    """Shows one bed."""

    def __init__(self, bed: str, site_states: SiteStates, link: MqttLink) -> None:
        """Keep the bed, what the site's beds have in common, and the link to the broker."""
        self.bed = bed
        self._log = BedLog(bed)
        self._site = site_states
        self._link = link
        self._session: Session | None = None
        self._over = False
        self.signals: SignalsSeen | None = None
        self._seen_at = time.monotonic()
        """When the signals were reported last; before that, when the session was shown."""
        self._ledger: NightLedger | None = None
        self._spectra: NightSpectra | None = None
        self._ended: str | None = None
        self._night_due = False
        self._night_at = float("-inf")
        self._shown: payloads.BedStatus | None = None
        self._problems: tuple[StreamProblem, ...] = ()
        """What the source knew to be wrong when the status was made."""
        self._last: payloads.StageEvent | None = None
        self._provider: str | None = None
        self.counts: Counter[str] = Counter()
        link.serve(bed)
        if site_states.lsl is not None:
            site_states.lsl.announce(bed)
        # A night that ended while the broker was away may still be shown there.
        link.session_ended(bed)

    @property
    def session(self) -> Session | None:
        """The session shown, if one runs."""
        return None if self._over else self._session

    @property
    def silent_s(self) -> float:
        """For how long no sample has come, as far as is known.

        Live that includes how long nobody has reported: after a restart nothing may have come at
        all, and the thread that reports may stand still.
        """
        silence = 0.0 if self.signals is None else silence_of(self.signals)
        unreported = time.monotonic() - self._seen_at if self._site.source == "live" else 0.0
        return silence + unreported

    @property
    def latency_ms(self) -> float | None:
        """From the end of the newest page to its event being durable."""
        return self._last.timing.journaled if self._last is not None else None

    # --- what happens --------------------------------------------------------------------------

    def begin(self, session: Session) -> None:
        """Show a session that was opened, or entered another phase."""
        if self._session is None or self._session.id != session.id:
            self._last = None
            self._ledger = None
            self._ended = None
            topics = self._site.topics
            self._link.clear(topics.beside(self.bed), topics.spectrum(self.bed))
        self._session, self._over = session, False
        if self.signals is None:
            self._seen_at = time.monotonic()
        self._log.begins(session)
        if self._ledger is None and session.anchor_utc is not None:
            self._ledger = NightLedger(_title(session))
            self._spectra = NightSpectra(_title(session))
            self._night_due = True
        self.refresh()

    def recall(self, night: NightRecord) -> None:
        """Restore what the journal has of the session."""
        if self._ledger is None:
            return
        for event in night.events:
            self._ledger.add(event)
            self._last = event
        for mark in night.marks:
            self._ledger.mark(mark)
        for epoch, spectrum in night.spectra:
            self._enter_spectrum(epoch, spectrum)
        if self._last is not None:
            last = self._last
            self._link.stage(StoredEvent(self.bed, last.sequence, last.id, payloads.encode(last)))
        self._night_due = True
        self.refresh_now()

    def event(self, scored: StagedEvent, committed: Committed) -> None:
        """Show an event that has become durable."""
        event = committed.events[0]
        if committed.stored:
            self._link.stage(committed.stored[0])
        if scored.picture is not None and self._site.show_pages:
            self._link.retain_bytes(
                self._site.topics.page(self.bed),
                png(scored.picture.rgb),
                content_type="image/png",
            )
        self._last = event
        self._provider = event.provider or self._provider
        self._log.event(event)
        self._count(event)
        if self._ledger is not None:
            self._ledger.add(event)
            self._night_due = True
        self._enter_spectrum(event.epoch, scored.picture.spectrum if scored.picture else None)
        at = self._lsl_of(event.end)
        if self._site.lsl is not None and committed.stored and at is not None:
            self._site.lsl.event(self.bed, committed.stored[0].payload, at)
        self._site.done(event)
        self.refresh()

    def roll(self, verdict: payloads.Rolling) -> None:
        """Send a verdict between page closes."""
        self._link.send_now(self._site.topics.rolling(self.bed), verdict)
        at = self._lsl_of(verdict.end)
        if self._site.lsl is not None and at is not None:
            self._site.lsl.rolling(verdict, at)

    def traces(self, seen: TracesSeen) -> None:
        """Send the newest second of every channel."""
        second = Traces(
            source=self._site.source,
            site=self._site.topics.site,
            bed=self.bed,
            start=instant(seen.start_utc),
            seconds=WINDOW_S,
            channels={
                role.value: TraceColumns(low=one.low, high=one.high)
                for role, one in seen.channels.items()
            },
        )
        self._link.send_now(self._site.topics.traces(self.bed), second)

    def _lsl_of(self, at: str) -> float | None:
        """Return the local LSL time of a moment of the session, by the session's one mapping."""
        session = self._session
        if session is None or session.anchor_lsl is None or session.anchor_utc is None:
            return None
        return session.anchor_lsl + (seconds_of(at) - session.anchor_utc)

    @property
    def stages(self) -> Sequence[payloads.StageName | None]:
        """The verdict on each epoch of the night."""
        return () if self._ledger is None else self._ledger.stages

    def beside(self, message: payloads.Beside, parted: Sequence[int]) -> None:
        """Show second opinions, and mark the epochs on which any parts for review."""
        if self._session is None or self._session.id != message.session:
            return
        self._link.retain(self._site.topics.beside(self.bed), message)
        if self._ledger is not None and self._ledger.doubt(parted):
            self._night_due = True
            self.refresh()

    def explained(self, message: payloads.Explained | None) -> None:
        """Show what a page's stage rests on; None: an explanation was left out."""
        if message is None:
            self.counts["explanations_shed"] += 1
            return
        self.counts["explained"] += 1
        if self.session is not None and self.session.id == message.session:
            self._link.retain(self._site.topics.explanation(self.bed), message)

    def mark(self, mark: payloads.NightMark) -> None:
        """Show a marker or note."""
        if self._ledger is not None:
            self._ledger.mark(mark)
            self._night_due = True
        self.refresh()

    def notice(self, notice: Notice) -> None:
        """Publish that a rule of the lab's own was met, now and in the night."""
        self._link.send_now(self._site.topics.notice(self.bed), notice, qos=1)
        self.mark(mark_of(notice))

    def end(self, session: Session) -> None:
        """Show that the night is over, and clear what must not outlive it."""
        self._session, self._over = session, True
        self._log.ends(session, 0 if self._last is None else self._last.epoch + 1)
        if self._ledger is not None and session.ended_utc is not None:
            self._ended = instant(session.ended_utc)
            self._show_night()
        self._link.session_ended(self.bed)
        self.refresh()

    def seen(self, seen: SignalsSeen) -> None:
        """Show how the bed's signals do."""
        self.signals, self._seen_at = seen, time.monotonic()
        self.refresh()

    def refresh(self) -> None:
        """Publish what has changed."""
        status = self.status()
        if self._shown is None or _differ(status, self._shown):
            self._shown = status
            self._log.problems(status.problems)
            if self._site.source != "simulated" and status.judged is not None:
                self._log.judged(status.judged.words)
            self._link.retain(self._site.topics.status(self.bed), status)
        if self._night_due and time.monotonic() - self._night_at >= NIGHT_EVERY_S:
            self._show_night()

    def tick(self) -> None:
        """Publish what no event at the bed publishes: the night, and what the source found.

        Called for every bed every second, so a status is only made where it would be new.
        """
        if self._night_due or self._site.problems(self.bed) != self._problems:
            self.refresh()

    def refresh_now(self) -> None:
        """Publish everything, however little time has passed."""
        self._night_at = float("-inf")
        self.refresh()

    def _count(self, event: payloads.StageEvent) -> None:
        if event.status == "provisional":
            self.counts["provisional"] += 1
            return
        self.counts["pages"] += 1
        self.counts[event.status] += 1
        if event.reason is not None:
            self.counts[f"withheld_{event.reason}"] += 1

    def _show_night(self) -> None:
        if self._ledger is not None:
            self._night_due = False
            self._night_at = time.monotonic()
            night = self._ledger.night(at=instant(time.time()), ended=self._ended)
            self._link.retain(self._site.topics.night(self.bed), night)
            if self._spectra:
                spectrum = self._spectra.message(at=night.at)
                self._link.retain(self._site.topics.spectrum(self.bed), spectrum)

    def _enter_spectrum(self, epoch: int, spectrum: PageSpectrum | None) -> None:
        if self._spectra is not None and self._site.show_spectrum:
            self._spectra.add(epoch, spectrum)

    # --- the status ----------------------------------------------------------------------------

    def status(self) -> payloads.BedStatus:
        """Return the bed's status as it is."""
        session, seen, last = self._session, self.signals, self._last
        anchored = session is not None and session.anchor_utc is not None
        self._problems = self._site.problems(self.bed)
        problems = (*(seen.problems if seen else ()), *map(str, self._problems))
        channels = seen.channels if seen else {}
        used = {role.value: one.derivation.name for role, one in channels.items()}
        return payloads.BedStatus(
            at=instant(time.time()),
            site=self._site.topics.site,
            bed=self.bed,
            node=self._site.node,
            state=self._state(),
            phase=session.phase.value if session is not None else None,
            session=session.id if session is not None else None,
            subject=session.subject if session is not None else None,
            source=self._site.source,
            since=instant(session.start_of(0)) if session is not None and anchored else None,
            epoch=last.epoch if last is not None else None,
            lights=self._lights(),
            streams=stream_health(seen, self._problems) if seen else (),
            channels=channel_health(seen) if seen else {},
            problems=tuple(dict.fromkeys(problems)),
            gear=gear_values(seen) if seen else (),
            judged=self._site.judged.of(used),
            latency_ms=last.timing.journaled if last is not None else None,
            provider=self._provider,
            pack=self._site.pack,
        )

    def _state(self) -> payloads.BedState:
        session, seen = self._session, self.signals
        if session is None:
            return "waiting"
        if self._over:
            return "ended"
        silent = seen is not None and silence_of(seen) >= STALE_S
        if seen is not None and (silent or not seen.ready):
            return "stale"
        return "live" if self._last is not None else "warming_up"

    def _lights(self) -> payloads.LightsName:
        session = self._session
        if session is None or not session.lights:
            return "unknown"
        return session.lights[-1].to

    def lights(self, session: Session) -> None:
        """Adopt a session whose lights were marked."""
        self._session = session


def _title(session: Session) -> NightTitle:
    return NightTitle(
        site=session.site,
        bed=session.bed,
        session=session.id,
        subject=session.subject,
        source=session.source,
        start=instant(session.start_of(0)),
    )


def _differ(new: payloads.BedStatus, shown: payloads.BedStatus) -> bool:
    """Return whether a status is new, the passing of time aside."""
    at = shown.at
    aged = tuple(msgspec.structs.replace(stream, age_s=None) for stream in shown.streams)
    fresh = tuple(msgspec.structs.replace(stream, age_s=None) for stream in new.streams)
    return msgspec.structs.replace(new, at=at, streams=fresh) != msgspec.structs.replace(
        shown, streams=aged
    )
