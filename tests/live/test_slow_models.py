"""A model that is slow does not count as one that hangs, and one that hangs is never doubled."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from edfio import Edf, EdfSignal

from hypnocast.config.tables import Config
from hypnocast.config.tables import PackTable as PackConfig
from hypnocast.core.types import Look, Opinion
from hypnocast.errors import InferenceError, TooLateError
from hypnocast.live.service import build as building
from hypnocast.live.staging.capacity import MAX_ABANDONED, Capacity
from hypnocast.live.staging.judging import Judge
from hypnocast.live.staging.questions import PROVISIONAL, TERMINAL, Questions
from hypnocast.nights.replay import Replayed, ReplaySettings, replay
from hypnocast.ports.memory import free_bytes, memory_problem
from hypnocast.stagers.base import ModelOutput, Stager
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.pace import SLACK, Pace
from hypnocast.stagers.packs.pack import load_pack
from support.mqtt_lab import until
from support.packs import tiny_picture

GB = 1_000_000_000


class SlowStager(LocalStager):
    """A real stager with slow pages."""

    page_s = 0.3

    def _read(self, looks: Sequence[Look]) -> list[ModelOutput]:
        time.sleep(self.page_s * len(looks))
        return super()._read(looks)


class Hanging(LocalStager):
    """A real stager that hangs at page 1 until it is released."""

    def __init__(self, folder: Path, let_go: threading.Event) -> None:
        super().__init__(load_pack(folder), "cpu", 1)
        self.let_go = let_go

    def judge(self, looks: Sequence[Look]) -> list[Opinion]:
        if any(look.page.epoch == 1 for look in looks):
            self.let_go.wait()
        return super().judge(looks)


def _look(epoch: int) -> Look:
    return Look((tiny_picture(epoch, 0),), 0)


def _recording(path: Path, pages: int) -> Path:
    noise = np.random.default_rng(3).normal(0.0, 30.0, 128 * 30 * pages)
    signals = [
        EdfSignal(noise, 128, label=label, physical_dimension="uV")
        for label in ("EEG F4-M1", "EEG C4-M1", "EEG O2-M1", "EOG E1-M2", "EOG E2-M2", "EMG Chin")
    ]
    Edf(signals).write(path)
    return path


async def _replay_slowly(
    folder: Path, pack: Path, monkeypatch: pytest.MonkeyPatch, *, page_s: float, pages: int
) -> tuple[Replayed, int]:
    built: list[SlowStager] = []

    class Noted(SlowStager):
        def __init__(self, *given: object, **more: object) -> None:
            built.append(self)
            super().__init__(*given, **more)  # type: ignore[arg-type]

    Noted.page_s = page_s
    monkeypatch.setattr(building, "LocalStager", Noted)
    replayed = Replayed()
    config = Config(pack=PackConfig(name=str(pack)))
    path = _recording(folder / "night.edf", pages)
    await replay(config, ReplaySettings(path), watchers=(replayed,))
    return replayed, len(built)


@pytest.mark.promise(1)
async def test_a_replay_with_a_model_slower_than_the_deadline_ends_with_every_page_staged(
    tmp_path: Path, pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scaled: a page lasts thirty times as long as a silent model is waited for."""
    monkeypatch.setattr(building, "Judge", functools.partial(Judge, stuck_after_s=0.01))
    replayed, built = await _replay_slowly(tmp_path, pack, monkeypatch, page_s=0.3, pages=8)
    staged = [event.epoch for event in replayed.events if event.status == "final"]
    assert staged == [event.epoch for event in replayed.events] == list(range(8))
    assert built == 1


