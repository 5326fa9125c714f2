"""What every stager is: pictures in, opinions out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from hypnocast.core.types import FloatArray, Look, Opinion, Stage
from hypnocast.stagers.pace import Pace


@dataclass(frozen=True, slots=True, eq=False)
class ModelOutput:
    """What a model reads from one look: an opinion that does not know yet who computed it."""

    log_probabilities: FloatArray
    rationale: str | None = None
    rules: tuple[str, ...] | None = None
    carried: bytes | None = None


class Stager(Protocol):
    """Judges looks at pages, several beds at once.

    ``judge`` is called from one thread at a time, never from the event loop. It returns one
    opinion for each look, in order, or raises :class:`hypnocast.errors.InferenceError`.
    """

    @property
    def provider(self) -> str:
        """What computes: ``cpu``, ``cuda``, ``tensorrt`` or ``remote:host``."""
        ...

    @property
    def pace(self) -> Pace:
        """How fast it works; beats while it does."""
        ...

    def judge(self, looks: Sequence[Look]) -> list[Opinion]:
        """Give an opinion on each look."""
        ...

    def close(self) -> None:
        """Let go of memory, devices and connections."""
        ...


@runtime_checkable
class ReadsAhead(Protocol):
    """A stager that can read, while nobody waits, what the look at the next page begins with."""

    @property
    def reads_ahead(self) -> bool:
        """Whether that would save the next look any time."""
        ...

    def read_ahead(self, look: Look) -> None:
        """Read what the first look at the page after this look's begins with."""
        ...


@runtime_checkable
class GivesReasons(Protocol):
    """A stager that can write why a page has a stage, after the stage was published."""

    def reasons(self, look: Look, stage: Stage, go_on: Callable[[], bool]) -> Opinion:
        """Give the opinion on a look with the reasons for a stage.

        ``go_on`` is asked before each word: once it is False, :class:`TooLateError` is raised.
        """
        ...
