"""From the pixels of a page to the numbers a vision tower reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hypnocast.core.types import Pixels
from hypnocast.stagers.packs.manifest import Preprocess

_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}
_DTYPES = {"float32": np.float32, "float16": np.float16, "uint8": np.uint8}


def prepare(pictures: Sequence[Pixels], how: Preprocess) -> NDArray[Any]:
    """Give the input tensor for some pictures, in their order.

    ``nchw`` (pictures, 3, height, width); ``tiles`` (pictures × tiles, 3, height, width);
    ``patches`` (pictures, patches, numbers).
    """
    tiles = [tile for rgb in pictures for tile in _cut(rgb, how)]
    planes = np.empty((len(tiles), 3, how.height, how.width), dtype=_DTYPES[how.dtype])
    for plane, tile in zip(planes, tiles, strict=True):
        if how.dtype == "uint8":
            plane[...] = tile.transpose(2, 0, 1)
            continue
        for channel, (mean, std) in enumerate(zip(how.mean, how.std, strict=True)):
            values = np.multiply(tile[:, :, channel], np.float32(1 / (255 * std)))
            plane[channel] = values - np.float32(mean / std) if mean else values
    return _flatten(planes, how) if how.layout == "patches" else planes


def patch_grid(how: Preprocess) -> tuple[int, int]:
    """Rows and columns of visual tokens of one picture cut into patches."""
    unit = how.patch_size * how.merge_size
    return how.height // unit, how.width // unit


def _cut(rgb: Pixels, how: Preprocess) -> list[Pixels]:
    filter_ = _FILTERS[how.resample]
    if how.tiles == 1:
        fitted = _crop(rgb, how) if how.fit == "crop" else rgb
        return [_resize(fitted, how.width, how.height, filter_)]
    rows, columns = how.tile_rows, how.tile_columns
    whole = _resize(rgb, how.width * columns, how.height * rows, filter_)
    tiles = [
        whole[y * how.height : (y + 1) * how.height, x * how.width : (x + 1) * how.width]
        for y in range(rows)
        for x in range(columns)
    ]
    return [*tiles, _resize(rgb, how.width, how.height, filter_)]


def _crop(rgb: Pixels, how: Preprocess) -> Pixels:
    """Fit the shorter side and cut the middle out, as CLIP's processor does."""
    high, across = rgb.shape[:2]
    if high <= across:
        size = (int(how.height * across / high), how.height)
    else:
        size = (how.width, int(how.width * high / across))
    fitted = _resize(rgb, *size, _FILTERS[how.resample])
    top, left = (fitted.shape[0] - how.height) // 2, (fitted.shape[1] - how.width) // 2
    return fitted[top : top + how.height, left : left + how.width]


def _resize(rgb: Pixels, width: int, height: int, how: Image.Resampling) -> Pixels:
    if rgb.shape[:2] == (height, width):
        return rgb
    return np.asarray(Image.fromarray(rgb).resize((width, height), how))


def _flatten(planes: NDArray[Any], how: Preprocess) -> NDArray[Any]:
    """Order patches window by window, each repeated in time, as Qwen2.5-VL reads them."""
    patch, merge, times = how.patch_size, how.merge_size, how.temporal_patch_size
    rows, columns = patch_grid(how)
    windows = planes.reshape(-1, 3, rows, merge, patch, columns, merge, patch)
    ordered = windows.transpose(0, 2, 5, 3, 6, 1, 4, 7)[:, :, :, :, :, :, None]
    repeated = np.repeat(ordered, times, axis=6)
    return np.ascontiguousarray(
        repeated.reshape(len(planes), rows * columns * merge**2, 3 * times * patch**2)
    )
