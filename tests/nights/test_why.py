"""Why this stage: the page of the night drawn again, and explained, live and in the morning."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest
from PIL import Image

from hypnocast.cli import run
from hypnocast.config.tables import SignalTable
from hypnocast.core.evidence.occlusion import StageBasis
from hypnocast.core.pictures.render import picture_digest
from hypnocast.core.types import PAGE_S, Picture, Stage
from hypnocast.core.wire import commands, payloads
from hypnocast.errors import CommandError, TapeError
from hypnocast.live.explaining.picture_store import PictureStore
from hypnocast.live.service.ward import Ward
from hypnocast.nights.night_view import NightView, open_night
from hypnocast.nights.why import answer, as_json
from hypnocast.nights.why_sheet import heat_map, why_sheet
from hypnocast.simulate import SimulatedSource
from support.brokers import free_port
from support.packs import make_tiny_pack
from support.taped_nights import Taped, tape_nights

S = Stage
ASKED = 5
"""The page that is asked for while the night goes on."""


@dataclass
class Asking:
    """Asks for a page of the past in mid-night, from the event loop of the ward."""

    ward: Ward | None = None
    page: commands.Reply | None = None
    explained: commands.Reply | None = None
    refused: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.done = threading.Event()
        self._task: asyncio.Task[None] | None = None

    def event(self, event: payloads.StageEvent) -> None:
        if event.bed == "bed-01" and event.epoch == ASKED + 1 and self._task is None:
            self._task = asyncio.ensure_future(self._ask(event.session))

    def hold(self, data_s: float) -> None:
        """Keep the night from ending before the answers are there."""
        if data_s > (ASKED + 4) * PAGE_S:
            assert self.done.wait(60.0)

    async def _ask(self, session: str) -> None:
        ward = self.ward
        assert ward is not None
        try:
            command = commands.PageCommand(request="1", session=session, epoch=ASKED)
            self.page = await ward.command_handler.obey("bed-01", command)
            explain = commands.Explain(request="2", session=session, epoch=ASKED)
            self.explained = await ward.command_handler.obey("bed-01", explain)
            for bed, epoch in (("bed-02", ASKED), ("bed-01", 999)):
                command = commands.PageCommand(request="3", session=session, epoch=epoch)
                try:
                    await ward.command_handler.obey(bed, command)
                except CommandError as error:
                    self.refused += (str(error),)
        finally:
            self.done.set()


@dataclass
class RedrawnNight:
    taped: Taped
    view: NightView
    asking: Asking


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> RedrawnNight:
    folder = tmp_path_factory.mktemp("state")
    pack = make_tiny_pack(tmp_path_factory.mktemp("pack") / "tiny", seed=3)
    stages = [S.W, S.W, S.N1, S.N2, S.N2, S.N2, S.N3, S.N3, S.R, S.R]
    sim = SimulatedSource(2, seed=7, stages=stages, faults=["bed-01/dropout@215+20"])
    asking = Asking()

    def started(ward: Ward) -> None:
        asking.ward = ward

    run = tape_nights(
        folder, pack, sim, port=free_port(), watchers=[asking], started=started, hold=asking.hold
    )
    taped = asyncio.run(run)
    return RedrawnNight(taped, open_night(taped.config, "lab.bed-01"), asking)


def test_every_page_is_drawn_again_as_the_model_saw_it(night: RedrawnNight) -> None:
    same = []
    for epoch in range(night.view.night.epochs):
        found = answer(night.taped.config, night.view, epoch, depth="off")
        same.append(found.same)
        assert found.redrawn.tape.name.startswith("bed-01_")
    withheld = [event is not None and event.status == "withheld" for event in night.view.pages]
    assert same == [None if gone else True for gone in withheld]
    assert 1 <= sum(withheld) <= 3


def test_a_page_drawn_otherwise_is_reported_to_differ(night: RedrawnNight) -> None:
    config = msgspec.structs.replace(night.taped.config, signal=SignalTable(mains_hz=60))
    found = answer(config, night.view, ASKED, depth="off")
    assert found.same is False
    assert "DIFFERS" in why_sheet(found, ZoneInfo("UTC"))
    digests = msgspec.structs.replace(found.event.digests, recipe="sha256:older")
    older = replace(found, event=msgspec.structs.replace(found.event, digests=digests))
    assert "ANOTHER RECIPE" in why_sheet(older, ZoneInfo("UTC"))


def test_a_page_no_tape_has_is_refused(night: RedrawnNight, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no page 99"):
        answer(night.taped.config, night.view, 99)
    other = next(night.taped.config.tape_dir.glob("bed-02_*"))
    view = open_night(night.taped.config, "lab.bed-01")
    elsewhere = msgspec.structs.replace(
        night.taped.config,
        tape=msgspec.structs.replace(night.taped.config.tape, folder=str(tmp_path)),
    )
    with pytest.raises(TapeError, match="no tape has page 3"):
        answer(elsewhere, view, 3, depth="off")
    # The beds' clocks are one, so another bed's tape has the anchor, but not the picture.
    assert answer(elsewhere, view, 3, depth="off", tape=other).same is False


def test_the_daemon_gives_and_explains_a_past_page(night: RedrawnNight) -> None:
    event = night.view.page(ASKED)
    page, explained = night.asking.page, night.asking.explained
    assert page is not None
    assert page.png is not None
    image = Image.open(io.BytesIO(base64.b64decode(page.png)))
    assert picture_digest(np.asarray(image.convert("RGB"))) == event.digests.picture
    assert explained is not None
    assert explained.explanation is not None
    assert explained.explanation.stage == event.stage
    assert len(night.asking.refused) == 2
    assert "no session" in night.asking.refused[0]
    assert "not kept" in night.asking.refused[1]


def test_the_morning_explains_as_the_night_did(night: RedrawnNight) -> None:
    asked = night.asking.explained
    assert asked is not None
    found = answer(night.taped.config, night.view, ASKED)
    assert found.rests is not None
    live = msgspec.to_builtins(asked.explanation)
    morning = as_json(found)["explanation"]
    assert isinstance(morning, dict)
    assert morning["sentence"] == live["sentence"]
    assert morning["channels"] == pytest.approx(live["channels"], abs=1e-4)
    patches, again = np.array(live["patches"]), np.array(morning["patches"])
    assert patches.shape == (14, 14)
    assert np.abs(patches - again).max() < 1e-4


def test_the_sheet_needs_nothing_else(night: RedrawnNight) -> None:
    sheet = why_sheet(answer(night.taped.config, night.view, ASKED), ZoneInfo("Europe/Berlin"))
    event = night.view.page(ASKED)
    assert not re.search(r"""(src|href)=["'](?!data:)|<script|url\((?!#)|@import""", sheet)
    assert f"Why {event.stage} at 23:" in sheet
    assert str(event.digests.picture) in sheet
    assert "SIMULATED" in sheet
    assert "Research software" in sheet


