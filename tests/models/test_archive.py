"""Archives: every night staged once, whatever dies on the way."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import edfio
import numpy as np
import pytest

from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.types import STAGES, Reason
from hypnocast.errors import CommandError
from hypnocast.simulate import SimulatedNight
from hypnocast.simulate.montages import CLINICAL
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.packs.manifest import Context
from hypnocast.stagers.packs.pack import load_pack
from hypnocast_models.compare.hypnogram import read_hypnogram
from hypnocast_models.data.pictures import open_drawn
from hypnocast_models.readers.datasets import FoundRecording, find_nights, open_night
from hypnocast_models.staging.archive import (
    ArchivePlan,
    drawing_plan,
    run_archive,
    staging_plan,
    weak_plan,
    work_on,
)
from hypnocast_models.staging.night import stage_night
from support.examples import examples
from support.models_cli import run
from support.needs import need_module
from support.packs import make_tiny_pack

RATE = 64


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_pack(tmp_path_factory.mktemp("pack"), family="contrastive")


def record(path: Path, seed: int, pages: int = 2, hole: bool = False) -> None:
    """Write a simulated night as EDF+."""
    night = SimulatedNight(seed, stages=[STAGES[(seed + page) % 5] for page in range(pages)])
    samples = night.samples(0.0, pages * 30.0, leads=CLINICAL, rate=RATE).astype(np.float64)
    if hole:
        samples[: 30 * RATE] = 0.0
    signals = [
        edfio.EdfSignal(
            samples[:, place].clip(-900, 900), RATE,
            label=lead.label, physical_dimension="uV", physical_range=(-1000, 1000),
        )
        for place, lead in enumerate(CLINICAL)
    ]  # fmt: skip
    notes = [
        edfio.EdfAnnotation(30.0 * k, 30.0, f"Sleep stage {s}") for k, s in enumerate(night.stages)
    ]
    edfio.Edf(signals, annotations=notes, data_record_duration=5).write(path)


def cluster(workers: int) -> Any:
    need_module("distributed")
    return import_module("distributed").LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=50,
    )


def test_many_recordings_are_staged_once_though_a_worker_is_killed(
    tmp_path: Path, pack: Path
) -> None:
    archive, out = tmp_path / "archive", tmp_path / "out"
    archive.mkdir()
    count = examples(60, 200)
    for seed in range(count):
        record(archive / f"p{seed:03d}.edf", seed)
    nights = find_nights(archive)
    plan = staging_plan(pack, out, None)
    done: list[int] = []
    with cluster(2) as local:
        victim = int(local.workers[0].pid)

        def advance(count: int) -> None:
            done.append(count)
            if len(done) == 20:
                os.kill(victim, signal.SIGKILL)

        outcome = run_archive(plan, nights, scheduler=local.scheduler_address, advance=advance)
        assert int(local.workers[0].pid or 0) != victim
    assert outcome.failed == {}
    assert sorted(outcome.done) == [night.name for night in nights]
    assert sum(done) == count
    files = sorted(out.glob("*.csv"))
    assert [file.stem for file in files] == [night.name for night in nights]
    assert all(len(read_hypnogram(file).stages) == 2 for file in files)


def test_a_run_goes_on_where_it_stopped_and_names_the_night_that_fails(
    tmp_path: Path, pack: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    need_module("distributed")
    archive, out = tmp_path / "archive", tmp_path / "out"
    archive.mkdir()
    for seed in range(4):
        record(archive / f"p{seed}.edf", seed)
    whole = (archive / "p2.edf").read_bytes()
    (archive / "p2.edf").write_bytes(whole[:400])
    command = ["stage", str(archive), "--out", str(out), "--pack", str(pack), "--workers", "1"]
    assert run([*command, "--retries", "1"]) == 1
    printed = capfd.readouterr().out
    assert "3 nights done, 0 were done before, 1 failed" in printed
    assert "p2: " in printed
    assert "ends within its header" in printed
    before = {file: file.stat().st_mtime_ns for file in out.glob("*.csv")}
    (archive / "p2.edf").write_bytes(whole)
    assert run(command) == 0
    assert "1 nights done, 3 were done before, 0 failed" in capfd.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert run([*command, "--min-coverage", "0.1"]) == 2
    assert "was begun with another pack" in capfd.readouterr().err


def test_two_runs_at_once_do_not_meet(tmp_path: Path, pack: Path) -> None:
    """Dask's page of its workers has one port, unless another is asked for."""
    need_module("distributed")
    record(tmp_path / "p.edf", 1)
    with socket.socket() as other:
        with suppress(OSError):  # another run of ours may have it indeed
            other.bind(("127.0.0.1", 8787))
            other.listen()
        command = ["stage", str(tmp_path), "--out", str(tmp_path / "out"), "--pack", str(pack)]
        assert run([*command, "--workers", "1"]) == 0


