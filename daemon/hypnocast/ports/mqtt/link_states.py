"""How the link to the broker is, and what the log says of it."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from hypnocast.ports.mqtt.client import Protocol

_log = structlog.get_logger("mqtt")


@dataclass(frozen=True, slots=True)
class Connecting:
    """A connection is being made."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker has accepted us."""

    protocol: Protocol


@dataclass(frozen=True, slots=True)
class RefusedByBroker:
    """The broker answered with a refusal; tried again after ``seconds``."""

    why: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """There is no broker, or no longer; tried again after ``seconds``."""

    why: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Closed:
    """Not begun yet, or over."""


LinkState = Connecting | Connected | RefusedByBroker | Waiting | Closed


class StateLog:
    """Logs each change; what stands in the way is logged once, however often it is tried again."""

    def __init__(self) -> None:
        """Begin with nothing in the way."""
        self._trouble: str | None = None

    def add(self, state: LinkState) -> None:
        """Log a state, unless it only says the same again."""
        name = type(state).__name__.lower()
        if isinstance(state, RefusedByBroker | Waiting):
            if state.why != self._trouble:
                _log.warning("mqtt", state=name, why=state.why)
            self._trouble = state.why
        elif self._trouble is None or not isinstance(state, Connecting):
            _log.info("mqtt", state=name)
            self._trouble = None
