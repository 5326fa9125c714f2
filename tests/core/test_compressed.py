"""A picture that is folded small is the same picture."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hypnocast.core.pictures.compressed import fold
from hypnocast.core.pictures.render import picture_digest
from hypnocast.core.types import ChannelQuality, Picture, Role


@given(seed=st.integers(0, 99), height=st.integers(1, 40), width=st.integers(1, 40))
def test_compression_keeps_every_bit_and_every_attribute(
    seed: int, height: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    rgb[rng.random((height, width)) < seed / 99] = rgb[0, 0]  # and pixels go on as the one before
    quality = {Role.F4: ChannelQuality(0.5, frozenset())}
    picture = Picture(seed, rgb, picture_digest(rgb), "r", quality, {Role.F4: "F4-M1"})
    folded = fold(fold(picture))
    np.testing.assert_array_equal(folded.rgb, rgb)
    assert picture_digest(folded.rgb) == folded.digest == picture.digest
    assert (folded.epoch, folded.recipe, folded.quality, folded.channels) == (
        seed,
        "r",
        quality,
        {Role.F4: "F4-M1"},
    )
