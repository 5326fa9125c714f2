"""The spectrogram in the morning's report: pages in their columns, power in its colours."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from zoneinfo import ZoneInfo

import numpy as np
from PIL import Image

from hypnocast.core.pictures.page_spectrum import BINS, levels_of
from hypnocast.core.types import PageSpectrum
from hypnocast.nights.night_view import view_of
from hypnocast.nights.report import report
from support.night_records import a_night

BERLIN = ZoneInfo("Europe/Berlin")
SPINDLES = 23
"""The bin around 12 Hz."""


def a_page() -> PageSpectrum:
    power = np.full(BINS, 0.1)
    power[SPINDLES] = 100.0
    return PageSpectrum("C4-M1", levels_of(power), levels_of(np.full(5, 10.0)))


def test_each_page_has_its_column_and_a_page_without_a_spectrum_is_clear() -> None:
    spectra = tuple((epoch, a_page()) for epoch in (0, 1, 3))
    page = report(view_of(replace(a_night(["W", "N2", None, "N2"]), spectra=spectra)), BERLIN)
    (data,) = re.findall(r'href="data:image/png;base64,([^"]+)"', page)
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert pixels.shape == (BINS, 4, 4)
    assert (pixels[:, 2, 3] == 0).all()
    assert (pixels[:, [0, 1, 3], 3] == 255).all()
    bright = pixels[BINS - 1 - SPINDLES, [0, 1, 3], :3]
    assert (bright == [253, 231, 37]).all()
    assert (pixels[0, [0, 1, 3], :3] == [68, 1, 84]).all()
    assert "C4-M1: −10 dB" in page
    assert "sigma 12–16 Hz" in page


def test_a_night_without_spectra_has_no_such_section() -> None:
    assert "<h2>Spectrum" not in report(view_of(a_night(["W", "N2"])), BERLIN)
