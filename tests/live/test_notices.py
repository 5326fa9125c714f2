"""Rules of the lab's own at a bed: published once, kept with the night, nothing twice."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import msgspec

from hypnocast.client import HypnocastClient
from hypnocast.config.tables import RuleTable
from hypnocast.core.types import PAGE_S
from hypnocast.core.wire.notices import Notice
from hypnocast.core.wire.payloads import Night
from hypnocast.ports.journal.reader import JournalReader
from hypnocast.simulate import SimulatedSource
from support.brokers import Mosquitto
from support.mqtt_lab import listening, until
from support.ward_lab import HandDriven, night, received_from, running_ward

BED = "bed-01"
CLOCK_0 = 1000.0
PAGES = 8
DOWN = CLOCK_0 + 3.5 * PAGE_S
"""The daemon is killed and back in the middle of page 3, which loses a second."""

RULES = [
    *(RuleTable(name=f"two of {stage}", stage=stage, pages=2) for stage in ("W", "N1", "N2")),
    *(RuleTable(name=f"two of {stage}", stage=stage, minutes=0.8) for stage in ("N3", "R")),
    RuleTable(name="elsewhere", stage="N2", pages=1, bed="bed-02"),
]


async def test_each_run_makes_one_notice_over_a_restart_on_the_topic_and_in_the_night(
    tmp_path: Path, pack: Path, broker: Mosquitto
) -> None:
    coming = night(SimulatedSource([BED], seed=7, pages=PAGES, skip_pages=60, truth=False))
    end = CLOCK_0 + (PAGES - 1) * PAGE_S + 5.0
    topic = f"hypnocast/lab/bed/{BED}/notice"
    client = HypnocastClient("127.0.0.1", broker.port)
    taken: list[Notice] = []

    async def take() -> None:
        async for notice in client.notices():
            taken.append(notice)  # noqa: PERF401 - it is read while it grows

    async with listening(broker.port) as listener, client:
        taking = asyncio.create_task(take())
        await until(lambda: client.link.connected, "the client is connected")
        first = HandDriven(coming)
        async with running_ward(tmp_path, pack, first, broker.port, rules=RULES) as running:
            before = await running.go_to(DOWN, BED, 3)
        again = HandDriven(received_from(coming, DOWN + 1.0))
        async with running_ward(tmp_path, pack, again, broker.port, rules=RULES) as running:
            after = await running.go_to(end, BED, PAGES - 1 - 3)
            events = before + after
            runs = [
                (stage, len(list(pages)))
                for stage, pages in itertools.groupby(event.stage for event in events)
            ]
            expected = [f"two of {stage}" for stage, length in runs if stage and length >= 2]
            assert expected, "the pack says another stage on every page"
            await until(lambda: len(taken) >= len(expected), "all notices")
        shown = msgspec.json.decode(listener.of(f"hypnocast/lab/bed/{BED}/night")[-1], type=Night)
        taking.cancel()
    assert [notice.rule for notice in taken] == expected
    said = [msgspec.json.decode(payload, type=Notice) for payload in listener.of(topic)]
    assert said == taken
    kept = [mark.text for mark in shown.marks if mark.kind == "notice"]
    assert kept == expected
    with JournalReader(tmp_path / "journal.sqlite") as reader:
        marks = [mark for mark in reader.marks(events[0].session) if mark.kind == "notice"]
    assert [(mark.at, mark.text) for mark in marks] == [(one.end, one.rule) for one in taken]
    async with listening(broker.port) as late:
        await until(lambda: late.of(f"hypnocast/lab/bed/{BED}/night"), "the retained night")
        assert late.of(topic) == [], "whoever comes late must not act on a notice"
