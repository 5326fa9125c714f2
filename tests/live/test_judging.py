"""What becomes of pages when the model is late, hangs, fails, or waits for the next page."""

from __future__ import annotations

import asyncio
import gc
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from hypnocast.core.types import PAGE_S, Look, Opinion
from hypnocast.core.wire import commands, payloads
from hypnocast.errors import InferenceError
from hypnocast.live.staging import judging
from hypnocast.live.staging.judging import Judge
from hypnocast.simulate import SimulatedSource
from hypnocast.stagers.base import Stager
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.pace import Pace
from hypnocast.stagers.packs.manifest import Calibration, Context, HiddenMarkov
from hypnocast.stagers.packs.pack import load_pack, read_manifest
from support.brokers import Mosquitto
from support.packs import make_tiny_pack, tiny_picture, write_manifest
from support.ward_lab import (
    Coming,
    HandDriven,
    night,
    received_from,
    running_ward,
    shifted,
    unheard,
)

BEDS = ("bed-01", "bed-02")
CLOCK_0 = 1000.0
PAGES = 7
END = CLOCK_0 + PAGES * PAGE_S - 20.0


class Moody:
    """A real stager in front of which something happens for some looks."""

    def __init__(self, stager: Stager, before: Callable[[Look], None]) -> None:
        self._stager = stager
        self._before = before
        self.looks: list[Look] = []

    @property
    def provider(self) -> str:
        return self._stager.provider

    @property
    def pace(self) -> Pace:
        return self._stager.pace

    def judge(self, looks: Sequence[Look]) -> list[Opinion]:
        self.looks += looks
        for look in looks:
            self._before(look)
        return self._stager.judge(looks)

    def close(self) -> None:
        self._stager.close()


@pytest.fixture(scope="module")
def forward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack that looks at the page after, too."""
    folder = tmp_path_factory.mktemp("forward") / "tiny"
    return make_tiny_pack(folder, context=Context(before=1, after=1))


@pytest.fixture(scope="module")
def coming() -> list[Coming]:
    """Two beds; the second is on the first one's clock, 10 s later."""
    found = night(SimulatedSource(BEDS, seed=3, pages=PAGES, skip_pages=60, truth=False))
    later = shifted([one for one in found if one[1] == BEDS[1]], 10.0)
    return sorted([*(one for one in found if one[1] == BEDS[0]), *later], key=lambda one: one[0])


@pytest.fixture
def hold() -> Iterator[threading.Event]:
    """What a model hangs on; let go at the end, so that no thread stays."""
    event = threading.Event()
    yield event
    event.set()


def _reasons(events: Sequence[payloads.StageEvent]) -> list[str | None]:
    return [event.reason for event in events]


@pytest.mark.promise(7)
async def test_a_model_that_hangs_costs_its_page_and_is_built_anew(
    tmp_path: Path, pack: Path, broker: Mosquitto, coming: list[Coming], hold: threading.Event
) -> None:
    loaded, built = load_pack(pack), 0

    def build() -> Stager:
        nonlocal built
        built += 1
        hangs = built == 1

        def wait(look: Look) -> None:
            if hangs and look.page.epoch == 2:
                hold.wait()

        return Moody(LocalStager(loaded), wait)

    judge = Judge(build, stuck_after_s=2.0)
    source = HandDriven(coming)
    async with running_ward(tmp_path, pack, source, broker.port, judge=judge) as running:
        await running.go_to(CLOCK_0 + 2 * PAGE_S + 20.0, BEDS[0], 2)
        # Bed 1 closes page 2, and the model hangs; bed 2 closes its own 10 s later.
        source.go_to(CLOCK_0 + 3 * PAGE_S + 5.0)
        await running.until(lambda: judge.state().busy_s > 0.0, "the hang")
        source.go_to(END)
        first = await running.pages(BEDS[0], 6)
        second = await running.pages(BEDS[1], 5)
        state = running.ward.state()
    assert _reasons(first) == [None, None, "no_model", None, None, None]
    assert _reasons(second) == [None] * 5
    assert built == 2
    assert state.counters["rebuilt"] == 1
    assert state.degraded == ()


@pytest.mark.promise(7)
async def test_a_page_whose_opinion_does_not_come_in_time_is_withheld_and_the_next_are_judged(
    tmp_path: Path, pack: Path, broker: Mosquitto, coming: list[Coming], hold: threading.Event
) -> None:
    loaded = load_pack(pack)

    def wait(look: Look) -> None:
        if look.page.epoch == 1:
            hold.wait(20.0)

    judge = Judge(lambda: Moody(LocalStager(loaded), wait), stuck_after_s=60.0)
    source = HandDriven([one for one in coming if one[1] == BEDS[0]])
    async with running_ward(
        tmp_path, pack, source, broker.port, judge=judge, deadline_s=2.0
    ) as running:
        events = await running.go_to(CLOCK_0 + 2 * PAGE_S + 5.0, BEDS[0], 2)
        assert _reasons(events) == [None, "too_late"]
        hold.set()
        await running.until(lambda: judge.state().busy_s == 0.0, "the late answer")
        events = await running.go_to(END, BEDS[0], 6)
    assert _reasons(events) == [None, "too_late", None, None, None, None]


