"""A stager at whose gate looks wait, so that a test sees in which order they are judged."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from hypnocast.core.types import Look, Opinion
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.pace import Pace
from support.packs import tiny_picture

PATIENCE_S = 20.0


class Gated:
    """A real stager that holds what it is shown until its gate opens, and remembers it."""

    def __init__(self, stager: LocalStager) -> None:
        self._stager = stager
        self.batches: list[list[int]] = []
        """The epochs of each batch."""
        self.gate = threading.Event()
        self.reached = threading.Event()

    @property
    def provider(self) -> str:
        """What it computes on."""
        return self._stager.provider

    @property
    def pace(self) -> Pace:
        """How fast it works."""
        return self._stager.pace

    def judge(self, looks: Sequence[Look]) -> list[Opinion]:
        """Wait at the gate, then judge."""
        self.batches.append([look.page.epoch for look in looks])
        self.reached.set()
        self.gate.wait(PATIENCE_S)
        return self._stager.judge(looks)

    def close(self) -> None:
        """Let the stager go."""
        self._stager.close()


def a_look(epoch: int) -> Look:
    """Return a look at one page alone."""
    return Look((tiny_picture(epoch, 0),), 0)
