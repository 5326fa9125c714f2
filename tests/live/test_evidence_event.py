"""Where the lab wants it, every event holds what was measured on the signal."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from hypnocast.config.tables import Config, PackTable, PublishTable
from hypnocast.core.types import Stage
from hypnocast.nights.replay import Replayed, ReplaySettings, replay
from hypnocast.ports.recordings.tape import Tape
from hypnocast.simulate import SimulatedSource
from support.packs import make_tiny_pack

STAGES = [Stage.N2, Stage.N2, Stage.N3, Stage.N3, Stage.N3]


def staged(tmp_path: Path, config: Config) -> Replayed:
    tape = Tape(tmp_path, "night", facts={"bed": "bed"}, max_bytes=10**9)
    for _, arrival in SimulatedSource(("bed",), seed=2, stages=STAGES, truth=False):
        tape.write(arrival)
    tape.close()
    replayed = Replayed()
    asyncio.run(replay(config, ReplaySettings(tape.path), watchers=(replayed,)))
    return replayed


def test_evidence_is_in_every_event_where_the_lab_wants_it_and_nowhere_else(
    tmp_path: Path,
) -> None:
    pack = PackTable(name=str(make_tiny_pack(tmp_path / "pack")))
    wanting = Config(pack=pack, publish=PublishTable(evidence=True))
    events = staged(tmp_path / "a", wanting).events
    shares = [event.evidence.slow_wave_share for event in events if event.evidence is not None]
    assert len(shares) == len(STAGES)
    light, deep = shares[0], shares[-1]
    assert light is not None
    assert deep is not None
    assert deep > light
    without = staged(tmp_path / "b", msgspec.structs.replace(wanting, publish=PublishTable()))
    assert [event.evidence for event in without.events] == [None] * len(STAGES)
    assert [event.stage for event in without.events] == [event.stage for event in events]
