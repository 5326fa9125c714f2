"""The eye of a pack: pictures to features, each picture looked at once.

A pack that looks at a page's neighbours meets every picture up to three times: as the next
page, as the page, as the page before. Its features are kept by the picture's digest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.types import Picture, Pixels
from hypnocast.errors import PackError
from hypnocast.stagers.onnx.engine import Engine
from hypnocast.stagers.onnx.pixels import prepare
from hypnocast.stagers.packs.manifest import Preprocess
from hypnocast.stagers.packs.pack import Pack

REMEMBERED_BYTES = 64_000_000
"""Features kept: a thousand pages of a small tower, some dozens of a large one."""

REMEMBERED = 4096
"""Pictures whose features are kept at most: nine for each of some hundred beds."""

SEEN_AT_ONCE = 8
"""Pictures in one run: more need memory in proportion, and no less time each."""


class VisionEncoder:
    """The vision graph of one pack."""

    def __init__(
        self, pack: Pack, file: str, how: Preprocess, engine: Engine, *, remember: bool
    ) -> None:
        """Open the graph; ``remember`` features where pictures are met again."""
        self._graph = engine.open(pack, file)
        self._how = how
        self._kept: OrderedDict[str, NDArray[Any]] = OrderedDict()
        self._remember = remember
        if len(self._graph.inputs) != 1:
            raise PackError(
                f"has inputs {sorted(self._graph.inputs)}, and needs just the pixels",
                where=file,
                remedy="Fix what else it takes as constants when exporting it.",
            )
        self._input, port = next(iter(self._graph.inputs.items()))
        one_by_one = how.layout == "patches" and len(port.shape) == 2
        fixed = 1 if one_by_one else port.shape[0]
        if fixed is not None and fixed % how.tiles:
            raise PackError(
                f"takes {fixed} tiles at a time, and a picture has {how.tiles}",
                where=file,
                remedy="Export it with a free first dimension.",
            )
        self._one_by_one = one_by_one
        self._at_once = None if fixed is None else fixed // how.tiles

    def see(self, pictures: Sequence[Picture]) -> list[NDArray[Any]]:
        """Give the features of pictures: (features, numbers) of each.

        The pixels of one that is remembered are not touched.
        """
        wanted = [picture.digest for picture in pictures]
        new: dict[str, Picture] = {}
        for picture in pictures:
            if picture.digest not in self._kept:
                new.setdefault(picture.digest, picture)
        seen = dict(zip(new, self._encode([each.rgb for each in new.values()]), strict=True))
        features = [seen[digest] if digest in seen else self._kept[digest] for digest in wanted]
        if self._remember:
            for digest, feature in zip(wanted, features, strict=True):
                self._kept[digest] = feature
                self._kept.move_to_end(digest)
            size = max(1, features[0].nbytes) if features else 1
            while len(self._kept) > min(REMEMBERED, REMEMBERED_BYTES // size):
                self._kept.popitem(last=False)
        return features

    def _encode(self, pictures: Sequence[Pixels]) -> list[NDArray[Any]]:
        features: list[NDArray[Any]] = []
        step = self._at_once or min(SEEN_AT_ONCE, max(1, len(pictures)))
        for start in range(0, len(pictures), step):
            batch = list(pictures[start : start + step])
            missing = step - len(batch) if self._at_once else 0
            pixels = prepare(batch + batch[-1:] * missing, self._how)
            if self._one_by_one:
                pixels = pixels[0]
            out = np.asarray(self._graph.run({self._input: pixels})[self._graph.outputs[0]])
            each = out.reshape(step if self._at_once else len(batch), -1, out.shape[-1])
            features += list(each[: len(batch)])
        return features
