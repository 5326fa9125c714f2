"""Whole archives: draw or stage every night, on this machine's cores or on a cluster.

A night is the unit of work. Its result is one file, written beside its place and moved there
when it is whole, so that a night is done if its file is there: a run that was interrupted goes
on where it stopped, and a worker that dies costs no more than the night it was at. A night that
fails is tried again and then named; the others go on.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.types import STAGES, Picture, Stage
from hypnocast.errors import CommandError, HypnocastError, InstallError
from hypnocast.ports.durable_files import replace_file
from hypnocast.stagers.base import Stager
from hypnocast.stagers.packs.pack import Pack, load_pack
from hypnocast_models.compare.hypnogram import night_name, subject_name, write_hypnogram
from hypnocast_models.data.pictures import UNSCORED
from hypnocast_models.readers.datasets import FoundRecording, open_night
from hypnocast_models.readers.night import ScoredNight
from hypnocast_models.staging.night import StagedNight, pictures_of, stage_night
from hypnocast_models.taught import taught_subjects

RETRIES = 2
_PLAN = "archive.json"


@dataclass(frozen=True, slots=True)
class ArchivePlan:
    """What is done to every night of an archive."""

    out: str
    pack: str = ""
    """Folder of the pack that stages."""
    digest: str = ""
    """The digest of the pack or the recipe, so that two never mix in one folder."""
    recipe: str = ""
    """How pages are drawn that are to be kept; with a pack besides, the pack stages them."""
    min_coverage: float | None = None
    mains_hz: int = 50
    taught: tuple[str, ...] = ()
    """Subjects that the pack lists as taught: shown to who compares these nights."""
    sure: float = 0.0
    """Of pages that are kept: how sure the pack must be of a stage."""

    def path(self, night: FoundRecording) -> Path:
        """Return where a night's result goes."""
        return Path(self.out) / f"{night.name}.{'npz' if self.recipe else 'csv'}"


@dataclass
class Outcome:
    """What became of an archive."""

    done: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    """Done by an earlier run."""
    failed: dict[str, str] = field(default_factory=dict)
    """Night → why, after all its retries."""


class NightError(Exception):
    """A night that failed, in one line: what crosses from a worker must be plain."""


class RefusedByDiskError(Exception):
    """A file that the disk refused; it would refuse every night's."""


def staging_plan(
    pack: Path, out: Path, min_coverage: float | None, mains_hz: int = 50
) -> ArchivePlan:
    """Plan to stage nights with a pack."""
    loaded = load_pack(pack)
    taught = tuple(sorted(taught_subjects(loaded.manifest)))
    return ArchivePlan(
        str(out), str(loaded.folder), loaded.digest, "", min_coverage, mains_hz, taught
    )


def drawing_plan(recipe: str, out: Path, mains_hz: int = 50) -> ArchivePlan:
    """Plan to draw nights by a recipe."""
    return ArchivePlan(str(out), digest=builtin(recipe).digest, recipe=recipe, mains_hz=mains_hz)


def weak_plan(staging: ArchivePlan, recipe: str, sure: float) -> ArchivePlan:
    """Plan to draw nights, with the stages of the pack where it is so sure."""
    return replace(staging, recipe=builtin(recipe).name, sure=sure)


def work_on(plan: ArchivePlan, night: FoundRecording) -> str:
    """Do one night: what a worker runs. Gives the night's name."""
    try:
        content = _drawn(plan, night) if plan.recipe else _staged(plan, night)
    except HypnocastError as error:
        raise NightError(str(error)) from None
    except OSError as error:
        raise NightError(f"{night.signals}: {error}") from None
    target = plan.path(night)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(target)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise RefusedByDiskError(error.errno, str(error.strerror), str(target)) from None
    return night.name


def run_archive(
    plan: ArchivePlan,
    nights: Sequence[FoundRecording],
    *,
    scheduler: str = "",
    workers: int | None = None,
    retries: int = RETRIES,
    advance: Callable[[int], None] = lambda _done: None,
) -> Outcome:
    """Do all nights that are not done, on a scheduler's workers or on this machine's."""
    _check_plan(plan)
    outcome = Outcome()
    waiting = []
    for night in nights:
        if plan.path(night).is_file():
            outcome.before.append(night.name)
        else:
            waiting.append(night)
    advance(len(outcome.before))
    if not waiting:
        return outcome
    with _client(scheduler, min(workers or os.cpu_count() or 1, len(waiting))) as client:
        _begin(plan)
        futures = {
            client.submit(work_on, plan, night, key=f"night-{place}-{night.name}", retries=retries):
            night.name
            for place, night in enumerate(waiting)
        }  # fmt: skip
        for future in _dask().as_completed(list(futures)):
            name = futures[future]
            error = future.exception()
            if error is None:
                outcome.done.append(name)
            elif isinstance(error, RefusedByDiskError):
                raise OSError(*error.args)  # the command that writes names it
            else:
                outcome.failed[name] = _words(error)
            future.release()
            advance(1)
    return outcome


def _words(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, NightError) else f"{type(error).__name__}: {text}"


