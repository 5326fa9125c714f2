"""Whole nights for tests of what people get in the morning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import msgspec
import numpy as np

from hypnocast.core.wire import payloads
from hypnocast.ports.journal.reader import NightRecord
from support.nights import a_session, an_event, instant

STAGES: tuple[payloads.StageName, ...] = get_args(payloads.StageName)
REASONS: tuple[payloads.ReasonName, ...] = get_args(payloads.ReasonName)


def a_night(
    stages: Sequence[payloads.StageName | None],
    *,
    name: str = "night",
    marks: Sequence[payloads.NightMark] = (),
    reasons: Sequence[payloads.ReasonName] = ("low_coverage",),
) -> NightRecord:
    """Return a night whose pages have these stages; None is withheld, for the reasons in turn."""
    events = []
    for epoch, stage in enumerate(stages):
        reason = None if stage is not None else reasons[epoch % len(reasons)]
        event = an_event(epoch, session=name, stage=stage, reason=reason)
        events.append(msgspec.structs.replace(event, sequence=epoch + 1))
    session = replace(
        a_session(name=name), ended=instant(30.0 * len(stages)), phase="ended", subject="S-001"
    )
    return NightRecord(session, tuple(events), tuple(marks), (), ())


def random_stages(rng: np.random.Generator, pages: int) -> list[payloads.StageName | None]:
    """Return stages that come in stretches, some of them withheld."""
    stages: list[payloads.StageName | None] = []
    while len(stages) < pages:
        choice = int(rng.integers(-1, len(STAGES)))
        stage = None if choice < 0 else STAGES[choice]
        stages += [stage] * int(rng.integers(1, 40))
    return stages[:pages]


def random_nights(count: int, seed: int = 0) -> list[NightRecord]:
    """Return random nights, the first four: empty, one page, all withheld, never asleep."""
    rng = np.random.default_rng(seed)
    wholes: list[list[payloads.StageName | None]] = [[], ["N2"], [None] * 30, ["W"] * 40]
    wholes += [random_stages(rng, int(rng.integers(1, 1100))) for _ in range(count - 4)]
    nights = []
    for number, stages in enumerate(wholes):
        length = 30.0 * len(stages)
        off, on = sorted(rng.uniform(0.0, max(length, 1.0), 2))
        marked = (
            payloads.NightMark(at=instant(off), kind="lights_off", text=""),
            payloads.NightMark(at=instant(on), kind="lights_on", text=""),
            payloads.NightMark(
                at=instant(on), kind="note", text="Sleep stage W, said Jürgen\n\x14"
            ),
        )
        marks = marked if number % 3 else ()
        nights.append(a_night(stages, name=f"night-{number}", marks=marks, reasons=REASONS))
    return nights
