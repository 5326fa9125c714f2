"""More beds than the model serves: what is given up is reported, and every bed has its turn."""

from __future__ import annotations

import asyncio
import itertools
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.types import Look, Opinion, Stage
from hypnocast.errors import TooLateError
from hypnocast.live.staging import turns
from hypnocast.live.staging.judging import Judge
from hypnocast.live.staging.questions import AHEAD, REASONS, TERMINAL, Question, Questions
from hypnocast.live.staging.turns import LateLooks
from hypnocast.stagers.base import ModelOutput
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.pace import Pace
from hypnocast.stagers.packs.pack import Pack, load_pack
from support.needs import need_module
from support.packs import tiny_picture

PERIOD_S, DEADLINE_S = 30.0, 25.0


class Bed:
    """A bed, as whoever asks."""

    def __init__(self, name: str) -> None:
        self.name = name


@dataclass
class Rota:
    """Beds whose pages close at fixed times, and one model, on a clock that the test moves."""

    page_s: float
    offsets: Sequence[float]
    reasons_s: float = 0.0
    """How long the reasons of a stage take, asked for once it is there; 0: nobody asks."""

    def run(self, rounds: int) -> list[list[int]]:
        """Return for each bed the rounds in which it had an opinion in time."""
        now, clock = 0.0, [0.0]
        questions, pace = Questions(lambda: clock[0]), Pace(lambda: clock[0])
        pace.measured(1, self.page_s)
        pace.measured(2, 2 * self.page_s)
        beds = [Bed(f"bed {place}") for place in range(len(self.offsets))]
        coming = sorted(
            (round_ * PERIOD_S + offset, place, round_)
            for round_ in range(rounds)
            for place, offset in enumerate(self.offsets)
        )
        served: list[list[int]] = [[] for _ in beds]
        while coming or len(questions):
            while coming and coming[0][0] <= now:
                at, place, round_ = coming.pop(0)
                answer: asyncio.Future[Opinion] = asyncio.get_running_loop().create_future()
                clock[0] = at  # it asks while the model may be at work
                look = Look((tiny_picture(round_, 0),), 0)
                questions.put(TERMINAL, look, answer, at + DEADLINE_S, asker=beds[place])
            clock[0] = now
            until = questions.waits_until(pace) if len(questions) else float("inf")
            if until is not None:
                now = min([until, *(one[0] for one in coming[:1])])
                continue
            batch, _ = questions.batch(now, pace)
            if batch and batch[0].order[0] == REASONS:  # given up once a page comes
                now = min([now + self.reasons_s, *(one[0] for one in coming[:1])])
                continue
            now += pace.batch_s(len(batch)) if batch else 0.0
            for each in batch:
                self._count(each, beds, served, now)
                if self.reasons_s:
                    unheard: asyncio.Future[Opinion] = asyncio.get_running_loop().create_future()
                    questions.put(REASONS, each.look, unheard, float("inf"), stage=Stage.N2)
        return served

    def _count(
        self, done: Question, beds: Sequence[Bed], served: list[list[int]], now: float
    ) -> None:
        if now <= done.until:
            served[[bed is done.asker for bed in beds].index(True)].append(done.look.page.epoch)


