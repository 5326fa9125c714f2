"""Models that fail in every way a model can."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from faults.life import Orders
from hypnocast.core.types import Look, Opinion
from hypnocast.errors import InferenceError
from hypnocast.stagers.base import Stager
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.pace import Pace
from hypnocast.stagers.packs.pack import load_pack


@dataclass
class Harmed:
    """A real stager to which harm is done before it judges."""

    stager: LocalStager
    harm: Callable[[Sequence[Look]], None]
    provider: str = "cpu"

    @property
    def pace(self) -> Pace:
        return self.stager.pace

    def judge(self, looks: Sequence[Look]) -> list[Opinion]:
        self.harm(looks)
        return self.stager.judge(looks)

    def close(self) -> None:
        self.stager.close()


def harmed(pack: str, harm: Callable[[Sequence[Look]], None]) -> Callable[[], Stager]:
    """Return what builds a stager to which harm is done."""
    return lambda: Harmed(LocalStager(load_pack(Path(pack)), "cpu", 1), harm)


def flaky(orders: Orders) -> Callable[[], Stager]:
    """Return what builds a stager that fails now and then."""
    chance = random.Random(orders.begins)

    def harm(_: Sequence[Look]) -> None:
        if chance.random() < orders.flaky:
            raise InferenceError("the provider failed", where="test")

    return harmed(orders.pack, harm)
