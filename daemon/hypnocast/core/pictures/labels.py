"""Labels around a picture, for people: nothing is ever written into the picture itself."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hypnocast.core.pictures.recipe import Band, Recipe
from hypnocast.core.pictures.render import spectrogram_top
from hypnocast.core.types import PAGE_S, Pixels, Role

_LEFT, _RIGHT, _TOP, _BOTTOM = 148, 14, 26, 22
_SCALES = 84
"""Room for a scale and for what lies between it and the name."""
_PAPER, _INK = (24, 24, 24), (208, 208, 208)
_NO_NAMES: Mapping[Role, str] = {}


def annotate(
    picture: Pixels, recipe: Recipe, channels: Mapping[Role, str] = _NO_NAMES, title: str = ""
) -> Pixels:
    """Put derivations, scales and seconds around a picture, which itself stays as it is."""
    from PIL import Image, ImageDraw, ImageFont  # only people look at labels

    height, width, _ = picture.shape
    font = ImageFont.load_default(size=11)
    names = [channels.get(b.role, "-" if channels else b.role.value) for b in recipe.bands]
    # A long name ('E1 (reference assumed)') is given its room: it would run into the scale.
    longest = max((font.getlength(name) for name in names), default=0.0)
    left = max(_LEFT, round(longest) + _SCALES)
    sheet = Image.new("RGB", (left + width + _RIGHT, _TOP + height + _BOTTOM), _PAPER)
    sheet.paste(Image.fromarray(picture), (left, _TOP))
    pen = ImageDraw.Draw(sheet)
    room = recipe.trace.height / len(recipe.bands)
    for place, band in enumerate(recipe.bands):
        middle = _TOP + (place + 0.5) * room
        name = names[place]
        pen.text((8, middle), name, fill=_tint(band), font=font, anchor="lm")
        end = (left - 8, middle)
        pen.text(end, _scale(band, recipe), fill=_INK, font=font, anchor="rm")
        if recipe.spectrogram is not None and band.spectrum is not None:
            rows = recipe.spectrogram.rows
            middle = _TOP + spectrogram_top(recipe, place) + rows / 2
            pen.text((8, middle), name, fill=_tint(band), font=font, anchor="lm")
            low = band.spectrum.lowest_hz
            high = low + (rows - 1) / band.spectrum.window_s
            end = (left - 8, middle)
            pen.text(end, f"{low:g}-{high:g} Hz", fill=_INK, font=font, anchor="rm")
    for second in range(0, int(PAGE_S) + 1, 5):
        x = left + second * width / PAGE_S
        pen.line([(x, _TOP + height), (x, _TOP + height + 3)], fill=_INK)
        pen.text((x, _TOP + height + 5), f"{second} s", fill=_INK, font=font, anchor="mt")
    pen.text((left, _TOP / 2), title or recipe.name, fill=_INK, font=font, anchor="lm")
    return np.asarray(sheet)


def _scale(band: Band, recipe: Recipe) -> str:
    if recipe.trace.scaling == "fixed" and band.half_span_uv is not None:
        return f"±{band.half_span_uv:g} uV"  # the font that comes with Pillow has no µ
    return "min-max"


def _tint(band: Band) -> str:
    """Return the band's colour, or that of the other labels where it would not show on them."""
    dark = band.colour.upper() == "#000000"
    return "#D0D0D0" if dark else {"#0000FF": "#6A8CFF"}.get(band.colour.upper(), band.colour)
