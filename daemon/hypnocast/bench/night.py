"""Group *night*: a whole night's recording through the pipeline, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np

from hypnocast.bench.figures import Figure, Target
from hypnocast.bench.machine import cpu_s, peak_mb, resident_mb
from hypnocast.core.types import PAGE_S, Chunk, StreamOpened
from hypnocast.core.wire import payloads
from hypnocast.errors import ConfigError, HypnocastError
from hypnocast.ports.recordings.tape import Tape
from hypnocast.simulate import SimulatedSource

HOURS = 8
PAGES_PER_HOUR = round(3600 / PAGE_S)
HUNDRED = (Target("at least", 100.0),)


def measure(
    pack: Path, folder: Path, *, repeats: int = 1, yasa: Path | None = None
) -> Iterator[Figure]:
    """Replay a night as EDF, as a tape, and a shorter one for the growth with length.

    ``yasa`` is a Python that has YASA, which stages the same night beside it.
    """
    pages = HOURS * PAGES_PER_HOUR
    edf, short = folder / "night.edf", folder / "short.edf"
    write_edf(edf, pages)
    write_edf(short, pages // 4)
    runs = [replay_in_child(pack, edf) for _ in range(repeats)]
    yield Figure("night", f"{HOURS} h of EDF", "pages/s", _rates(runs), HUNDRED)
    cpu = [1e3 * run["cpu_s"] / run["pages"] for run in runs]
    yield Figure("night", "processor time", "ms/page", cpu)
    peak = [run["peak_mb"] for run in runs]
    yield Figure("night", "peak memory", "MB", peak, (Target("at most", 400.0, "worst"),))
    growth = [_growth(run) for run in runs]
    flat = (Target("at most", 2.0, "worst"),)
    yield Figure("night", "memory, 8th hour over 2nd", "%", growth, flat)
    fourth = replay_in_child(pack, short)
    linear = [(run["took_s"] / run["pages"]) / (fourth["took_s"] / fourth["pages"]) for run in runs]
    yield Figure("night", "time per page, 8 h over 2 h", "times", linear)
    if yasa is not None:
        theirs = [stage_by_yasa(yasa, edf) for _ in range(repeats)]
        yield Figure("night", "YASA on the same night", "pages/s", _rates(theirs))
        peaks = [run["peak_mb"] for run in theirs]
        yield Figure("night", "YASA's peak memory", "MB", peaks)
    edf.unlink()
    short.unlink()
    tape = write_tape(folder / "tape", pages)
    taped = replay_in_child(pack, tape)
    yield Figure("night", f"{HOURS} h of tape", "pages/s", _rates([taped]))
    tape.unlink()


def yasa_here() -> Path | None:
    """Return this Python, where YASA is installed beside Hypnocast."""
    return Path(sys.executable) if util.find_spec("yasa") is not None else None


def _rates(runs: list[dict[str, Any]]) -> list[float]:
    return [run["pages"] / run["took_s"] for run in runs]


def _growth(run: dict[str, Any]) -> float:
    """Return how much more memory the last hour needs than the second, in percent."""
    hours: list[float] = run["resident_mb"]
    return 100.0 * (hours[-1] / hours[1] - 1.0)


def write_edf(path: Path, pages: int) -> None:
    """Write a simulated night of 6 channels at 256 Hz."""
    import edfio

    source = SimulatedSource(1, seed=1, pages=pages, truth=False, chunk_s=5.0)
    parts, header = [], None
    for _, arrival in source:
        if isinstance(arrival, StreamOpened) and arrival.header.rate:
            header = arrival.header
        elif isinstance(arrival, Chunk) and header and arrival.stream == header.key:
            parts.append(arrival.samples.astype(np.float32))
    if header is None:
        raise HypnocastError("the simulator sent no signals", where="bench")
    samples = np.concatenate(parts)
    samples = samples[: len(samples) // round(header.rate) * round(header.rate)]
    signals = [
        edfio.EdfSignal(
            samples[:, column].astype(np.float64),
            sampling_frequency=header.rate,
            label=channel.label,
            physical_dimension="uV",
            physical_range=(-3200.0, 3200.0),
        )
        for column, channel in enumerate(header.channels)
    ]
    edfio.Edf(signals, data_record_duration=1.0).write(path)


def write_tape(folder: Path, pages: int) -> Path:
    """Write the same as a tape, in chunks of a quarter of a second."""
    folder.mkdir(exist_ok=True)
    tape = Tape(folder, "night", facts={"bed": "night"})
    for _, arrival in SimulatedSource(1, seed=1, pages=pages, truth=False):
        tape.write(arrival)
    tape.close()
    return tape.path


def replay_in_child(pack: Path, recording: Path) -> dict[str, Any]:
    """Replay a recording in a fresh process and return what it cost."""
    child = subprocess.run(
        [sys.executable, "-m", "hypnocast.bench.night", str(pack), str(recording)],
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode:
        raise HypnocastError(
            f"a replay failed: {child.stderr.strip()[-300:]}", where=str(recording)
        )
    measured: dict[str, Any] = json.loads(child.stdout)
    return measured


def stage_by_yasa(python: Path, edf: Path) -> dict[str, Any]:
    """Stage the same night by YASA, in a process of its own, from its imports on."""
    try:
        child = subprocess.run(
            [python, "-c", _YASA, edf], capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise ConfigError(
            f"cannot be run: {error.strerror}",
            where=str(python),
            remedy="Name the Python of an environment with YASA by --yasa.",
        ) from error
    if child.returncode:
        raise HypnocastError(f"YASA failed: {child.stderr.strip()[-300:]}", where=str(edf))
    measured: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return measured


_YASA = """
import json, resource, sys, time
began = time.monotonic()
import mne, yasa
raw = mne.io.read_raw_edf(sys.argv[1], preload=True, verbose="error")
names = raw.ch_names
staging = yasa.SleepStaging(
    raw,
    eeg_name=next(n for n in names if "C4" in n),
    eog_name=next(n for n in names if "E1" in n),
    emg_name=next(n for n in names if "hin" in n),
)
pages = len(staging.predict())
took_s = time.monotonic() - began
peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"pages": pages, "took_s": took_s, "peak_mb": peak_mb}))
"""


class _Meter:
    """Counts pages, and looks at the memory each hour of the night."""

    def __init__(self) -> None:
        self.pages = 0
        self.resident: list[float] = []

    def event(self, event: payloads.StageEvent) -> None:
        """Count a page."""
        if event.status == "provisional":
            return
        self.pages += 1
        if self.pages % PAGES_PER_HOUR == 0:
            self.resident.append(round(resident_mb(), 1))


def main(pack: str, recording: str) -> None:
    """Replay here and print what it cost."""
    from hypnocast.config.tables import Config, PackTable
    from hypnocast.live.service.logs import set_up_logs
    from hypnocast.nights.replay import ReplaySettings, replay

    set_up_logs(quiet=True)
    meter = _Meter()
    began = time.monotonic()
    config = Config(pack=PackTable(name=pack))
    asyncio.run(replay(config, ReplaySettings(Path(recording)), watchers=(meter,)))
    measured = {
        "pages": meter.pages,
        "took_s": time.monotonic() - began,
        "cpu_s": cpu_s(),
        "peak_mb": peak_mb(),
        "resident_mb": meter.resident,
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
