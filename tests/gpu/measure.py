"""Measures real models on one NVIDIA GPU in ten minutes: everything it needs is made on the spot.

``python tests/gpu/measure.py FOLDER`` writes ``FOLDER/gpu.json`` and a table for
``docs/performance.md``. See ``README.md`` beside it. It has never been run: no GPU was at hand.

Whatever may bring a process down with it (a card, a driver) runs in one of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

YARDSTICK_PAGES_S = 4.15
"""SleepVLM-3B (W4A16, vLLM, one card), as published."""

SIZES = ("qwen2.5-vl-3b", "smolvlm-256m")
PRECISIONS = ("int4-fp16", "fp16")
BUDGET_S = 600.0
WARD_S = 75.0
TINY = "tiny"
"""A size of its own, to try the script with."""


@dataclass(frozen=True, slots=True)
class GpuRow:
    """One thing that was tried."""

    what: str
    provider: str
    value: float | None
    unit: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class GpuTrial:
    """One pack on one provider, and until when it may be tried."""

    pack: Path
    name: str
    provider: Any
    until: float
    beds: int

    @property
    def left_s(self) -> float:
        """Seconds that are left."""
        return max(1.0, self.until - time.monotonic())


def main() -> int:
    """Run every step; one that fails is reported and does not keep the others from running."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cpu", action="store_true", help="try the script without a GPU")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), help=f"or {TINY}")
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS))
    parser.add_argument("--layers", type=int, help="shallower decoders, to try the script")
    parser.add_argument("--beds", type=int, default=16)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    provider = "cpu" if asked.cpu else "cuda"
    began, rows = time.monotonic(), list(_found(provider))
    until = began + BUDGET_S
    for size in asked.sizes:
        source = asked.folder / size
        rows += _step(f"{size}: weights", until, partial(_weights, size, source, asked.layers))
        for precision in asked.precisions:
            name = f"{size} {precision}"
            pack = asked.folder / f"{size}-{precision}"
            trial = GpuTrial(pack, name, provider, until, asked.beds)
            steps: dict[str, Callable[[], Iterable[GpuRow]]] = {
                "pack": partial(_pack, source, pack, precision),
                "verdict": partial(_verdict, trial),
                "generate": partial(_bench, trial, "generate"),
                "binding": partial(_binding, trial),
                "fault": partial(_fault, trial),
                "path": partial(_bench, trial, "path", "--beds", str(asked.beds)),
                "ward": partial(
                    _bench, trial, "ward", "--beds", str(asked.beds), "--minutes", str(WARD_S / 60)
                ),
            }
            for step, act in steps.items():
                rows += _step(f"{name}: {step}", until, act)
    fields = {"rows": [asdict(row) for row in rows], "seconds": time.monotonic() - began}
    (asked.folder / "gpu.json").write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
    for line in table(rows):
        print(line)
    return int(any(row.value is None for row in rows))


def table(rows: list[GpuRow]) -> Iterator[str]:
    """Give the rows as docs/performance.md has them."""
    yield "| what | on | value | unit | note |"
    yield "|---|---|---|---|---|"
    for row in rows:
        value = "failed" if row.value is None else f"{row.value:.3g}"
        yield f"| {row.what} | {row.provider} | {value} | {row.unit} | {row.note} |"


def _step(what: str, until: float, act: Callable[[], Iterable[GpuRow]]) -> list[GpuRow]:
    if time.monotonic() > until:
        return [GpuRow(what, "", None, "", "no time left")]
    print(f"… {what}", file=sys.stderr, flush=True)
    try:
        return list(act())
    except Exception as error:  # noqa: BLE001 - every other step is still worth its minute
        return [GpuRow(what, "", None, "", f"{type(error).__name__}: {str(error)[-300:]}")]


def _found(provider: str) -> Iterator[GpuRow]:
    import onnxruntime

    offered = onnxruntime.get_available_providers()
    there = any(provider in name.lower() for name in offered)
    yield GpuRow(f"provider found ({onnxruntime.__version__})", provider, float(there), "0/1")
    if provider == "cuda":
        asked = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv"]
        outcome = subprocess.run(asked, capture_output=True, text=True, check=False)
        yield GpuRow("card", provider, 1.0, "", " ".join(outcome.stdout.split("\n")[1:2]))


def _run(module: str, *arguments: str, within_s: float = BUDGET_S) -> float:
    """Run a command line of this project and return how many seconds it ran."""
    began = time.monotonic()
    code = f"from {module} import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments[:2])}: {done.stderr.strip()[-300:]}")
    return time.monotonic() - began


def _weights(size: str, folder: Path, layers: int | None) -> list[GpuRow]:
    if size == TINY:
        took = _run("hypnocast_models.cli", "tiny", "qwen2_5_vl", str(folder))
    else:
        more = [] if layers is None else ["--layers", str(layers)]
        took = _run("hypnocast_models.cli", "weights", size, str(folder), *more)
    return [GpuRow(f"{size}: random weights", "cpu", took, "s")]


