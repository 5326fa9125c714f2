"""Opening a stream: the part that may wait, on threads of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from hypnocast.core.types import StreamHeader
from hypnocast.errors import HypnocastError, StreamError
from hypnocast.ports.lsl.announcements import Announced
from hypnocast.ports.lsl.beds import Selector, is_marker
from hypnocast.ports.lsl.header import RefusedStreamError, StreamAnswer, fetch_header
from hypnocast.ports.lsl.inlet import Inlet
from hypnocast.ports.lsl.limits import MAX_OPENERS, MAX_PROBES, too_costly
from hypnocast.ports.lsl.problems import ProblemKind
from hypnocast.ports.lsl.senders import EVERYBODY, Senders
from hypnocast.ports.stream_xml import ParsedHeader, relabel
from hypnocast.ports.supervision import Supervisor
from hypnocast.ports.worker import Worker

OPEN_TIMEOUT_S = 3.0
CLOCK_TIMEOUT_S = 3.0
PROBE_TIMEOUT_S = 1.5
CLOSERS = 2
HANGS_AFTER_S = 60.0
"""An attempt that has not ended by then hangs in liblsl."""


@dataclass(eq=False)
class Opening:
    """One attempt to open, or only to ask, one stream. Its fields are read once ``done`` is set."""

    uid: str
    began: float
    done: threading.Event = field(default_factory=threading.Event)
    inlet: Inlet | None = None
    """None where it was only asked who it is."""
    answer: StreamAnswer | None = None
    offset: float | None = None
    error: HypnocastError | None = None

    @property
    def described(self) -> ParsedHeader | None:
        """What the stream says of itself, if it answered."""
        return None if self.answer is None else self.answer.described

    @property
    def refused(self) -> bool:
        """Whether it is not to be tried again."""
        return isinstance(self.error, RefusedStreamError)


class Openers:
    """Opens, asks and closes streams on threads of its own, never more than so many at once."""

    def __init__(
        self,
        supervisor: Supervisor,
        wake: Callable[[], None],
        senders: Senders = EVERYBODY,
    ) -> None:
        """Keep who watches the threads, and whom to wake when an attempt has come to an end."""
        self._senders = senders
        self._supervisor = supervisor
        self._wake = wake
        self._running: set[Opening] = set()
        self._probing: set[Opening] = set()
        self._closers = supervisor.pool("lsl-close", CLOSERS, deadline_s=HANGS_AFTER_S)

    def open(self, announced: Announced, *, now: float, keep_s: int) -> Opening | None:
        """Begin to open a stream; None where too many are being opened: try again later."""

        def run(opening: Opening) -> None:
            inlet = Inlet(announced.info, announced.seen, keep_s=keep_s)
            try:
                inlet.open(timeout_s=OPEN_TIMEOUT_S)
                opening.answer = self._ask(announced, OPEN_TIMEOUT_S)
                opening.offset = inlet.measure(timeout_s=CLOCK_TIMEOUT_S)
                opening.inlet = inlet
            finally:
                if opening.inlet is None:
                    inlet.close()

        return self._start(self._running, MAX_OPENERS, announced, now, run)

    def probe(self, announced: Announced, *, now: float) -> Opening | None:
        """Begin to ask a stream who it is, and no more; None where too many are being asked."""

        def run(opening: Opening) -> None:
            inlet = Inlet(announced.info, announced.seen, keep_s=1)
            try:
                inlet.open(timeout_s=PROBE_TIMEOUT_S)
                opening.answer = self._ask(announced, PROBE_TIMEOUT_S)
            finally:
                inlet.close()

        return self._start(self._probing, MAX_PROBES, announced, now, run)

    def _ask(self, announced: Announced, timeout_s: float) -> StreamAnswer:
        answer = fetch_header(announced.info, announced.seen, timeout_s=timeout_s)
        if not self._senders.know(answer.address):
            raise RefusedStreamError(
                f"comes from {answer.address}, which is none of the addresses in [lsl] senders"
            )
        return answer

    def close_later(self, inlet: Inlet) -> None:
        """Close an inlet without waiting for it."""
        self._closers.submit(inlet.close)

    def end(self) -> None:
        """Let what is being closed be closed, without waiting for it."""
        self._closers.shutdown(wait=False)

    def _start(
        self,
        running: set[Opening],
        most: int,
        announced: Announced,
        now: float,
        run: Callable[[Opening], None],
    ) -> Opening | None:
        if len(running) >= most:
            return None
        opening = Opening(uid=announced.seen.uid, began=now)

        def attempt(_: Worker) -> None:
            try:
                if why := too_costly(announced.seen):
                    raise RefusedStreamError(why)  # noqa: TRY301 - reported as what is found later is
                run(opening)
            except HypnocastError as error:
                # Anew: a kept error keeps its frames, they the inlet, and that liblsl's threads.
                opening.error = type(error)(error.what, where=error.where, remedy=error.remedy)
            except Exception as error:
                opening.error = StreamError(f"could not be opened ({error})")
                raise
            finally:
                running.discard(opening)
                opening.done.set()
                self._wake()

        running.add(opening)
        try:
            self._supervisor.thread(
                "lsl-open", attempt, deadline_s=HANGS_AFTER_S, on_failure="pass"
            )
        except RuntimeError:  # no further thread can be had: try again later
            running.discard(opening)
            return None
        return opening


def effective_header(described: ParsedHeader, selector: Selector, key: str) -> StreamHeader:
    """Return the header as it counts: the configuration goes before the stream's own."""
    header = relabel(described.header, labels=selector.labels, rate=selector.rate)
    return replace(header, key=key)


def header_problems(
    described: ParsedHeader, header: StreamHeader, units: Collection[str]
) -> list[tuple[ProblemKind, str, str]]:
    """Return kind, text and remedy for everything the header leaves out or gets wrong.

    ``units`` are labels (or ``*``) whose unit the configuration gives.
    """
    if is_marker(header):
        return []
    problems: list[tuple[ProblemKind, str, str]] = []
    labelled = any(channel.label for channel in header.channels)
    count = len(header.channels)
    if header.rate == 0:
        problems.append(
            (
                ProblemKind.NO_RATE,
                "carries signals but declares no sampling rate; it is not read",
                "Give its rate in the config",
            )
        )
    if described.labels_disagree and not labelled:
        problems.append(
            (
                ProblemKind.LABELS_DISAGREE,
                f"describes {described.labels_found} channels, has {count}; no label is believed",
                "Give all labels in the config",
            )
        )
    elif not labelled:
        problems.append(
            (
                ProblemKind.NO_LABELS,
                f"none of its {count} channels has a label",
                "Give all labels in the config",
            )
        )
    given = {label.strip().casefold() for label in units}
    without = [
        channel.label or "?"
        for channel in header.channels
        if not channel.unit and given.isdisjoint({"*", channel.label.strip().casefold()})
    ]
    if without:
        problems.append(
            (
                ProblemKind.NO_UNIT,
                f"no unit for {', '.join(without[:8])}{' …' if len(without) > 8 else ''}",
                "Give the unit in the config",
            )
        )
    return problems
