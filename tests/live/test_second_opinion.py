"""A second opinion: the same pages, another pack, and the one that speaks never waits for it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from hypnocast.config.tables import BesidePackTable, Config, PackTable
from hypnocast.core.night.agreement import compare
from hypnocast.core.types import PAGE_S, Look, Opinion
from hypnocast.core.wire import payloads
from hypnocast.errors import ConfigError
from hypnocast.live.service.build import JOURNAL, load_beside, open_pack, pipeline_maker
from hypnocast.live.service.check import pack_findings
from hypnocast.live.staging.judging import Judge
from hypnocast.live.staging.second_opinion import MOST_WAITING
from hypnocast.ports.journal.reader import JournalReader
from hypnocast.ports.journal.records import BesideRecord
from hypnocast.simulate import SimulatedSource
from hypnocast.stagers.onnx.local import LocalStager
from support.brokers import Mosquitto
from support.mqtt_lab import listening, until
from support.packs import make_tiny_pack
from support.ward_lab import Coming, HandDriven, night, received_from, running_ward, unheard

BED = "bed-01"
CLOCK_0 = 1000.0
PAGES = 14
END = CLOCK_0 + (PAGES - 1) * PAGE_S + 5.0
DOWN, UP = CLOCK_0 + 5.5 * PAGE_S, CLOCK_0 + 7.7 * PAGE_S


@pytest.fixture(scope="module")
def coming() -> list[Coming]:
    return night(SimulatedSource([BED], seed=7, pages=PAGES, skip_pages=60, truth=False))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack that reads signals and carries a state from page to page."""
    return make_tiny_pack(tmp_path_factory.mktemp("other") / "tiny", family="signal")


def _records(folder: Path) -> list[BesideRecord]:
    with JournalReader(folder / JOURNAL) as reader:
        return [record for one in reader.nights() for record in reader.beside(one.id)]


async def _judged_up_to(folder: Path, epoch: int) -> None:
    await until(lambda: epoch in {one.epoch for one in _records(folder)}, f"a verdict on {epoch}")


def _content(event: payloads.StageEvent) -> tuple[object, ...]:
    return event.epoch, event.stage, event.reason, event.probabilities, event.digests


async def test_every_page_is_judged_beside_and_no_verdict_changes(
    tmp_path: Path, pack: Path, other: Path, broker: Mosquitto, coming: list[Coming]
) -> None:
    async with running_ward(tmp_path / "alone", pack, HandDriven(coming), broker.port) as running:
        alone = list(await running.go_to(END, BED, PAGES - 1))
    folder, topic = tmp_path / "both", f"hypnocast/lab/bed/{BED}"
    async with (
        listening(broker.port) as listener,
        running_ward(folder, pack, HandDriven(coming), broker.port, beside=(other,)) as running,
    ):
        both = list(await running.go_to(END, BED, PAGES - 1))
        await until(lambda: len(_records(folder)) == PAGES - 1, "a second opinion on every page")

        def newest() -> payloads.Beside:
            return msgspec.json.decode(listener.of(f"{topic}/beside")[-1], type=payloads.Beside)

        await until(
            lambda: (
                listener.of(f"{topic}/beside")[-1:] != [b""]
                and newest().packs[0].epoch == PAGES - 2
            ),
            "the newest second opinion",
        )
        (result,) = newest().packs

        def review() -> tuple[int, ...]:
            shown = msgspec.json.decode(listener.of(f"{topic}/night")[-1], type=payloads.Night)
            return shown.review

        await until(lambda: set(result.parted) <= set(review()), "pages that part are for review")
    assert [_content(event) for event in both] == [_content(event) for event in alone]
    stages = [event.stage for event in both]
    found = compare(stages, result.stages)
    assert result.stages == tuple(record.stage for record in _records(folder))
    assert result.compared == found.pages == PAGES - 1
    assert result.kappa == pytest.approx(found.kappa, abs=1e-4)
    assert result.parted == tuple(
        epoch for epoch, stage in enumerate(stages) if result.stages[epoch] != stage
    )
    assert result.parted, "two packs of random weights part somewhere"
    assert result.review is (PAGES - 2 in result.parted)


