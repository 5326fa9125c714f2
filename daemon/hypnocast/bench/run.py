"""Runs groups of benchmarks one after the other and gathers what they find."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hypnocast.bench.figures import Figure, Report
from hypnocast.bench.machine import conditions
from hypnocast.errors import ConfigError
from hypnocast.stagers.packs.pack import Pack

Group = Literal["start", "picture", "verdict", "path", "night", "ward", "loop", "crowd", "generate"]


@dataclass(frozen=True, slots=True)
class Effort:
    """What to measure with, and how long."""

    pack: Pack
    folder: Path
    """For files that are needed on the way."""
    long: bool = False
    """The soak: minutes where the short form has seconds."""
    yasa: Path | None = None
    """A Python that has YASA, to stage the night beside; None: this one, if it has."""
    beds: int | None = None
    """So many beds in *ward*, and in *path*, which then takes fewer pages."""
    minutes: float | None = None
    """So long in *ward*."""


def run(groups: tuple[Group, ...], effort: Effort, *, found: Callable[[Figure], None]) -> Report:
    """Measure; every figure is printed as soon as it is there."""
    measured = conditions() | {
        "pack": f"{effort.pack.manifest.name} {effort.pack.manifest.version}",
        "pack_digest": effort.pack.digest,
        "long": effort.long,
    }
    report = Report(measured)
    for group in groups:
        for figure in _GROUPS[group](effort, report):
            report.figures.append(figure)
            found(figure)
    return report


def _start(effort: Effort, _: Report) -> Iterator[Figure]:
    from hypnocast.bench import start

    yield from start.measure(effort.pack, effort.folder / "start")


def _picture(_: Effort, report: Report) -> Iterator[Figure]:
    from hypnocast.bench import picture

    if (why := picture.lacking()) is not None:
        report.passed_over.append(why)
    yield from picture.measure()


def _path(effort: Effort, _: Report) -> Iterator[Figure]:
    from hypnocast.bench import path

    if effort.beds is not None:
        yield from path.measure(effort.pack, pages=8, rounds=3, beds=effort.beds)
        return
    yield from path.measure(effort.pack, pages=210 if effort.long else 40)


def _verdict(effort: Effort, report: Report) -> Iterator[Figure]:
    from hypnocast.bench import verdict
    from hypnocast.stagers.onnx.engine import installed_runtime

    if installed_runtime() == "cpu":
        report.passed_over.append("verdict: nothing on a GPU, for onnxruntime-gpu is not installed")
    yield from verdict.measure(effort.pack, rounds=100 if effort.long else 24)


def _night(effort: Effort, report: Report) -> Iterator[Figure]:
    from hypnocast.bench import night

    yasa = effort.yasa or night.yasa_here()
    if yasa is None:
        report.passed_over.append("night: YASA beside it, for no Python that has it was named")
    repeats = 5 if effort.long else 1
    yield from night.measure(effort.pack.folder, effort.folder, repeats=repeats, yasa=yasa)


def _ward(effort: Effort, _: Report) -> Iterator[Figure]:
    from hypnocast.bench import ward

    yield from ward.measure(
        effort.pack,
        effort.folder / "ward",
        long=effort.long,
        beds=effort.beds,
        minutes=effort.minutes,
    )


def _loop(effort: Effort, _: Report) -> Iterator[Figure]:
    from hypnocast.bench import loop

    yield from loop.measure(effort.pack, effort.folder / "loop", seconds=130 if effort.long else 20)


def _crowd(effort: Effort, _: Report) -> Iterator[Figure]:
    from hypnocast.bench import crowd

    yield from crowd.measure(effort.pack, pages=5 if effort.long else 3)


def _generate(effort: Effort, report: Report) -> Iterator[Figure]:
    from hypnocast.bench import generate

    try:
        yield from generate.measure(effort.pack)
    except ConfigError as error:
        report.passed_over.append(f"generate: {error}")


_GROUPS: dict[Group, Callable[[Effort, Report], Iterator[Figure]]] = {
    "start": _start,
    "picture": _picture,
    "verdict": _verdict,
    "path": _path,
    "night": _night,
    "ward": _ward,
    "loop": _loop,
    "crowd": _crowd,
    "generate": _generate,
}

GROUPS: tuple[Group, ...] = tuple(_GROUPS)
SHORT: tuple[Group, ...] = tuple(group for group in GROUPS if group not in ("loop", "crowd"))
"""What is measured where nothing is named: in less than five minutes."""
