"""A night gives the same pages from EDF+, BDF and a tape, to within what each format resolves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import edfio
import numpy as np
import pytest

from hypnocast.config.tables import Config
from hypnocast.core.montage.choice import choose_montage
from hypnocast.core.pages.page_builder import PageBuilder, PageNeeds
from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.timing.decisions import decision_to_json
from hypnocast.core.types import (
    STEPS_PER_MICROVOLT,
    FloatArray,
    Role,
)
from hypnocast.errors import TapeError
from hypnocast.nights.one_page import draw_from_file, pages_of
from hypnocast.ports.recordings.files import open_recording
from hypnocast.ports.recordings.tape import Tape
from hypnocast.simulate import CLINICAL, SimulatedNight, SimulatedSource

PAGES = 4
RATE = 256
SPAN_UV = 800.0
RECIPE = builtin("clinical-448x224")
STEP_UV = {
    "edf": 2 * SPAN_UV / 2**16,
    "bdf": 2 * SPAN_UV / 2**24,
    "tape": float(np.finfo(np.float32).eps) * SPAN_UV,
}
"""What one digit of the format is worth."""

SOURCE = SimulatedSource(("bed",), seed=3, pages=PAGES, truth=False)


def write_edf(path: Path, kind: str) -> None:
    make: Any = edfio.Edf if kind == "edf" else edfio.Bdf
    signal: Any = edfio.EdfSignal if kind == "edf" else edfio.BdfSignal
    night: SimulatedNight = SOURCE.nights["bed"]
    samples = night.samples(0.0, night.duration_s, leads=CLINICAL, rate=RATE)
    make(
        [
            signal(
                samples[:, column].astype(np.float64).clip(-SPAN_UV, SPAN_UV),
                RATE,
                label=lead.label,
                physical_dimension="uV",
                physical_range=(-SPAN_UV, SPAN_UV),
            )
            for column, lead in enumerate(CLINICAL)
        ],
        data_record_duration=1,
    ).write(path)


def write_tape(folder: Path) -> Path:
    tape = Tape(folder, "night", facts={"bed": "bed"}, max_bytes=10**9)
    for _, arrival in SOURCE:
        tape.write(arrival)
    tape.close()
    return tape.path


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("formats")
    for kind in ("edf", "bdf"):
        write_edf(folder / f"night.{kind}", kind)
    return {
        "edf": folder / "night.edf",
        "bdf": folder / "night.bdf",
        "tape": write_tape(folder),
    }


def signals(path: Path) -> list[dict[Role, FloatArray]]:
    pages = pages_of(open_recording(path), RECIPE)
    return [{role: signal.samples for role, signal in page.signals.items()} for page in pages]


@pytest.mark.parametrize("kind", ["edf", "bdf"])
def test_pages_of_two_formats_differ_by_no_more_than_their_digits(
    recordings: dict[str, Path], kind: str
) -> None:
    pages, taped = signals(recordings[kind]), signals(recordings["tape"])
    assert len(pages) == len(taped) == PAGES
    allowed = STEP_UV[kind] / 2 + STEP_UV["tape"] + 1.0 / STEPS_PER_MICROVOLT
    for page, other in zip(pages, taped, strict=True):
        assert page.keys() == other.keys() == set(RECIPE.roles)
        for role, samples in page.items():
            both = np.isfinite(samples) & np.isfinite(other[role])
            assert np.array_equal(np.isfinite(samples), np.isfinite(other[role]))
            inside = both & (np.abs(other[role]) < SPAN_UV)
            assert inside.mean() > 0.4
            worst = np.abs(samples[inside] - other[role][inside]).max()
            assert worst <= allowed, f"{kind}, {role}: {worst:.4f} µV"


@pytest.mark.parametrize("kind", ["edf", "bdf"])
def test_pictures_of_two_formats_look_the_same(recordings: dict[str, Path], kind: str) -> None:
    one = draw_from_file(Config(), recordings[kind], 2, RECIPE.name).picture
    other = draw_from_file(Config(), recordings["tape"], 2, RECIPE.name).picture
    difference = np.abs(one.rgb.astype(int) - other.rgb.astype(int))
    assert (difference > 8).mean() < 0.002
    assert one.channels == other.channels


def test_a_page_beyond_the_end_is_refused_before_anything_is_drawn(
    recordings: dict[str, Path],
) -> None:
    for kind in ("tape", "edf"):
        seen: list[int] = []
        with pytest.raises(TapeError, match=r"has no page 5000\. It is"):
            draw_from_file(Config(), recordings[kind], 5000, RECIPE.name, passed=seen.append)
        assert seen == [], kind


def test_what_is_left_of_a_tape_whose_beginning_is_gone_is_decided_anew_and_says_so(
    tmp_path: Path,
) -> None:
    tape = Tape(tmp_path, "night", facts={"bed": "bed"}, max_bytes=600_000)
    builder = PageBuilder(PageNeeds(RECIPE.roles), choose=choose_montage)
    for _, arrival in SOURCE:
        tape.write(arrival)
        builder.add(arrival)
        if builder.anchor is None and builder.all_since is not None:
            builder.begin(builder.all_since)
        builder.close_due(builder.watermark or 0.0)
        for decision in builder.pop_decisions():
            tape.note(decision_to_json(decision), 0.0)
    tape.close()
    first, second, *_ = sorted(tmp_path.glob("*.xdf"))
    whole, rest = open_recording(first), open_recording(second)
    assert whole.decisions
    assert not whole.problems
    assert len(list(pages_of(whole, RECIPE))) == PAGES
    assert rest.decisions == ()
    assert "not the first part" in rest.problems[0]
    assert 0 < len(list(pages_of(rest, RECIPE))) < PAGES