async def test_a_restart_changes_nothing_of_what_the_second_pack_says_later(
    tmp_path: Path, pack: Path, other: Path, broker: Mosquitto, coming: list[Coming]
) -> None:
    folder, port = tmp_path / "broken", broker.port
    for source, end, pages in (
        (HandDriven(coming), DOWN, 5),
        (HandDriven(received_from(coming, UP)), END, PAGES - 6),
    ):
        async with running_ward(folder, pack, source, port, beside=(other,)) as running:
            await running.go_to(end, BED, pages)
            await _judged_up_to(folder, running.terminal(BED)[-1].epoch)
    whole = tmp_path / "whole"
    silent = HandDriven(unheard(coming, DOWN, UP))
    async with running_ward(whole, pack, silent, port, beside=(other,)) as running:
        await running.go_to(END, BED, PAGES - 1)
        await _judged_up_to(whole, PAGES - 2)
    ours, theirs = (
        {one.epoch: one for one in _records(each) if one.stage is not None}
        for each in (folder, whole)
    )
    assert sorted(ours) == sorted(theirs) == [0, 1, 2, 3, 4, *range(8, PAGES - 1)]
    for epoch, one in ours.items():
        assert one.probabilities is not None
        assert (one.probabilities == theirs[epoch].probabilities).all()


async def test_a_second_pack_that_hangs_delays_nobody_and_its_pages_are_left_out(
    tmp_path: Path, pack: Path, other: Path, broker: Mosquitto, coming: list[Coming]
) -> None:
    free = threading.Event()

    class Stuck(LocalStager):
        def judge(self, looks: Sequence[Look]) -> list[Opinion]:
            free.wait(60.0)
            return super().judge(looks)

    judge = Judge(lambda: Stuck(load_beside(str(other)), "cpu", 1))
    source = HandDriven(coming)
    async with running_ward(
        tmp_path, pack, source, broker.port, beside=(other,), beside_judge=judge
    ) as running:
        await running.go_to(END, BED, PAGES - 1)
        assert _records(tmp_path) == []
        free.set()
        await _judged_up_to(tmp_path, PAGES - 2)
    judged = [record.epoch for record in _records(tmp_path)]
    assert judged == [0, *range(PAGES - 1 - MOST_WAITING, PAGES - 1)]


@pytest.mark.parametrize("named", ["speaking", "twice"])
def test_a_pack_beside_itself_is_refused(
    pack: Path, other: Path, coming: list[Coming], named: str
) -> None:
    one = BesidePackTable(name=str(other))
    beside = (BesidePackTable(name=str(pack)),) if named == "speaking" else (one, one)
    config = Config(pack=PackTable(name=str(pack), beside=beside))
    source = HandDriven(coming)
    with pytest.raises(ConfigError, match=r"pack\.beside\["):
        pipeline_maker(config, open_pack(config), source, boot_id="a", auto=True)


def test_a_pack_beside_that_is_not_the_pinned_one_is_refused_and_check_names_it(
    pack: Path, other: Path
) -> None:
    digest = load_beside(str(other)).digest
    pinned = BesidePackTable(name=str(other), digest=digest)
    config = Config(pack=PackTable(name=str(pack), beside=(pinned,)))
    lines = [one.text for one in pack_findings(config)]
    assert sum(line.startswith("beside: ") for line in lines) == 1
    wrong = msgspec.structs.replace(pinned, digest="sha256:" + "0" * 64)
    config = Config(pack=PackTable(name=str(pack), beside=(wrong,)))
    with pytest.raises(ConfigError, match=r"pack\.beside\[0\]\.digest"):
        list(pack_findings(config))
