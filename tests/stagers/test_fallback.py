"""Degrading in the open: remote, local, none; and back up again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from hypnocast.core.types import Look, Opinion
from hypnocast.errors import InferenceError
from hypnocast.stagers.fallback import RETRY_AFTER_S, FallbackStager, FallbackStep
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.packs.pack import load_pack
from support.packs import make_tiny_pack, tiny_picture

LOOKS = [Look((tiny_picture(4, seed=1),))]


class FarAway:
    """A real local stager at the end of a line that can be cut."""

    def __init__(self, stager: LocalStager) -> None:
        self._stager = stager
        self.cut = False
        self.asked = 0
        self.provider = "remote:bench"
        self.pace = stager.pace

    def judge(self, looks: Sequence[Look]) -> list[Opinion]:
        self.asked += 1
        if self.cut:
            raise InferenceError("connection refused", where="remote:bench")
        return self._stager.judge(looks)

    def close(self) -> None:
        self._stager.close()


def test_each_step_down_and_up_is_reported_and_no_page_waits(tmp_path: Path) -> None:
    pack = load_pack(make_tiny_pack(tmp_path / "tiny"))
    far, near = FarAway(LocalStager(pack, "cpu")), LocalStager(pack, "cpu")
    steps: list[FallbackStep] = []
    now = 0.0
    stagers = FallbackStager([far, near], on_step=steps.append, clock=lambda: now)
    assert stagers.provider == "remote:bench"
    assert stagers.judge(LOOKS)[0].epoch == 4
    assert steps == []
    far.cut = True
    assert len(stagers.judge(LOOKS)) == 1
    assert stagers.provider == "cpu"
    asked = far.asked
    stagers.judge(LOOKS)
    assert far.asked == asked
    far.cut = False
    now += RETRY_AFTER_S
    stagers.judge(LOOKS)
    assert stagers.provider == "remote:bench"
    assert [(step.before, step.after) for step in steps] == [
        ("remote:bench", "cpu"),
        ("cpu", "remote:bench"),
    ]
    assert "connection refused" in steps[0].why
    near.close()
    far.cut = True
    with pytest.raises(InferenceError, match=r"refused.*closed"):
        stagers.judge(LOOKS)
    assert stagers.provider == steps[-1].after == "none"
    far.cut = False
    now += RETRY_AFTER_S
    stagers.judge(LOOKS)
    assert stagers.provider == "remote:bench"
    stagers.close()