async def test_a_model_that_fails_once_costs_that_page_only(
    tmp_path: Path, pack: Path, broker: Mosquitto, coming: list[Coming]
) -> None:
    loaded = load_pack(pack)

    def fail(look: Look) -> None:
        if look.page.epoch == 1:
            msg = "out of memory"
            raise MemoryError(msg)

    judge = Judge(lambda: Moody(LocalStager(loaded), fail))
    source = HandDriven([one for one in coming if one[1] == BEDS[0]])
    async with running_ward(tmp_path, pack, source, broker.port, judge=judge) as running:
        await running.go_to(CLOCK_0 + 2 * PAGE_S + 5.0, BEDS[0], 2)
        events = await running.go_to(END, BEDS[0], 6)
    assert _reasons(events) == [None, "no_model", None, None, None, None]


@pytest.mark.promise(7)
async def test_nobody_is_asked_what_nobody_waits_for_any_more(
    pack: Path, hold: threading.Event
) -> None:
    first = threading.Event()

    def wait(look: Look) -> None:
        if look.page.epoch == 0:
            first.set()
            hold.wait()

    moody = Moody(LocalStager(load_pack(pack)), wait)
    judge = Judge(lambda: moody)
    await judge.start()
    ask = [judge.ask(Look((tiny_picture(0, 0),)))]
    await asyncio.to_thread(first.wait)
    ask += [judge.ask(Look((tiny_picture(epoch, epoch),))) for epoch in (1, 2, 3)]
    for late in (1, 2):
        ask[late].cancel()
    hold.set()
    assert (await ask[3]).epoch == 3
    judge.stop()
    assert [look.page.epoch for look in moody.looks] == [0, 3]


