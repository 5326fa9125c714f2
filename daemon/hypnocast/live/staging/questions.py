"""Looks that wait for the model: in which order they are judged, how many at once, and which not.

Terminal verdicts come before provisional ones, these before what nobody waits for. A look that
cannot be judged before its deadline is given up, so that those behind it are in time. Where there
is no time for all, a page's first look, without which it has no stage, comes before any second
one, and the bed that was served longest ago before the others.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from hypnocast.core.types import Look, Opinion, Stage
from hypnocast.errors import HypnocastError, InferenceError, TooLateError
from hypnocast.live.staging.capacity import LIVE_DEADLINE_S
from hypnocast.live.staging.turns import LateLooks, Turns
from hypnocast.stagers.base import GivesReasons, ReadsAhead
from hypnocast.stagers.onnx.local import MAX_BATCH
from hypnocast.stagers.pace import Pace

if TYPE_CHECKING:
    from hypnocast.stagers.base import Stager

TERMINAL, PROVISIONAL, GLANCE, AHEAD, REASONS, STUDY = range(6)
"""In the order in which they are judged."""

MAX_WAITING = 512
"""More looks than this are refused: a judge that far behind will not catch up in time."""

MAX_GLANCES = 64
"""Where so much waits, nobody glances between pages."""

GLANCES_AT_ONCE = 4
STUDIES_AT_ONCE = 4

_BATCHES = {
    TERMINAL: (MAX_BATCH, PROVISIONAL),
    PROVISIONAL: (MAX_BATCH, PROVISIONAL),
    GLANCE: (GLANCES_AT_ONCE, GLANCE),
    AHEAD: (1, AHEAD),
    REASONS: (1, REASONS),
    STUDY: (STUDIES_AT_ONCE, STUDY),
}
"""By the first in order: how many are judged at once, and up to which order.

Glances and studies are never judged along with pages, and few at once: a page may come.
"""


_log = structlog.get_logger("judge")


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A look, and the future that gets the opinion on it."""

    order: tuple[int, int]
    look: Look
    answer: asyncio.Future[Opinion]
    until: float
    """When an answer is of no use any more, on the monotonic clock."""
    second: bool = False
    """Whether the page has a stage without it: this is the look with the page after."""
    stage: Stage | None = None
    """The stage for which reasons are asked; None: an opinion is."""
    asker: Hashable | None = None
    """The bed that asks, so that each has its turn; None: nobody waits."""