def test_no_scheduler_is_misuse_and_nothing_is_begun(tmp_path: Path, pack: Path) -> None:
    need_module("distributed")
    record(tmp_path / "p.edf", 1)
    plan = staging_plan(pack, tmp_path / "out", None)
    with pytest.raises(CommandError, match="no scheduler answers"):
        run_archive(plan, find_nights(tmp_path), scheduler="tcp://127.0.0.1:9")


def test_drawn_nights_hold_the_pictures_that_the_daemon_draws(tmp_path: Path) -> None:
    record(tmp_path / "p.edf", 1, pages=3)
    (found,) = find_nights(tmp_path)
    plan = drawing_plan("clinical-448x224", tmp_path)
    assert work_on(plan, found) == "p"
    with np.load(tmp_path / "p.npz") as kept:
        assert kept["rgb"].shape == (3, 224, 448, 3)
        assert kept["stage"].tolist() == [1, 2, 3]
        assert kept["rgb"].max() > 0


def test_an_archive_that_nobody_scored_is_staged_by_a_pack_as_weak_labels(
    tmp_path: Path, pack: Path
) -> None:
    record(tmp_path / "p.edf", 1, pages=4, hole=True)
    (found,) = find_nights(tmp_path)
    staging = staging_plan(pack, tmp_path / "out", None)
    (tmp_path / "out").mkdir()
    loaded = load_pack(pack)
    opened = open_night(found, scored=False)
    staged = stage_night(opened, loaded, LocalStager(loaded, "cpu", threads=1)).hypnogram
    assert staged.probabilities is not None
    sure = np.float32(sorted(staged.probabilities[1:].max(axis=1))[1])
    work_on(weak_plan(staging, "clinical-448x224", float(sure)), found)
    night = open_drawn(tmp_path / "out" / "p.npz", builtin("clinical-448x224"))
    said = [
        stage if share >= sure else None
        for stage, share in zip(
            staged.stages, staged.probabilities.max(axis=1).astype(np.float32), strict=True
        )
    ]
    assert night.weak
    assert night.stages == tuple(said)
    assert sum(stage is not None for stage in said) == 2
    assert night.scorer == f"{loaded.manifest.name} {loaded.manifest.version}, sure of {sure:g}"
    for epoch in night.epochs[1:]:
        assert night.weights[epoch] == pytest.approx(staged.probabilities[epoch].max(), abs=1e-6)


@pytest.mark.parametrize(("before", "after"), [(0, 0), (2, 0), (1, 1)])
def test_pages_are_staged_among_their_neighbours_and_bad_ones_are_withheld(
    tmp_path: Path, before: int, after: int
) -> None:
    pack = load_pack(make_tiny_pack(tmp_path / "pack", context=Context(before=before, after=after)))
    record(tmp_path / "p.edf", 3, pages=5, hole=True)
    night = open_night(FoundRecording("edf", "p", "p", tmp_path / "p.edf"))
    looks = []
    stager = LocalStager(pack, "cpu", threads=1)

    class Watching:
        provider = "cpu"
        pace = stager.pace

        def judge(self, given: Any) -> Any:
            looks.extend(given)
            return stager.judge(given)

        def close(self) -> None:
            stager.close()

    staged = stage_night(night, pack, Watching())
    assert staged.reasons == {0: Reason.DETACHED.value}
    assert [look.page.epoch for look in looks] == [1, 2, 3, 4]
    for look in looks:
        epochs = [None if p is None else p.epoch for p in look.pictures]
        wanted = range(look.page.epoch - before, look.page.epoch + after + 1)
        assert epochs == [k if 1 <= k <= 4 else None for k in wanted]
    assert staged.hypnogram.stages[0] is None
    assert all(stage is not None for stage in staged.hypnogram.stages[1:])
    assert np.isnan(staged.log_probabilities[0]).all()


def test_a_plan_says_where_each_night_goes(tmp_path: Path) -> None:
    night = FoundRecording("edf", "p", "p", tmp_path / "p.edf")
    assert ArchivePlan(str(tmp_path), pack="x").path(night) == tmp_path / "p.csv"
    assert ArchivePlan(str(tmp_path), recipe="r").path(night) == tmp_path / "p.npz"
