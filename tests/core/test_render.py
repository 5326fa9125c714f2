"""Rendering: what is in a picture, and above all what is not."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypnocast.core.pictures.conditioning import Conditioned, condition
from hypnocast.core.pictures.labels import annotate
from hypnocast.core.pictures.recipe import Recipe, builtin, builtin_names
from hypnocast.core.pictures.render import draw_page, picture_digest, render, spectrogram_top
from hypnocast.core.quality import assess
from hypnocast.core.types import Page, Pixels, Role
from support.examples import examples
from support.synthetic_pages import SIX, page_of, synthetic_page

CLINICAL, SPECTRAL, PAPER = (
    builtin("clinical-448x224"),
    builtin("spectral-448"),
    builtin("paper-336"),
)
GOLDEN = Path(__file__).parent / "golden" / "pictures.json"
EMPTY = Conditioned(0, {}, {})


def picture_of(page: Page, recipe: Recipe) -> Pixels:
    return render(condition(page, recipe, 50), recipe)


def with_gap(page: Page, recipe: Recipe, start_s: float, stop_s: float) -> Page:
    samples = {}
    for role, signal in page.signals.items():
        values = signal.samples.copy()
        first = round((recipe.context_s + start_s) * signal.rate)
        values[first : round((recipe.context_s + stop_s) * signal.rate)] = np.nan
        samples[role] = values
    return page_of(recipe, samples, next(iter(page.signals.values())).rate)


def golden_pages(recipe: Recipe) -> dict[str, Page]:
    whole = synthetic_page(recipe, 2024)
    return {
        "whole": whole,
        "gap": with_gap(whole, recipe, 12.0, 17.5),
        "two channels at 100 Hz": synthetic_page(recipe, 7, rate=100.0, roles=[Role.C4, Role.CHIN]),
        "large": synthetic_page(recipe, 9, rms=90.0),
    }


@pytest.mark.parametrize("name", builtin_names())
def test_pictures_are_those_that_were_agreed(name: str) -> None:
    recipe = builtin(name)
    pictures = {k: picture_digest(picture_of(p, recipe)) for k, p in golden_pages(recipe).items()}
    found = {"recipe": recipe.digest, "pictures": pictures}
    assert found == json.loads(GOLDEN.read_text(encoding="utf-8"))[name]


@pytest.mark.parametrize("name", builtin_names())
def test_a_picture_has_the_size_and_ground_of_its_recipe(name: str) -> None:
    recipe = builtin(name)
    blank = render(EMPTY, recipe)
    assert blank.shape == (recipe.height, recipe.width, 3)
    assert blank.dtype == np.uint8
    if recipe.grid is None:
        assert (blank == 255).all()
    else:
        assert blank.max() < 64
        assert (blank[..., 0] == 0).mean() > 0.85


def test_the_grid_has_the_levels_of_the_design() -> None:
    blank = render(EMPTY, CLINICAL)[..., 0]
    seconds = blank[20]
    light = [int(v) for v in np.flatnonzero(seconds == 26)]
    heavy = [int(v) for v in np.flatnonzero(seconds == 51)]
    places = {s: int(np.floor(s * 448 / 30 + 0.5)) for s in range(1, 30)}
    assert light == [x for s, x in places.items() if s % 5]
    assert heavy == [x for s, x in places.items() if s % 5 == 0]
    assert all(seconds[x - 1] == seconds[x + 1] == 2 for x in heavy)
    rows = [int(v) for v in np.flatnonzero(blank[:, 5] == 51)]
    assert rows == [int(np.floor(k * 224 / 6 + 0.5)) for k in range(1, 6)]
    assert (blank[0, 1:14] == 0).all()
    assert (blank[1:30, 0] == 0).all()


def test_a_missing_channel_is_an_empty_band() -> None:
    blank = render(EMPTY, SPECTRAL)
    for missing in SIX:
        page = synthetic_page(SPECTRAL, 3, rms=6.0, roles=[r for r in SIX if r is not missing])
        pixels = picture_of(page, SPECTRAL)
        place = SIX.index(missing)
        band = slice(round(place * 224 / 6) + 2, round((place + 1) * 224 / 6) - 2)
        assert np.array_equal(pixels[band], blank[band])
        top = spectrogram_top(SPECTRAL, place)
        assert not pixels[top : top + 37].any()
    nothing = page_of(SPECTRAL, {Role.F4: np.full(61 * 256, np.nan)})
    assert np.array_equal(picture_of(nothing, SPECTRAL), blank)


@settings(max_examples=examples(15, 40), deadline=None)
@given(
    name=st.sampled_from(builtin_names()),
    start=st.floats(0, 29),
    duration=st.floats(0.5, 20),
    seed=st.integers(0, 50),
)
def test_a_gap_is_an_empty_stretch(name: str, start: float, duration: float, seed: int) -> None:
    recipe = builtin(name)
    stop = min(start + duration, 30.0)
    page = with_gap(synthetic_page(recipe, seed), recipe, start, stop)
    pixels, blank = picture_of(page, recipe), render(EMPTY, recipe)
    px_per_s = recipe.width / 30
    first, last = int(np.ceil(start * px_per_s)) + 1, int(np.floor(stop * px_per_s)) - 1
    traces = slice(0, recipe.trace.height)
    assert np.array_equal(pixels[traces, first:last], blank[traces, first:last])
    margin = 4  # a column of the spectrogram that is half there is shown
    below = slice(recipe.trace.height, recipe.height)
    assert not pixels[below, first + margin : max(last - margin, 0)].any()


def test_a_step_across_a_lost_sample_draws_no_line() -> None:
    trace = np.where(np.arange(3000) < 1500, -40.0, 40.0)
    trace[1500] = np.nan
    pixels = render(Conditioned(0, {}, {Role.F4: trace}), CLINICAL)
    middle = pixels[15:22] != render(EMPTY, CLINICAL)[15:22]
    assert not middle.any()


def test_traces_run_on_into_neighbouring_bands() -> None:
    trace = np.zeros(3000)
    trace[1400:1600] = -150.0
    pixels = render(Conditioned(0, {}, {Role.F4: trace}), CLINICAL)
    drawn = (pixels != render(EMPTY, CLINICAL)).any(axis=2)
    assert drawn[74, 212:236].all()
    assert drawn[:, :447].any(axis=0).all()
    assert not drawn[80:].any()


def test_whatever_lies_outside_the_picture_does_no_harm() -> None:
    trace = np.zeros(3000)
    trace[100:200], trace[300], trace[700:900] = 1e30, -1e300, -1e7
    pixels = render(Conditioned(0, {}, {Role.O2: trace}), CLINICAL)
    blank = render(EMPTY, CLINICAL)
    assert np.array_equal(pixels[:, 17:28], blank[:, 17:28])
    assert (pixels[92:95, 50:100, 0] > 100).any()


def test_spectral_448_is_the_clinical_page_on_top() -> None:
    page = synthetic_page(SPECTRAL, 12)
    assert np.array_equal(picture_of(page, SPECTRAL)[:224], picture_of(page, CLINICAL))


@pytest.mark.parametrize("rate", [100.0, 128.0, 250.0, 256.0, 512.0])
@pytest.mark.parametrize("hertz", [2, 10, 13, 30])
def test_a_wave_is_brightest_in_the_row_of_its_frequency(rate: float, hertz: int) -> None:
    time = np.arange(round(61 * rate)) / rate
    page = page_of(SPECTRAL, {Role.C4: 20 * np.sin(2 * np.pi * hertz * time)}, rate)
    band = picture_of(page, SPECTRAL)[261 : 261 + 37, :, 0]
    row = int(band[:, 200].argmax())
    assert row == 36 - hertz
    expected = 255 * (np.log10((25 * 20) ** 2) + 1.0) / 8.0
    filtered = 9 if hertz == 30 else 0  # the filter has removed a little of it already
    assert band[row, 100:300] == pytest.approx(expected, abs=3 + filtered)
    assert (band > 0).all()


def test_chin_rows_are_ten_to_a_hundred_hertz() -> None:
    rate = 256.0
    time = np.arange(round(61 * rate)) / rate
    page = page_of(SPECTRAL, {Role.CHIN: 20 * np.sin(2 * np.pi * 75.0 * time)}, rate)
    band = picture_of(page, SPECTRAL)[411:448, :, 0]
    assert abs(int(band[:, 200].argmax()) - (36 - (75 - 10) / 2.5)) <= 1


def test_coverage_can_be_read_from_the_spectrogram() -> None:
    page = with_gap(synthetic_page(SPECTRAL, 1, roles=[Role.F4]), SPECTRAL, 5.0, 30.0)
    page = with_gap(page, SPECTRAL, -30.0, 0.0)
    seen = picture_of(page, SPECTRAL)[224:261, :, 0].max(axis=0) > 0
    assert seen.mean() == pytest.approx(5 / 30, abs=4 / 448)
    assert seen[:74].all()


def test_every_channel_fills_its_band_in_the_paper_s_scaling() -> None:
    pixels = picture_of(synthetic_page(PAPER, 4), PAPER)[..., 0]
    for place in range(7):
        inked = np.flatnonzero((pixels[place * 48 : (place + 1) * 48] < 128).any(axis=1))
        assert inked[0] <= 1
        assert inked[-1] >= 46
    flat = render(Conditioned(0, {}, {Role.C4: np.full(3000, 17.0)}), PAPER)
    assert set(np.flatnonzero((flat[..., 0] < 255).any(axis=1))) <= {71, 72}


def test_draw_page_names_what_it_drew() -> None:
    page = synthetic_page(CLINICAL, 5, roles=SIX)
    quality = assess(page, SIX, 50)
    picture = draw_page(page, CLINICAL, 50, quality, {Role.F4: "F4-M1"})
    assert picture.epoch == page.epoch
    assert picture.recipe == CLINICAL.digest
    assert picture.quality is quality
    digest = hashlib.sha256(picture.rgb.tobytes()).hexdigest()
    assert picture.digest == f"sha256:{digest}"
    assert np.array_equal(picture.rgb, picture_of(page, CLINICAL))


def test_the_order_of_the_channels_does_not_matter() -> None:
    page = synthetic_page(SPECTRAL, 6)
    turned = page_of(SPECTRAL, {r: page.signals[r].samples for r in reversed(list(Role))})
    assert np.array_equal(picture_of(page, SPECTRAL), picture_of(turned, SPECTRAL))


def test_a_recipe_of_one_eeg_draws_the_best_of_the_page_and_nothing_else() -> None:
    one, every = builtin("spectral-448-one-eeg"), SPECTRAL
    whole = synthetic_page(every, 11)
    alone = {role: page_of(every, {role: whole.signals[role].samples}) for role in SIX}
    assert np.array_equal(draw_page(whole, one, 50).rgb, draw_page(alone[Role.F4], every, 50).rgb)
    gap = with_gap(whole, every, 5.0, 9.0)
    signals = {**whole.signals, Role.F4: gap.signals[Role.F4]}
    picture = draw_page(replace(whole, signals=signals), one, 50)
    assert np.array_equal(picture.rgb, draw_page(alone[Role.C4], every, 50).rgb)
    assert set(picture.channels) <= {Role.C4}
    assert set(picture.quality) == set(SIX)  # the others are watched all the same


@pytest.mark.parametrize("name", builtin_names())
def test_labels_stand_outside_the_picture(name: str) -> None:
    recipe = builtin(name)
    pixels = picture_of(synthetic_page(recipe, 8), recipe)
    sheet = annotate(pixels, recipe, {Role.F4: "F3-M2 (mirrored)"}, title="bed-1, page 7")
    assert sheet.shape[0] > recipe.height
    assert sheet.shape[1] > recipe.width
    left = sheet.shape[1] - recipe.width - 14
    tops = [
        top
        for top in range(sheet.shape[0] - recipe.height + 1)
        if np.array_equal(sheet[top : top + recipe.height, left : left + recipe.width], pixels)
    ]
    assert len(tops) == 1


def test_a_long_name_does_not_run_into_the_scale_beside_it() -> None:
    recipe = CLINICAL
    pixels = picture_of(synthetic_page(recipe, 8), recipe)
    short = annotate(pixels, recipe, {Role.E1: "E1"})
    long = annotate(pixels, recipe, {Role.E1: "E1 (reference assumed)"})
    # The scale borders the picture in both, and nothing but paper lies before it in either.
    one, other = (sheet[:, : -recipe.width - 14][:, -56:] for sheet in (short, long))
    assert np.array_equal(one, other)
