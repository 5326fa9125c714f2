"""Lab Streaming Layer: one supervisor that keeps the streams of all beds open and read.

Three kinds of threads share the work, so that none waits for another's stream:

- one *reader* polls every open inlet and hands arrivals to the sink, in order;
- one *watcher* looks at the network, decides which streams to open, and measures clocks;
- a few short-lived *openers*, one per stream that is being opened, because a stream that has just
  died may let its opener wait for seconds.

All of them are supervised: one that fails is reported, counted and started anew.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import structlog

from hypnocast.core.montage.gear_channels import signal_labels
from hypnocast.core.types import StreamHeader
from hypnocast.errors import StreamError
from hypnocast.ports.lsl.announcements import Announced, Network
from hypnocast.ports.lsl.beds import (
    BedStreams,
    Selector,
    auto_bed,
    auto_selector,
    claimed_twice,
    eeg_like,
    is_marker,
    matches,
)
from hypnocast.ports.lsl.inlet import Clock, Inlet
from hypnocast.ports.lsl.library import load_pylsl
from hypnocast.ports.lsl.limits import MAX_ANNOUNCED, MAX_AUTO_SLOTS, MAX_LOGGED_UNLISTED
from hypnocast.ports.lsl.live_stream import LiveStream
from hypnocast.ports.lsl.opening import Openers, Opening
from hypnocast.ports.lsl.problems import LIMITS, ProblemKind, StreamProblem
from hypnocast.ports.lsl.reader_thread import ReaderThread, Sink
from hypnocast.ports.lsl.senders import EVERYBODY, Senders
from hypnocast.ports.lsl.stream_slot import MAX_PAUSE_S, LslTimings, SlotHealth, StreamSlot
from hypnocast.ports.stream_xml import ParsedHeader
from hypnocast.ports.supervision import Supervisor
from hypnocast.ports.worker import Worker

_log = structlog.get_logger("lsl")

STILL_AFTER_S = 20.0
"""The watcher turns many times a second."""

LOOK_SHARE = 0.2
"""Of its time the watcher spends at most so much on looking at a crowded network."""


class LslSource:
    """All streams of all beds. ``beds=None`` finds polysomnograms by itself."""

    def __init__(
        self,
        beds: Sequence[BedStreams] | None = None,
        *,
        timing: LslTimings | None = None,
        supervisor: Supervisor | None = None,
        session_of: Callable[[str], str | None] = lambda _: None,
        pinned: bool = False,
        senders: Senders = EVERYBODY,
    ) -> None:
        """Keep what to read, and who watches the threads; nothing is opened before the start.

        ``session_of`` returns the session that runs at a bed. ``pinned``: in mid-session a stream
        from elsewhere is read only once :meth:`accept` was called. Only ``senders`` are read.
        """
        self.session_of = session_of
        self._pinned = pinned
        self._pylsl = load_pylsl()
        self._timing = timing or LslTimings()
        self._auto = beds is None
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._supervisor = supervisor or Supervisor()
        self.openers = Openers(self._supervisor, self.wake, senders)
        self._probes: dict[str, Opening] = {}
        self._crowded = ""
        self.limits_met: Counter[str] = Counter()
        """How often a stream met a limit, by kind of problem."""
        self._beyond: set[tuple[str, str, ProblemKind]] = set()
        """Who is beyond a limit now."""
        self._unlisted: set[tuple[str, str]] = set()
        self._next_clock = 0.0
        self._watcher: Worker | None = None
        self._reader: ReaderThread | None = None
        now = self._pylsl.local_clock()
        self._slots = [
            self._slot(bed.bed, selector, bed.units, now)
            for bed in beds or ()
            for selector in bed.selectors
        ]

    # -- life ------------------------------------------------------------------------------------

    def start(self, sink: Sink) -> None:
        """Begin to search, open and read. ``sink`` is called on the reading thread."""
        if self._reader is not None:
            raise StreamError("this source was already started", where="lsl")
        self._reader = ReaderThread(
            sink,
            clock=self._pylsl.local_clock,
            every_s=self._timing.read_every_s,
            wake=self.wake,
        )
        self._reader.start(self._supervisor)
        self._watcher = self._supervisor.thread(
            "lsl-watcher", self._watch, deadline_s=STILL_AFTER_S, on_failure="restart"
        )

    def stop(self, timeout_s: float = 5.0) -> None:
        """Read what is left, then let go of everything. May be called twice."""
        if self._watcher is not None:
            self._watcher.request_stop()
            self.wake()
            self._watcher.stop(timeout_s)
        if self._reader is not None:
            self._reader.stop(timeout_s)
        with self._lock:
            for slot in self._slots:
                self._close(slot.live)
                slot.live = None
        self.openers.end()

    @contextmanager
    def reading(self, sink: Sink) -> Iterator[LslSource]:
        """Read inside a ``with``."""
        self.start(sink)
        try:
            yield self
        finally:
            self.stop()

    # -- what others may know --------------------------------------------------------------------

    def problems(self) -> tuple[StreamProblem, ...]:
        """Return everything that is wrong now."""
        with self._lock:
            problems = [p for slot in self._slots for p in tuple(slot.problems.values())]
            if self._crowded:
                beds = dict.fromkeys(slot.bed for slot in self._slots)
                problems += [
                    StreamProblem(ProblemKind.CROWDED, bed, "network", self._crowded)
                    for bed in beds
                ]
            return tuple(problems)

    def health(self) -> tuple[SlotHealth, ...]:
        """Return how every stream is doing."""
        with self._lock:
            return tuple(slot.health() for slot in self._slots)

    def measure_soon(self) -> None:
        """Ask all senders' clocks now: samples wait for a reading."""
        self._next_clock = 0.0
        self.wake()

    @property
    def turns(self) -> int:
        """How often all streams were looked at: a reader that hangs does not count."""
        return 0 if self._reader is None else self._reader.turns

    @property
    def sink_errors(self) -> int:
        """How often the sink raised."""
        return 0 if self._reader is None else self._reader.sink_errors

    def accept(self, bed: str) -> bool:
        """Accept who sends a bed's streams; return whether any was doubtful."""
        with self._lock:
            asked = [slot.pin.accept() for slot in self._slots if slot.bed == bed]
        self.wake()
        return any(asked)

    def _slot(self, bed: str, selector: Selector, units: Collection[str], now: float) -> StreamSlot:
        return StreamSlot(bed, selector, units, timing=self._timing, now=now, pinned=self._pinned)

    # -- what slots need (lsl_slot.Bench) --------------------------------------------------------

    @property
    def reader(self) -> ReaderThread:
        """The reading thread."""
        if self._reader is None:
            raise StreamError("this source was not started", where="lsl")
        return self._reader

    def wake(self) -> None:
        """Make the watcher look again at once."""
        self._wake.set()

    def free_key(self, slot: StreamSlot, header: StreamHeader) -> str:
        """Return a name for the stream that no other of its bed has."""
        used = {other.key for other in self._slots if other.bed == slot.bed and other is not slot}
        long = f"{header.key}/{header.name}"
        for key in (header.key, long, *(f"{long}#{n}" for n in range(2, len(used) + 3))):
            if key not in used:
                return key
        raise StreamError("no free name", where=long)

    # -- the watcher -----------------------------------------------------------------------------

    def _watch(self, worker: Worker) -> None:
        network = Network(s.selector.predicate for s in self._slots if s.selector.predicate)
        while not worker.stopping:
            worker.beat()
            began = self._pylsl.local_clock()
            self._look(network, began)
            lasted = self._pylsl.local_clock() - began
            self._wake.wait(max(self._timing.resolve_every_s, lasted / LOOK_SHARE))
            self._wake.clear()
        self._close_retired()

    def _look(self, network: Network, now: float) -> None:
        """Do once what the watcher does again and again."""
        announced = network.announced(now)
        by_predicate = network.by_predicate()
        with self._lock:
            self._note_crowd(network)
            if self._auto:
                self._find_beds(announced, now)
            self._tend_all(announced, by_predicate, now)
        self._count_limits()
        if now >= self._next_clock:
            self._next_clock = now + self._timing.clock_every_s
            self._measure_clocks()
        self._close_retired()

    def _count_limits(self) -> None:
        """Count each limit once for as long as a stream stays beyond it."""
        beyond = {(p.bed, p.stream, p.kind) for p in self.problems() if p.kind in LIMITS}
        self.limits_met.update(kind.value for _, _, kind in beyond - self._beyond)
        self._beyond = beyond

    def _note_crowd(self, network: Network) -> None:
        if network.crowded:
            self._crowded = (
                f"{MAX_ANNOUNCED} streams or more are announced on this network; "
                "those beyond are not seen"
            )
        elif self._auto and len(self._slots) >= MAX_AUTO_SLOTS:
            self._crowded = (
                f"{MAX_AUTO_SLOTS} streams were found by themselves; no further one is read"
            )
        else:
            self._crowded = ""

    def _tend_all(
        self,
        announced: Mapping[str, Announced],
        by_predicate: Mapping[str, frozenset[str]],
        now: float,
    ) -> None:
        fitting = [
            [a.seen for a in announced.values() if matches(slot.selector, a.seen, by_predicate)]
            for slot in self._slots
        ]
        wanted: dict[str, set[str]] = {}
        for slot, seen in zip(self._slots, fitting, strict=True):
            wanted.setdefault(slot.bed, set()).update(one.uid for one in seen)
        if not self._auto:
            self._log_unlisted(announced, set().union(*wanted.values()))
        contested = claimed_twice(wanted)
        for slot, seen in zip(self._slots, fitting, strict=True):
            taken = {
                uid
                for other in self._slots
                if other is not slot and other.bed == slot.bed
                for uid in other.uids
            }
            slot.tend(seen, announced, contested=contested, taken=taken, bench=self, now=now)

    def _log_unlisted(self, announced: Mapping[str, Announced], taken: Collection[str]) -> None:
        """Log once of each polysomnogram that no configured bed takes: others are not found."""
        for uid, entry in announced.items():
            if len(self._unlisted) >= MAX_LOGGED_UNLISTED:
                return
            seen = entry.seen
            if uid in taken or not seen.is_psg or (seen.name, seen.host) in self._unlisted:
                continue
            self._unlisted.add((seen.name, seen.host))
            _log.warning(
                "a polysomnogram that no bed takes",
                stream=seen.name,
                host=seen.host,
                remedy="add a [[bed]]; with any in the configuration no others are found",
            )
            if len(self._unlisted) == MAX_LOGGED_UNLISTED:
                _log.warning("of polysomnograms that no bed takes no further one is named")

    def _measure_clocks(self) -> None:
        for slot in self._slots:
            live = slot.live
            if live is None or not isinstance(live.inlet, Inlet):
                continue
            if live.inlet.clock is Clock.MEASURED:
                reading = live.inlet.fresh_reading(live.header.key, timeout_s=0.2)
                if reading is not None:
                    live.note_reading(reading)

    def _close_retired(self) -> None:
        for live in self.reader.retired():
            self._close(live)

    def _close(self, live: LiveStream | None) -> None:
        if live is not None and isinstance(live.inlet, Inlet):
            self.openers.close_later(live.inlet)

    # -- beds nobody configured ------------------------------------------------------------------

    def _find_beds(self, announced: Mapping[str, Announced], now: float) -> None:
        """Make a place for each stream that is one of a polysomnogram, once it has answered."""
        # A crowd's announcements come and go: whoever was asked is not asked again for a while.
        self._probes = {
            uid: probe
            for uid, probe in self._probes.items()
            if uid in announced or now - probe.began < MAX_PAUSE_S
        }
        known = {(slot.bed, slot.selector) for slot in self._slots}
        # Whoever was never asked comes first, those of hosts that leave questions unanswered last.
        silent = Counter(
            announced[uid].seen.host
            for uid, probe in self._probes.items()
            if uid in announced and probe.done.is_set() and probe.described is None
        )
        waiting = sorted(
            announced.values(),
            key=lambda one: (
                one.seen.uid in self._probes, silent[one.seen.host], not one.seen.is_psg
            ),
        )  # fmt: skip
        for markers in (False, True):
            beds = {bed for bed, _ in known}
            for entry in waiting:
                place = (auto_bed(entry.seen), auto_selector(entry.seen))
                if is_marker(entry.seen) is not markers or place in known:
                    continue
                if len(self._slots) >= MAX_AUTO_SLOTS:
                    return
                if place[0] in beds if markers else self._is_psg(entry, now):
                    known.add(place)
                    self._slots.append(self._slot(*place, (), now))

    def _is_psg(self, entry: Announced, now: float) -> bool:
        """Decide by its type or its labels, of a stream that answers; that lasts a moment."""
        if entry.seen.rate == 0:
            return False
        described = self._probed(entry, now)
        if described is None:
            return False
        return entry.seen.is_psg or eeg_like(signal_labels(described.header))

    def _probed(self, entry: Announced, now: float) -> ParsedHeader | None:
        """Return a stream's own description, once it was asked."""
        uid = entry.seen.uid
        probe = self._probes.get(uid)
        if probe is not None and probe.done.is_set():
            again = not probe.refused and now - probe.began > MAX_PAUSE_S
            if probe.described is not None or not again:
                return probe.described
            probe = None
        if probe is None and (begun := self.openers.probe(entry, now=now)) is not None:
            self._probes[uid] = begun
        return None
