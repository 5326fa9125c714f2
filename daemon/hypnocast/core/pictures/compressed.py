"""Pictures of pages gone by, folded small until somebody looks at them.

A pack that looks at eight pages before the page keeps nine pictures of every bed, 0.6 MB each.
A model that remembers what it saw asks for none of them again, so they are kept compressed: an
eighth of the size for 2 ms a page. Of pixels that go on as their left neighbour only the first is
kept (spectrograms are drawn in blocks), and of its colour how far it is from grey.
"""

from __future__ import annotations

import io
import zlib

import numpy as np

from hypnocast.core.types import Picture, Pixels


class CompressedPicture(Picture):
    """A picture as any other; its pixels are unfolded each time they are asked for."""

    __slots__ = ("_folded", "_shape")

    _folded: bytes
    _shape: tuple[int, ...]

    @property
    def rgb(self) -> Pixels:
        """The pixels, the same to the last bit."""
        return _unfold(self._folded, self._shape)


def fold(picture: Picture) -> Picture:
    """Return the same picture in less memory."""
    if isinstance(picture, CompressedPicture):
        return picture
    folded = object.__new__(CompressedPicture)
    for name in ("epoch", "digest", "recipe", "quality", "channels", "samples", "spectrum"):
        object.__setattr__(folded, name, getattr(picture, name))
    object.__setattr__(folded, "_folded", _fold(picture.rgb))
    object.__setattr__(folded, "_shape", picture.rgb.shape)
    return folded


def png(pixels: Pixels) -> bytes:
    """Return a picture as a PNG file; the pixels are those that the digest is of.

    A ward keeps every page of every bed: the quickest level is worth an eighth more bytes.
    """
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", compress_level=1)
    return file.getvalue()


def _fold(rgb: Pixels) -> bytes:
    height, width, _ = rgb.shape
    unlike = rgb[:, 1:] != rgb[:, :-1]
    new = np.ones((height, width), np.bool_)
    np.logical_or(unlike[:, :, 0], unlike[:, :, 1], out=new[:, 1:])
    new[:, 1:] |= unlike[:, :, 2]
    whole = np.ascontiguousarray(rgb).reshape(-1).view("V3")  # three bytes at once: much faster
    kept = np.compress(new.reshape(-1), whole).view(np.uint8).reshape(-1, 3)
    planes = np.empty((3, len(kept)), np.uint8)
    planes[1] = kept[:, 1]
    for level in (0, 2):
        np.subtract(kept[:, level], planes[1], out=planes[level])  # modulo 256, there and back
    return zlib.compress(np.packbits(new).tobytes() + planes.tobytes(), 1)


def _unfold(folded: bytes, shape: tuple[int, ...]) -> Pixels:
    pixels = shape[0] * shape[1]
    flat = np.frombuffer(zlib.decompress(folded), np.uint8)
    marks, planes = np.split(flat, [-(-pixels // 8)])
    planes = planes.reshape(3, -1).copy()
    planes[::2] += planes[1]
    first = np.cumsum(np.unpackbits(marks, count=pixels), dtype=np.intp) - 1
    return np.ascontiguousarray(planes.T).take(first, axis=0).reshape(shape)
