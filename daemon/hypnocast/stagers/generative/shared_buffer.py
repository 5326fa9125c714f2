"""A decoder whose key-values lie in one buffer: read and written in place, never copied.

A buffer has a row for each bed. Beds read their prompts one after another, each in its row (the
attention of ONNX Runtime up to 1.31 reads several tokens behind a past for one sequence only, and
reading is bound by arithmetic, so a batch would gain nothing); single tokens are read for all
beds at once. To forget what was read is to count less of it.

A pack that looks at the page after is asked of each page twice: (before, page, nothing yet), then
(before, page, after). What both begin with is read once: a row keeps what it read until the second
look has come.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypnocast.stagers.generative.answers import Path
from hypnocast.stagers.generative.decoder import MOST_BEDS, Decoder, KeyValues, Prompts
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


@dataclass(slots=True, eq=False)
class _RowContent:
    """What a row has read: the pictures of a prompt, in their order."""

    pictures: tuple[str, ...] = ()
    kept_until: float = float("-inf")
    """When no prompt that begins with the same pictures is expected any more."""
    read_at: float = float("-inf")


class SharedBufferDecoder(Decoder):
    """The decoder of a pack with ``cache = "shared"``, on the CPU."""

    def __init__(
        self,
        pack: Pack,
        model: Generative,
        engine: Engine,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open the graphs; :meth:`begin` comes before anything is read."""
        super().__init__(pack, model, engine)
        self._shape = (model.kv_heads, model.head_dim)
        self._room = 0
        self._buffers: list[NDArray[Any]] = []
        self._views: dict[tuple[int, int], tuple[Any, ...]] = {}
        self._lead = 0
        self._contents: list[_RowContent] = []
        self._clock = clock

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

    def read_prompts(self, prompts: Prompts, lead: KeyValues) -> tuple[NDArray[Any], KeyValues]:
        """Read whole prompts behind their lead, each from the first picture new to its row."""
        beds = len(prompts.embeds)
        first, logits = 0, []
        for bed, pictures in enumerate(prompts.pictures):
            row = self._row_for(pictures, bed)
            if beds == 1:
                first = row
            else:
                self._swap(row, bed)
                row = bed
            content = self._contents[row]
            start = _first_new(content, pictures, prompts)
            content.pictures = ()  # what fails halfway has read nothing
            rows = self.rows(row, 1, lead.length + start)
            out, _ = self.read(
                prompts.embeds[bed : bed + 1, start:],
                prompts.positions[..., start:],
                rows,
                keep=prompts.keep,
            )
            logits.append(out)
            content.pictures, content.read_at = pictures, self._clock()
            content.kept_until = content.read_at + prompts.expected_s[bed]
        length = lead.length + prompts.embeds.shape[1]
        return np.concatenate(logits), self.rows(first, beds, length)

    @property
    def has_room(self) -> bool:
        """Whether something can be read without forgetting what is expected to be gone on with."""
        more = len(self._contents) < self.beds_at_once
        return more or any(self._is_free(row) for row in range(len(self._contents)))

    def _row_for(self, pictures: tuple[str, ...], first: int) -> int:
        """Choose a row from ``first`` on: the one that has read most of it, or a free one."""
        rows = range(first, len(self._contents))
        known = {row: _common(self._contents[row].pictures, pictures) for row in rows}
        best = max(known, key=lambda row: known[row], default=None)
        if best is not None and known[best]:
            return best
        free = [row for row in rows if self._is_free(row)]
        if free:
            return free[0]
        if len(self._contents) < self.beds_at_once:
            self._grow(len(self._contents) + 1)
            return len(self._contents) - 1
        return min(rows, key=lambda row: self._contents[row].read_at)

    def _is_free(self, row: int) -> bool:
        """Return whether no prompt is expected any more that goes on with what a row has read."""
        return self._clock() >= self._contents[row].kept_until

    def _swap(self, one: int, other: int) -> None:
        """Let two rows change places."""
        if one == other:
            return
        for buffer in self._buffers:
            buffer[[one, other]] = buffer[[other, one]]
        contents = self._contents
        contents[one], contents[other] = contents[other], contents[one]

    def _grow(self, beds: int) -> None:
        heads, wide = self._shape
        # Filled, not np.zeros: the memory is allocated now, and not page by page in the night.
        grown = [np.full((beds, heads, self._room, wide), 0, self._kind) for _ in self._pairs]
        for new, old in zip(grown, self._buffers, strict=False):
            new[: len(old)] = old
        first = len(self._buffers[0]) if self._buffers else 1
        self._buffers, self._views = grown, {}
        self._contents += [_RowContent() for _ in range(beds - len(self._contents))]
        self._copy_lead(first)

    def _copy_lead(self, first: int) -> None:
        for buffer in self._buffers:
            buffer[first:, :, : self._lead] = buffer[:1, :, : self._lead]


def _first_new(content: _RowContent, pictures: Sequence[str], prompts: Prompts) -> int:
    """Return the first token of a prompt that a row has to read."""
    common = _common(content.pictures, pictures)
    if common == len(pictures):  # the whole prompt again: the logits behind it are wanted
        return int(prompts.embeds.shape[1]) - prompts.keep
    return prompts.starts[common]


def _common(known: Sequence[str], wanted: Sequence[str]) -> int:
    """Count the pictures that both begin with."""
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(known, wanted, strict=False))
    return sum(1 for _ in same)
