"""The ward as the server holds it, and the browsers that follow its changes.

A browser that reads slowly holds up nobody: what waits for it is the set of beds that changed,
never a queue of messages.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any
from zlib import crc32

import msgspec

from hypnocast import __version__
from hypnocast.core.wire.commands import Command, Reply
from hypnocast.core.wire.spectra import NightSpectrum
from hypnocast.dashboard.feed import BrokerLink, Feed, ended
from hypnocast.dashboard.pictures import Scale, scale_of
from hypnocast.dashboard.settings import DashboardSettings
from hypnocast.dashboard.view import Card, card, fold
from hypnocast.dashboard.ward import (
    MAX_BEDS,
    TOPICS,
    BedView,
    Incoming,
    WardView,
    bed_of,
    read_traces,
    refuse,
)
from hypnocast.ports.supervision import Supervisor

PULSE_S = 2.0
"""How often a browser gets a sign that the server lives."""
_GATHER_S = 0.05
"""Changes within this time go out together."""
MOST_VIEWERS = 200
TRACES_SHOWN = 30
"""Seconds of signals a bed's page shows; no more wait for a browser that reads slowly."""


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a bed's own page shows."""

    card: Card
    status: Any
    stage: Any
    night: Any
    page: str | None
    """Changes whenever the retained picture does."""
    scale: Scale | None
    explanation: Any
    beside: Any


class Viewer:
    """One open browser page: which beds changed since the last update."""

    def __init__(self, only: str | None) -> None:
        """Keep the one bed it looks at, or None for the whole ward."""
        self.only = only
        self.changed: set[str] = set()
        self.traces: deque[bytes] = deque(maxlen=TRACES_SHOWN)
        """Seconds of its bed's signals that it has not been sent; the oldest give way."""
        self.spectrum: NightSpectrum | None = None
        """The last it was sent: longer than all else of a bed, and the same for half a minute."""
        self.wake = asyncio.Event()

    def queue(self, bed: str | None) -> None:
        """Note that a bed (or, with None, the link to the broker) changed."""
        if bed is not None:
            if self.only not in (None, bed):
                return
            self.changed.add(bed)
        self.wake.set()


class Hub:
    """Folds the feed into a ward and notifies every viewer of what changed."""

    def __init__(self, settings: DashboardSettings, supervisor: Supervisor) -> None:
        """Keep the settings, and who watches; nothing is connected before :meth:`start`."""
        self._supervisor = supervisor
        self.ward = WardView()
        self.feed = Feed(
            settings.broker,
            settings.prefix,
            on_message=self._receive,
            on_link=self._link,
            topics=(*TOPICS, "bed/+/spectrum", "bed/+/traces"),
        )
        self._traces: dict[str, deque[bytes]] = {}
        """Bed → the newest seconds of its signals, as JSON."""
        self.prefix = settings.prefix
        self.timezone = settings.timezone
        self.patience_s = settings.patience_s
        self.closing = False
        self._viewers: set[Viewer] = set()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to listen to the broker."""
        self._task = self._supervisor.task(
            "page feed", lambda _: self.feed.run(), on_failure="restart"
        )

    async def stop(self) -> None:
        """Send every viewer away and leave the broker."""
        self.close()
        if self._task is not None:
            await ended(self._task)

    def close(self) -> None:
        """End every stream to a browser, so that the server can end."""
        self.closing = True
        for viewer in self._viewers:
            viewer.wake.set()

    @property
    def full(self) -> bool:
        """Whether no further browser page can be served."""
        return len(self._viewers) >= MOST_VIEWERS

    async def ask(self, bed: str, command: Command) -> Reply:
        """Send a command to a bed and wait for its reply."""
        return await self.feed.ask(bed, command, patience_s=self.patience_s)

    def room(self, bed: BedView) -> Room:
        """Return everything about one bed."""
        node = self.ward.node_of(bed)
        return Room(
            card=card(bed, self.ward),
            status=bed.status,
            stage=bed.stage,
            night=bed.night,
            page=None if bed.page is None else f"{crc32(bed.page):08x}",
            scale=scale_of(bed.stage, node.state if node is not None else None),
            explanation=bed.explanation,
            beside=bed.beside,
        )

    async def stream(
        self, only: str | None, *, while_: Callable[[], bool] = lambda: True
    ) -> AsyncIterator[bytes]:
        """Yield server-sent events for one browser until it leaves, may not, or the server ends."""
        viewer = Viewer(only)
        viewer.changed.update(self.ward.beds if only is None else {only})
        viewer.traces.extend(self._traces.get(only or "", ()))
        self._viewers.add(viewer)
        try:
            yield b"retry: 1000\n\n"
            yield self._pulse()
            yield _event("beds", sorted(self.ward.beds))
            viewer.wake.set()
            while not self.closing and while_():
                try:
                    await asyncio.wait_for(viewer.wake.wait(), PULSE_S)
                except TimeoutError:
                    yield self._pulse()
                    continue
                await asyncio.sleep(_GATHER_S)
                viewer.wake.clear()
                changed, viewer.changed = viewer.changed, set()
                for name in sorted(changed):
                    yield self._word(name, only)
                bed = self.ward.beds.get(only or "")
                if bed is not None and bed.spectrum is not viewer.spectrum:
                    viewer.spectrum = bed.spectrum
                    yield _event("spectrum", bed.spectrum)
                if viewer.traces:
                    seconds, viewer.traces = viewer.traces, deque(maxlen=TRACES_SHOWN)
                    yield b"event: traces\ndata: [%s]\n\n" % b",".join(seconds)
                yield self._pulse()
        finally:
            self._viewers.discard(viewer)

    def _word(self, name: str, only: str | None) -> bytes:
        bed = self.ward.beds.get(name)
        if bed is None:
            return _event("gone", name)
        if only is None:
            return _event("card", card(bed, self.ward))
        return _event("room", self.room(bed))

    def _pulse(self) -> bytes:
        link = self.feed.link
        return _event(
            "pulse",
            {
                "now": time.time(),
                "version": __version__,
                "site": self.prefix,
                "timezone": self.timezone,
                "broker": {
                    "connected": link.connected,
                    "since": link.since,
                    "problem": link.problem,
                },
                "refused": self.ward.refused,
                "refusal": self.ward.refusal,
            },
        )

    def _receive_traces(self, bed: str, message: Incoming) -> None:
        """Keep a second of signals for whoever comes, and hand it to those who look at the bed."""
        if len(self._traces) >= MAX_BEDS and bed not in self._traces:
            return
        try:
            second = read_traces(message.payload)
        except (msgspec.DecodeError, ValueError) as error:
            self.ward = refuse(self.ward, message, error)
            return
        kept = self._traces.setdefault(bed, deque(maxlen=TRACES_SHOWN))
        kept.append(second)
        for viewer in self._viewers:
            if viewer.only == bed:
                viewer.traces.append(second)
                viewer.wake.set()

    def _receive(self, message: Incoming) -> None:
        if message.topic.endswith("/traces"):
            self._receive_traces(bed_of(message.topic) or "", message)
            return
        before = self.ward
        self.ward = fold(before, message)
        bed = bed_of(message.topic)
        if bed is not None and self.ward.beds is not before.beds:
            self._notify(bed)
        elif self.ward.nodes is not before.nodes:
            for name, seen in self.ward.beds.items():
                if self.ward.node_of(seen) != before.node_of(seen):
                    self._notify(name)

    def _link(self, _: BrokerLink) -> None:
        self._notify(None)

    def _notify(self, bed: str | None) -> None:
        for viewer in self._viewers:
            viewer.queue(bed)


def _event(kind: str, data: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode(data))
