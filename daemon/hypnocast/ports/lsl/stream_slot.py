"""The place of one stream in one bed, whichever outlet fills it at the moment.

An explicit state machine: searching → opening → open ⇄ silent → (lost) → searching.
Used by the watching thread only, apart from ``report`` and ``clear``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from hypnocast.core.types import StreamHeader
from hypnocast.errors import StreamError
from hypnocast.ports.lsl.announcements import FORGET_AFTER_S, Announced
from hypnocast.ports.lsl.beds import AnnouncedStream, Selector, StreamChoice, choose
from hypnocast.ports.lsl.limits import too_costly
from hypnocast.ports.lsl.live_stream import LiveStream, StreamState
from hypnocast.ports.lsl.opening import Openers, Opening, effective_header, header_problems
from hypnocast.ports.lsl.outlet_pin import OutletPin, SeenOutlet
from hypnocast.ports.lsl.problems import ProblemKind, StreamProblem
from hypnocast.ports.lsl.reader_thread import ReaderThread
from hypnocast.ports.stream_xml import ParsedHeader

SUSPECT_S = FORGET_AFTER_S + 1.0
"""How long a stream that broke off may still be announced though it is gone."""
STALE_S = 1.0
"""No sample for this long and no longer announced: its successor may replace it."""
SETTLE_S = 1.0
"""Streams answer one after the other; so long a new one waits for another that fits as well."""
NOT_FOUND_AFTER_S = 5.0
REOPEN_AFTER_S = 10.0
MAX_PAUSE_S = 60.0
MUTE_FOR_S = 30.0
"""An announcement without an outlet behind it counts as no rival for so long."""
RIVALS_NAMED = 4
MAX_REMEMBERED = 1024
"""Streams of which one place remembers that they failed or were refused."""


@dataclass(frozen=True, slots=True)
class LslTimings:
    """How often and how long, in seconds."""

    resolve_every_s: float = 0.2
    """How often the network is looked at."""
    clock_every_s: float = 5.0
    """How often clocks are measured."""
    silent_after_s: float = 5.0
    """A stream of signals without samples for this long is lost until they come again."""
    read_every_s: float = 0.04
    buffer_s: int = 60
    """How long liblsl keeps samples for us while the sink is stuck."""


@dataclass(frozen=True, slots=True)
class SlotHealth:
    """How one stream of one bed is doing."""

    bed: str
    stream: str
    """Its key, or what selects it where it was never found."""
    state: str
    """``searching``, ``opening``, ``open`` or ``silent``."""
    host: str = ""
    rate: float = 0.0
    clock: str = ""
    samples: int = 0
    chunks: int = 0
    last_arrival: float | None = None
    """On the local LSL clock."""
    openings: int = 0


class SlotShared(Protocol):
    """What a slot needs of the supervisor around it."""

    @property
    def reader(self) -> ReaderThread:
        """The thread that reads what was opened."""

    @property
    def openers(self) -> Openers:
        """The threads that open streams."""

    def session_of(self, bed: str) -> str | None:
        """Return the session that runs at a bed."""

    def free_key(self, slot: StreamSlot, header: StreamHeader) -> str:
        """Return a name for the stream that no other of its bed has."""


class StreamSlot:
    """One selector of one bed, and the stream that fills it."""

    def __init__(
        self,
        bed: str,
        selector: Selector,
        units: Collection[str] = (),
        *,
        timing: LslTimings,
        now: float,
        pinned: bool = False,
    ) -> None:
        """Begin to search; ``pinned``: in mid-session nobody from elsewhere fills the place."""
        self.pin = OutletPin(binding=pinned)
        self.bed = bed
        self.selector = selector
        self._units = units
        self.key: str | None = None
        self.live: LiveStream | None = None
        self.opening: Opening | None = None
        self.openings = 0
        self.problems: dict[ProblemKind, StreamProblem] = {}
        self._timing = timing
        self._since = now
        self._suspects: dict[str, float] = {}
        self._refused: set[str] = set()
        self._failures: dict[str, tuple[int, float]] = {}
        self._probes: dict[str, Opening] = {}
        """Rivals that were asked whether they are there."""

    def report(self, kind: ProblemKind, text: str, remedy: str = "") -> None:
        """Note that something is wrong, until it is cleared."""
        stream = self.key or str(self.selector)
        self.problems[kind] = StreamProblem(kind, self.bed, stream, text, remedy)

    def clear(self, *kinds: ProblemKind) -> None:
        """Note that something is right again."""
        for kind in kinds:
            self.problems.pop(kind, None)

    def health(self) -> SlotHealth:
        """Return how the stream is doing."""
        stream = self.key or str(self.selector)
        if self.live is None:
            state = "opening" if self.opening else "searching"
            return SlotHealth(self.bed, stream, state, openings=self.openings)
        header = self.live.header
        return SlotHealth(
            bed=self.bed,
            stream=stream,
            state=self.live.state.value,
            host=header.host,
            rate=header.rate,
            clock=self.live.inlet.clock.value,
            samples=self.live.samples,
            chunks=self.live.chunks,
            last_arrival=self.live.last_arrival,
            openings=self.openings,
        )

    @property
    def uids(self) -> set[str]:
        """The outlets it reads or is opening."""
        live = {self.live.inlet.uid} if self.live else set()
        return live | ({self.opening.uid} if self.opening else set())

    def tend(
        self,
        fitting: list[AnnouncedStream],
        announced: Mapping[str, Announced],
        *,
        contested: Mapping[str, tuple[str, ...]],
        taken: set[str],
        bench: SlotShared,
        now: float,
    ) -> None:
        """Do what the moment asks for: close the lost, read the opened, open what fits.

        ``fitting`` are the announced streams that fit the selector, ``contested`` those that
        other beds' selectors fit as well, ``taken`` what this bed reads through other selectors.
        """
        self._bury(bench, now)
        if self.opening is not None and self.opening.done.is_set():
            opening, self.opening = self.opening, None
            self._adopt(opening, bench, now)
        just_read = self.openings > 0 and now - self._since < SUSPECT_S
        self.pin.live_in(bench.session_of(self.bed), reading=self.live is not None or just_read)
        self._note_outlet()
        self._note_claims(fitting, contested)
        self._forget(announced, now)
        candidates = [
            seen
            for seen in self._affordable(fitting)
            if seen.uid not in contested
            and seen.uid not in taken
            and seen.uid not in self._refused
            and not self._is_mute(seen.uid)
            and not self.pin.holds(seen.uid)
        ]
        choice = choose(
            candidates,
            current=self.live.inlet.uid if self.live else None,
            suspects=self._suspected(announced, now),
        )
        if self.live is None:
            self._ask_rivals(choice.rivals, announced, bench, now)
        self._note_choice(choice, found=bool(fitting), now=now)
        uid = choice.uid or self._half_dead(announced, now)
        opening_it = self.opening is not None and self.opening.uid == uid
        if uid is not None and not opening_it and self._may_try(announced[uid], now):
            begun = bench.openers.open(announced[uid], now=now, keep_s=self._timing.buffer_s)
            self.opening = begun or self.opening

    # -- what to open ----------------------------------------------------------------------------

    def _affordable(self, fitting: list[AnnouncedStream]) -> list[AnnouncedStream]:
        """Return what may be opened, by what is announced; report what may not."""
        cheap: list[AnnouncedStream] = []
        costly = ""
        for seen in fitting:
            why = too_costly(seen)
            if why:
                costly = f"a stream on {seen.host} {why}; it is not opened"
            else:
                cheap.append(seen)
        if costly:
            self.report(ProblemKind.TOO_COSTLY, costly, "Is it an amplifier of this lab at all?")
        else:
            self.clear(ProblemKind.TOO_COSTLY)
        return cheap

    def _ask_rivals(
        self,
        rivals: tuple[AnnouncedStream, ...],
        announced: Mapping[str, Announced],
        bench: SlotShared,
        now: float,
    ) -> None:
        """Ask streams that fit alike whether they are there: an announcement is only a datagram."""
        for seen in rivals:
            probe = self._probes.get(seen.uid) or bench.openers.probe(announced[seen.uid], now=now)
            if probe is not None:
                self._probes[seen.uid] = probe
                if probe.done.is_set() and probe.answer is not None:
                    self.pin.may_read(SeenOutlet.of(probe.answer))

    def _is_mute(self, uid: str) -> bool:
        """Return whether an announcement had no outlet behind it a moment ago."""
        probe = self._probes.get(uid)
        return probe is not None and probe.done.is_set() and probe.described is None

    def _forget(self, announced: Mapping[str, Announced], now: float) -> None:
        """Forget answers that are old, and what failed of streams that are gone."""
        self._probes = {
            uid: probe
            for uid, probe in self._probes.items()
            if uid in announced and now - probe.began < MUTE_FOR_S
        }
        if len(self._refused) > MAX_REMEMBERED:
            self._refused.intersection_update(announced)
        if len(self._failures) > MAX_REMEMBERED:
            self._failures = {
                uid: error for uid, error in self._failures.items() if uid in announced
            }

    def _suspected(self, announced: Mapping[str, Announced], now: float) -> frozenset[str]:
        suspects = {uid for uid, until in self._suspects.items() if until > now}
        live = self.live
        if live and live.inlet.uid not in announced and now - live.last_arrival > STALE_S:
            suspects.add(live.inlet.uid)
        return frozenset(suspects)

    def _half_dead(self, announced: Mapping[str, Announced], now: float) -> str | None:
        """Return our stream if it is announced but silent: its connection may be half dead."""
        live = self.live
        if live is None or live.state is not StreamState.SILENT or live.inlet.uid not in announced:
            return None
        return live.inlet.uid if now - live.last_arrival > REOPEN_AFTER_S else None

    def _may_try(self, found: Announced, now: float) -> bool:
        """Wait a little for rivals, but not where a stream is awaited back: its samples flow."""
        settled = self.openings > 0 or now - found.since >= SETTLE_S
        return settled and now >= self._failures.get(found.seen.uid, (0, 0.0))[1]

    def _pause(self, uid: str, now: float) -> None:
        count = self._failures.get(uid, (0, 0.0))[0] + 1
        self._failures[uid] = (count, now + min(2.0 ** (count - 1), MAX_PAUSE_S))

    def _note_outlet(self) -> None:
        if problem := self.pin.problem:
            remedy = "Is it the lab's own? Then accept it (accept_stream)"
            self.report(ProblemKind.ANOTHER_OUTLET, problem, remedy)
        else:
            self.clear(ProblemKind.ANOTHER_OUTLET)

    def _note_claims(
        self, fitting: list[AnnouncedStream], contested: Mapping[str, tuple[str, ...]]
    ) -> None:
        rivals = sorted({bed for seen in fitting for bed in contested.get(seen.uid, ())})
        if not rivals:
            self.clear(ProblemKind.CLAIMED_TWICE)
            return
        self.report(
            ProblemKind.CLAIMED_TWICE,
            f"the beds {', '.join(rivals)} select the same stream; it is opened for none",
            "Give every bed selectors that fit only its own streams",
        )

    def _note_choice(self, choice: StreamChoice, *, found: bool, now: float) -> None:
        if choice.rivals:
            who = "; ".join(
                f"source_id {seen.source_id!r} on {seen.host}"
                for seen in choice.rivals[:RIVALS_NAMED]
            )
            many = len(choice.rivals) > RIVALS_NAMED
            count = f"more than {RIVALS_NAMED}" if many else f"{len(choice.rivals)}"
            kept = "the one being read is kept" if self.live else "none is read"
            self.report(
                ProblemKind.AMBIGUOUS,
                f"{count} streams fit {self.selector} ({who}); {kept}",
                "Name the stream by its source_id or host",
            )
        else:
            self.clear(ProblemKind.AMBIGUOUS)
        if found or self.live:
            self.clear(ProblemKind.NOT_FOUND)
        elif now - self._since > NOT_FOUND_AFTER_S:
            self.report(
                ProblemKind.NOT_FOUND,
                f"nothing on the network fits {self.selector}",
                "`hypnocast streams` shows what is there; a firewall or another subnet hides "
                "streams unless their hosts are named as peers",
            )

    # -- beginning and end of a stream -----------------------------------------------------------

    def _bury(self, bench: SlotShared, now: float) -> None:
        live = self.live
        if live is None or live.state in (StreamState.OPEN, StreamState.SILENT):
            return
        uid = live.inlet.uid
        if live.state is StreamState.REFUSED:
            self._refused.add(uid)
        self._suspects = {u: until for u, until in self._suspects.items() if until > now}
        self._suspects[uid] = now + SUSPECT_S
        self._since = now
        self.clear(ProblemKind.SILENT)
        self.live = None
        bench.reader.drop(live)

    def _adopt(self, opening: Opening, bench: SlotShared, now: float) -> None:
        answer, inlet = opening.answer, opening.inlet
        if answer is None or inlet is None:
            what = opening.error or StreamError("could not be opened")
            if opening.refused:
                self._refused.add(opening.uid)
                self.report(ProblemKind.BAD_METADATA, what.what, what.remedy)
            else:
                self._pause(opening.uid, now)
                self.report(ProblemKind.NO_ANSWER, what.what, what.remedy)
            return
        old = self.live
        if old is not None and old.inlet.uid == opening.uid:
            self._pause(opening.uid, now + REOPEN_AFTER_S)
            if old.last_arrival > opening.began:
                bench.openers.close_later(inlet)
                return
        else:
            self._failures.pop(opening.uid, None)
        self.clear(*ProblemKind)
        self.key = self.key or bench.free_key(self, answer.described.header)
        header = self._believed(answer.described)
        if header is None:
            self._refused.add(opening.uid)
            bench.openers.close_later(inlet)
            return
        outlet = SeenOutlet.of(answer)
        if not self.pin.may_read(outlet):
            bench.openers.close_later(inlet)
            return
        live = LiveStream(
            self.bed,
            header,
            inlet,
            offset=opening.offset,
            now=now,
            silent_after_s=self._timing.silent_after_s,
            clock_every_s=self._timing.clock_every_s,
            report=self.report,
            clear=self.clear,
            change=self.pin.read(outlet),
        )
        self.live = live
        self.openings += 1
        bench.reader.add(live, instead_of=old)

    def _believed(self, described: ParsedHeader) -> StreamHeader | None:
        """Return the header as it counts, or None where the stream cannot be used at all."""
        try:
            header = effective_header(described, self.selector, self.key or "")
        except StreamError as error:
            self.report(ProblemKind.BAD_METADATA, error.what, error.remedy)
            return None
        for kind, text, remedy in header_problems(described, header, self._units):
            self.report(kind, text, remedy)
        return None if ProblemKind.NO_RATE in self.problems else header