def _pack(source: Path, pack: Path, precision: str) -> list[GpuRow]:
    took = _run(
        "hypnocast_models.cli",
        *("export", str(source), str(pack), "--name", pack.name.lower()),
        *("--precision", precision, "--stage-first", "--no-prove"),
    )
    size = sum(path.stat().st_size for path in pack.iterdir()) / 1e9
    return [GpuRow(f"{pack.name}: pack", "cpu", took, "s", f"{size:.2f} GB")]


def _bench(trial: GpuTrial, group: str, *options: str) -> list[GpuRow]:
    """Measure by the project's own benchmark, which takes the GPU where there is one."""
    kept = trial.pack.with_name(f"{trial.pack.name}-{group}.json")
    _run(
        "hypnocast.cli",
        *("bench", group, "--pack", str(trial.pack), "-o", str(kept), *options),
        within_s=trial.left_s,
    )
    figures = json.loads(kept.read_text(encoding="utf-8"))["figures"]
    return [
        GpuRow(
            f"{trial.name}: {figure['name']}",
            trial.provider,
            figure["median"],
            figure["unit"],
            f"worst {max(figure['samples']):.3g} of {figure['count']}; {figure['note']}",
        )
        for figure in figures
    ]


def _verdict(trial: GpuTrial) -> Iterator[GpuRow]:
    """Judge pages by the daemon's own stager, alone and several at once."""
    from hypnocast.bench.pages import looks_of_a_night, simulated_pictures
    from hypnocast.stagers.onnx.local import LocalStager
    from hypnocast.stagers.packs.pack import load_pack

    pack = load_pack(trial.pack)
    began = time.monotonic()
    stager = LocalStager(pack, trial.provider)
    yield GpuRow(f"{trial.name}: warm", stager.provider, time.monotonic() - began, "s")
    pictures = simulated_pictures(pack.recipe, 8)
    for beds in sorted({1, 4, trial.beds}):
        times = []
        for looks in looks_of_a_night(pack, pictures, beds, 4):
            began = time.monotonic()
            stager.judge(looks)
            times.append(time.monotonic() - began)
        best = min(times[1:])
        note = f"{beds / best / YARDSTICK_PAGES_S:.2f} of SleepVLM's published {YARDSTICK_PAGES_S}"
        yield GpuRow(f"{trial.name}: {beds} at once", stager.provider, beds / best, "pages/s", note)
    stager.close()


def _binding(trial: GpuTrial) -> Iterator[GpuRow]:
    """Write tokens with key-values that stay on the card, and with their way there and back."""
    from hypnocast.bench import generate
    from hypnocast.bench.pages import looks_of_a_night, simulated_pictures
    from hypnocast.stagers.generative.model import GenerativeModel
    from hypnocast.stagers.onnx.engine import Engine, Graph
    from hypnocast.stagers.packs.manifest import Generative
    from hypnocast.stagers.packs.pack import Pack, load_pack

    class Unbound(Engine):
        """Whatever a graph gives comes back to the host."""

        def open(self, pack: Pack, name: str) -> Graph:
            graph = super().open(pack, name)
            graph._device = None
            return graph

    pack = load_pack(trial.pack)
    table = pack.manifest.model
    assert isinstance(table, Generative)
    looks = next(looks_of_a_night(pack, simulated_pictures(pack.recipe, 4), 1, 1))
    for engine, words in ((Engine, "with I/O binding"), (Unbound, "without")):
        model = GenerativeModel(pack, table, engine(trial.provider))
        best = min(wall for wall, _ in generate._steps(model, looks, 16, 1))
        yield GpuRow(f"{trial.name}: a token {words}", trial.provider, 1e3 * best, "ms")


def _fault(trial: GpuTrial) -> Iterator[GpuRow]:
    """Let the provider fail in mid-night: the same pages come from the CPU, and it is reported."""
    import numpy as np

    from hypnocast.bench.pages import looks_of_a_night, simulated_pictures
    from hypnocast.errors import InferenceError
    from hypnocast.stagers.onnx.local import LocalStager
    from hypnocast.stagers.packs.pack import load_pack

    pack = load_pack(trial.pack)
    stager = LocalStager(pack, trial.provider)
    looks = next(looks_of_a_night(pack, simulated_pictures(pack.recipe, 4), 1, 1))
    before = stager.judge(looks)[0]
    if stager.provider == "cpu":
        yield GpuRow(f"{trial.name}: fault", "cpu", 0.0, "", "nothing to fall back from")
        return
    model = stager._model
    assert model is not None

    def fails(_: object) -> Any:
        raise InferenceError("the card fell off the bus", where="gpu")

    model.read = fails  # type: ignore[method-assign,assignment]
    began = time.monotonic()
    after = stager.judge(looks)[0]
    moved = float(np.abs(np.exp(after.log_probabilities) - np.exp(before.log_probabilities)).max())
    note = f"now on {stager.provider}; probabilities moved by {moved:.3f}"
    took = time.monotonic() - began
    yield GpuRow(f"{trial.name}: back after a fault", stager.provider, took, "s", note)


if __name__ == "__main__":
    raise SystemExit(main())
