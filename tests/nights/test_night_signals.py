"""A night's signals and stages in one EDF+ file, for the programs that read such files."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hypnocast.cli import run
from hypnocast.core.types import PAGE_S, Chunk, FloatArray, Stage
from hypnocast.nights.night_view import NightView, open_night
from hypnocast.ports.recordings.files import open_recording
from hypnocast.simulate import SimulatedSource
from support.brokers import free_port
from support.needs import need_module
from support.packs import make_tiny_pack
from support.taped_nights import Taped, tape_nights

S = Stage
STAGES = [S.W, S.W, S.N1, S.N2, S.N2, S.N3, S.N3, S.R]
GAP = (95.0, 12.0)
"""Onset and duration of a dropout."""

MNE = """
import json, sys, mne
raw = mne.io.read_raw_edf(sys.argv[1], preload=True, verbose="error")
read = {
    "names": raw.ch_names,
    "rate": raw.info["sfreq"],
    "uv": (raw.get_data() * 1e6).tolist(),
    "said": [list(one) for one in zip(
        raw.annotations.onset, raw.annotations.duration, raw.annotations.description)],
}
json.dump(read, sys.stdout, default=float)
"""


@pytest.fixture(scope="module")
def taped(tmp_path_factory: pytest.TempPathFactory) -> Taped:
    folder = tmp_path_factory.mktemp("state")
    pack = make_tiny_pack(tmp_path_factory.mktemp("pack") / "tiny", seed=3)
    onset, length = GAP
    fault = f"bed-01/dropout@{onset:g}+{length:g}"
    sim = SimulatedSource(1, seed=7, stages=STAGES, faults=[fault])
    return asyncio.run(tape_nights(folder, pack, sim, port=free_port()))


@pytest.fixture(scope="module")
def view(taped: Taped) -> NightView:
    return open_night(taped.config, "lab.bed-01")


@pytest.fixture(scope="module")
def exported(taped: Taped, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    config = folder / "hypnocast.toml"
    config.write_text(f'daemon.state_dir = "{taped.config.daemon.state_dir}"\n')
    asked = ["export", "latest", "--config", str(config), "--signals", "-o", str(folder)]
    assert run(asked) == 0
    [path] = folder.glob("*.edf")
    assert path.stat().st_mode & 0o777 == 0o600
    return path


def _sent(taped: Taped, view: NightView) -> dict[str, FloatArray]:
    """What the simulator sent from the beginning of page 0 on, by label, in µV."""
    tape = next(taped.config.tape_dir.glob("bed-01_*.xdf"))
    recording = open_recording(tape)
    [header] = [one for one in recording.headers if one.rate > 0]
    rows: list[FloatArray] = []
    stamps: list[FloatArray] = []

    for arrival in recording.arrivals():
        if isinstance(arrival, Chunk) and arrival.stream == header.key:
            rows.append(np.asarray(arrival.samples, np.float64))
            stamps.append(arrival.stamps)
    values, times = np.concatenate(rows), np.concatenate(stamps)
    start = view.anchors[0].lsl_t0
    whole = np.full((round(view.night.epochs * PAGE_S * header.rate), values.shape[1]), np.nan)
    places = np.rint((times - start) * header.rate).astype(int)
    inside = (places >= 0) & (places < len(whole))
    whole[places[inside]] = values[inside]
    return {channel.label: whole[:, k] for k, channel in enumerate(header.channels)}


def _check(names: list[str], rate: float, uv: FloatArray, sent: dict[str, FloatArray]) -> None:
    assert rate == pytest.approx(256.0)
    assert {"EEG F4-M1", "EEG C4-M1", "EEG O2-M1", "EOG E1-M2", "EOG E2-M2"} <= set(names)
    for name, row in zip(names, uv, strict=True):
        if name.removeprefix("EEG ").removeprefix("EOG ") not in sent:
            continue
        expected = sent[name.removeprefix("EEG ").removeprefix("EOG ")]
        assert row.size == expected.size
        there = np.isfinite(expected)
        assert there.mean() > 0.9
        # The file has the grid of 1/64 µV on which samples are drawn.
        assert np.abs(row[there] - expected[there]).max() <= 1 / 128 + 1e-6
        assert np.abs(row[~there] - np.median(expected[there])).max() < 1.0


def _check_texts(texts: list[tuple[float, float | None, str]], view: NightView) -> None:
    stages = [text.removeprefix("Sleep stage ") for _, _, text in texts if "Sleep stage" in text]
    assert stages == [stage or "?" for stage in view.stages]
    gaps = [(on, length) for on, length, text in texts if text.startswith("Not recorded: EEG F4")]
    assert any(
        on == pytest.approx(GAP[0], abs=1.5) and length == pytest.approx(GAP[1], abs=1.5)
        for on, length in gaps
    )


def test_edfio_reads_signals_and_stages(taped: Taped, view: NightView, exported: Path) -> None:
    from edfio import read_edf

    edf = read_edf(exported)
    assert all(signal.physical_dimension == "uV" for signal in edf.signals)
    _check(
        list(edf.labels), edf.signals[0].sampling_frequency,
        np.stack([signal.data for signal in edf.signals]), _sent(taped, view),
    )  # fmt: skip
    _check_texts([(one.onset, one.duration, one.text) for one in edf.annotations], view)


def test_pyedflib_reads_signals_and_stages(taped: Taped, view: NightView, exported: Path) -> None:
    need_module("pyedflib")
    from pyedflib import FILETYPE_EDFPLUS, EdfReader

    with EdfReader(str(exported)) as reader:
        assert reader.filetype == FILETYPE_EDFPLUS
        names = [name.strip() for name in reader.getSignalLabels()]
        uv = np.stack([reader.readSignal(place) for place in range(len(names))])
        rate = float(reader.getSampleFrequency(0))
        onsets, durations, texts = reader.readAnnotations()
    _check(names, rate, uv, _sent(taped, view))
    _check_texts(list(zip(onsets, durations, texts, strict=True)), view)


def test_mne_reads_signals_and_stages(taped: Taped, view: NightView, exported: Path) -> None:
    need_module("mne")
    answer = subprocess.run(
        [sys.executable, "-c", MNE, str(exported)], check=True, capture_output=True, text=True
    )
    document = json.loads(answer.stdout)
    _check(document["names"], document["rate"], np.array(document["uv"]), _sent(taped, view))
    _check_texts([(on, length, text) for on, length, text in document["said"]], view)


def test_hypnocast_replays_its_own_export(exported: Path, view: NightView) -> None:
    from hypnocast.api.night import open_night as open_any

    night = open_any(exported)
    assert night.pages == view.night.epochs
    assert {"F4-M1", "C4-M1", "O2-M1", "E1-M2", "E2-M2"} <= {str(role) for role in night.channels}


def test_signals_without_a_tape_are_refused_in_one_line(
    taped: Taped, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "hypnocast.toml"
    config.write_text(f'daemon.state_dir = "{taped.config.daemon.state_dir}"\n')
    assert run(["export", "latest", "--config", str(config), "-f", "csv", "--signals"]) == 2
    missing = str(tmp_path / "no.xdf")
    assert run(["export", "latest", "--config", str(config), "--tape", missing]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2
