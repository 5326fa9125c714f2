"""Measures real models on one NVIDIA GPU in ten minutes: everything it needs is made on the spot.

``python tests/gpu/measure.py FOLDER`` writes ``FOLDER/gpu.json`` and a table for
``docs/performance.md``. See ``README.md`` beside it. It has never been run: no GPU was at hand.
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

SIZES = ("smolvlm-256m", "qwen2.5-vl-3b")
PRECISIONS = ("fp16", "int4")
BUDGET_S = 600.0


@dataclass(frozen=True, slots=True)
class GpuRow:
    """One thing that was tried."""

    what: str
    provider: str
    value: float | None
    unit: str
    note: str = ""


def main() -> int:
    """Run every step; one that fails is reported and does not keep the others from running."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--provider", default="cuda", help="cpu tries the script without a GPU")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES))
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS))
    parser.add_argument("--layers", type=int, help="shallower decoders, to try the script")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    began, rows = time.monotonic(), list(_found(asked.provider))
    for size in asked.sizes:
        source = asked.folder / size
        rows += _step(f"{size}: weights", partial(_weights, size, source, asked.layers))
        for precision in asked.precisions:
            if time.monotonic() - began > BUDGET_S:
                rows.append(GpuRow(f"{size} {precision}", asked.provider, None, "", "no time left"))
                continue
            pack = asked.folder / f"{size}-{precision}"
            name = f"{size} {precision}"
            rows += _step(f"{name}: pack", partial(_pack, source, pack, precision))
            rows += _step(name, partial(_judged, pack, name, asked.provider))
            rows += _step(f"{name}: fault", partial(_fault, pack, name, asked.provider))
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


def _step(what: str, act: Callable[[], Iterable[GpuRow]]) -> list[GpuRow]:
    print(f"… {what}", file=sys.stderr, flush=True)
    try:
        return list(act())
    except Exception as error:  # noqa: BLE001 - every other step is still worth its minute
        return [GpuRow(what, "", None, "", f"{type(error).__name__}: {str(error)[:200]}")]


def _found(provider: str) -> Iterator[GpuRow]:
    import onnxruntime

    offered = onnxruntime.get_available_providers()
    there = any(provider in name.lower() for name in offered)
    yield GpuRow(f"provider found ({onnxruntime.__version__})", provider, float(there), "0/1")
    if provider == "cuda":
        asked = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv"]
        outcome = subprocess.run(asked, capture_output=True, text=True, check=False)
        yield GpuRow("card", provider, 1.0, "", " ".join(outcome.stdout.split("\n")[1:2]))


def _models(*arguments: str) -> float:
    """Run ``hypnocast-models`` and return how many seconds it ran."""
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "hypnocast_models.cli", *arguments], check=True, capture_output=True
    )
    return time.monotonic() - began


def _weights(size: str, folder: Path, layers: int | None) -> list[GpuRow]:
    more = [] if layers is None else ["--layers", str(layers)]
    took = _models("weights", size, str(folder), *more)
    return [GpuRow(f"{size}: random weights", "cpu", took, "s")]


def _pack(source: Path, pack: Path, precision: str) -> list[GpuRow]:
    took = _models(
        *("export", str(source), str(pack), "--name", pack.name.lower()),
        *("--precision", precision, "--stage-first", "--no-prove"),
    )
    size = sum(path.stat().st_size for path in pack.iterdir()) / 1e9
    return [GpuRow(f"{pack.name}: pack", "cpu", took, "s", f"{size:.2f} GB")]


def _judged(folder: Path, name: str, provider: Any) -> Iterator[GpuRow]:
    """Judge pages by the daemon's own stager, alone and sixteen at once."""
    from hypnocast.bench.pages import looks_of_a_night, simulated_pictures
    from hypnocast.stagers.onnx.local import LocalStager
    from hypnocast.stagers.packs.pack import load_pack

    pack = load_pack(folder)
    began = time.monotonic()
    stager = LocalStager(pack, provider)
    yield GpuRow(f"{name}: warm", stager.provider, time.monotonic() - began, "s")
    pictures = simulated_pictures(pack.recipe, 8)
    for beds in (1, 4, 16):
        times = []
        for looks in looks_of_a_night(pack, pictures, beds, 4):
            began = time.monotonic()
            stager.judge(looks)
            times.append(time.monotonic() - began)
        best = min(times[1:])
        note = f"{beds / best / YARDSTICK_PAGES_S:.2f} of SleepVLM's published {YARDSTICK_PAGES_S}"
        yield GpuRow(f"{name}: {beds} at once", stager.provider, beds / best, "pages/s", note)
    stager.close()


def _fault(folder: Path, name: str, provider: Any) -> Iterator[GpuRow]:
    """Let the provider fail in mid-night: the same pages come from the CPU, and it is reported."""
    import numpy as np

    from hypnocast.bench.pages import looks_of_a_night, simulated_pictures
    from hypnocast.errors import InferenceError
    from hypnocast.stagers.onnx.local import LocalStager
    from hypnocast.stagers.packs.pack import load_pack

    pack = load_pack(folder)
    stager = LocalStager(pack, provider)
    looks = next(looks_of_a_night(pack, simulated_pictures(pack.recipe, 4), 1, 1))
    before = stager.judge(looks)[0]
    if stager.provider == "cpu":
        yield GpuRow(f"{name}: fault", "cpu", 0.0, "", "nothing to fall back from")
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
    yield GpuRow(
        f"{name}: back after a fault", stager.provider, time.monotonic() - began, "s", note
    )


if __name__ == "__main__":
    raise SystemExit(main())
