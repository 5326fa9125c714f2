"""One page, byte for byte, wherever it is drawn: live, replayed, by the API, and by every tool."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

import hypnocast
from hypnocast.cli import run as run_daemon
from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.pictures.render import picture_digest
from hypnocast.core.types import Look, Opinion, Stage
from hypnocast.nights.night_view import NightView, open_night
from hypnocast.simulate import SimulatedSource
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.pace import Pace
from hypnocast.stagers.packs.pack import load_pack
from hypnocast_models.compare.evaluate import judge_night
from hypnocast_models.readers.datasets import find_nights
from hypnocast_models.readers.datasets import open_night as open_scored
from hypnocast_models.staging.night import stage_night
from hypnocast_models.tune.lessons import TrainingPages
from support.brokers import free_port, running_mosquitto
from support.daemons import daemon
from support.lsl_lab import sending
from support.models_cli import run as run_models
from support.mqtt_lab import Listener
from support.needs import need_module
from support.packs import make_tiny_pack
from support.taped_nights import tape_nights

RECIPE = "clinical-448x224"
S = Stage
STAGES = [S.W, S.N1, S.N2, S.N3, S.R, S.W]

CONFIG = """
daemon.state_dir = "{state}"
broker.port = {port}
pack.name = "{pack}"
session.auto = true
site.id = "lab"
[[bed]]
id = "bed-01"
streams = [{{ source_id = "acme-1" }}, {{ name = "acme exg" }}]
"""


@dataclass
class Lab:
    """A night that was staged, its tape, and the pack that staged it."""

    pack: Path
    config: Path
    view: NightView
    tape: Path
    archive: Path = field(default_factory=Path)

    @property
    def live(self) -> dict[int, str]:
        """The digests that were published, of the pages whose whole context is in the tape."""
        whole = range(1, self.view.night.epochs - 1)
        return {
            event.epoch: event.digests.picture
            for event in self.view.pages
            if event is not None and event.digests.picture is not None and event.epoch in whole
        }


@dataclass
class Watching:
    """A stager that notes the pictures which come before it."""

    stager: LocalStager
    seen: dict[int, str] = field(default_factory=dict)

    @property
    def provider(self) -> str:
        return self.stager.provider

    @property
    def pace(self) -> Pace:
        return self.stager.pace

    def judge(self, looks: Sequence[Look]) -> list[Opinion]:
        self.seen |= {look.page.epoch: look.page.digest for look in looks}
        return self.stager.judge(looks)

    def close(self) -> None:
        self.stager.close()


def _simulated(folder: Path) -> Lab:
    pack = make_tiny_pack(folder / "tiny", family="contrastive", recipe=RECIPE)
    sim = SimulatedSource(1, seed=5, stages=STAGES)
    taped = asyncio.run(tape_nights(folder / "state", pack, sim, port=free_port()))
    config = folder / "hypnocast.toml"
    config.write_text(f'daemon.state_dir = "{folder / "state"}"\npack.name = "{pack}"\n')
    tape = next(taped.config.tape_dir.glob("*.xdf"))
    return Lab(pack, config, open_night(taped.config, "latest"), tape)


def _over_lsl(folder: Path) -> Lab:
    """Three pages in real time: two plain pylsl outlets, mosquitto, ``hypnocast run``."""
    from hypnocast.config.file import load_config

    pack = make_tiny_pack(folder / "tiny", family="contrastive", recipe=RECIPE)
    with sending("support.psg_outlets"), running_mosquitto(folder) as broker:
        config = folder / "run.toml"
        config.write_text(CONFIG.format(state=folder / "state", port=broker.port, pack=pack))
        listener = Listener(broker.port)
        topic = "hypnocast/lab/bed/bed-01/events"
        with daemon(folder / "log", "run", "-c", str(config)) as running:
            running.wait_for(lambda: len(listener.json_of(topic)) >= 3, "page 2", 200.0)
        listener.close()
    loaded = load_config(config)
    return Lab(pack, config, open_night(loaded, "latest"), next(loaded.tape_dir.glob("*.xdf")))


@pytest.fixture(
    scope="module",
    params=["simulated", pytest.param("lsl", marks=pytest.mark.long)],
)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    folder = tmp_path_factory.mktemp("same")
    made = _simulated(folder) if request.param == "simulated" else _over_lsl(folder)
    made.archive = folder / "archive"
    asked = ["export", "latest", "-c", str(made.config), "--signals", "-o", str(made.archive)]
    assert run_daemon(asked) == 0
    return made


@pytest.mark.timeout(400)
def test_a_page_is_the_same_live_replayed_by_the_api_and_in_every_tool(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    need_module("distributed")
    live = lab.live
    assert len(live) >= 1
    assert run_daemon(["replay", str(lab.tape), "--json", "-c", str(lab.config)]) == 0
    again = json.loads(capsys.readouterr().out)
    replayed = dict(zip(again["epochs"], again["pictures"], strict=True))
    recipe, pack = builtin(RECIPE), load_pack(lab.pack)
    [found] = find_nights(lab.archive)
    night = open_scored(found)
    stager = LocalStager(pack, "cpu", threads=1)
    evaluated, staged = Watching(stager), Watching(stager)
    judge_night(night, pack, evaluated)
    stage_night(night, pack, staged)
    stager.close()
    lessons = TrainingPages([night], recipe)
    epochs = [epoch for epoch, stage in enumerate(night.stages) if stage is not None]
    drawn_out = tmp_path / "drawn"
    drawing = ["draw", str(lab.archive), "--out", str(drawn_out), "--recipe", RECIPE]
    assert run_models([*drawing, "--workers", "1"]) == 0
    with np.load(next(drawn_out.glob("*.npz"))) as kept:
        drawn = {
            int(e): picture_digest(rgb) for e, rgb in zip(kept["epoch"], kept["rgb"], strict=True)
        }
    for epoch, digest in live.items():
        place = np.array([epochs.index(epoch)])
        [taught] = lessons.draw(place, np.random.default_rng(0), 1.0).pictures
        same = {
            "replay": replayed[epoch],
            "API, tape": hypnocast.draw(lab.tape, epoch, recipe=RECIPE).digest,
            "API, EDF": hypnocast.draw(found.signals, epoch, recipe=RECIPE).digest,
            "finetune": picture_digest(taught),
            "evaluate": evaluated.seen[epoch],
            "stage": staged.seen[epoch],
            "draw": drawn[epoch],
        }
        assert same == dict.fromkeys(same, digest), epoch
