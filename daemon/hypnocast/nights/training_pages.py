"""Pages with a scorer's stages, as a folder that ``hypnocast-models finetune`` reads.

``lesson.npz`` holds ``pictures`` (n, height, width, 3) uint8 exactly as a model sees them,
``stage`` (n,) uint8 as index into W, N1, N2, N3, R, ``epoch`` (n,) int32 and ``facts``, the
bytes of a JSON object: format, recipe digest, session, subject, bed, source, scorer.
``pages.csv`` lists the same of each page for people, with the model's own stage beside it.
"""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from hypnocast.config.tables import Config
from hypnocast.core.pictures.recipe import Recipe
from hypnocast.core.types import STAGES, Picture, Stage
from hypnocast.errors import CommandError, TapeError
from hypnocast.live.service.build import open_pack
from hypnocast.nights.night_view import NightView
from hypnocast.nights.redraw import draw_again, tapes_of

FORMAT = "hypnocast.lesson/1"


def write_training_pages(
    config: Config,
    view: NightView,
    folder: Path,
    *,
    scorer: str,
    tape: Path | None = None,
    advance: Callable[[], None] = lambda: None,
) -> int:
    """Draw every page that the scorer staged and the model saw; return how many there are."""
    stages = _stages(view, scorer)
    recipe = open_pack(config).recipe
    wanted = [
        epoch
        for epoch, page in enumerate(view.pages)
        if page is not None and page.digests.picture is not None and stages[epoch] is not None
    ]
    if not wanted:
        raise CommandError(
            "has no page that both the scorer staged and a model saw", where=view.session.id
        )
    tapes = [tape] if tape is not None else tapes_of(config, view, wanted[0])
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
            for picture in draw_again(config, view, recipe, path, range(wanted[-1] + 1)):
                stage = stages[picture.epoch]
                if picture.epoch in wanted and stage is not None:
                    drawn.add(picture, Stage(stage))
                    advance()
    return drawn.finish(scorer)


def _stages(view: NightView, scorer: str) -> tuple[str | None, ...]:
    found = view.scorers.get(scorer)
    if found is None:
        there = ", ".join(view.scorers) or "nobody"
        raise CommandError(
            f"{scorer!r} has not scored this night",
            where="--scorer",
            remedy=f"It was scored by {there}.",
        )
    return found


class _TrainingFolder:
    """Writes pictures as they come: a night of them would not fit into a bedside's memory."""

    def __init__(self, folder: Path, view: NightView, recipe: Recipe) -> None:
        self._folder, self._view, self._recipe = folder, view, recipe
        self._raw = folder / "pictures.part"
        self._stages: dict[int, Stage] = {}
        self._digests: list[str] = []

    def __enter__(self) -> None:
        self._file = self._raw.open("wb")

    def __exit__(self, error: object, *_: object) -> None:
        self._file.close()
        if error is not None:
            self._raw.unlink()

    def add(self, picture: Picture, stage: Stage) -> None:
        if picture.epoch not in self._stages:
            self._file.write(picture.rgb.tobytes())
            self._stages[picture.epoch] = stage
            self._digests.append(picture.digest)

    def finish(self, scorer: str) -> int:
        try:
            self._write_npz(scorer)
        finally:
            self._raw.unlink(missing_ok=True)
        self._write_csv(scorer)
        return len(self._stages)

    def _write_npz(self, scorer: str) -> None:
        session = self._view.session
        facts = {
            "format": FORMAT,
            "recipe": self._recipe.digest,
            "session": session.id,
            "subject": session.subject,
            "bed": session.bed,
            "source": session.source,
            "scorer": scorer,
        }
        small: dict[str, NDArray[np.generic]] = {
            "stage": np.array([STAGES.index(s) for s in self._stages.values()], np.uint8),
            "epoch": np.array(list(self._stages), np.int32),
            "facts": np.frombuffer(json.dumps(facts).encode(), np.uint8),
        }
        shape = (len(self._stages), self._recipe.height, self._recipe.width, 3)
        half = self._folder / "lesson.part"
        with zipfile.ZipFile(half, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive:
            for name, array in small.items():
                with archive.open(f"{name}.npy", "w") as out:
                    npy.write_array(out, np.asarray(array), allow_pickle=False)
            with archive.open("pictures.npy", "w", force_zip64=True) as out:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                npy.write_array_header_1_0(out, header)
                with self._raw.open("rb") as raw:
                    while block := raw.read(1 << 22):
                        out.write(block)
        half.replace(self._folder / "lesson.npz")

    def _write_csv(self, scorer: str) -> None:
        with (self._folder / "pages.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(("epoch", "stage", "scorer", "hypnocast_stage", "confidence", "picture"))
            for (epoch, stage), digest in zip(self._stages.items(), self._digests, strict=True):
                event = self._view.page(epoch)
                table.writerow(
                    (epoch, stage.value, scorer, event.stage or "", event.confidence, digest)
                )