@pytest.mark.long
@pytest.mark.promise(1)
async def test_a_replay_with_forty_seconds_a_page_ends_with_every_page_staged(
    tmp_path: Path, pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replayed, built = await _replay_slowly(tmp_path, pack, monkeypatch, page_s=40.0, pages=4)
    assert [event.epoch for event in replayed.events if event.status == "final"] == [0, 1, 2, 3]
    assert built == 1


@pytest.mark.promise(7)
async def test_a_hung_model_is_not_built_again_while_there_is_no_memory_for_two(
    pack: Path,
) -> None:
    let_go = threading.Event()
    built, free = 0, 0

    def build() -> Stager:
        nonlocal built
        built += 1
        return Hanging(pack, let_go)

    judge = Judge(build, stuck_after_s=0.3, free_bytes=lambda: free)
    await judge.start()
    judge._model_bytes = GB
    lost = judge.ask(_look(1))
    await until(lambda: judge.state().busy_s > 0.0)
    waits = judge.ask(_look(2))  # not before: the two could be one batch
    while not judge.state().hung:
        await judge.rebuild_if_stuck()
        await asyncio.sleep(0.01)
    with pytest.raises(InferenceError, match="hangs"):
        await lost
    assert not await judge.rebuild_if_stuck()
    assert built == 1
    assert "another needs 1.2 GB, free are 0.0 GB" in judge.state().degraded[0]
    # The model comes back before there is memory: it goes on.
    let_go.set()
    assert (await waits).epoch == 2
    state = judge.state()
    assert (built, state.hung, state.degraded) == (1, False, ())
    judge.stop()


@pytest.mark.promise(7)
async def test_threads_left_behind_are_capped(pack: Path) -> None:
    let_go = threading.Event()
    built = 0

    def build() -> Stager:
        nonlocal built
        built += 1
        return Hanging(pack, let_go)

    judge = Judge(build, stuck_after_s=0.05, free_bytes=lambda: 100 * GB)
    await judge.start()
    for _ in range(MAX_ABANDONED + 1):
        asked = judge.ask(_look(1))
        await until(lambda: judge.state().busy_s > 0.0)
        while not asked.done():
            await judge.rebuild_if_stuck()
            await asyncio.sleep(0.01)
        assert isinstance(asked.exception(), InferenceError)
    assert built == MAX_ABANDONED + 1
    assert judge.state().hung
    assert not await judge.rebuild_if_stuck()
    assert "the process has to begin anew" in judge.state().degraded[0]
    let_go.set()
    await until(lambda: not judge.state().hung)
    judge.stop()


@pytest.fixture
def clock() -> list[float]:
    """A clock that a test moves."""
    return [0.0]


def _pace(clock: list[float]) -> Pace:
    return Pace(lambda: clock[0])


def test_a_step_may_take_some_times_the_longest_so_far_for_each_page(clock: list[float]) -> None:
    pace = _pace(clock)
    pace.open()
    assert pace.allowed_s == 900.0
    clock[0] = 40.0
    pace.beat()
    pace.measured(1, 40.0)
    assert pace.allowed_s == SLACK * 40.0
    pace.begin(4)
    clock[0] = 90.0
    assert (pace.silent_s, pace.allowed_s) == (50.0, SLACK * 160.0)


def _ask(questions: Questions, rank: int, epoch: int, until_: float) -> asyncio.Future[Opinion]:
    answer: asyncio.Future[Opinion] = asyncio.get_running_loop().create_future()
    questions.put(rank, _look(epoch), answer, until_)
    return answer


async def test_what_cannot_be_in_time_is_given_up_for_what_can(clock: list[float]) -> None:
    pace, questions = _pace(clock), Questions()
    pace.measured(1, 10.0)
    for epoch, until_ in ((0, 5.0), (1, 12.0), (2, 25.0)):
        _ask(questions, TERMINAL, epoch, until_)
    _ask(questions, PROVISIONAL, 9, 25.0)
    batch, given_up = questions.batch(0.0, pace)
    assert [each.look.page.epoch for each in batch] == [1]
    assert [each.look.page.epoch for each in given_up] == [0]
    batch, given_up = questions.batch(10.0, pace)
    assert [each.look.page.epoch for each in batch] == [2]
    assert (given_up, len(questions)) == ([], 1)


async def test_a_batch_is_as_large_as_its_first_deadline_allows(clock: list[float]) -> None:
    pace, questions = _pace(clock), Questions()
    pace.measured(1, 4.0)
    pace.measured(4, 12.0)
    for epoch in range(8):
        _ask(questions, TERMINAL, epoch, 25.0)
    batch, given_up = questions.batch(5.0, pace)
    assert (len(batch), given_up) == (6, [])


async def test_where_none_can_be_in_time_the_newest_is_tried(clock: list[float]) -> None:
    pace, questions = _pace(clock), Questions()
    pace.measured(1, 40.0)
    for epoch in (0, 1):
        _ask(questions, TERMINAL, epoch, 25.0)
    batch, given_up = questions.batch(0.0, pace)
    assert [each.look.page.epoch for each in batch] == [1]
    assert (given_up, len(questions)) == ([], 1)


def _ask_both(questions: Questions, epoch: int, until_: float) -> None:
    """Ask what a page that closes brings: the second look at the one before, the first at it."""
    answer: asyncio.Future[Opinion] = asyncio.get_running_loop().create_future()
    questions.put(TERMINAL, _look(epoch - 1), answer, until_, second=True)
    _ask(questions, PROVISIONAL, epoch, until_)


def _batches(questions: Questions, pace: Pace) -> list[tuple[list[int], list[int]]]:
    """Judge all that waits, as long as the pace allows; return the pages judged and given up."""
    now, done = 0.0, []
    while len(questions):
        batch, given_up = questions.batch(now, pace)
        done.append(tuple([each.look.page.epoch for each in some] for some in (batch, given_up)))
        now += pace.batch_s(len(batch))
    return done  # type: ignore[return-value]  # pairs


async def test_a_first_look_comes_before_a_second_where_there_is_no_time_for_both(
    clock: list[float],
) -> None:
    """A page without its first look has no stage; without the second it keeps what it has."""
    pace, questions = _pace(clock), Questions()
    pace.measured(1, 17.0)
    _ask_both(questions, 5, 25.0)
    assert _batches(questions, pace) == [([5], []), ([], [4])]
    pace.measured(1, -10.0)  # brings the estimate to 8.9 s
    pace.measured(2, 17.8)
    _ask_both(questions, 6, 25.0)
    assert [batch for batch, _ in _batches(questions, pace)] == [[5], [6]]


async def test_pages_are_judged_one_by_one_where_a_batch_gains_nothing(
    clock: list[float],
) -> None:
    """So that the first bed's stage does not wait for the last one's."""
    pace, questions = _pace(clock), Questions()
    pace.measured(1, 4.0)
    pace.measured(4, 15.6)
    for epoch in range(3):
        _ask(questions, TERMINAL, epoch, 25.0)
    assert [batch for batch, _ in _batches(questions, pace)] == [[0], [1], [2]]


async def test_a_page_given_up_is_answered_as_too_late(pack: Path) -> None:
    hold, reached = threading.Event(), threading.Event()

    class Held(LocalStager):
        def judge(self, looks: Sequence[Look]) -> list[Opinion]:
            reached.set()
            hold.wait()
            return super().judge(looks)

    judge = Judge(lambda: Held(load_pack(pack), "cpu", 1))
    await judge.start()
    first = judge.ask(_look(0))
    await asyncio.to_thread(reached.wait)
    late = judge.ask(_look(1), until=time.monotonic() - 1.0)
    in_time = judge.ask(_look(2), until=time.monotonic() + 60.0)
    hold.set()
    with pytest.raises(TooLateError, match="s a page, and others come first"):
        await late
    assert [(await each).epoch for each in (first, in_time)] == [0, 2]
    assert judge.state().given_up == 1
    judge.stop()


@pytest.mark.parametrize(
    ("capacity", "beds", "words"),
    [
        (Capacity(0.02, 0.004, 0), 1000, "0.02 s a page alone, 0.004 s a page in a batch: "),
        (Capacity(9.0, 6.0, 5 * GB), 4, "6 s a page in a batch, 5.0 GB: serves up to 4 beds"),
        (Capacity(22.0, 0.0, 5 * GB), 1, "22 s a page alone, 5.0 GB: serves 1 bed"),
        (Capacity(5.0, 0.0, 0, looks=2), 2, "5 s a look alone, two looks a page: serves up to 2"),
        (Capacity(17.0, 0.0, 0, looks=2), 1, "1 bed, which gets one look a page instead of two"),
        (Capacity(40.0, 0.0, 0), 0, "serves no bed: a page must be judged within 25 s"),
    ],
)
def test_the_measured_pace_is_logged_in_one_line(capacity: Capacity, beds: int, words: str) -> None:
    assert capacity.beds == beds
    assert words in capacity.line()
    assert capacity.beyond(["a", "b", "c", "d", "e"]) == tuple("abcde"[beds:])


def _files(folder: Path, written: dict[str, str]) -> None:
    for name, text in written.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(("limit", "expected"), [("max", 4096 * 1024), ("3000000", 1_000_000)])
def test_free_memory_is_what_the_control_group_leaves(
    tmp_path: Path, limit: str, expected: int
) -> None:
    _files(
        tmp_path,
        {
            "proc/meminfo": "MemTotal: 8192 kB\nMemAvailable: 4096 kB\n",
            "proc/self/cgroup": "0::/system.slice/hypnocast.service\n",
            "cg/system.slice/memory.max": "max\n",
            "cg/system.slice/memory.current": "5\n",
            "cg/system.slice/hypnocast.service/memory.max": f"{limit}\n",
            "cg/system.slice/hypnocast.service/memory.current": "2000000\n",
        },
    )
    assert free_bytes(tmp_path / "proc", tmp_path / "cg") == expected


@pytest.mark.parametrize(
    ("place", "limit", "used"),
    [
        ("0::/unit", "unit/memory.high", "unit/memory.current"),
        (
            "4:memory:/unit",
            "memory/unit/memory.limit_in_bytes",
            "memory/unit/memory.usage_in_bytes",
        ),
    ],
    ids=["version 2", "version 1"],
)
def test_short_memory_is_named_and_what_files_keep_of_it_is_spare(
    tmp_path: Path, place: str, limit: str, used: str
) -> None:
    stat = limit.rpartition("/")[0] + "/memory.stat"
    written = {
        "proc/meminfo": "MemAvailable: 4096000 kB\n",
        "proc/self/cgroup": f"{place}\n",
        f"cg/{limit}": "300000000\n",
        f"cg/{used}": "290000000\n",
        f"cg/{stat}": "cache 1\ninactive_file 2000000\n",
    }
    _files(tmp_path, written)
    free = free_bytes(tmp_path / "proc", tmp_path / "cg")
    assert free == 12_000_000
    assert memory_problem(free).startswith("memory: only 12 MB are left")
    _files(tmp_path, {f"cg/{stat}": "inactive_file 200000000\n"})
    assert memory_problem(free_bytes(tmp_path / "proc", tmp_path / "cg")) == ""
