"""The judge: one thread that shows pictures to the stager, several beds at once.

A slow model is not a hung one: it beats with every step it completes, and its own measured steps
decide how long one may last. A model that is silent for longer hangs. It cannot be interrupted: its
thread is left behind, and what it was asked is answered with an error, so that the pages are
withheld and the night goes on. Another one is built only where there is memory for both; until
then pages are withheld, and the watchdog begins the process anew. If the hung one comes back
first, it goes on.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

import structlog

from hypnocast.core.types import Look, Opinion, Stage
from hypnocast.errors import HypnocastError, InferenceError
from hypnocast.live.staging.capacity import (
    LIVE_DEADLINE_S,
    Capacity,
    JudgeState,
    room_problem,
)
from hypnocast.live.staging.questions import (
    AHEAD,
    GLANCE,
    MAX_GLANCES,
    MAX_WAITING,
    PROVISIONAL,
    REASONS,
    STUDY,
    TERMINAL,
    Question,
    Questions,
    answer_all,
    answer_one,
    answers_of,
    give_up,
    read_ahead,
    reads_ahead,
    reasons_of,
    retrieve,
    too_many_wait,
)
from hypnocast.ports.memory import free_bytes, resident_bytes
from hypnocast.ports.supervision import Supervisor
from hypnocast.stagers.fallback import FallbackStager
from hypnocast.stagers.pace import OPENING_S, Pace
from hypnocast.stagers.packs.manifest import Context

if TYPE_CHECKING:
    from hypnocast.stagers.base import Stager

HUNG_S = 300.0
"""A replay, which no watchdog ends, is given up when its model has hung for so long."""

GATHER_S = 0.05
"""Where a batch may wait for more pages, so long after the last one that came."""

BUILD_AGAIN_S = 60.0
"""After so long a model that could not be built is tried again."""

_log = structlog.get_logger("judge")


class Judge:
    """Batches looks over beds; terminal opinions go before provisional ones."""

    def __init__(
        self,
        build: Callable[[], Stager],
        *,
        stuck_after_s: float = LIVE_DEADLINE_S,
        gather: int = 1,
        free_bytes: Callable[[], int | None] = free_bytes,
    ) -> None:
        """Keep how to build the stager.

        ``stuck_after_s``: a model that is silent for so long hangs, unless its steps are slower.
        ``gather``: so many looks are waited for a moment, where no one waits for a verdict.
        """
        self._build = build
        self._stuck_after_s = stuck_after_s
        self._gather = gather
        self._free_bytes = free_bytes
        self._questions = Questions()
        self._wake = threading.Condition()
        self._judged = self._failed = self._rebuilt = self._shed = 0
        self._generation = 0
        self._began: float | None = None
        self._running: list[Question] = []
        self._stager: Stager | None = None
        self._model_bytes = 0
        self._abandoned = 0
        """Threads that hang."""
        self._hung_at: float | None = None
        """Since when the model hangs without another in its place."""
        self._building = False
        self._faults: list[str] = []
        self._build_again_at: float | None = None
        """When a model that could not be built is tried again; None while there is one."""
        self._supervisor = Supervisor()

    async def start(self, supervisor: Supervisor | None = None) -> None:
        """Build the stager and warm it up; errors of the pack or the engine come out here."""
        self._supervisor = supervisor or self._supervisor
        before = resident_bytes()
        self._stager = await asyncio.to_thread(self._build)
        self._model_bytes = max(0, resident_bytes() - before)
        self._spawn(self._stager)

    async def start_or_try_again(self, supervisor: Supervisor) -> None:
        """Build the stager; where that fails questions are refused, and it is tried again."""
        self._supervisor = supervisor
        await self._build_anew()

    def capacity(self, context: Context) -> Capacity | None:
        """Return how fast the model was measured to be; None while there is none."""
        stager = self._stager
        return None if stager is None else Capacity.of(stager.pace, self._model_bytes, context)

    @property
    def idle(self) -> bool:
        """Whether nothing is judged and nothing waits to be."""
        return self._began is None and not len(self._questions)

    def stop(self) -> None:
        """Refuse what still waits and let go of the model."""
        with self._wake:
            self._generation += 1
            waiting = self._questions.clear()
            self._wake.notify_all()
        for question in waiting:
            question.answer.cancel()
        if self._stager is not None and self._began is None:
            self._stager.close()
        self._stager = None
        self._hung_at = None

    def ask(
        self,
        look: Look,
        *,
        urgent: bool = True,
        until: float = float("inf"),
        second: bool = False,
        asker: Hashable | None = None,
    ) -> asyncio.Future[Opinion]:
        """Ask for an opinion. ``urgent`` ones (terminal verdicts) are judged first.

        ``second``: the page has a stage already, and this is the look with the page after it.
        ``asker``: the bed, so that where there is no time for all, each has its turn.
        What cannot be judged ``until`` then is answered with :class:`TooLateError`.
        """
        answer: asyncio.Future[Opinion] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(retrieve)
        if self._build_again_at is not None:
            answer.set_exception(InferenceError("there is no model", where="judge"))
            return answer
        with self._wake:
            if self._questions.up_to(PROVISIONAL) >= MAX_WAITING:
                self._shed += 1
                answer.set_exception(too_many_wait())
                return answer
            rank = TERMINAL if urgent else PROVISIONAL
            self._questions.put(rank, look, answer, until, second=second, asker=asker)
            self._wake.notify()
        return answer

    def glance(self, look: Look) -> asyncio.Future[Opinion]:
        """Ask for an opinion that nobody waits for; cancelled where there is too much to do."""
        answer: asyncio.Future[Opinion] = asyncio.get_running_loop().create_future()
        with self._wake:
            ahead = self._questions.up_to(GLANCE)
            if self._build_again_at is not None or ahead >= MAX_GLANCES:
                answer.cancel()
                return answer
            self._questions.put(GLANCE, look, answer, float("inf"))
            self._wake.notify()
        return answer

    def study(self, look: Look) -> asyncio.Future[Opinion]:
        """Ask for an opinion that explains another: when neither page nor glance waits."""
        return self._when_idle(STUDY, look, None)

    def reasons(self, look: Look, stage: Stage) -> asyncio.Future[Opinion]:
        """Ask why a page has a stage: when nothing waits, and given up once a page does."""
        return self._when_idle(REASONS, look, stage)

    @property
    def reads_ahead(self) -> bool:
        """Whether the next look is quicker where the pages before it were read already."""
        return self._stager is not None and reads_ahead(self._stager)

    def read_ahead(self, look: Look) -> None:
        """Let what the look at the next page begins with be read once no page waits.

        That comes before reasons: it is less to read when the next page comes.
        """
        self._when_idle(AHEAD, look, None)

    def _when_idle(self, rank: int, look: Look, stage: Stage | None) -> asyncio.Future[Opinion]:
        answer: asyncio.Future[Opinion] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(retrieve)
        with self._wake:
            if self._build_again_at is not None or len(self._questions) >= MAX_WAITING:
                why = "there is too much to do for explanations"
                answer.set_exception(InferenceError(why, where="judge"))
                return answer
            self._questions.put(rank, look, answer, float("inf"), stage=stage)
            self._wake.notify()
        return answer

    def state(self) -> JudgeState:
        """Return how the judge does."""
        began = self._began
        stager = self._stager
        pace = stager.pace if stager is not None else None
        allowed_s = OPENING_S if self._building else 0.0
        with self._wake:  # the thread that judges adds to it
            too_slow = self._questions.late.problem(time.monotonic())
        return JudgeState(
            provider=stager.provider if stager is not None else "none",
            waiting=len(self._questions),
            judged=self._judged,
            failed=self._failed,
            rebuilt=self._rebuilt,
            given_up=self._questions.late.total,
            shed=self._shed,
            beats=pace.beats if pace is not None else 0,
            busy_s=time.monotonic() - began if began is not None else 0.0,
            allowed_s=pace.allowed_s if pace is not None else allowed_s,
            hung=self._hung_at is not None,
            degraded=(
                *self._faults,
                *too_slow,
                *(stager.degraded if isinstance(stager, FallbackStager) else ()),
            ),
        )

    async def rebuild_if_stuck(self) -> bool:
        """Leave a batch that hangs behind and begin anew; True if that was needed."""
        now = time.monotonic()
        if self._build_again_at is not None and now >= self._build_again_at:
            await self._build_anew()
            return True
        if self._hung_at is None:
            silent_s = self._silent_s(now)
            if silent_s is None:
                return False
            self._leave_behind(now, silent_s)
        with self._wake:
            self._questions.forget_answered()
        problem = room_problem(self._abandoned, self._free_bytes(), self._model_bytes)
        if problem:
            self._faults = [problem]
            if self._hung_at is not None and now - self._hung_at > HUNG_S:
                raise InferenceError(
                    "the model hangs, and there is no memory to build it anew beside itself",
                    where="judge",
                    remedy="Begin anew, with a smaller model or more memory.",
                )
            return False
        await self._build_anew()
        return True

    def _silent_s(self, now: float) -> float | None:
        """Return for how long the model has been silent, where that is too long."""
        began, stager = self._began, self._stager
        if began is None or stager is None:
            return None
        silent_s = min(now - began, stager.pace.silent_s)
        return silent_s if silent_s > max(self._stuck_after_s, stager.pace.allowed_s) else None

    def _leave_behind(self, now: float, silent_s: float) -> None:
        """Leave the thread of a hung model, and answer what it was asked."""
        _log.error("the model hangs", silent_s=round(silent_s, 1))
        with self._wake:
            self._generation += 1
            self._began = None
            left, self._running = self._running, []
            self._rebuilt += 1
            self._abandoned += 1
            self._hung_at = now
            self._stager = None
            self._faults = ["model: hangs"]
            self._wake.notify_all()
        for question in left:
            answer_one(question, InferenceError("the model hangs", where="judge"))

    async def _build_anew(self) -> None:
        """Build the stager after a hang; where that fails, pages are withheld until it works."""
        self._stager = self._hung_at = self._build_again_at = None
        self._building = True
        try:
            self._stager = await asyncio.to_thread(self._build)
        except Exception as error:  # noqa: BLE001  (a model may raise anything; the night goes on)
            _log.error("the model cannot be built anew; pages are withheld", error=str(error))
            self._faults = [f"model: {error}"]
            self._build_again_at = time.monotonic() + BUILD_AGAIN_S
            with self._wake:
                left = self._questions.clear()
            for question in left:
                answer_one(question, InferenceError("there is no model", where="judge"))
            return
        finally:
            self._building = False
        self._faults = []
        self._spawn(self._stager)

    def _spawn(self, stager: Stager) -> None:
        generation, loop = self._generation, asyncio.get_running_loop()
        # A thread that hangs has no deadline of its own: what it was asked has one.
        self._supervisor.thread(
            "judge", lambda _: self._work(generation, stager, loop), on_failure="restart"
        )

    def _wait(self, generation: int, pace: Pace) -> bool:
        """Wait for questions; False where another thread answers them."""
        more_may_come = True
        while self._generation == generation:
            # What came too late for its page is asked by nobody any more.
            self._questions.forget_answered()
            there = len(self._questions)
            owed_until = self._questions.waits_until(pace)
            if owed_until is not None:
                self._wake.wait(max(0.0, owed_until - time.monotonic()))
                continue
            if there >= self._gather or (there and not more_may_come):
                return True
            more_may_come = self._wake.wait(GATHER_S if there else None)
        return False

    def _next_batch(
        self, generation: int, stager: Stager, loop: asyncio.AbstractEventLoop
    ) -> list[Question]:
        with self._wake:
            while self._wait(generation, stager.pace):
                batch, given_up = self._questions.batch(time.monotonic(), stager.pace)
                if given_up:
                    loop.call_soon_threadsafe(give_up, given_up, stager.pace)
                if batch:
                    self._running = batch
                    self._began = time.monotonic()
                    stager.pace.begin(len(batch))
                    return batch
            return []

    def _work(self, generation: int, stager: Stager, loop: asyncio.AbstractEventLoop) -> None:
        while batch := self._next_batch(generation, stager, loop):
            began = time.monotonic()
            if batch[0].order[0] == AHEAD:
                read_ahead(stager, batch[0].look)
                batch.clear()
            answers = self._answers(generation, stager, batch) if batch else []
            failed = sum(not isinstance(answer, Opinion) for answer in answers)
            whole = bool(batch) and not failed and batch[0].stage is None
            with self._wake:
                if self._generation != generation:
                    if not self._went_on(stager):
                        return
                    generation = self._generation
                else:
                    if whole:
                        stager.pace.measured(len(batch), time.monotonic() - began)
                    self._began = None
                    self._running = []
                    self._judged += len(batch) - failed
                    self._failed += failed
                    self._questions.judged(batch)
            loop.call_soon_threadsafe(answer_all, batch, answers)
            del batch, answers  # their pictures would stay while this waits for the next

    def _answers(
        self, generation: int, stager: Stager, batch: list[Question]
    ) -> Sequence[Opinion | HypnocastError]:
        first = batch[0]
        if first.stage is None:
            return answers_of(stager, [question.look for question in batch])

        def nobody_waits() -> bool:
            with self._wake:
                return self._generation == generation and not self._questions.up_to(GLANCE)

        return [reasons_of(stager, first.look, first.stage, nobody_waits)]

    def _went_on(self, stager: Stager) -> bool:
        """Go on with a model that came back; False where another has replaced it."""
        self._abandoned = max(0, self._abandoned - 1)
        if self._hung_at is None:
            stager.close()
            return False
        _log.warning("the model that hung has come back")
        self._stager, self._hung_at, self._faults = stager, None, []
        return True