@pytest.mark.parametrize("reasons_s", [0.0, 20.0])
@pytest.mark.parametrize(
    ("page_s", "offsets"),
    [
        pytest.param(17.0, [0.0, 0.001], id="two beds, one fits, closing together"),
        pytest.param(17.0, [0.0, 5.0], id="two beds, one fits, five seconds apart"),
        pytest.param(8.0, [0.01 * bed for bed in range(8)], id="eight beds, three fit"),
        pytest.param(17.0, [0.01 * bed for bed in range(10)], id="ten beds, one fits"),
        pytest.param(12.0, [0.0, 0.3, 0.6, 9.0, 20.0], id="five beds, two fit, scattered"),
    ],
)
async def test_no_bed_is_given_up_twice_while_another_is_served_twice(
    page_s: float, offsets: Sequence[float], reasons_s: float
) -> None:
    rounds = 24
    served = Rota(page_s, offsets, reasons_s).run(rounds)
    counts = [len(each) for each in served]
    assert sum(counts) >= rounds * int(DEADLINE_S // page_s)  # and no time is wasted for it
    assert max(counts) <= 2 * min(counts), counts
    # Longest wait of any bed: as many rounds as it takes to serve all the others once.
    most = -(-len(offsets) // int(DEADLINE_S // page_s)) + 1
    for rounds_of in served:
        gaps = [after - before for before, after in itertools.pairwise([-1, *rounds_of, rounds])]
        assert max(gaps) <= most, served


@pytest.mark.parametrize(("now", "read"), [(15.0, True), (27.0, False)])
async def test_what_can_be_read_ahead_is_not_begun_when_a_page_is_due(
    now: float, *, read: bool
) -> None:
    clock = [0.0]
    questions, pace, bed = Questions(lambda: clock[0]), Pace(lambda: clock[0]), Bed("bed")
    pace.measured(1, 8.0)
    look = Look((tiny_picture(0, 0),), 0)
    for rank in (TERMINAL, AHEAD):
        answer: asyncio.Future[Opinion] = asyncio.get_running_loop().create_future()
        questions.put(rank, look, answer, 25.0, asker=bed if rank == TERMINAL else None)
    assert [each.order[0] for each in questions.batch(0.0, pace)[0]] == [TERMINAL]
    clock[0] = now
    assert [each.order[0] for each in questions.batch(now, pace)[0]] == [AHEAD] * read
    assert len(questions) == 0


async def test_with_time_for_all_nobody_waits_for_a_turn() -> None:
    assert Rota(5.0, [0.0, 1.0, 2.0, 3.0]).run(6) == [list(range(6))] * 4


def test_what_came_too_late_is_reported_in_words_for_a_while() -> None:
    late = LateLooks()
    late.note(0.0, in_time=5)
    assert late.problem(1.0) == ()
    late.note(10.0, in_time=1, late=2)
    late.note(40.0, in_time=3)
    words = "model: too slow: 2 of 6 looks at pages too late in 10 minutes"
    assert late.problem(50.0) == (words,)
    assert (late.problem(700.0), late.total) == ((), 2)


@pytest.fixture(scope="module")
def writing_pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """A small random model of this project's own that writes."""
    for name in ("torch", "transformers", "onnx", "onnxruntime", "ml_dtypes"):
        need_module(name)
    from hypnocast_models.export.label import plain_label
    from hypnocast_models.export.stream_pack import pack_folder
    from hypnocast_models.tune.families import tiny

    folder: Path = tmp_path_factory.mktemp("writes")
    (folder / "weights").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny("smolvlm", folder / "weights")
    label = plain_label("writes", "0.1.0", builtin("clinical-448x224"))
    pack_folder(folder / "weights", folder / "pack", "fp32", label)
    return load_pack(folder / "pack")


class Slow(LocalStager):
    """A real stager, a second for each look."""

    def _read(self, looks: Sequence[Look]) -> list[ModelOutput]:
        time.sleep(1.0 * len(looks))
        return super()._read(looks)


@pytest.mark.long
@pytest.mark.promise(7)
async def test_six_beds_share_a_model_that_serves_two(
    writing_pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenth of real time: pages every 3 s, too late after 2.5 s, a second each."""
    monkeypatch.setattr(turns, "PAGE_S", 3.0)
    monkeypatch.setattr(turns, "LIVE_DEADLINE_S", 2.5)
    judge = Judge(lambda: Slow(writing_pack, "cpu", 1))
    await judge.start()
    beds, served, lost = [Bed(f"bed {n}") for n in range(6)], Counter[str](), Counter[str]()
    page = tiny_picture(0, 0, writing_pack.recipe.name)
    for _ in range(9):
        began = time.monotonic()
        asked = [judge.ask(Look((page,)), until=began + 2.5, asker=bed) for bed in beds]
        for bed, answer in zip(beds, asked, strict=True):
            try:
                await asyncio.wait_for(answer, max(0.0, began + 2.5 - time.monotonic()))
                served[bed.name] += 1
            except (TimeoutError, TooLateError):
                lost[bed.name] += 1
        await asyncio.sleep(max(0.0, began + 3.0 - time.monotonic()))
    assert min(served[bed.name] for bed in beds) >= 2, (served, lost)
    state = judge.state()
    assert state.given_up == sum(lost.values())
    assert "looks at pages too late" in state.degraded[0]
    judge.stop()
