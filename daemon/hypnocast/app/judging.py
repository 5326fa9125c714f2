"""The judge: one thread that shows pictures to the stager, several beds at once.

A model that hangs cannot be interrupted. Its thread is then left behind, the stager is built
anew in a fresh thread, and what it was asked is answered with an error, so that the pages are
withheld and the night goes on.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from hypnocast.core.types import Look, Opinion
from hypnocast.errors import HypnocastError, InferenceError
from hypnocast.stagers.ladder import Ladder
from hypnocast.stagers.local import MAX_BATCH

if TYPE_CHECKING:
    from hypnocast.stagers.base import Stager

MAX_WAITING = 512
"""More looks than this are refused: a judge that far behind will not catch up in time."""

MAX_GLANCES = 64
"""Where so much waits, nobody glances between pages."""

GLANCES_AT_ONCE = 4
STUDIES_AT_ONCE = 4
_GLANCE, _STUDY = 2, 3
"""In order behind terminal and provisional verdicts."""

_BATCHES = {
    0: (MAX_BATCH, 1),
    1: (MAX_BATCH, 1),
    _GLANCE: (GLANCES_AT_ONCE, _GLANCE),
    _STUDY: (STUDIES_AT_ONCE, _STUDY),
}
"""By the first in order: how many are judged at once, and up to which order."""

GATHER_S = 0.05
"""Where a batch may wait for more pages, so long after the last one that came."""

BUILD_AGAIN_S = 60.0
"""After so long a model that could not be built is tried again."""

_log = structlog.get_logger("judge")


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    order: tuple[int, int]
    look: Look
    answer: asyncio.Future[Opinion]


@dataclass(frozen=True, slots=True)
class JudgeState:
    """What the judge has done and does now."""

    provider: str
    waiting: int
    judged: int
    failed: int
    rebuilt: int
    busy_s: float
    """How long the present batch has been running; 0 when idle."""
    degraded: tuple[str, ...]


class Judge:
    """Batches looks over beds; terminal opinions go before provisional ones."""

    def __init__(
        self, build: Callable[[], Stager], *, stuck_after_s: float = 25.0, gather: int = 1
    ) -> None:
        """Take how to build the stager, and how long a batch may run before it is stuck.

        ``gather``: so many looks are waited for a moment, where no one waits for a verdict.
        """
        self._build = build
        self._stuck_after_s = stuck_after_s
        self._gather = gather
        self._waiting: list[_Question] = []
        self._wake = threading.Condition()
        self._order = itertools.count()
        self._judged = self._failed = self._rebuilt = 0
        self._generation = 0
        self._began: float | None = None
        self._running: list[_Question] = []
        self._stager: Stager | None = None
        self._faults: list[str] = []
        self._build_again_at: float | None = None
        """When a model that could not be built is tried again; None while there is one."""
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Build the stager and warm it up; errors of the pack or the engine come out here."""
        self._loop = asyncio.get_running_loop()
        self._stager = await asyncio.to_thread(self._build)
        self._spawn()

    def stop(self) -> None:
        """Refuse what still waits and let go of the model."""
        with self._wake:
            self._generation += 1
            waiting, self._waiting = self._waiting, []
            self._wake.notify_all()
        for question in waiting:
            question.answer.cancel()
        if self._stager is not None and self._began is None:
            self._stager.close()
        self._stager = None

    def ask(self, look: Look, *, urgent: bool = True) -> asyncio.Future[Opinion]:
        """Ask for an opinion. ``urgent`` ones (terminal verdicts) are judged first."""
        answer: asyncio.Future[Opinion] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(_heard)
        if self._build_again_at is not None:
            answer.set_exception(InferenceError("there is no model", where="judge"))
            return answer
        with self._wake:
            if sum(each.order[0] < _GLANCE for each in self._waiting) >= MAX_WAITING:
                answer.set_exception(
                    InferenceError(
                        f"{MAX_WAITING} pages wait for the model",
                        where="judge",
                        remedy="Serve fewer beds or use a faster provider.",
                    )
                )
                return answer
            order = (0 if urgent else 1, next(self._order))
            self._waiting.append(_Question(order, look, answer))
            self._wake.notify()
        return answer

    def glance(self, look: Look) -> asyncio.Future[Opinion]:
        """Ask for an opinion that nobody waits for; cancelled where there is too much to do."""
        answer: asyncio.Future[Opinion] = asyncio.get_running_loop().create_future()
        with self._wake:
            ahead = sum(each.order[0] <= _GLANCE for each in self._waiting)
            if self._build_again_at is not None or ahead >= MAX_GLANCES:
                answer.cancel()
                return answer
            self._waiting.append(_Question((_GLANCE, next(self._order)), look, answer))
            self._wake.notify()
        return answer

    def study(self, look: Look) -> asyncio.Future[Opinion]:
        """Ask for an opinion that explains another: when neither page nor glance waits."""
        answer: asyncio.Future[Opinion] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(_heard)
        with self._wake:
            if self._build_again_at is not None or len(self._waiting) >= MAX_WAITING:
                why = "there is too much to do for explanations"
                answer.set_exception(InferenceError(why, where="judge"))
                return answer
            self._waiting.append(_Question((_STUDY, next(self._order)), look, answer))
            self._wake.notify()
        return answer

    def state(self) -> JudgeState:
        """Say how the judge does."""
        began = self._began
        stager = self._stager
        return JudgeState(
            provider=stager.provider if stager is not None else "none",
            waiting=len(self._waiting),
            judged=self._judged,
            failed=self._failed,
            rebuilt=self._rebuilt,
            busy_s=time.monotonic() - began if began is not None else 0.0,
            degraded=(*self._faults, *(stager.degraded if isinstance(stager, Ladder) else ())),
        )

    async def rebuild_if_stuck(self) -> bool:
        """Leave a batch that has run too long behind and begin anew; True if that was needed."""
        began = self._began
        again_at = self._build_again_at
        if again_at is not None and time.monotonic() >= again_at:
            await self._build_anew()
            return True
        if began is None or time.monotonic() - began < self._stuck_after_s:
            return False
        _log.error("the model hangs; it is built anew", after_s=round(self._stuck_after_s, 1))
        with self._wake:
            self._generation += 1
            self._began = None
            left, self._running = self._running, []
            self._rebuilt += 1
            self._wake.notify_all()
        for question in left:
            _answer(question, InferenceError("the model did not answer in time", where="judge"))
        await self._build_anew()
        return True

    async def _build_anew(self) -> None:
        """Build the stager after a hang; where that fails, pages are withheld until it works."""
        self._stager = None
        self._build_again_at = None
        try:
            self._stager = await asyncio.to_thread(self._build)
        except Exception as error:  # noqa: BLE001  (a model may raise anything; the night goes on)
            _log.error("the model cannot be built anew; pages are withheld", error=str(error))
            self._faults = [f"model: {error}"]
            self._build_again_at = time.monotonic() + BUILD_AGAIN_S
            with self._wake:
                left, self._waiting = self._waiting, []
            for question in left:
                _answer(question, InferenceError("there is no model", where="judge"))
            return
        self._faults = []
        self._spawn()

    def _spawn(self) -> None:
        arguments = (self._generation, self._stager, self._loop)
        threading.Thread(target=self._work, args=arguments, name="judge", daemon=True).start()

    def _wait(self, generation: int) -> bool:
        """Wait for questions; False where another thread answers them."""
        more_may_come = True
        while self._generation == generation:
            # What came too late for its page is asked by nobody any more.
            self._waiting = [each for each in self._waiting if not each.answer.done()]
            there = len(self._waiting)
            if there >= self._gather or (there and not more_may_come):
                return True
            more_may_come = self._wake.wait(GATHER_S if there else None)
        return False

    def _take(self, generation: int) -> list[_Question]:
        with self._wake:
            if not self._wait(generation):
                return []
            self._waiting.sort(key=lambda question: question.order)
            # Glances and studies are never judged along with pages, and few at once: a page
            # may come.
            most, up_to = _BATCHES[self._waiting[0].order[0]]
            batch = [each for each in self._waiting[:most] if each.order[0] <= up_to]
            del self._waiting[: len(batch)]
            self._running = batch
            self._began = time.monotonic()
            return batch

    def _work(self, generation: int, stager: Stager, loop: asyncio.AbstractEventLoop) -> None:
        while batch := self._take(generation):
            answers = _answers(stager, [question.look for question in batch])
            failed = sum(not isinstance(answer, Opinion) for answer in answers)
            with self._wake:
                if self._generation != generation:
                    return
                self._began = None
                self._running = []
                self._judged += len(batch) - failed
                self._failed += failed
            loop.call_soon_threadsafe(_answer_all, batch, answers)
            del batch, answers  # their pictures would stay while this waits for the next


def _answers(stager: Stager, looks: Sequence[Look]) -> Sequence[Opinion | HypnocastError]:
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
    return [answer for look in looks for answer in _answers(stager, [look])]


def _heard(answer: asyncio.Future[Opinion]) -> None:
    """Take note of a failure that nobody waits for any more: it was logged where it happened."""
    if not answer.cancelled():
        answer.exception()


def _answer_all(batch: list[_Question], answers: Sequence[Opinion | HypnocastError]) -> None:
    for question, answer in zip(batch, answers, strict=True):
        _answer(question, answer)


def _answer(question: _Question, answer: Opinion | HypnocastError) -> None:
    if question.answer.done():
        return
    if isinstance(answer, Opinion):
        question.answer.set_result(answer)
    else:
        question.answer.set_exception(answer)
