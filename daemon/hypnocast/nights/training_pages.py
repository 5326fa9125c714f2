"""Pages with somebody's stages, as a folder that ``hypnocast-models finetune`` reads.

The stages are a scorer's, or a second opinion's where it was sure: weak labels, marked as such.

``lesson.npz`` holds ``pictures`` (n, height, width, 3) uint8 exactly as a model sees them,
``stage`` (n,) uint8 as index into W, N1, N2, N3, R, ``epoch`` (n,) int32, ``weight`` (n,) float32
(1 for a scorer's stage, else how sure the second opinion was) and ``facts``, the bytes of a JSON
object: format, recipe digest, session, subject, bed, source, scorer, weak.
``pages.csv`` lists the same of each page for people, with the model's own stage beside it.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from hypnocast.config.tables import Config
from hypnocast.core.pictures.recipe import Recipe
from hypnocast.core.types import STAGES, Picture, Stage
from hypnocast.core.wire.payloads import StageName
from hypnocast.errors import CommandError, TapeError
from hypnocast.live.service.build import open_pack
from hypnocast.nights.night_view import NightView
from hypnocast.nights.redraw import draw_again, tapes_of
from hypnocast.ports.durable_files import replace_file

FORMAT = "hypnocast.lesson/1"


@dataclass(frozen=True, slots=True)
class PageTeacher:
    """Whose stages are to be learnt from."""

    name: str
    stages: tuple[StageName | None, ...]
    """Per epoch; None where there is nothing to learn."""
    weights: tuple[float, ...]
    weak: bool
    """Whether a model gave them, not a person."""


def scorer_teacher(view: NightView, scorer: str) -> PageTeacher:
    """Let a scorer's stages be learnt from."""
    found = view.scorers.get(scorer)
    if found is None:
        there = ", ".join(view.scorers) or "nobody"
        raise CommandError(
            f"{scorer!r} has not scored this night",
            where="--scorer",
            remedy=f"It was scored by {there}.",
        )
    return PageTeacher(scorer, found, (1.0,) * len(found), weak=False)


def second_teacher(view: NightView, pack: str, sure: float) -> PageTeacher:
    """Let the stages of a pack beside be learnt from, where it was at least so sure."""
    found = next((second for second in view.seconds if second.name.split()[0] == pack), None)
    if found is None:
        there = ", ".join(second.name for second in view.seconds) or "none"
        raise CommandError(
            f"no pack {pack!r} judged this night beside the one that spoke",
            where="--second",
            remedy=f"Second opinions there are: {there}.",
        )
    stages = tuple(
        stage if confidence >= sure else None
        for stage, confidence in zip(found.stages, found.confidences, strict=True)
    )
    return PageTeacher(f"{found.name}, sure of {sure:g}", stages, found.confidences, weak=True)


def write_training_pages(
    config: Config,
    view: NightView,
    folder: Path,
    teacher: PageTeacher,
    *,
    tape: Path | None = None,
    advance: Callable[[], None] = lambda: None,
) -> int:
    """Draw every page that the teacher staged and the model saw; return how many there are."""
    recipe = open_pack(config).recipe
    wanted = {
        epoch: (Stage(stage), weight)
        for epoch, (page, stage, weight) in enumerate(
            zip(view.pages, teacher.stages, teacher.weights, strict=False)
        )
        if page is not None and page.digests.picture is not None and stage is not None
    }
    if not wanted:
        raise CommandError(
            f"has no page that {teacher.name} staged and a model saw", where=view.session.id
        )
    tapes = [tape] if tape is not None else tapes_of(config, view, min(wanted))
    if not tapes:
        raise TapeError(
            f"there is no tape of {view.session.id}",
            where=str(config.tape_dir),
            remedy="Name the recording with --tape, if it lies elsewhere.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    drawn = _TrainingFolder(folder, view, recipe)
    with drawn:
        for path in tapes:
            for picture in draw_again(config, view, recipe, path, range(max(wanted) + 1)):
                if picture.epoch in wanted:
                    drawn.add(picture, *wanted[picture.epoch])
                    advance()
    return drawn.finish(teacher)


class _TrainingFolder:
    """Writes pictures as they come: a night of them would not fit into a bedside's memory."""

    def __init__(self, folder: Path, view: NightView, recipe: Recipe) -> None:
        self._folder, self._view, self._recipe = folder, view, recipe
        self._raw, self._half = folder / "pictures.part", folder / "lesson.part"
        self._stages: dict[int, Stage] = {}
        self._weights: list[float] = []
        self._digests: list[str] = []

    def __enter__(self) -> None:
        self._file = self._raw.open("wb")

    def __exit__(self, error: object, *_: object) -> None:
        self._file.close()
        if error is not None:
            self._raw.unlink()

    def add(self, picture: Picture, stage: Stage, weight: float) -> None:
        if picture.epoch not in self._stages:
            self._file.write(picture.rgb.tobytes())
            self._stages[picture.epoch] = stage
            self._weights.append(weight)
            self._digests.append(picture.digest)

    def finish(self, teacher: PageTeacher) -> int:
        try:
            self._write_npz(teacher)
        finally:
            self._raw.unlink(missing_ok=True)
            self._half.unlink(missing_ok=True)
        self._write_csv(teacher.name)
        return len(self._stages)

    def _write_npz(self, teacher: PageTeacher) -> None:
        session = self._view.session
        facts = {
            "format": FORMAT,
            "recipe": self._recipe.digest,
            "session": session.id,
            "subject": session.subject,
            "bed": session.bed,
            "source": session.source,
            "scorer": teacher.name,
            "weak": teacher.weak,
        }
        small: dict[str, NDArray[np.generic]] = {
            "stage": np.array([STAGES.index(s) for s in self._stages.values()], np.uint8),
            "epoch": np.array(list(self._stages), np.int32),
            "weight": np.array(self._weights, np.float32),
            "facts": np.frombuffer(json.dumps(facts).encode(), np.uint8),
        }
        shape = (len(self._stages), self._recipe.height, self._recipe.width, 3)
        with zipfile.ZipFile(self._half, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive:
            for name, array in small.items():
                with archive.open(f"{name}.npy", "w") as out:
                    npy.write_array(out, np.asarray(array), allow_pickle=False)
            with archive.open("pictures.npy", "w", force_zip64=True) as out:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                npy.write_array_header_1_0(out, header)
                with self._raw.open("rb") as raw:
                    while block := raw.read(1 << 22):
                        out.write(block)
        self._half.replace(self._folder / "lesson.npz")

    def _write_csv(self, scorer: str) -> None:
        out = io.StringIO()
        table = csv.writer(out, lineterminator="\n")
        table.writerow(("epoch", "stage", "scorer", "hypnocast_stage", "confidence", "picture"))
        for (epoch, stage), digest in zip(self._stages.items(), self._digests, strict=True):
            event = self._view.page(epoch)
            table.writerow(
                (epoch, stage.value, scorer, event.stage or "", event.confidence, digest)
            )
        replace_file(self._folder / "pages.csv", out.getvalue().encode(), mode=0o666)
