"""Position and impedance of a stream, in the status of its bed, with the time since when."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import numpy as np

from hypnocast.core.types import ChannelInfo, Chunk, StreamHeader, StreamOpened
from hypnocast.core.wire.schema import json_schemas
from hypnocast.simulate import SimulatedSource
from support.brokers import Mosquitto
from support.mqtt_lab import listening, until
from support.ward_lab import Coming, HandDriven, night, running_ward

BED = "bed-01"
CLOCK_0 = 1000.0
STATUS = f"hypnocast/lab/bed/{BED}/status"
GEAR = StreamHeader(
    "gear", "gear", "Gear", "gear-1", "uid-gear", "pc", 1.0,
    (ChannelInfo("Position", None, "Position"), ChannelInfo("C4-M1", "kOhm", "Impedance")),
)  # fmt: skip


def turns_at(second: float) -> list[Coming]:
    """A sleeper who turns over; the impedance under C4 stays."""
    coming: list[Coming] = [(CLOCK_0 + 1.0, BED, StreamOpened(GEAR, CLOCK_0 + 1.0))]
    for after in range(2, 40):
        at = CLOCK_0 + after
        values = np.array([[1.0 if after < second else 3.0, 4.21]])
        coming.append((at, BED, Chunk("gear", values, np.array([at]), at)))
    return coming


async def test_position_and_impedance_are_in_the_status_and_fill_no_role(
    tmp_path: Path, pack: Path, broker: Mosquitto
) -> None:
    sleeper = night(SimulatedSource([BED], seed=7, pages=2, skip_pages=60, truth=False))
    coming = sorted(sleeper + turns_at(20.0), key=lambda one: one[0])
    async with (
        listening(broker.port) as listener,
        running_ward(tmp_path, pack, HandDriven(coming), broker.port) as running,
    ):
        running.source.go_to(CLOCK_0 + 12.0)

        def gear() -> list[tuple[str, str, float, str | None]]:
            shown = [status for status in listener.json_of(STATUS) if status["gear"]]
            found = shown[-1]["gear"] if shown else []
            return [(one["kind"], one["channel"], one["value"], one["unit"]) for one in found]

        impedance = ("impedance", "C4-M1", 4.2, "kOhm")
        await until(lambda: gear() == [("position", "Position", 1.0, None), impedance], "both")
        before = listener.json_of(STATUS)[-1]
        running.source.go_to(CLOCK_0 + 30.0)
        await until(lambda: gear() == [("position", "Position", 3.0, None), impedance], "the turn")
        after = listener.json_of(STATUS)[-1]
        await running.go_to(CLOCK_0 + 38.0, BED, 1)
    for status in (before, after):
        jsonschema.validate(status, json_schemas()["status"])
    assert after["gear"][0]["since"] > before["gear"][0]["since"]
    assert after["gear"][1]["since"] == before["gear"][1]["since"]
    (event,) = listener.json_of(f"hypnocast/lab/bed/{BED}/events")[:1]
    assert event["status"] == "final"
    assert after["channels"]["C4-M1"]["derivation"] == "C4-M1"
    assert after["channels"]["C4-M1"]["unit"] != "kOhm"
