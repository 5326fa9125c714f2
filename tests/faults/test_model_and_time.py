"""Models that fail, clocks that are set, streams that misbehave: withheld where bad, never lost."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from faults.checker import Truth, check_night
from faults.life import ORIGIN, UTC0, Alive, Orders, a_ward, is_bad
from faults.models import harmed
from faults.witness import witness
from hypnocast.config.tables import Config, PackTable
from hypnocast.core.timing.utc import UtcAnchor
from hypnocast.core.types import Look
from hypnocast.core.wire.topics import Topics
from hypnocast.errors import InferenceError
from hypnocast.live.bed.sources import RecordedSource
from hypnocast.live.service.build import JOURNAL, make_parts, open_pack, pipeline_maker
from hypnocast.live.service.ward import Ward, WardParts
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.mqtt.settings import BrokerSettings
from hypnocast.simulate import SimulatedSource
from support.brokers import running_mosquitto
from support.mqtt_lab import until

PAGES = 40
ENDS = ORIGIN + 30.0 * PAGES


def truth() -> Truth:
    return Truth((UTC0,), UTC0 + ENDS - ORIGIN, lambda at: not is_bad(ORIGIN + at - UTC0))


def raises(error: Exception) -> Callable[[Sequence[Look]], None]:
    """Fail on pages 10 to 19."""

    def harm(looks: Sequence[Look]) -> None:
        if any(10 <= look.page.epoch < 20 for look in looks):
            raise error

    return harm


@pytest.mark.promise(1)
@pytest.mark.promise(7)
@pytest.mark.parametrize(
    "error",
    [InferenceError("the provider failed"), RuntimeError("CUDA error 700"), MemoryError()],
    ids=["provider", "driver", "memory"],
)
async def test_pages_a_model_fails_on_are_withheld_and_the_next_are_staged(
    tmp_path: Path, pack: Path, error: Exception
) -> None:
    state = tmp_path / "state"
    orders = Orders(
        state=str(state), pack=str(pack), port=1, begins=ORIGIN, until=ENDS, pace_s=0.005
    )
    async with a_ward(orders, build=harmed(str(pack), raises(error))) as alive:
        await alive.ward.run()
        counts = alive.ward.publishers["bed1"].counts
    found = check_night([state / JOURNAL], None, "bed1", truth())
    assert found.whole, found
    assert found.terminal == found.expected == PAGES
    assert counts["withheld_no_model"] >= 8
    assert counts["final"] >= 20


@pytest.mark.promise(1)
async def test_stopped_in_the_middle_of_an_inference_nothing_is_lost(
    tmp_path: Path, pack: Path
) -> None:
    def slow(_: Sequence[Look]) -> None:
        time.sleep(0.2)

    state = tmp_path / "state"
    orders = Orders(state=str(state), pack=str(pack), port=1, begins=ORIGIN, pace_s=0.005)
    reached = ORIGIN
    for _ in range(3):
        now = Orders(**{**orders.__dict__, "begins": reached})
        async with a_ward(now, build=harmed(str(pack), slow)) as alive:
            ward = asyncio.create_task(alive.ward.run())
            await until(lambda: alive.parts.judge.state().busy_s > 0.0, "an inference runs")
            alive.ward.stop()
            await ward
            reached = alive.source.now()
    ends = reached + 300.0
    last = Orders(**{**orders.__dict__, "begins": reached, "until": ends})
    async with a_ward(last) as alive:
        await alive.ward.run()
    whole = Truth((UTC0,), UTC0 + ends - ORIGIN, truth().good)
    found = check_night([state / JOURNAL], None, "bed1", whole)
    assert found.whole, found


@pytest.mark.promise(1)
async def test_a_hosts_clock_set_by_an_hour_moves_no_page(tmp_path: Path, pack: Path) -> None:
    state = tmp_path / "state"
    orders = Orders(
        state=str(state), pack=str(pack), port=1, begins=ORIGIN, until=ENDS, pace_s=0.01
    )

    async def set_clock(alive: Alive) -> None:
        for hours, pages in ((1, 5), (-1, 15), (0, 25)):
            await until(lambda: alive.ward.signal_thread.pages["bed1"] >= pages)  # noqa: B023
            shift = 3600.0 * hours
            alive.source.utc_of = lambda local: UTC0 + (local - ORIGIN) + shift  # type: ignore[method-assign]  # noqa: B023

    async with a_ward(orders) as alive:
        await asyncio.gather(alive.ward.run(), set_clock(alive))
    found = check_night([state / JOURNAL], None, "bed1", truth())
    assert found.whole, found
    assert found.terminal == PAGES


@pytest.mark.promise(8)
async def test_every_event_names_what_it_was_made_by_and_from(tmp_path: Path, pack: Path) -> None:
    orders = Orders(str(tmp_path / "state"), str(pack), 1, ORIGIN, until=ORIGIN + 300.0)
    async with a_ward(orders) as alive:
        await alive.ward.run()
        rows = await alive.journal.events("bed1")
    manifest = hashlib.sha256((pack / "pack.toml").read_bytes()).hexdigest()
    events = [json.loads(row.payload) for row in rows]
    assert len({event["digests"]["picture"] for event in events if event["stage"]}) == 9
    for event in events:
        assert event["source"] == "live"
        assert event["digests"]["pack"] == f"sha256:{manifest}"
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", event["digests"]["recipe"])
        assert event["channels"]["F4-M1"] == "F4-M1"
        assert set(event["quality"]["F4-M1"]) == {"coverage", "flags"}
        timing = event["timing"]
        assert timing["journaled"] >= timing["drawn"] >= timing["closed"]
        if event["status"] == "final":
            assert re.fullmatch(r"sha256:[0-9a-f]{64}", event["digests"]["picture"])
            assert event["provider"] == "cpu"
        else:
            assert (event["digests"]["picture"], event["reason"]) == (None, "low_coverage")


FAULTS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "clean": ("", lambda _: True),
    "gone": ("silent@95+40", lambda at: not 95 <= at < 135),
    "same": ("restart:same@95+5", lambda at: not 95 <= at < 100),
    "new": ("restart:new@95+5", lambda at: not 95 <= at < 100),
    "holes": ("dropout@95+20", lambda at: not 95 <= at < 115),
    "nan": ("nan@90+60", lambda at: not 90 <= at < 150),
    "flood": ("flood@95+10", lambda _: True),
    "late": ("late@95+20", lambda _: True),
    "drift": ("drift:200ppm", lambda _: True),
    "step": ("step:+3600@120", lambda _: True),
    "loose": ("detached:F4@90+60", lambda _: True),
}
"""Bed → what is wrong there, and when its samples were good, in seconds of the night."""


@pytest.mark.promise(1)
@pytest.mark.promise(3)
async def test_whatever_streams_do_every_page_has_one_end_and_none_a_stage_on_bad_data(
    tmp_path: Path, pack: Path
) -> None:
    pages = 9
    faults = [f"bed-{n:02d}/{text}" for n, (text, _) in enumerate(FAULTS.values(), 1) if text]
    sim = SimulatedSource(len(FAULTS), seed=5, pages=pages, faults=faults, truth=False)
    config = Config(pack=PackTable(name=str(pack)))
    loaded = open_pack(config)
    source = RecordedSource(iter(sim), UtcAnchor(sim.clock_start, UTC0), "simulated")
    with running_mosquitto(tmp_path) as broker, witness(broker.port) as listener:
        async with Journal.open(tmp_path / "state" / JOURNAL) as journal:
            ward = Ward(
                WardParts(
                    source=source,
                    pack=loaded,
                    parts=make_parts(config, loaded, journal, live=False, on_step=lambda _: None),
                    topics=Topics("lab"),
                    node="node1",
                    broker=BrokerSettings(port=broker.port),
                    make_pipeline=pipeline_maker(config, loaded, source, boot_id="1", auto=True),
                )
            )
            await ward.run()
        for number, (name, (_, good)) in enumerate(FAULTS.items(), 1):
            bed = f"bed-{number:02d}"
            want = Truth((UTC0,), UTC0 + 30.0 * pages, lambda at: good(at - UTC0))  # noqa: B023
            found = check_night([tmp_path / "state" / JOURNAL], listener.events(bed), bed, want)
            assert found.whole, (name, found)
            assert found.final >= 5, (name, found)
