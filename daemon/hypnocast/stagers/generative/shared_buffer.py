"""A decoder whose key-values lie in one buffer: read and written in place, never copied.

A buffer has a row for each bed. Beds read their prompts one after another, each in its row (the
attention of ONNX Runtime up to 1.31 reads several tokens behind a past for one sequence only, and
reading is bound by arithmetic, so a batch would gain nothing); single tokens are read for all
beds at once. To forget what was read is to count less of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypnocast.stagers.generative.answers import Path
from hypnocast.stagers.generative.decoder import MOST_BEDS, Decoder, KeyValues
from hypnocast.stagers.onnx.engine import Engine
from hypnocast.stagers.packs.manifest import Generative
from hypnocast.stagers.packs.pack import Pack

CACHE_BYTES = 1_500_000_000
"""What the buffers of all beds of a batch may use together."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Rows(KeyValues):
    """Some rows of the buffers, and how many tokens in them count."""

    owner: SharedBufferDecoder
    first: int = 0

    def pick(self, bed: int, length: int) -> Rows:
        """Give one bed's row, of which its first ``length`` tokens count; nothing is copied."""
        return self.owner.rows(self.first + bed, 1, length)


class SharedBufferDecoder(Decoder):
    """The decoder of a pack with ``cache = "shared"``, on the CPU."""

    def __init__(self, pack: Pack, model: Generative, engine: Engine) -> None:
        """Open the graphs; :meth:`begin` comes before anything is read."""
        super().__init__(pack, model, engine)
        self._shape = (model.kv_heads, model.head_dim)
        self._room = 0
        self._buffers: list[NDArray[Any]] = []
        self._views: dict[tuple[int, int], tuple[Any, ...]] = {}
        self._lead = 0

    def begin(self, room: int) -> KeyValues:
        """Make room for so many tokens a bed, and return an empty row."""
        self._room = room
        self._grow(1)
        row = sum(buffer.nbytes for buffer in self._buffers)
        self.beds_at_once = max(1, min(MOST_BEDS, CACHE_BYTES // row))
        return self.rows(0, 1, 0)

    def keep_lead(self, tokens: int) -> None:
        """Note that the first tokens of row 0 begin every prompt; other rows get them too."""
        self._lead = tokens
        self._copy_lead(1)

    def leads(self, lead: KeyValues, beds: int) -> KeyValues:
        """Give the first rows, which hold every prompt's beginning."""
        return self.rows(0, beds, lead.length)

    def rows(self, first: int, beds: int, length: int) -> Rows:
        """Give rows of which the first ``length`` tokens count."""
        if first + beds > len(self._buffers[0]):
            self._grow(first + beds)
        views = self._views.get((first, beds))
        if views is None:
            views = tuple(self._graph.lay(part[first : first + beds]) for part in self._buffers)
            self._views[first, beds] = views
        return Rows(views, length, beds, owner=self, first=first)

    def read(
        self,
        embeds: NDArray[Any],
        positions: NDArray[np.int64],
        memory: KeyValues,
        *,
        keep: int = 1,
    ) -> tuple[NDArray[Any], KeyValues]:
        """Read on, in place: several tokens bed by bed, one token for all beds at once."""
        beds, tokens = embeds.shape[:2]
        assert isinstance(memory, Rows)  # noqa: S101 - nothing else is ever handed out here
        if beds > 1 and tokens > 1:
            rows = [memory.pick(bed, memory.length) for bed in range(beds)]
            each = [
                self.read(embeds[bed : bed + 1], positions, row, keep=keep)[0]
                for bed, row in enumerate(rows)
            ]
            return np.concatenate(each), self.rows(memory.first, beds, memory.length + tokens)
        length = memory.length + tokens
        feeds = self._feeds(embeds, positions, length, keep)
        buffers = dict(zip(self._pairs, memory.tensors, strict=True))
        logits = self._graph.run_in_place(feeds, buffers, "logits")
        return logits[:, -keep:], self.rows(memory.first, beds, length)

    def read_paths(
        self, memory: KeyValues, start: int, paths: Sequence[Path]
    ) -> dict[Path, NDArray[Any]]:
        """Read several beginnings of answers after the same text, one after another."""
        after: dict[Path, list[NDArray[Any]]] = {}
        for bed in range(memory.beds):
            found = super().read_paths(memory.pick(bed, memory.length), start, paths)
            for path, logits in found.items():
                after.setdefault(path, []).append(logits[0])
        return {path: np.stack(rows) for path, rows in after.items()}

    def _grow(self, beds: int) -> None:
        heads, wide = self._shape
        # Filled, not np.zeros: the memory is allocated now, and not page by page in the night.
        grown = [np.full((beds, heads, self._room, wide), 0, self._kind) for _ in self._pairs]
        for new, old in zip(grown, self._buffers, strict=False):
            new[: len(old)] = old
        first = len(self._buffers[0]) if self._buffers else 1
        self._buffers, self._views = grown, {}
        self._copy_lead(first)

    def _copy_lead(self, first: int) -> None:
        for buffer in self._buffers:
            buffer[first:, :, : self._lead] = buffer[:1, :, : self._lead]
