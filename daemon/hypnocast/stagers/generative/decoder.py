"""The language part of a generative pack: token embeddings, decoder and its key-values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypnocast.errors import PackError
from hypnocast.stagers.generative.answers import Path
from hypnocast.stagers.onnx.engine import Engine, Tensor, on_host
from hypnocast.stagers.packs.manifest import Generative
from hypnocast.stagers.packs.pack import Pack

MOST_BEDS = 64

KEEP_INPUTS = ("num_logits_to_keep", "logits_to_keep")
"""Names under which some exports read how many last positions need logits."""


@dataclass(frozen=True, slots=True, eq=False)
class KeyValues:
    """What a decoder remembers of the tokens it has read, for some beds at once."""

    tensors: tuple[Tensor, ...]
    """Key and value of each layer: (beds, heads, tokens, numbers)."""
    length: int
    beds: int = 1

    def repeat(self, times: int) -> KeyValues:
        """Give every bed's memory ``times`` times in a row."""
        if times == 1:
            return self
        repeated = tuple(np.repeat(on_host(tensor), times, axis=0) for tensor in self.tensors)
        return KeyValues(repeated, self.length, self.beds * times)

    def pick(self, bed: int, length: int) -> KeyValues:
        """Give one bed's memory of its first ``length`` tokens."""
        picked = tuple(
            np.ascontiguousarray(on_host(tensor)[bed : bed + 1, :, :length])
            for tensor in self.tensors
        )
        return KeyValues(picked, length)


@dataclass(frozen=True, slots=True, eq=False)
class Prompts:
    """Prompts of some beds, behind what every prompt begins with."""

    embeds: NDArray[Any]
    """(beds, tokens, numbers)"""
    positions: NDArray[np.int64]
    pictures: Sequence[tuple[str, ...]]
    """Digests of each bed's pictures, in the order of the prompt."""
    starts: tuple[int, ...]
    """Where each picture's features begin."""
    expected_s: Sequence[float]
    """Bed → for how many seconds a prompt may come that begins with the same pictures."""
    keep: int
    """Last positions that need logits."""


