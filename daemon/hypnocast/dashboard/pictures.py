"""Pages as pictures: where they come from, what they measure, and what was drawn."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections import OrderedDict
from io import BytesIO

from msgspec import Struct

from hypnocast.core.pictures.recipe import Band, Recipe, builtin, builtin_names
from hypnocast.core.wire.payloads import DaemonState, StageEvent
from hypnocast.dashboard.ward import MAX_PICTURE_BYTES
from hypnocast.errors import BrokerError

_MOST_PIXELS = 4_000_000
"""A page has 0.3 million; each costs several bytes, whatever the file costs."""
_KEPT = 64
"""Pages kept so that leafing back and forth does not ask the daemon again."""


class BandScale(Struct, frozen=True, kw_only=True):
    """The place of one channel in the picture."""

    role: str
    colour: str
    half_span_uv: float | None
    """None where each page is scaled to its own range."""
    spectrum_hz: tuple[float, float] | None
    """Lowest and highest frequency of its spectrogram."""


class Scale(Struct, frozen=True, kw_only=True):
    """What is drawn where in a page, so that axes can be put beside it."""

    recipe: str
    width: int
    height: int
    trace_height: int
    bands: tuple[BandScale, ...]
    spectrogram_rows: int
    """Rows of each channel's spectrogram below the traces; 0 without."""


def scale_of(event: StageEvent | None, state: DaemonState | None) -> Scale | None:
    """Return the scale of a bed's pages: by the recipe's digest, else by its name, else none."""
    known = [builtin(name) for name in builtin_names()]
    if event is not None and event.digests.recipe is not None:
        for recipe in known:
            if recipe.digest == event.digests.recipe:
                return _scale(recipe)
        return None
    if state is not None:
        for recipe in known:
            if recipe.name == state.recipe:
                return _scale(recipe)
    return None


def picture_digest(png: bytes) -> str:
    """Return the digest over the RGB bytes of a PNG; ``ValueError`` if it is none."""
    if len(png) > MAX_PICTURE_BYTES:
        msg = f"a page of {len(png)} bytes"
        raise ValueError(msg)
    width, height = int.from_bytes(png[16:20]), int.from_bytes(png[20:24])
    if width * height > _MOST_PIXELS:
        msg = f"a page of {width} × {height} pixels"
        raise ValueError(msg)
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(png), formats=("PNG",)) as image:
            rgb = image.convert("RGB").tobytes()
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        msg = f"not a PNG that can be read: {error}"
        raise ValueError(msg) from None
    return "sha256:" + hashlib.sha256(rgb).hexdigest()


def png_of_reply(text: str, where: str) -> bytes:
    """Return the picture of a ``page`` reply; :class:`BrokerError` if it is none."""
    try:
        png = base64.b64decode(text, validate=True)
        picture_digest(png)
    except (binascii.Error, ValueError) as error:
        raise BrokerError(
            f"the daemon's page is no picture: {error}", where=where, remedy="Ask its engineer."
        ) from None
    return png


class Album:
    """The last pages that were asked for, by bed, session and epoch."""

    def __init__(self) -> None:
        """Begin empty."""
        self._pages: OrderedDict[tuple[str, str, int], bytes] = OrderedDict()

    def get(self, bed: str, session: str, epoch: int) -> bytes | None:
        """Return a page that was asked for before."""
        page = self._pages.get((bed, session, epoch))
        if page is not None:
            self._pages.move_to_end((bed, session, epoch))
        return page

    def put(self, bed: str, session: str, epoch: int, page: bytes) -> None:
        """Keep a page; the one not wanted for longest goes."""
        self._pages[bed, session, epoch] = page
        while len(self._pages) > _KEPT:
            self._pages.popitem(last=False)


def _spectrum_hz(band: Band, rows: int) -> tuple[float, float] | None:
    if band.spectrum is None or not rows:
        return None
    lowest = band.spectrum.lowest_hz
    return lowest, lowest + rows / band.spectrum.window_s


def _scale(recipe: Recipe) -> Scale:
    rows = recipe.spectrogram.rows if recipe.spectrogram is not None else 0
    return Scale(
        recipe=recipe.name,
        width=recipe.width,
        height=recipe.height,
        trace_height=recipe.trace.height,
        bands=tuple(
            BandScale(
                role=band.role.value,
                colour=band.colour,
                half_span_uv=band.half_span_uv if recipe.trace.scaling == "fixed" else None,
                spectrum_hz=_spectrum_hz(band, rows),
            )
            for band in recipe.bands
        ),
        spectrogram_rows=rows,
    )
