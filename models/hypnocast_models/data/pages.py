"""From scored recordings to drawn pages, kept as compact strips.

Every page goes through the daemon's own conditioning and renderer. Of a page with one channel
450 of 448 × 448 × 3 bytes in a thousand are black, so what is kept is what carries ink: of each
channel the strip of its trace and one pixel column per spectrum, as the tower cuts them. From
those the tower gets the same numbers as from the whole page (a test holds it to that).

A cache folder has one ``.npz`` per recording and is filled recording by recording: a run that
was interrupted goes on where it stopped, and a file drawn by another recipe, plan or seed is
refused by name.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.pictures.conditioning import condition
from hypnocast.core.pictures.recipe import Recipe
from hypnocast.core.pictures.render import render
from hypnocast.core.types import STAGES, FloatArray, Page, Pixels, Role
from hypnocast.errors import RecipeError
from hypnocast_models.data import simulated
from hypnocast_models.data.recordings import ScoredRecording

STRIP_ROWS = 56
SPECTRUM_STEP_PX = 4
TOKEN_PX = 32
EEG_ROLE = Role.C4
"""The band in which single EEGs are drawn for training: its strip lies wholly on the page."""
FAR_GAIN = 3.5
"""Amplifiers are believed to be off by at most this, either way."""
STEPS_OF_GAIN = 7
MAINS_HZ = 50


@dataclass(frozen=True, eq=False)
class PageSet:
    """Drawn pages of one kind, as strips of ink."""

    ink: Pixels
    """(pages, channels, 56, columns): the traces."""
    power: Pixels
    """(pages, channels, 37, columns / 4): the spectrograms."""
    stage: NDArray[np.uint8]
    epoch: NDArray[np.int64]
    gain: FloatArray
    night: NDArray[np.int64]
    """Index into ``nights``."""
    subject: NDArray[np.int64]
    """Index into ``subjects``."""
    nights: tuple[str, ...]
    subjects: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.stage)


@dataclass(frozen=True, slots=True)
class DrawingPlan:
    """Which pages of a recording are drawn, and at which gains."""

    name: str
    columns: int
    """Pixel columns kept, from the left."""
    gains: tuple[float, ...]
    """Gains at which every row is drawn; none: one that is drawn by lot for rows together."""
    stitched: bool = False
    """Whether six rows of one stage are joined into a whole page (training only)."""
    hold: int = 1
    """Rows in a row that share a gain drawn by lot."""

    @property
    def variants(self) -> int:
        """Pages of every row."""
        return max(1, len(self.gains))


ROWS = DrawingPlan(
    "rows",
    columns=96,
    gains=tuple(float(FAR_GAIN**step) for step in np.linspace(-1.0, 1.0, STEPS_OF_GAIN).round(6)),
)
"""Five seconds of a page, the rest blank."""
STITCHED = DrawingPlan("stitched", columns=448, gains=(), stitched=True, hold=96)
"""Whole pages joined from six 5-s rows: an augmentation, named so wherever it counts."""
WHOLE = DrawingPlan(
    "whole",
    columns=448,
    gains=tuple(float(FAR_GAIN**step) for step in (-0.9, -0.45, 0.0, 0.45, 0.9)),
)
"""Whole pages as recorded."""
SIMULATED = DrawingPlan("simulated", columns=448, gains=())
"""Whole pages of six channels from the simulator."""


def strips(
    picture: Pixels, recipe: Recipe, roles: Sequence[Role], columns: int
) -> tuple[Pixels, Pixels]:
    """Cut what carries ink out of a picture, as the tower does."""
    if recipe.spectrogram is None or recipe.spectrogram.column_px != SPECTRUM_STEP_PX:
        raise RecipeError(
            "the small pack's tower reads spectrograms of 4-pixel columns",
            where=f"recipe {recipe.name}",
            remedy="Use spectral-448.",
        )
    half, bands = recipe.trace.height, len(recipe.bands)
    pad = STRIP_ROWS // 2
    traces = np.pad(picture[:half, :columns].max(axis=2), ((pad, pad), (0, 0)))
    ink, power = [], []
    for role in roles:
        place = recipe.roles.index(role)
        top = round((place + 0.5) * half / bands)
        ink.append(traces[top : top + STRIP_ROWS])
        first = half + round(place * (recipe.height - half) / bands)
        power.append(picture[first : first + recipe.spectrogram.rows, :columns:SPECTRUM_STEP_PX, 0])
    return np.stack(ink), np.stack(power)


def stitch(recording: ScoredRecording, row: int, rng: np.random.Generator) -> FloatArray:
    """Join six rows of one stage, the nearest of the same night, into 30 s."""
    same = np.flatnonzero(recording.stages == recording.stages[row])
    distance = np.abs(recording.epochs[same] - recording.epochs[row])
    near = same[np.argsort(distance, kind="stable")][:6]
    order = rng.permutation(np.resize(near, 6))
    pieces = recording.rows[order].copy()
    ramp = np.linspace(0.0, 1.0, round(0.25 * recording.rate))
    for left, right in pairwise(pieces):
        step = right[0] - left[-1]
        left[-ramp.size :] += step / 2 * ramp
        right[: ramp.size] -= step / 2 * ramp[::-1]
    whole: FloatArray = pieces.ravel()
    return whole


def by_lot(rng: np.random.Generator, count: int, nominal: float = 0.0) -> FloatArray:
    """Give gains as training meets them: half of them near the nominal one, half anywhere.

    Of all, the share ``nominal`` (at most one half) is within a tenth of the nominal gain.
    """
    near = rng.uniform(-0.5, 0.5, count)
    far = rng.uniform(-np.log(FAR_GAIN), np.log(FAR_GAIN), count)
    lot = rng.random(count)
    gains: FloatArray = np.exp(np.where(lot < nominal, near / 5, np.where(lot < 0.5, near, far)))
    return gains


def draw_recording(
    recording: ScoredRecording,
    plan: DrawingPlan,
    recipe: Recipe,
    seed: int,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, NDArray[Any]]:
    """Draw the planned pages of a recording; ``advance`` is called with how many were done."""
    rng = np.random.default_rng([seed, zlib.crc32(f"{recording.name} {plan.name}".encode())])
    count = len(recording.stages) * plan.variants
    rows = recipe.spectrogram.rows if recipe.spectrogram is not None else 0
    ink = np.zeros((count, 1, STRIP_ROWS, plan.columns), np.uint8)
    power = np.zeros((count, 1, rows, plan.columns // SPECTRUM_STEP_PX), np.uint8)
    gains = np.zeros(count)
    lot = by_lot(rng, -(-len(recording.stages) // plan.hold))
    for at, row in enumerate(np.repeat(np.arange(len(recording.stages)), plan.variants).tolist()):
        gains[at] = plan.gains[at % plan.variants] if plan.gains else lot[row // plan.hold]
        page = _page(recording, row, plan, recipe, gain=gains[at], rng=rng)
        picture = render(condition(page, recipe, MAINS_HZ), recipe)
        ink[at], power[at] = strips(picture, recipe, (EEG_ROLE,), plan.columns)
        if at % 100 == 99:
            advance(100)
    advance(count % 100)
    return {
        "ink": ink,
        "power": power,
        "gain": gains,
        "stage": np.repeat(recording.stages, plan.variants),
        "epoch": np.repeat(recording.epochs, plan.variants),
    }


def _page(
    recording: ScoredRecording,
    row: int,
    plan: DrawingPlan,
    recipe: Recipe,
    *,
    gain: float,
    rng: np.random.Generator,
) -> Page:
    if not plan.stitched:
        return recording.page(row, recipe.context_s, recipe.tail_s, EEG_ROLE, gain)
    whole = ScoredRecording(
        database=recording.database,
        subject=recording.subject,
        night=recording.night,
        rate=recording.rate,
        channel=recording.channel,
        rows=stitch(recording, row, rng)[None],
        stages=recording.stages[row : row + 1],
        epochs=recording.epochs[row : row + 1],
    )
    return whole.page(0, recipe.context_s, recipe.tail_s, EEG_ROLE, gain)


def draw_simulated(
    seeds: Sequence[int],
    length: int,
    recipe: Recipe,
    folder: Path,
    *,
    seed: int,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Draw six-channel stretches from the simulator, one file per simulated person."""
    folder.mkdir(parents=True, exist_ok=True)
    for person in seeds:
        path = folder / f"simulated-subject{person:04d}-night1.npz"
        if not path.exists():
            night = simulated.stretch(person, length)
            rng = np.random.default_rng([seed, person])
            gain = float(by_lot(rng, 1)[0])
            gains = gain * np.exp(rng.normal(0, 0.15, len(simulated.ROLES)))
            cut = [
                strips(render(condition(page, recipe, MAINS_HZ), recipe), recipe,
                       simulated.ROLES, recipe.width)
                for page in simulated.pages(night, recipe.context_s, recipe.tail_s, gains)
            ]  # fmt: skip
            arrays = {
                "ink": np.stack([ink for ink, _ in cut]),
                "power": np.stack([power for _, power in cut]),
                "gain": np.full(length, gain),
                "stage": np.array([STAGES.index(s) for s in night.stages], np.uint8),
                "epoch": np.arange(length),
            }
            name = f"simulated/subject{person:04d}"
            _write(
                path,
                arrays,
                night=f"{name}-night1",
                subject=name,
                plan=SIMULATED,
                recipe=recipe,
                seed=seed,
            )
        advance(length)


