"""Samples for models that read signals: the page in its band at the model's rate, no more."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import pytest

from hypnocast.core.pictures.samples import SampleRecipe, sample
from hypnocast.core.types import FloatArray, Page, Role, Signal
from support.synthetic_pages import derivation, noise_like_eeg

CONTEXT_S, TAIL_S = 30.0, 1.0
RECIPE = SampleRecipe(2560, ((Role.C4, 0.3, 30.0), (Role.E1, 0.3, 30.0)))


def _page(rate: float, samples: FloatArray, worth: float | None = 1.0) -> Page:
    signal = Signal(derivation(Role.C4, rate, worth), rate, samples)
    return Page(0, MappingProxyType({Role.C4: signal}), CONTEXT_S, TAIL_S)


def _times(rate: float) -> FloatArray:
    return np.arange(round((CONTEXT_S + 30.0 + TAIL_S) * rate)) / rate - CONTEXT_S


@pytest.mark.parametrize("rate", [100.0, 128.0, 199.9, 200.0, 250.0, 256.0, 500.0, 512.0, 1000.0])
def test_a_wave_of_the_band_comes_out_where_it_was_at_every_rate(rate: float) -> None:
    wave = 40.0 * np.sin(2 * np.pi * 6.0 * _times(rate))
    (found,) = sample(_page(rate, wave), RECIPE, 50).values()
    expected = 40.0 * np.sin(2 * np.pi * 6.0 * np.arange(2560) * 30.0 / 2560)
    inner = slice(0, 2400)  # the filter does not know what comes after the tail
    assert np.abs(found - expected)[inner].max() < 1.0


def test_nothing_above_the_band_folds_into_it() -> None:
    rate = 512.0
    wave = 100.0 * np.sin(2 * np.pi * 75.0 * _times(rate))  # 85.33 Hz would fold it to 10.3 Hz
    (found,) = sample(_page(rate, wave), RECIPE, 50).values()
    assert np.abs(found[:1700]).max() < 0.5  # the filter does not know what comes after the tail


def test_what_never_came_is_zero_and_changes_nothing_elsewhere() -> None:
    rate = 256.0
    rng = np.random.default_rng(1)
    whole = noise_like_eeg(rng, _times(rate).size, rate, 20.0)
    holed = whole.copy()
    first = round((CONTEXT_S + 12.0) * rate)
    holed[first : first + round(6.0 * rate)] = np.nan
    (full,) = sample(_page(rate, whole), RECIPE, 50).values()
    (found,) = sample(_page(rate, holed), RECIPE, 50).values()
    assert (found[1030:1530] == 0.0).all()
    assert np.abs(found - full)[:768].max() < 2.0
    assert np.abs(found - full)[1900:].max() < 2.0


def test_a_channel_that_is_not_there_or_has_no_unit_gives_no_samples() -> None:
    rate = 256.0
    quiet = np.zeros(_times(rate).size)
    assert set(sample(_page(rate, quiet), RECIPE, 50)) == {Role.C4}
    assert not sample(_page(rate, quiet, worth=None), RECIPE, 50)
