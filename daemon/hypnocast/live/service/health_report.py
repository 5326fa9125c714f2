"""What every part of a ward does just now, for the watchdog and for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypnocast.core.night.session import Phase
from hypnocast.core.types import PAGE_S
from hypnocast.live.service.numbers import numbers_of
from hypnocast.live.service.watchdog import Pulse
from hypnocast.ports.metrics import MetricValue
from hypnocast.ports.mqtt.link_states import Connected, RefusedByBroker, Waiting

if TYPE_CHECKING:
    from hypnocast.live.service.ward import Ward


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long each part may make no progress while it has something to do, in seconds."""

    turn: float = 20.0
    """Loops that turn many times a second."""
    judge: float = 60.0
    """The judge's own deadline is 25 s, unless its model's steps were measured to be slower."""
    bed_worker: float = 90.0
    """An item waits for the opinions of two pages at most, 25 s each."""
    outbox: float = 60.0
    """A connection that acknowledges nothing is given up after 10 s, and a new one made."""
    close_slack: float = 20.0
    """Beyond the page's 30 s, its tail and the grace for late samples."""
    worker: float | None = None
    """Of every thread and task, instead of its own; None: its own."""


class HealthReport:
    """Goes round a ward's parts."""

    def __init__(
        self,
        ward: Ward,
        *,
        reading: Callable[[], int],
        closing_s: float,
        deadlines: Deadlines | None = None,
    ) -> None:
        """Keep the ward, how often its streams were looked at, and ``tail_s`` + ``grace_s``."""
        self._may = deadlines or Deadlines()
        self._ward = ward
        self._reading = reading
        self._closing_s = PAGE_S + closing_s + self._may.close_slack
        self._readings: tuple[MetricValue, ...] = ()

    def refresh(self) -> None:
        """Read the numbers as they are now."""
        self._readings = tuple(numbers_of(self._ward))

    # --- pulses --------------------------------------------------------------------------------

    def pulses(self) -> list[Pulse]:
        """Return the pulse of every part: reading, closing, judging, beds, outbox, workers."""
        ward, may = self._ward, self._may
        judge, journal, link = ward.judge.state(), ward.journal, ward.link
        # A broker that is away, or forbids a topic, is a known outage and reported as such.
        known = isinstance(link.state, Waiting | RefusedByBroker) or bool(link.problems)
        return [
            Pulse("reading", self._reading(), busy=True, deadline_s=may.turn),
            *self._closing(),
            Pulse(
                "judging",
                judge.judged + judge.failed + judge.rebuilt + judge.beats,
                busy=judge.waiting > 0 or judge.busy_s > 0.0 or judge.hung,
                deadline_s=max(may.judge, judge.allowed_s + may.turn),
            ),
            *(
                Pulse(
                    f"bed {bed}",
                    bed_worker.done,
                    busy=bed_worker.waiting > 0,
                    deadline_s=may.bed_worker,
                )
                for bed, bed_worker in ward.workers.items()
            ),
            Pulse(
                "outbox",
                journal.sent + link.connections,
                busy=ward.outbox.waiting > 0 and not known,
                deadline_s=may.outbox,
            ),
            *self._workers(),
        ]

    def _workers(self) -> Iterator[Pulse]:
        for health in self._ward.supervisor.health():
            if health.deadline_s is not None:
                deadline_s = self._may.worker or health.deadline_s
                yield Pulse(health.name, health.beats, health.busy, deadline_s)

    def _closing(self) -> Iterator[Pulse]:
        for bed, publisher in self._ward.publishers.items():
            session = publisher.session
            recording = session is not None and session.phase is Phase.RECORDING
            yield Pulse(
                f"closing {bed}", self._ward.signal_thread.pages[bed], recording, self._closing_s
            )

    # --- words ---------------------------------------------------------------------------------

    def words(self) -> str:
        """Return in a line what goes on."""
        ward = self._ward
        judge, condition = ward.judge.state(), ward.journal.condition
        recording = sum(publisher.session is not None for publisher in ward.publishers.values())
        link = ward.link.state
        broker = "connected" if isinstance(link, Connected) else type(link).__name__.lower()
        why = f" ({link.why})" if isinstance(link, Waiting | RefusedByBroker) else ""
        journal = f"journal {condition.health}" + (f" ({condition.why})" if condition.why else "")
        said = (condition.why, getattr(link, "why", ""))
        parts = [
            f"{recording} of {len(ward.publishers)} beds in a session",
            f"model on {judge.provider}",
            f"broker {broker}{why}",
            f"{ward.outbox.waiting} events wait",
            journal,
            *(line for line in ward.degraded() if line not in said),
        ]
        return "; ".join(parts)

    # --- numbers -------------------------------------------------------------------------------

    def readings(self) -> tuple[MetricValue, ...]:
        """Return the newest numbers; may be asked from any thread."""
        return self._readings