class Decoder:
    """``embed_tokens`` and ``decoder_model_merged`` of one pack."""

    def __init__(self, pack: Pack, model: Generative, engine: Engine) -> None:
        """Open both graphs and check them against the manifest."""
        self._embed = engine.open(pack, model.embed_tokens)
        self._graph = engine.open(pack, model.decoder)
        self._pairs = tuple(
            (f"past_key_values.{layer}.{part}", f"present.{layer}.{part}")
            for layer in range(model.layers)
            for part in ("key", "value")
        )
        self._stay = frozenset(present for _, present in self._pairs)
        self._mrope = model.rope == "mrope"
        self._keep = next((name for name in KEEP_INPUTS if name in self._graph.inputs), None)
        wanted = {"inputs_embeds", "attention_mask", *(past for past, _ in self._pairs)}
        given = set(self._graph.inputs) - {"position_ids", *KEEP_INPUTS}
        if given != wanted or not {"logits", *self._stay} <= set(self._graph.outputs):
            odd = sorted(given ^ wanted)[:4]
            raise PackError(
                f"the decoder's inputs or outputs are not those of {model.layers} layers: {odd}",
                where=model.decoder,
                remedy="See the three-file layout in docs/packs.md.",
            )
        first = self._graph.inputs[self._pairs[0][0]]
        shape = (1, model.kv_heads, 0, model.head_dim)
        if first.shape[1] not in {None, shape[1]} or first.shape[3] not in {None, shape[3]}:
            raise PackError(
                f"keys have shape {first.shape}, not kv_heads and head_dim of the manifest",
                where=model.decoder,
                remedy="Correct [model] in pack.toml.",
            )
        self.dtype = self._graph.inputs["inputs_embeds"].dtype
        self._kind = first.dtype
        self._alone = model.cache == "shared"
        self.beds_at_once = 1 if self._alone else MOST_BEDS
        """More are read one group after another."""
        self.nothing = KeyValues(tuple(np.zeros(shape, first.dtype) for _ in self._pairs), 0)

    def embed(self, ids: NDArray[np.int64]) -> NDArray[Any]:
        """Give the embeddings of tokens: (beds, tokens) to (beds, tokens, numbers)."""
        embeds = self._embed.run({"input_ids": ids})[self._embed.outputs[0]]
        return np.asarray(embeds, dtype=self.dtype)

    def read(
        self,
        embeds: NDArray[Any],
        positions: NDArray[np.int64],
        memory: KeyValues,
        *,
        keep: int = 1,
    ) -> tuple[NDArray[Any], KeyValues]:
        """Read on; return the logits of the last ``keep`` tokens, and what is remembered then.

        ``positions`` is (tokens,) or, for mrope, (3, tokens): the beds go in step.
        """
        beds, tokens = embeds.shape[:2]
        feeds: dict[str, Tensor] = dict(
            self._feeds(embeds, positions, memory.length + tokens, keep)
        )
        for (past, _), tensor in zip(self._pairs, memory.tensors, strict=True):
            feeds[past] = tensor
        out = self._graph.run(feeds, stay=self._stay)
        present = tuple(out[name] for _, name in self._pairs)
        known = KeyValues(present, memory.length + tokens, beds)
        return np.asarray(out["logits"])[:, -keep:], known

    def _feeds(
        self, embeds: NDArray[Any], positions: NDArray[np.int64], length: int, keep: int
    ) -> dict[str, NDArray[Any]]:
        """Return the graph's inputs but for the past."""
        beds = len(embeds)
        feeds: dict[str, NDArray[Any]] = {
            "inputs_embeds": np.ascontiguousarray(embeds),
            "attention_mask": np.ones((beds, length), dtype=np.int64),
        }
        if "position_ids" in self._graph.inputs:
            places = positions[:, None] if self._mrope else positions[None]
            feeds["position_ids"] = np.repeat(places, beds, axis=-2)
        if self._keep is not None:
            feeds[self._keep] = np.asarray(keep, dtype=np.int64)
        return feeds

    def begin(self, room: int) -> KeyValues:  # noqa: ARG002 - what grows needs no room
        """Return an empty memory for one bed, which will hold ``room`` tokens at most."""
        return self.nothing

    def keep_lead(self, tokens: int) -> None:
        """Note that every prompt begins with what was just read."""

    def leads(self, lead: KeyValues, beds: int) -> KeyValues:
        """Give what every prompt begins with to some beds, where the decoder computes."""
        repeated = lead.repeat(beds)
        placed = tuple(self._graph.place(tensor) for tensor in repeated.tensors)
        return KeyValues(placed, repeated.length, repeated.beds)

    def positions_from(self, start: int, count: int) -> NDArray[np.int64]:
        """Give the positions of text from ``start`` on."""
        places = np.arange(start, start + count, dtype=np.int64)
        return np.repeat(places[None], 3, axis=0) if self._mrope else places

    def read_prompts(self, prompts: Prompts, lead: KeyValues) -> tuple[NDArray[Any], KeyValues]:
        """Read whole prompts behind their lead, all beds in one run."""
        return self.read(prompts.embeds, prompts.positions, lead, keep=prompts.keep)

    def read_paths(
        self, memory: KeyValues, start: int, paths: Sequence[Path]
    ) -> dict[Path, NDArray[Any]]:
        """Read several beginnings of answers after the same text, all beds in one run.

        Gives the logits (beds, vocabulary) behind every beginning of every path. Shorter paths
        are filled up on the right, where nothing before can see it.
        """
        if not paths:
            return {}
        if self._alone:
            each = [self._read_path(memory, start, path) for path in paths]
            return {key: found for after in each for key, found in after.items()}
        longest = max(len(path) for path in paths)
        filled = [path + path[-1:] * (longest - len(path)) for path in paths]
        embeds = self.embed(np.asarray(filled, dtype=np.int64))
        beds = memory.beds
        logits, _ = self.read(
            np.tile(embeds, (beds, 1, 1)),
            self.positions_from(start, longest),
            memory.repeat(len(paths)),
            keep=longest,
        )
        by_bed = logits.reshape(beds, len(paths), longest, -1)
        return {
            path[: at + 1]: by_bed[:, row, at]
            for row, path in enumerate(paths)
            for at in range(len(path))
        }

    def _read_path(self, memory: KeyValues, start: int, path: Path) -> dict[Path, NDArray[Any]]:
        """Read one beginning: such a graph reads several tokens for one sequence at a time."""
        embeds = self.embed(np.asarray([path], dtype=np.int64))
        places = self.positions_from(start, len(path))
        logits, _ = self.read(embeds, places, memory, keep=len(path))
        return {path[: at + 1]: logits[:, at] for at in range(len(path))}