class Questions:
    """What waits. Whoever uses it holds the judge's lock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin empty."""
        self._clock = clock
        self._waiting: list[Question] = []
        self._number = itertools.count()
        self._turns = Turns()
        self.late = LateLooks()
        """Looks at pages that had no opinion in time."""

    def __len__(self) -> int:
        """Count what waits."""
        return len(self._waiting)

    def up_to(self, rank: int) -> int:
        """Count what waits with this rank or one before it."""
        return sum(each.order[0] <= rank for each in self._waiting)

    def put(
        self,
        rank: int,
        look: Look,
        answer: asyncio.Future[Opinion],
        until: float,
        *,
        second: bool = False,
        stage: Stage | None = None,
        asker: Hashable | None = None,
    ) -> None:
        """Add one, behind those of its rank."""
        order = (rank, next(self._number))
        self._waiting.append(Question(order, look, answer, until, second, stage, asker))
        if not second:
            self._turns.asked(asker, self._clock())

    def forget_answered(self) -> None:
        """Drop what nobody waits for any more: it came too late, or was cancelled."""
        now = self._clock()
        done = [each for each in self._waiting if each.answer.done()]
        self._waiting = [each for each in self._waiting if not each.answer.done()]
        self._missed([each for each in done if each.until <= now])

    def judged(self, batch: Sequence[Question]) -> None:
        """Note that a batch was judged, in time or not."""
        now = self._clock()
        late = [each for each in batch if each.until <= now]
        pages = sum(each.order[0] <= PROVISIONAL for each in batch)
        self.late.note(now, in_time=pages - len(late))
        self._missed(late)

    def _missed(self, late: Sequence[Question]) -> None:
        if late:
            self.late.note(self._clock(), late=len(late))
        for question in late:
            if not question.second:
                self._turns.missed(question.asker)

    def waits_until(self, pace: Pace) -> float | None:
        """Return how long to wait for a bed whose turn it is; None where something is to be done.

        Pages are kept waiting only for a bed that would lose its page otherwise; what comes after
        pages waits along with them.
        """
        askers = [each.asker for each in self._waiting if each.order[0] <= PROVISIONAL]
        return self._turns.waits_until(askers, self._clock(), pace.page_s) if askers else None

    def clear(self) -> list[Question]:
        """Remove everything."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def batch(self, now: float, pace: Pace) -> tuple[list[Question], list[Question]]:
        """Remove what is judged next, and what is given up for it."""
        self._waiting.sort(key=lambda question: question.order)
        if self._waiting[0].order[0] == AHEAD and self._turns.next_page_s(now) < pace.page_s / 2:
            del self._waiting[0]  # a page would come while the model reads ahead
            return [], []
        most, up_to = _BATCHES[self._waiting[0].order[0]]
        there = [each for each in self._waiting if each.order[0] <= up_to]
        if up_to == PROVISIONAL and _too_many(there, now, pace):
            there.sort(key=self._by_turn)
        in_time = [each for each in there if now + pace.page_s <= each.until]
        if not in_time:
            # Where a page that has just come cannot be in time either, one is tried all the same:
            # the estimate may be old.
            hopeless = pace.page_s > LIVE_DEADLINE_S
            batch = [each for each in there if not each.second][-1:] if hopeless else []
            given_up = [each for each in there if each.second or not hopeless]
        else:
            most = most if pace.gains_by_batches else 1
            batch = _fitting(in_time[:most], now, pace)
            given_up = [each for each in there if each not in in_time]
        for question in batch:
            if not question.second:
                self._turns.served(question.asker)
        self._missed(given_up)
        gone = {id(each) for each in (*batch, *given_up)}
        self._waiting = [each for each in self._waiting if id(each) not in gone]
        return batch, given_up

    def _by_turn(self, question: Question) -> tuple[bool, int, tuple[int, int]]:
        return (question.second, self._turns.order(question.asker), question.order)


def _too_many(there: Sequence[Question], now: float, pace: Pace) -> bool:
    """Return whether what waits cannot all be judged in time."""
    return now + pace.batch_s(len(there)) > max(each.until for each in there)


def _fitting(wanted: list[Question], now: float, pace: Pace) -> list[Question]:
    """Return as many of the first as can be judged together before the first deadline."""
    for count in range(len(wanted), 1, -1):
        first = min(each.until for each in wanted[:count])
        if now + pace.batch_s(count) <= first:
            return wanted[:count]
    return wanted[:1]


def give_up(questions: Sequence[Question], pace: Pace) -> None:
    """Answer what cannot be judged in time."""
    for question in questions:
        why = f"the model takes {pace.page_s:.1f} s a page, and others come first"
        remedy = "Serve fewer beds or use a faster model."
        answer_one(question, TooLateError(why, where="judge", remedy=remedy))


def too_many_wait() -> InferenceError:
    """Return why one more look is refused."""
    return InferenceError(
        f"{MAX_WAITING} pages wait for the model",
        where="judge",
        remedy="Serve fewer beds or use a faster provider.",
    )


def retrieve(answer: asyncio.Future[Opinion]) -> None:
    """Retrieve a failure that nobody waits for any more: it was logged where it happened."""
    if not answer.cancelled():
        answer.exception()


def answer_one(question: Question, given: Opinion | HypnocastError) -> None:
    """Answer a question, unless nobody waits any more."""
    if question.answer.done():
        return
    if isinstance(given, Opinion):
        question.answer.set_result(given)
    else:
        question.answer.set_exception(given)


def answer_all(batch: list[Question], answers: Sequence[Opinion | HypnocastError]) -> None:
    """Answer a batch."""
    for question, answer in zip(batch, answers, strict=True):
        answer_one(question, answer)


def reasons_of(
    stager: Stager, look: Look, stage: Stage, go_on: Callable[[], bool]
) -> Opinion | HypnocastError:
    """Ask the model why a page has a stage, as long as ``go_on`` allows."""
    try:
        if isinstance(stager, GivesReasons):
            return stager.reasons(look, stage, go_on)
    except HypnocastError as error:
        return error
    except Exception as error:  # noqa: BLE001  (a model may raise anything; the night goes on)
        return InferenceError(f"{type(error).__name__}: {error}", where="judge")
    return InferenceError("gives no reasons", where=stager.provider)


def reads_ahead(stager: Stager) -> bool:
    """Return whether the next look is quicker where the pages before it were read already."""
    return isinstance(stager, ReadsAhead) and stager.reads_ahead


def read_ahead(stager: Stager, look: Look) -> None:
    """Let the model read what the look at the next page begins with; nobody waits for it."""
    try:
        if isinstance(stager, ReadsAhead):
            stager.read_ahead(look)
    except Exception as error:  # noqa: BLE001  (a model may raise anything; the night goes on)
        _log.warning("the model could not read ahead", error=str(error))


def answers_of(stager: Stager, looks: Sequence[Look]) -> Sequence[Opinion | HypnocastError]:
    """Ask the model about a batch; where that fails about each look alone.

    One bed's page, or a batch too large for the memory there is, must not cost the other beds
    theirs.
    """
    failure: HypnocastError
    try:
        return stager.judge(looks)
    except HypnocastError as error:
        failure = error
    except Exception as error:  # noqa: BLE001  (a model may raise anything; the night goes on)
        failure = InferenceError(f"{type(error).__name__}: {error}", where="judge")
    _log.error("the model failed", error=str(failure), pages=len(looks))
    if len(looks) == 1:
        return [failure]
    return [answer for look in looks for answer in answers_of(stager, [look])]
