"""What a recurrent model carries over from page to page at one bed.

Pages are asked in their order, each with what the page before left behind. A page that was
withheld leaves what was there; after ten in a row the model begins anew, as the decider does.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from hypnocast.core.types import Look, Opinion
from hypnocast.core.verdicts.sequence_filter import FORGET_AFTER
from hypnocast.live.staging.judging import Judge


@dataclass(frozen=True, slots=True)
class Carried:
    """What the newest judged page of a session left behind."""

    session: str
    epoch: int
    state: bytes


class CarriedState:
    """Hands the state of a recurrent model from one page of a bed to the next."""

    def __init__(self, judge: Judge) -> None:
        """Keep who judges."""
        self._judge = judge
        self._known: Carried | None = None
        self._turn = asyncio.Lock()

    def resume(self, known: Carried | None) -> None:
        """Go on from what the journal has of a session."""
        self._known = known

    def ask(self, session: str, look: Look, *, until: float) -> asyncio.Future[Opinion]:
        """Ask for an opinion once the pages before have theirs."""
        return asyncio.ensure_future(self._ask_in_turn(session, look, until))

    def before(self, session: str, epoch: int) -> bytes | None:
        """Return what a page is judged with, as far as the pages before it have been."""
        known = self._known
        if known is None or known.session != session or epoch - known.epoch > FORGET_AFTER:
            return None
        return known.state

    async def _ask_in_turn(self, session: str, look: Look, until: float) -> Opinion:
        async with self._turn:  # whoever came first goes first
            epoch = look.page.epoch
            carrying = replace(look, carried=self.before(session, epoch))
            opinion = await self._judge.ask(carrying, until=until, asker=self)
            if opinion.carried is not None:
                self._known = Carried(session, epoch, opinion.carried)
            return opinion