async def test_a_recording_is_judged_several_pages_at_once_and_its_last_ones_do_not_wait_for_more(
    pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[list[int]] = []

    class Counting(Moody):
        def judge(self, looks: Sequence[Look]) -> list[Opinion]:
            batches.append([look.page.epoch for look in looks])
            return super().judge(looks)

    monkeypatch.setattr(judging, "GATHER_S", 60.0)
    judge = Judge(lambda: Counting(LocalStager(load_pack(pack)), lambda _: None), gather=4)
    await judge.start()
    ask = [judge.ask(Look((tiny_picture(epoch, epoch),))) for epoch in range(4)]
    await asyncio.gather(*ask)
    monkeypatch.setattr(judging, "GATHER_S", 0.05)
    assert (await judge.ask(Look((tiny_picture(4, 4),)))).epoch == 4
    judge.stop()
    assert batches == [[0, 1, 2, 3], [4]]


def _statuses(events: Sequence[payloads.StageEvent]) -> list[tuple[int, str]]:
    return [(event.epoch, event.status) for event in events]


@pytest.mark.promise(6)
async def test_a_pack_that_looks_ahead_says_provisional_then_terminal(
    tmp_path: Path, forward: Path, broker: Mosquitto, coming: list[Coming]
) -> None:
    # Page 3 loses its samples: page 2 has no page after it that could be looked at.
    bed = [one for one in coming if one[1] == BEDS[0]]
    since = CLOCK_0 + 3 * PAGE_S
    source = HandDriven(unheard(bed, since + 1.5, since + PAGE_S - 1.0))
    async with running_ward(tmp_path, forward, source, broker.port) as running:
        await running.go_to(END, BEDS[0], 5)
        await running.until(lambda: len(running.events) == 10, "a provisional page")
        session = running.events[0].session
        end = commands.EndSession(request="1", session=session)
        await running.ward.command_handler.obey(BEDS[0], end)
        await running.until(lambda: len(running.terminal(BEDS[0])) == 7, "the end")
        events = running.events
    assert _statuses(events) == [
        (0, "provisional"), (0, "final"),
        (1, "provisional"), (1, "final"),
        (2, "provisional"), (2, "final"),
        (3, "withheld"),
        (4, "provisional"), (4, "final"),
        (5, "provisional"), (5, "final"),
        (6, "withheld"),
    ]  # fmt: skip
    assert [event.revision for event in events] == [
        0 if event.status == "provisional" else 1 for event in events
    ]
    assert len({event.id for event in events}) == len(events)
    by_page = {(event.epoch, event.revision): event for event in events}
    for epoch in (2, 5):
        assert by_page[epoch, 1].probabilities == by_page[epoch, 0].probabilities
    for epoch in (0, 1, 4):
        assert by_page[epoch, 1].raw_probabilities != by_page[epoch, 0].raw_probabilities
    for epoch in (0, 1, 2, 4, 5):
        assert by_page[epoch, 1].digests == by_page[epoch, 0].digests


@pytest.mark.promise(6)
async def test_a_second_opinion_that_does_not_come_leaves_the_first(
    tmp_path: Path, forward: Path, broker: Mosquitto, coming: list[Coming], hold: threading.Event
) -> None:
    loaded = load_pack(forward)

    def wait(look: Look) -> None:
        if look.page.epoch == 1 and look.pictures[-1] is not None:
            hold.wait()

    judge = Judge(lambda: Moody(LocalStager(loaded), wait), stuck_after_s=2.0)
    source = HandDriven([one for one in coming if one[1] == BEDS[0]])
    async with running_ward(tmp_path, forward, source, broker.port, judge=judge) as running:
        await running.go_to(CLOCK_0 + 2 * PAGE_S + 5.0, BEDS[0], 1)
        await running.until(lambda: len(running.events) == 3, "a provisional page")
        events = await running.go_to(CLOCK_0 + 4 * PAGE_S + 5.0, BEDS[0], 3)
        first = next(e for e in running.events if (e.epoch, e.revision) == (1, 0))
    assert events[1].status == "final"
    assert events[1].probabilities == first.probabilities


async def test_a_page_that_makes_the_model_fail_does_not_cost_others_of_its_batch_theirs(
    pack: Path, hold: threading.Event
) -> None:
    first = threading.Event()

    def fail(look: Look) -> None:
        if look.page.epoch == 0:
            first.set()
            hold.wait()
        if look.page.epoch == 2:
            msg = "out of memory"
            raise MemoryError(msg)

    moody = Moody(LocalStager(load_pack(pack)), fail)
    judge = Judge(lambda: moody)
    await judge.start()
    ask = [judge.ask(Look((tiny_picture(0, 0),)))]
    await asyncio.to_thread(first.wait)
    ask += [judge.ask(Look((tiny_picture(epoch, epoch),))) for epoch in (1, 2, 3)]
    hold.set()
    answers = await asyncio.gather(*ask, return_exceptions=True)
    judge.stop()
    assert [answer.epoch for answer in answers if isinstance(answer, Opinion)] == [0, 1, 3]
    assert isinstance(answers[2], InferenceError)
    state = judge.state()
    assert (state.judged, state.failed) == (3, 1)


@pytest.mark.promise(6)
async def test_a_page_without_a_first_opinion_is_terminal_whatever_the_second_would_have_been(
    tmp_path: Path, forward: Path, broker: Mosquitto, coming: list[Coming]
) -> None:
    loaded = load_pack(forward)

    def fail(look: Look) -> None:
        if look.page.epoch == 1:
            msg = "out of memory"
            raise MemoryError(msg)

    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
    judge = Judge(lambda: Moody(LocalStager(loaded), fail))
    source = HandDriven([one for one in coming if one[1] == BEDS[0]])
    async with running_ward(tmp_path, forward, source, broker.port, judge=judge) as running:
        for page in range(1, 5):
            source.go_to(CLOCK_0 + page * PAGE_S + 5.0)
            await running.until(lambda: running.ward.worker_of(BEDS[0]).done > page, "the page")  # noqa: B023  (waited for at once)
        await running.pages(BEDS[0], 3)
        events = running.events
    gc.collect()
    assert complaints == []
    assert _statuses(events)[:4] == [
        (0, "provisional"), (0, "final"), (1, "withheld"), (2, "provisional"),
    ]  # fmt: skip


def _dreamy(pack: Path, folder: Path) -> Path:
    shutil.copytree(pack, folder)
    dream = (0.0, 0.0, 0.0, 0.0, 1.0)
    sequence = HiddenMarkov(transitions=(dream,) * 5, initial=dream)
    calibration = Calibration(prior=(0.2,) * 5, sequence=sequence)
    changed = msgspec.structs.replace(read_manifest(pack), calibration=calibration)
    return write_manifest(folder, changed)


@pytest.mark.promise(6)
async def test_a_page_that_was_provisional_when_the_daemon_went_down_becomes_terminal(
    tmp_path: Path, forward: Path, broker: Mosquitto, coming: list[Coming]
) -> None:
    bed = [one for one in coming if one[1] == BEDS[0]]
    down, up = CLOCK_0 + 3 * PAGE_S + 10.0, CLOCK_0 + 4 * PAGE_S + 5.0
    async with running_ward(tmp_path, forward, HandDriven(bed), broker.port) as running:
        await running.go_to(down, BEDS[0], 2)
        await running.until(lambda: len(running.events) == 5, "a provisional page")
        before = running.events
    assert _statuses(before)[-1] == (2, "provisional")
    again = HandDriven(received_from(bed, up))
    # It comes back with another pack, for which nobody ever does anything but dream.
    other = _dreamy(forward, tmp_path / "other")
    async with running_ward(tmp_path, other, again, broker.port) as running:
        await running.go_to(END, BEDS[0], 3)
        after = running.events
    assert _statuses(after)[:3] == [(2, "final"), (3, "withheld"), (4, "provisional")]
    assert (after[0].stage, after[2].stage) == (before[-1].stage, "R")
    assert before[-1].stage != "R"
    assert after[0].probabilities == before[-1].probabilities
    assert [event.sequence for event in before + after] == list(range(1, len(before + after) + 1))
