"""Reasons that a model writes behind a stage: published later, given up where a page comes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from hypnocast.core.types import PAGE_S, Look, Opinion, Stage
from hypnocast.core.wire.schema import json_schemas
from hypnocast.core.wire.topics import Topics
from hypnocast.errors import TooLateError
from hypnocast.live.staging.judging import Judge
from hypnocast.simulate import SimulatedSource
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.packs.pack import load_pack
from support.brokers import Mosquitto
from support.gated_stager import Gated, a_look
from support.mqtt_lab import listening, until
from support.needs import need_module
from support.ward_lab import HandDriven, night, running_ward

BED = "bed-01"
CLOCK_0 = 1000.0
TOPIC = Topics("lab").explanation(BED)


@pytest.fixture(scope="module")
def stage_first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model that names the stage first and writes its reasons behind it."""
    for name in ("torch", "transformers", "onnx", "onnxruntime", "ml_dtypes"):
        need_module(name)
    from hypnocast_models.export.asking import ask_stage_first
    from support.small_models import small_pack

    folder = tmp_path_factory.mktemp("stage-first")
    return small_pack(folder, "smolvlm", ask=ask_stage_first).folder


@pytest.fixture
def source() -> HandDriven:
    return HandDriven(night(SimulatedSource([BED], seed=5, pages=3, truth=False)))


async def test_a_stage_is_published_first_and_its_reasons_on_a_topic_of_their_own(
    tmp_path: Path, stage_first: Path, broker: Mosquitto, source: HandDriven
) -> None:
    async with (
        listening(broker.port) as listener,
        running_ward(tmp_path, stage_first, source, broker.port) as running,
    ):
        (event,) = await running.go_to(CLOCK_0 + PAGE_S + 5.0, BED, 1)
        await running.until(lambda: listener.json_of(TOPIC), "the reasons")
        (reasons,) = listener.json_of(TOPIC)
        state = running.ward.state()
    assert (event.status, event.rationale) == ("final", None)
    jsonschema.validate(reasons, json_schemas()["explanation"])
    assert (reasons["event"], reasons["stage"]) == (event.id, event.stage)
    assert reasons["rationale"] == reasons["sentence"]
    assert reasons["channels"] == {}
    assert state.counters["explained"] == 1


class Writing(Gated):
    """A real stager that writes reasons word after word until it is published to stop."""

    def __init__(self, stager: LocalStager) -> None:
        super().__init__(stager)
        self.gate.set()
        self.writes = threading.Event()

    def reasons(self, look: Look, stage: Stage, go_on: Callable[[], bool]) -> Opinion:
        """Write until a page comes."""
        while go_on():
            self.writes.set()
        raise TooLateError("pages wait for their stage", where=f"{look.page.epoch} {stage}")


async def test_reasons_are_given_up_for_a_page_that_comes(pack: Path) -> None:
    stager = Writing(LocalStager(load_pack(pack), "cpu"))
    judge = Judge(lambda: stager)
    await judge.start()
    try:
        reasons = judge.reasons(a_look(7), Stage.N2)
        assert await asyncio.to_thread(stager.writes.wait, 10.0)
        assert (await judge.ask(a_look(8))).epoch == 8
        with pytest.raises(TooLateError):
            await reasons
    finally:
        judge.stop()


class Ahead(Writing):
    """One that notes when it is asked to read ahead."""

    reads_ahead = True

    def __init__(self, stager: LocalStager) -> None:
        super().__init__(stager)
        self.done: list[str] = []

    def reasons(self, look: Look, stage: Stage, go_on: Callable[[], bool]) -> Opinion:
        """Note it; nothing is written."""
        self.done.append(f"reasons {look.page.epoch} {stage} {go_on()}")
        return self._stager.judge([look])[0]

    def read_ahead(self, look: Look) -> None:
        """Note it."""
        self.done.append(f"ahead {look.page.epoch}")
        if look.page.epoch == 2:
            raise RuntimeError("a model may raise anything")


async def test_a_model_reads_ahead_once_no_page_waits_and_before_it_writes(pack: Path) -> None:
    stager = Ahead(LocalStager(load_pack(pack), "cpu"))
    judge = Judge(lambda: stager)
    await judge.start()
    try:
        assert judge.reads_ahead
        stager.gate.clear()
        page = judge.ask(a_look(1))
        await asyncio.to_thread(stager.reached.wait, 10.0)
        reasons = judge.reasons(a_look(1), Stage.N2)
        judge.read_ahead(a_look(1))
        judge.read_ahead(a_look(2))
        following = judge.ask(a_look(3))
        stager.gate.set()
        await asyncio.gather(page, following, reasons)
        await until(lambda: judge.idle, "all is done")
        assert stager.batches == [[1], [3]]
        assert stager.done == ["ahead 1", "ahead 2", "reasons 1 N2 True"]
        assert (judge.state().judged, judge.state().failed) == (3, 0)
    finally:
        judge.stop()
