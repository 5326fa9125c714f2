"""The spectrum of a page: power where it is, as much as there is, and none that is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypnocast.core.pictures.page_spectrum import (
    BANDS,
    BINS,
    STEP_DB,
    STEP_HZ,
    decibels,
    levels_of,
    power_density,
)
from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.pictures.render import draw_page
from hypnocast.core.types import FloatArray, PageSpectrum, Role
from hypnocast.core.wire.spectra import BandName
from support.examples import examples
from support.synthetic_pages import length, on_grid, page_of, synthetic_page

RECIPE = builtin("clinical-448x224")
FREQUENCIES = STEP_HZ * np.arange(1, BINS + 1)
HALF_A_STEP = 10 ** (STEP_DB / 20) - 1


def spectrum(samples: FloatArray, rate: float, role: Role = Role.F4) -> PageSpectrum | None:
    return draw_page(page_of(RECIPE, {role: samples}, rate), RECIPE, 50, spectrum=True).spectrum


def times(rate: float) -> FloatArray:
    return np.arange(length(RECIPE, rate)) / rate


def band(found: PageSpectrum, name: BandName) -> float:
    """µV²."""
    return float(10 ** (decibels(found.bands)[list(BANDS).index(name)] / 10))


@settings(max_examples=examples(25, 100), deadline=None)
@given(
    st.floats(1.0, 25.0),
    st.floats(5.0, 200.0),
    st.sampled_from([100.0, 200.0, 256.0, 499.5, 512.0]),
)
def test_a_sine_peaks_in_its_bin_with_its_own_power(
    hertz: float, microvolts: float, rate: float
) -> None:
    found = spectrum(on_grid(microvolts * np.sin(2 * np.pi * hertz * times(rate))), rate)
    assert found is not None
    shown = decibels(found.levels)
    assert abs(FREQUENCIES[int(np.argmax(shown))] - hertz) <= STEP_HZ / 2 + 0.05
    power = float(np.sum(10 ** (shown / 10)) * STEP_HZ)
    assert power == pytest.approx(microvolts**2 / 2, rel=0.2)  # the filters take 13 % at 25 Hz


def test_a_spindle_of_12_hz_lies_between_alpha_and_sigma_and_14_hz_in_sigma() -> None:
    at_14 = spectrum(on_grid(30 * np.sin(2 * np.pi * 14 * times(256))), 256)
    assert at_14 is not None
    assert FREQUENCIES[int(np.argmax(decibels(at_14.levels)))] == 14.0
    assert band(at_14, "sigma") == pytest.approx(450, rel=HALF_A_STEP + 0.005)
    assert band(at_14, "alpha") < 0.01
    at_12 = spectrum(on_grid(30 * np.sin(2 * np.pi * 12 * times(256))), 256)
    assert at_12 is not None
    assert FREQUENCIES[int(np.argmax(decibels(at_12.levels)))] == 12.0
    assert band(at_12, "alpha") + band(at_12, "sigma") == pytest.approx(
        450, rel=HALF_A_STEP + 0.005
    )


@settings(max_examples=examples(25, 100), deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1.0, 100.0), st.sampled_from([128.0, 200.0, 512.0]))
def test_the_power_of_noise_is_its_variance(seed: int, rms: float, rate: float) -> None:
    """Parseval: of white noise each hertz holds its share of the variance."""
    samples = rms * np.random.default_rng(seed).normal(size=round(30 * rate))
    density = power_density(samples, rate)
    assert density is not None
    assert float(np.mean(density[2:])) == pytest.approx(2 * rms**2 / rate, rel=0.2)


def test_levels_are_read_back_to_a_fifth_of_a_decibel() -> None:
    power = np.array([1e-4, 0.5, 1.0, 33.0, 4e5, np.nan])
    back = decibels(levels_of(power))
    assert np.isnan(back[-1])
    assert np.abs(back[:-1] - 10 * np.log10(power[:-1])).max() <= STEP_DB / 2 + 1e-9
    assert levels_of(np.array([0.0, 1e-9, 1e9])) == bytes([1, 1, 255])


def test_bands_are_the_sum_of_their_bins() -> None:
    found = draw_page(synthetic_page(RECIPE, 5), RECIPE, 50, spectrum=True).spectrum
    assert found is not None
    assert found.derivation == "F4-M1"
    power = 10 ** (decibels(found.levels) / 10) * STEP_HZ
    inside = (FREQUENCIES > 8) & (FREQUENCIES < 12)
    edges = power[FREQUENCIES == 8] + power[FREQUENCIES == 12]
    assert band(found, "alpha") == pytest.approx(power[inside].sum() + edges[0] / 2, rel=0.1)


def test_a_slow_channel_has_no_power_above_what_its_rate_allows() -> None:
    found = spectrum(on_grid(20 * np.sin(2 * np.pi * 10 * times(50))), 50)
    assert found is not None
    assert (np.isnan(decibels(found.levels)) == (FREQUENCIES > 22.25)).all()
    assert found.bands[-1] == 0  # beta goes to 30 Hz
    assert band(found, "alpha") == pytest.approx(200, rel=HALF_A_STEP + 0.005)


def test_what_came_in_pieces_is_measured_on_whole_windows_and_too_little_is_nothing() -> None:
    rate = 256.0
    wave = on_grid(30 * np.sin(2 * np.pi * 9 * times(rate)))
    start = round(RECIPE.context_s * rate)
    wave[start + round(12 * rate) : start + round(16 * rate)] = np.nan
    found = spectrum(wave, rate)
    assert found is not None
    assert band(found, "alpha") == pytest.approx(450, rel=0.06)
    wave[start + round(10 * rate) :] = np.nan
    assert spectrum(wave, rate) is None


def test_a_page_without_eeg_has_none_and_nobody_pays_who_did_not_ask() -> None:
    assert spectrum(on_grid(30 * np.sin(times(256))), 256, Role.CHIN) is None
    assert draw_page(synthetic_page(RECIPE, 5), RECIPE, 50).spectrum is None
