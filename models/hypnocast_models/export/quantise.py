"""Weights as small integers: in blocks for ``MatMulNBits``, or with a scale for each output."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BLOCK = 32
"""Numbers that share a scale. Blocks of 64 and 128 were up to a sixth faster and less exact."""


LARGEST_CODE = 63
"""Seven bits, not eight, where int8 meets int8: on a CPU with AVX2 alone two products of a larger
code overflow 16 bits and are cut off without a word (255 · 63 · 2 just fits)."""


def quantise_blocks(weight: Array, bits: int, block: int = BLOCK) -> tuple[Array, Array]:
    """Quantise float32 rows in symmetric blocks: (numbers, scales).

    Numbers are unsigned around 2**(bits - 1). The number farthest from 0 in a block becomes the
    lowest code, which has no counterpart above: no code is wasted. Two 4-bit numbers share a
    byte, the first in the low half; a last block that is not full is filled with zeros.
    """
    rows, columns = weight.shape
    half = 1 << (bits - 1)
    blocks = np.pad(weight, ((0, 0), (0, -columns % block))).reshape(rows, -1, block)
    high, low = blocks.max(-1), blocks.min(-1)
    scales = np.where(high > -low, high, low) / np.float32(-half)
    inverse = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales != 0)
    blocks *= inverse[..., None]
    np.rint(blocks, out=blocks)
    blocks += half
    np.clip(blocks, 0, 2 * half - 1, out=blocks)
    numbers: Array = blocks.astype(np.uint8)
    if bits == 4:
        numbers = numbers[..., 0::2] | numbers[..., 1::2] << np.uint8(4)
    return numbers, scales


def per_output(weight: Array) -> tuple[Array, Array]:
    """Quantise to signed 7 bits with a scale for each row: (codes, scales)."""
    rows, columns = weight.shape
    codes, scales = np.empty((rows, columns), np.int8), np.empty(rows, np.float32)
    step = max(1, 2**22 // columns)
    for start in range(0, rows, step):
        part = slice(start, start + step)
        exact = weight[part].astype(np.float32)
        scales[part] = np.maximum(np.abs(exact).max(1), 1e-12) / LARGEST_CODE
        codes[part] = np.rint(exact / scales[part, None])
    return codes, scales
