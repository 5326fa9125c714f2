"""What each page's stage rests on, published unasked: on its topic, and never before a verdict."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import jsonschema
import pytest

from browser.ward_topics import Scene
from hypnocast.core.types import PAGE_S
from hypnocast.core.wire import payloads
from hypnocast.core.wire.schema import json_schemas
from hypnocast.core.wire.topics import Topics
from hypnocast.errors import CommandError
from hypnocast.live.explaining.published_explanations import PublishedExplanations
from hypnocast.live.staging.judging import Judge
from hypnocast.simulate import SimulatedSource
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.packs.pack import load_pack
from support.brokers import Mosquitto
from support.gated_stager import Gated, a_look
from support.mqtt_lab import listening, until
from support.ward_lab import HandDriven, night, running_ward

BED = "bed-01"
CLOCK_0 = 1000.0
PAGES = 5
TOPIC = Topics("lab").explanation(BED)


@pytest.fixture
def source() -> HandDriven:
    return HandDriven(night(SimulatedSource([BED], seed=5, pages=PAGES, truth=False)))


async def test_every_staged_page_is_explained_on_its_own_topic(
    tmp_path: Path, pack: Path, broker: Mosquitto, source: HandDriven
) -> None:
    async with (
        listening(broker.port) as listener,
        running_ward(tmp_path, pack, source, broker.port, explain="channels") as running,
    ):
        for page in range(1, PAGES):
            events = await running.go_to(CLOCK_0 + page * PAGE_S + 5.0, BED, page)
            await running.until(lambda: len(listener.json_of(TOPIC)) >= page, "the explanation")  # noqa: B023  (waited for at once)
        found = listener.json_of(TOPIC)
        state = running.ward.state()
    for one in found:
        jsonschema.validate(one, json_schemas()["explanation"])
    assert [one["event"] for one in found] == [event.id for event in events]
    assert [one["stage"] for one in found] == [event.stage for event in events]
    assert {tuple(one["channels"]) for one in found} == {tuple(found[0]["channels"])}
    assert len(found[0]["channels"]) == 6
    assert state.counters["explained"] == len(found)
    assert "explanations_shed" not in state.counters


async def test_an_explanation_does_not_outlive_its_night(
    tmp_path: Path, pack: Path, broker: Mosquitto, source: HandDriven
) -> None:
    async with (
        listening(broker.port) as listener,
        running_ward(tmp_path, pack, source, broker.port, explain="channels") as running,
    ):
        events = await running.go_to(CLOCK_0 + PAGE_S + 5.0, BED, 1)
        await running.until(lambda: listener.json_of(TOPIC), "the explanation")
        end = json.dumps({"command": "end_session", "request": "1", "session": events[0].session})
        listener.publish(Topics("lab").command(BED), end.encode())
        await running.until(lambda: listener.of(TOPIC)[-1] == b"", "the cleared topic")


class SlowExplainer:
    """Explains a page when it may, and remembers which."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.may = asyncio.Event()

    async def explain(self, event: payloads.StageEvent) -> payloads.Explanation:
        self.begun.append(f"{event.bed}/{event.epoch}")
        await self.may.wait()
        if event.epoch == 4:
            raise CommandError("the picture is not kept", where=event.bed)
        return payloads.Explanation(
            epoch=event.epoch,
            stage="W",
            sentence="",
            probability=1.0,
            channels={},
            alone={},
            patches=None,
        )


class ShownExplanations:
    """A bed's publisher, as far as explanations go."""

    def __init__(self) -> None:
        self.shown: list[int | None] = []

    def explained(self, found: payloads.Explained | None) -> None:
        self.shown.append(None if found is None else found.epoch)


async def test_of_each_bed_only_the_newest_page_waits_and_what_gives_way_is_counted() -> None:
    slow = SlowExplainer()
    publishers = {"1": ShownExplanations(), "2": ShownExplanations()}
    explanations_out = PublishedExplanations(slow.explain)
    running = asyncio.create_task(explanations_out.run(publishers))
    scenes = {bed: Scene(bed, 11, 9, 0.0) for bed in publishers}
    explanations_out.event(scenes["1"].event(0))
    await until(lambda: slow.begun)
    for bed, epoch in (("1", 1), ("2", 1), ("1", 2), ("1", 3), ("2", 4)):
        explanations_out.event(scenes[bed].event(epoch))
    slow.may.set()
    await until(lambda: len(publishers["1"].shown) == 4 and len(publishers["2"].shown) == 2)
    assert slow.begun == ["1/0", "1/3", "2/4"]
    assert sorted(publishers["1"].shown, key=str) == [0, 3, None, None]
    assert publishers["2"].shown == [None, None]
    running.cancel()


async def test_explanations_are_judged_last_and_never_along_with_pages(pack: Path) -> None:
    stager = Gated(LocalStager(load_pack(pack), "cpu"))
    judge = Judge(lambda: stager)
    await judge.start()
    try:
        studies = [judge.study(a_look(100))]
        await asyncio.to_thread(stager.reached.wait, 10.0)
        studies += [judge.study(a_look(101 + n)) for n in range(9)]
        glances = [judge.glance(a_look(50 + n)) for n in range(3)]
        pages = [judge.ask(a_look(n), urgent=n % 2 == 0) for n in range(6)]
        stager.gate.set()
        await asyncio.gather(*studies, *glances, *pages)
    finally:
        judge.stop()
    kinds = [{epoch // 50 for epoch in batch} for batch in stager.batches]
    assert kinds == [{2}, {0}, {1}, {2}, {2}, {2}]
    assert stager.batches[1] == [0, 2, 4, 1, 3, 5]
    assert all(len(batch) <= 4 for batch in stager.batches[2:])