def fill_cache(
    recordings: Iterable[ScoredRecording],
    plan: DrawingPlan,
    recipe: Recipe,
    folder: Path,
    *,
    seed: int,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Draw what the cache does not hold yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for recording in recordings:
        path = folder / f"{recording.database}-{recording.subject}-night{recording.night}.npz"
        if path.exists():
            advance(len(recording.stages) * plan.variants)
            continue
        drawn = draw_recording(recording, plan, recipe, seed, advance)
        subject = f"{recording.database}/{recording.subject}"
        _write(
            path,
            drawn,
            night=recording.name,
            subject=subject,
            plan=plan,
            recipe=recipe,
            seed=seed,
        )


def _write(
    path: Path,
    arrays: dict[str, NDArray[Any]],
    *,
    night: str,
    subject: str,
    plan: DrawingPlan,
    recipe: Recipe,
    seed: int,
) -> None:
    facts = {
        "night": night,
        "subject": subject,
        "recipe": recipe.digest,
        "plan": plan.name,
        "gains": plan.gains,
        "seed": seed,
    }
    half_written = path.with_suffix(".part")
    with half_written.open("wb") as file:
        arrays = {"facts": np.frombuffer(json.dumps(facts).encode(), np.uint8), **arrays}
        np.savez(file, allow_pickle=False, **arrays)
    half_written.rename(path)


def read_cache(folder: Path, plan: DrawingPlan, recipe: Recipe, seed: int) -> PageSet:
    """Read the drawn pages of a folder, and refuse what another recipe, plan or seed drew."""
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise RecipeError(
            "no pages have been drawn here",
            where=str(folder),
            remedy="Run `hypnocast-models small pages`.",
        )
    parts = list(_read_parts(files, plan, recipe, seed))
    nights = tuple(dict.fromkeys(facts["night"] for facts, _ in parts))
    subjects = tuple(dict.fromkeys(facts["subject"] for facts, _ in parts))
    counts = [len(arrays["stage"]) for _, arrays in parts]

    def join(key: str) -> NDArray[Any]:
        first = parts[0][1][key]
        out = np.empty((sum(counts), *first.shape[1:]), first.dtype)
        np.concatenate([arrays.pop(key) for _, arrays in parts], out=out)
        return out

    night = [nights.index(facts["night"]) for facts, _ in parts]
    subject = [subjects.index(facts["subject"]) for facts, _ in parts]
    return PageSet(
        ink=join("ink").astype(np.uint8, copy=False),
        power=join("power").astype(np.uint8, copy=False),
        stage=join("stage").astype(np.uint8, copy=False),
        epoch=join("epoch").astype(np.int64, copy=False),
        gain=join("gain").astype(np.float64, copy=False),
        night=np.repeat(np.asarray(night), counts),
        subject=np.repeat(np.asarray(subject), counts),
        nights=nights,
        subjects=subjects,
    )


def _read_parts(
    files: Sequence[Path], plan: DrawingPlan, recipe: Recipe, seed: int
) -> Iterator[tuple[dict[str, str], dict[str, NDArray[Any]]]]:
    for path in files:
        with np.load(path, allow_pickle=False) as file:
            facts = json.loads(file["facts"].tobytes())
            wanted = {"recipe": recipe.digest, "plan": plan.name, "seed": seed}
            for key, value in wanted.items():
                if facts[key] != value:
                    raise RecipeError(
                        f"its {key} is {facts[key]}, not {value}",
                        where=str(path),
                        remedy="Draw the pages anew in an empty folder.",
                    )
            yield facts, {key: file[key] for key in ("ink", "power", "stage", "epoch", "gain")}
