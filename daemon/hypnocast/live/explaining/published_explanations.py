"""The published explanations: what each page's stage rests on, published as the night goes on.

Nobody waits for it. One page is explained at a time, its looks judged when no verdict waits, and
of each bed only the newest page is kept in mind: where pages come faster than they can be
explained, the older ones are left out and counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import msgspec
import structlog

from hypnocast.core.wire import payloads
from hypnocast.errors import HypnocastError

_log = structlog.get_logger("explanations")


Explain = Callable[[payloads.StageEvent], Awaitable[payloads.Explanation]]
"""Explains an event's stage: :class:`~hypnocast.live.explaining.past_pages.PastPages` does."""


class Shows(Protocol):
    """Shows a bed's explanations: its publisher does."""

    def explained(self, explanation: payloads.Explained | None) -> None:
        """Show an explanation; None: one was left out."""
        ...


class PublishedExplanations:
    """Explains every page that gets a stage (a :class:`~hypnocast.live.service.ward.Watcher`)."""

    def __init__(self, explain: Explain) -> None:
        """Keep who explains pages."""
        self._explain = explain
        self._newest: dict[str, payloads.StageEvent] = {}
        self._woken = asyncio.Event()
        self._left_out: list[str] = []

    def event(self, event: payloads.StageEvent) -> None:
        """Queue a terminal stage; a page of the same bed that still waits gives way."""
        if event.status != "final":
            return
        if event.bed in self._newest:
            self._left_out.append(event.bed)
        # A bed keeps its place in the queue, so that none is passed over for ever.
        self._newest[event.bed] = event
        self._woken.set()

    async def run(self, publishers: Mapping[str, Shows]) -> None:
        """Explain until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._newest:
                event = self._newest.pop(next(iter(self._newest)))
                publishers[event.bed].explained(await self._explained(event))
                for bed in self._left_out:
                    publishers[bed].explained(None)
                self._left_out.clear()

    async def _explained(self, event: payloads.StageEvent) -> payloads.Explained | None:
        try:
            explanation = await self._explain(event)
        except HypnocastError as error:
            _log.warning("a page is not explained", bed=event.bed, error=str(error))
            return None
        return payloads.Explained(
            **msgspec.structs.asdict(explanation),
            site=event.site,
            bed=event.bed,
            session=event.session,
            source=event.source,
            event=event.id,
        )
