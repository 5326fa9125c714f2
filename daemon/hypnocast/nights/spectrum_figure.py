"""The night's spectrogram and the power of its bands, as figures on the report's time axis."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from html import escape

import numpy as np

from hypnocast.core.pictures.page_spectrum import BANDS, BINS, STEP_HZ, decibels
from hypnocast.core.types import FloatArray, PageSpectrum, Pixels
from hypnocast.core.wire.spectra import BandName
from hypnocast.nights.figures import LEFT, RIGHT, WIDTH, Axis, figure

VIRIDIS = np.array(
    [[68, 1, 84], [72, 40, 120], [62, 73, 137], [49, 104, 142], [38, 130, 142],
     [31, 158, 137], [53, 183, 121], [110, 206, 88], [181, 222, 43], [253, 231, 37]]
)  # fmt: skip
"""Even in lightness, and so for every kind of colour vision; dark is little power."""

LINES: Mapping[BandName, str] = {
    "delta": "#0072b2",
    "theta": "#00795a",
    "alpha": "#86780a",
    "sigma": "#c25400",
    "beta": "#a83f8b",
}
_TOP, _HIGH = 6.0, 120.0


def spectrum_figures(axis: Axis, spectra: Mapping[int, PageSpectrum]) -> str:
    """Draw both figures; nothing where no page has a spectrum."""
    if not spectra:
        return ""
    level = np.full((axis.pages, BINS), np.nan)
    bands = np.full((axis.pages, len(BANDS)), np.nan)
    for epoch, one in spectra.items():
        if epoch < axis.pages:
            level[epoch], bands[epoch] = decibels(one.levels), decibels(one.bands)
    low, high = (5 * math.floor(np.nanpercentile(level, 3) / 5),
                 5 * math.ceil(np.nanpercentile(level, 99) / 5))  # fmt: skip
    names = ", ".join(dict.fromkeys(one.derivation for one in spectra.values()))
    return _spectrogram(axis, level, low, max(high, low + 5), names) + _bands(axis, bands)


def _spectrogram(axis: Axis, level: FloatArray, low: float, high: float, names: str) -> str:
    bottom = _TOP + _HIGH
    picture = base64.b64encode(_png(_coloured(level, low, high))).decode()
    image = (
        f'<image x="{LEFT}" y="{_TOP}" width="{WIDTH - LEFT - RIGHT}" height="{_HIGH}" '
        f'preserveAspectRatio="none" style="image-rendering:pixelated" '
        f'href="data:image/png;base64,{picture}"></image>'
    )
    parts = [axis.hours(bottom, bottom + 4), image]
    for hertz in (10, 20, 30):
        y = bottom - _HIGH * (hertz - STEP_HZ / 2) / (BINS * STEP_HZ)
        parts.append(f'<text x="{LEFT - 10}" y="{y + 4:.1f}" class="tick" text-anchor="end">'
                     f"{hertz} Hz</text>")  # fmt: skip
    scale = ", ".join(f"rgb({r},{g},{b})" for r, g, b in VIRIDIS)
    key = (
        f'<div class="key"><span>{escape(names)}: {_number(low)} dB '
        f'<i style="width:90px;background:linear-gradient(to right, {scale})"></i>'
        f"{_number(high)} dB (0 dB: 1 µV²/Hz)</span></div>"
    )
    return figure(bottom + 22, "".join(parts), f"Spectrogram of {names}, 0.5 to 30 Hz") + key


def _bands(axis: Axis, bands: FloatArray) -> str:
    low = 10 * math.floor(np.nanmin(bands) / 10) if np.isfinite(bands).any() else 0
    high = max(low + 10, 10 * math.ceil(np.nanmax(bands) / 10) if np.isfinite(bands).any() else 0)
    bottom = _TOP + _HIGH

    def y(decibel: float) -> float:
        return bottom - _HIGH * (decibel - low) / (high - low)

    parts = [
        f'<text x="{LEFT - 10}" y="{y(decibel) + 4:.1f}" class="tick" text-anchor="end">'
        f"{10 ** (decibel / 10):g}</text>"
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(decibel):.1f}" y2="{y(decibel):.1f}" '
        'class="rule"/>'
        for decibel in range(low, high + 1, 10)
    ]
    parts.append(axis.hours(_TOP, bottom))
    for line, colour in zip(bands.T, LINES.values(), strict=True):
        pen, path = "M", []
        for page, decibel in enumerate(line):
            if math.isnan(decibel):
                pen = "M"
                continue
            path.append(f"{pen}{axis.x(page + 0.5):.1f},{y(decibel):.1f}")
            pen = "L"
        parts.append(f'<path d="{" ".join(path)}" fill="none" stroke="{colour}"/>')
    items = "".join(
        f'<span><i style="background:{LINES[name]}"></i>{name} {low:g}–{high:g} Hz</span>'
        for name, (low, high) in BANDS.items()
    )
    drawn = figure(bottom + 22, "".join(parts), "Power of the bands in µV²")
    return f'{drawn}<div class="key"><span>µV² of</span>{items}</div>'


def _coloured(level: FloatArray, low: float, high: float) -> Pixels:
    """Return rows from the highest frequency, columns page by page; clear where nothing is."""
    known = np.isfinite(level)
    on = np.clip((np.where(known, level, low) - low) / (high - low), 0, 1) * (len(VIRIDIS) - 1)
    below = np.minimum(on.astype(np.intp), len(VIRIDIS) - 2)
    part = (on - below)[..., None]
    rgb = VIRIDIS[below] * (1 - part) + VIRIDIS[below + 1] * part
    pixels = np.concatenate([np.rint(rgb), 255.0 * known[..., None]], axis=2).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 0, 2)[::-1])


def _png(pixels: Pixels) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", optimize=True)
    return file.getvalue()


def _number(value: float) -> str:
    return f"{value:g}".replace("-", "−")