def test_the_command_says_whether_the_page_is_the_same(
    night: RedrawnNight, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "hypnocast.toml"
    wanted = night.taped.config
    text = f'daemon.state_dir = "{wanted.daemon.state_dir}"\npack.name = "{wanted.pack.name}"\n'
    file.write_text(text)
    options = ["why", night.view.session.id, str(ASKED), "--config", str(file)]
    sheet = tmp_path / "why.html"
    assert run([*options, "--explain", "channels", "-o", str(sheet)]) == 0
    assert "drawn as the model saw it" in capsys.readouterr().out
    assert "What it rests on" in sheet.read_text(encoding="utf-8")
    file.write_text(f"{text}signal.mains_hz = 60\n")
    assert run([*options, "--explain", "off", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["same"] is False
    assert run([*options, "--explain", "deeply"]) == 2
    assert "--explain" in capsys.readouterr().err


async def test_the_picture_store_keeps_no_more_than_it_may(tmp_path: Path) -> None:
    picture_store = PictureStore(tmp_path / "pages", "sha256:" + "0" * 64, keep_bytes=200_000)
    rng = np.random.default_rng(1)
    for epoch in range(401):
        rgb = rng.integers(0, 255, (16, 64, 3), dtype=np.uint8)
        picture = Picture(epoch, rgb, picture_digest(rgb), "", {}, {})
        picture_store.keep("lab.bed/../../1", picture)
        kept = await picture_store.png("lab.bed/../../1", epoch)
        assert kept is not None
    files = list((tmp_path / "pages").glob("*/*.png"))
    assert sum(file.stat().st_size for file in files) <= 200_000
    assert await picture_store.png("lab.bed/../../1", 0) is None
    assert [path.name for path in tmp_path.iterdir()] == ["pages"]  # noqa: ASYNC240 - a test waits for nobody
    picture_store.close()


def _cut(whole: bytes, left: int) -> bytes:
    return whole[:left]


def _hole(whole: bytes, at: int) -> bytes:
    """A page that never reached the disk reads as zeros; a picture may decode all the same."""
    return whole[:at] + bytes(8) + whole[at + 8 :]


@pytest.mark.parametrize(
    ("damaged", "at"), [(_cut, 0), (_cut, 40), (_cut, -20), (_hole, 45), (_hole, 8)]
)
async def test_a_picture_that_a_power_cut_damaged_is_not_kept(
    tmp_path: Path, damaged: Callable[[bytes, int], bytes], at: int
) -> None:
    picture_store = PictureStore(tmp_path / "pages", "sha256:" + "0" * 64)
    for epoch in (0, 1):
        rgb = np.full((16, 64, 3), epoch, dtype=np.uint8)
        picture_store.keep("night", Picture(epoch, rgb, picture_digest(rgb), "", {}, {}))
    whole = await picture_store.png("night", 0)
    assert whole is not None
    (kept,) = (tmp_path / "pages").glob("*/000000.*.png")
    kept.write_bytes(damaged(whole, at))
    assert await picture_store.png("night", 0) is None
    look = await picture_store.look("night", 1, before=1, after=0)
    assert look is not None
    assert look.pictures[0] is None
    assert await picture_store.look("night", 0, before=0, after=0) is None
    picture_store.close()


@pytest.mark.parametrize(("fall", "share"), [(0.0, 0.0), (0.001, 0.004), (0.25, 1.0), (0.9, 1.0)])
def test_the_heat_of_a_patch_is_the_same_on_every_page(fall: float, share: float) -> None:
    """A model that looks at nothing shows nothing, whatever its own largest fall is."""
    pixels = np.zeros((28, 28, 3), np.uint8)
    basis = StageBasis(S.R, 0.9, {}, {}, 0.2, patches=((fall, 0.0), (0.0, 0.0)))
    heat = heat_map(pixels, basis)
    assert heat[0, 0].tolist() == [int(0.6 * share * c) for c in (255.0, 96.0, 40.0)]
    assert not heat[20, 20].any()
