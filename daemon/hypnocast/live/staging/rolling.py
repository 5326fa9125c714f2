"""Rolling verdicts: what the last 30 s look like, every few seconds between page closes.

For those who act on sleep while it lasts. Nothing here is journaled, and nothing waits for it: a
window is judged when no page is, in small batches, and where the last one of a bed is still under
way the next one is left out and counted.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from hypnocast.core.timing.utc import instant
from hypnocast.core.types import Opinion, Picture, Reason, Staged
from hypnocast.core.verdicts.decider import Decider
from hypnocast.core.wire import payloads
from hypnocast.errors import HypnocastError
from hypnocast.live.bed.bed_updates import Glimpsed
from hypnocast.live.staging.bed_stager import BedStager
from hypnocast.live.staging.judging import Judge
from hypnocast.live.staging.stage_events import Origin, probabilities_of

Send = Callable[[payloads.Rolling], None]


class RollingStager:
    """Turns one bed's windows into rolling verdicts."""

    def __init__(
        self, judge: Judge, decider: Decider, scorer: BedStager, send: Send, counts: Counter[str]
    ) -> None:
        """Keep who judges and decides, the stager that knows the night, and where verdicts go."""
        self._judge = judge
        self._decider = decider
        self._scorer = scorer
        self._send = send
        self._counts = counts
        self._under_way: asyncio.Future[Opinion] | None = None

    def add(self, glimpsed: Glimpsed) -> None:
        """Ask about a window, unless the one before is still under way."""
        origin = self._scorer.origin
        if origin is None or origin.session != glimpsed.session.id:
            return
        arrived = time.monotonic()
        if not isinstance(glimpsed.outcome, Picture):
            self._publish(origin, glimpsed, arrived, glimpsed.outcome.reason)
            return
        if self._under_way is not None:
            self._counts["rolling_shed"] += 1
            return
        asked = self._judge.glance(self._scorer.beside(glimpsed.outcome))
        self._under_way = asked
        asked.add_done_callback(lambda done: self._answered(done, origin, glimpsed, arrived))

    def _answered(
        self, done: asyncio.Future[Opinion], origin: Origin, glimpsed: Glimpsed, arrived: float
    ) -> None:
        self._under_way = None
        if done.cancelled():
            self._counts["rolling_shed"] += 1
            return
        failure = done.exception()
        if isinstance(failure, HypnocastError):
            self._publish(origin, glimpsed, arrived, Reason.NO_MODEL)
            return
        state = self._scorer.state
        # As if the window were the next page; what is known of the night stays as it is.
        _, staged = self._decider.step(state, replace(done.result(), epoch=state.newest))
        self._publish(origin, glimpsed, arrived, staged)

    def _publish(
        self, origin: Origin, glimpsed: Glimpsed, arrived: float, verdict: Staged | Reason
    ) -> None:
        staged = verdict if isinstance(verdict, Staged) else None
        self._counts["rolling"] += 1
        self._send(
            payloads.Rolling(
                site=origin.site,
                bed=origin.bed,
                session=origin.session,
                end=instant(glimpsed.end_utc),
                stage=staged.stage.value if staged is not None else None,
                reason=None if isinstance(verdict, Staged) else verdict.value,
                probabilities=(
                    probabilities_of(staged.probabilities) if staged is not None else None
                ),
                latency_ms=round(glimpsed.drawn_ms + (time.monotonic() - arrived) * 1000.0, 1),
            )
        )
