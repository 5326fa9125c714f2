"""Stagers in order of preference: where one fails, the next goes on, and everyone can see it.

    remote ──▶ local ──▶ none (pages are withheld: ``no_model``)

After a failure the upper stager is left alone for a while, then tried again with the next
pages; what it cannot judge, the lower one judges in the same call, so no page waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hypnocast.core.types import Look, Opinion, Stage
from hypnocast.errors import InferenceError
from hypnocast.stagers.base import GivesReasons, ReadsAhead, Stager
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.pace import Pace

RETRY_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class FallbackStep:
    """One change of the stager in use."""

    before: str
    """Provider left; empty before the first page."""
    after: str
    """Provider in use; ``none`` where no stager is left."""
    why: str


class FallbackStager:
    """Several stagers as one, best first."""

    def __init__(
        self,
        stagers: Sequence[Stager],
        *,
        on_step: Callable[[FallbackStep], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep the stagers, the best first; every change between them goes to ``on_step``."""
        if not stagers:
            msg = "a fallback needs a stager"
            raise ValueError(msg)
        self._stagers = tuple(stagers)
        self._rest_until = [float("-inf")] * len(stagers)
        self._on_step = on_step
        self._clock = clock
        self._provider = ""
        self._level = len(stagers) - 1

    @property
    def provider(self) -> str:
        """What computed last: a stager's provider, or ``none``."""
        return self._provider or self._stagers[0].provider

    @property
    def pace(self) -> Pace:
        """The pace of the stager that is asked now, or was asked last."""
        return self._stagers[self._level].pace

    @property
    def degraded(self) -> tuple[str, ...]:
        """Why the best stager is not in use, or no longer what it was; empty while all is well."""
        fallen = (one.failure for one in self._stagers if isinstance(one, LocalStager))
        why = tuple(f"model: {failure}" for failure in fallen if failure is not None)
        first = self._stagers[0].provider
        if self._provider in ("", first):
            return why
        return (f"model: {self._provider} instead of {first}", *why)

    def judge(self, looks: Sequence[Look]) -> list[Opinion]:
        """Let the best stager that can judge the looks."""
        why = ""
        for level, stager in enumerate(self._stagers):
            last = level == len(self._stagers) - 1
            if self._clock() < self._rest_until[level] and not last:
                continue
            self._level = level
            try:
                opinions = stager.judge(looks)
            except InferenceError as error:
                why = f"{why}; {error}" if why else str(error)
                self._rest_until[level] = self._clock() + RETRY_AFTER_S
                continue
            self._stand_on(stager.provider, why)
            return opinions
        self._stand_on("none", why)
        raise InferenceError(
            f"no stager is left: {why}",
            where="stagers",
            remedy="Pages are withheld as no_model until one works again.",
        )

    def reasons(self, look: Look, stage: Stage, go_on: Callable[[], bool]) -> Opinion:
        """Let the stager in use write why a page has a stage, if it can."""
        stager = self._stagers[self._level]
        if not isinstance(stager, GivesReasons):
            raise InferenceError("gives no reasons", where=stager.provider)
        return stager.reasons(look, stage, go_on)

    @property
    def reads_ahead(self) -> bool:
        """Whether the stager in use reads ahead."""
        stager = self._stagers[self._level]
        return isinstance(stager, ReadsAhead) and stager.reads_ahead

    def read_ahead(self, look: Look) -> None:
        """Let the stager in use read what the look at the next page begins with."""
        stager = self._stagers[self._level]
        if isinstance(stager, ReadsAhead):
            stager.read_ahead(look)

    def close(self) -> None:
        """Close every stager."""
        for stager in self._stagers:
            stager.close()

    def _stand_on(self, provider: str, why: str) -> None:
        if provider != self._provider:
            step = FallbackStep(self._provider, provider, why or f"{provider} can judge")
            first, self._provider = not self._provider, provider
            if not first or why:
                self._on_step(step)