def _check_plan(plan: ArchivePlan) -> None:
    """Refuse to put nights into a folder that another plan began."""
    kept = Path(plan.out) / _PLAN
    if not kept.is_file():
        return
    begun, wanted = msgspec.json.decode(kept.read_bytes()), _kept(plan)
    if begun != {key: wanted[key] for key in wanted if key in begun}:
        raise CommandError(
            "was begun with another pack, recipe or coverage",
            where=plan.out,
            remedy="Choose another folder with --out.",
        )


def _begin(plan: ArchivePlan) -> None:
    """Make the folder, and keep in it what it is for."""
    folder = Path(plan.out)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / _PLAN).is_file():
        replace_file(folder / _PLAN, msgspec.json.encode(_kept(plan)), mode=0o666)


def _kept(plan: ArchivePlan) -> dict[str, Any]:
    """Return a plan as it is read back."""
    wanted = asdict(plan) | {"out": "", "pack": Path(plan.pack).name}
    read: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(wanted))
    return read


def taught_of(folder: Path) -> tuple[str, ...]:
    """Give a line where a folder of staged nights holds people whom its pack was taught on."""
    kept = folder / _PLAN
    if not kept.is_file():
        return ()
    plan = msgspec.json.decode(kept.read_bytes())
    there = {subject_name(night_name(path)) for path in folder.glob("*.csv")}
    known = sorted(there & set(plan.get("taught", ())))
    if not known:
        return ()
    lines = (
        f"warning: {folder}: {plan['pack']} lists {', '.join(known)} among the subjects that it "
        "was taught on: if these are the same people, figures on them are no test"
    )
    return (lines,)


def _dask() -> Any:
    try:
        return import_module("distributed")
    except ImportError as error:
        raise InstallError(
            "dask.distributed is missing", remedy="Install hypnocast[models]."
        ) from error


@contextmanager
def _client(scheduler: str, workers: int) -> Iterator[Any]:
    dask = _dask()
    if scheduler:
        try:
            client = dask.Client(scheduler, timeout=5)
        except (OSError, TimeoutError, ValueError) as error:
            raise CommandError(
                f"no scheduler answers ({error})",
                where=f"--scheduler {scheduler}",
                remedy="Start one with `dask scheduler` and workers with `dask worker`.",
            ) from error
        with client:
            yield client
        return
    with (
        dask.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # any free port: two runs at once do not meet
            silence_logs=50,
        ) as cluster,
        dask.Client(cluster) as client,
    ):
        yield client


@lru_cache(maxsize=1)
def _open(pack: str, digest: str) -> tuple[Pack, Stager]:
    """Open a pack once in each worker."""
    from hypnocast.stagers.onnx.local import LocalStager

    loaded = load_pack(pack)
    if loaded.digest != digest:
        raise CommandError("is another pack on this worker", where=pack)
    return loaded, LocalStager(loaded, "auto", threads=1)


def _staged(plan: ArchivePlan, night: FoundRecording) -> bytes:
    staged = _judged(plan, open_night(night, scored=False))
    return write_hypnogram(staged.hypnogram, staged.reasons).encode()


def _judged(plan: ArchivePlan, night: ScoredNight) -> StagedNight:
    pack, stager = _open(plan.pack, plan.digest)
    return stage_night(night, pack, stager, min_coverage=plan.min_coverage, mains_hz=plan.mains_hz)


def _drawn(plan: ArchivePlan, night: FoundRecording) -> bytes:
    opened, recipe = open_night(night, scored=False), builtin(plan.recipe)
    weak = _weak_stages(plan, opened) if plan.pack else None
    stages = opened.stages if weak is None else weak.stages
    # A night of pictures is half a gigabyte: it is there once, and no page that was not drawn.
    rgb = np.empty((len(opened.stages), recipe.height, recipe.width, 3), np.uint8)
    epochs: list[int] = []
    for epoch, item in enumerate(pictures_of(opened, recipe, mains_hz=plan.mains_hz)):
        if isinstance(item, Picture):
            rgb[len(epochs)] = item.rgb
            epochs.append(epoch)
    given = [stages[epoch] for epoch in epochs]
    arrays: dict[str, NDArray[np.generic]] = {
        "rgb": rgb[: len(epochs)],
        "epoch": np.array(epochs, np.int64),
        "stage": np.array([UNSCORED if s is None else STAGES.index(s) for s in given], np.uint8),
        "subject": np.array(opened.subject),
        "recipe": np.array(recipe.digest),
    }
    if weak is not None:
        arrays |= {"weight": weak.sure[epochs], "scorer": np.array(weak.scorer)}
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)  # type: ignore[arg-type]  # numpy's stub takes every keyword for its own
    return out.getvalue()


class _WeakStages(NamedTuple):
    """What a pack says of a night where it is sure."""

    scorer: str
    stages: Sequence[Stage | None]
    sure: NDArray[np.float32]


def _weak_stages(plan: ArchivePlan, night: ScoredNight) -> _WeakStages:
    found = _judged(plan, night).hypnogram
    chances = (
        np.zeros((len(night.stages), 1)) if found.probabilities is None else found.probabilities
    )
    sure = np.nan_to_num(chances).max(axis=1).astype(np.float32)
    stages = [
        stage if share >= plan.sure else None
        for stage, share in zip(found.stages, sure.tolist(), strict=True)
    ]
    return _WeakStages(f"{found.scorer}, sure of {plan.sure:g}", stages, sure)
