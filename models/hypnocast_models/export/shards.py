"""The tensors of a model folder, mapped from its safetensors files and never read whole.

A LoRA adapter is merged into a weight when that weight is asked for.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from hypnocast.errors import PackError

Array = NDArray[Any]

_DTYPES: dict[str, Any] = {"BF16": ml_dtypes.bfloat16, "F16": np.float16, "F32": np.float32}
_LARGEST_HEADER = 100_000_000
"""The limit of the safetensors format."""


@dataclass(frozen=True, slots=True)
class _Place:
    path: Path
    dtype: Any
    offset: int
    shape: tuple[int, ...]

    def map(self) -> Array:
        return np.memmap(
            self.path, dtype=self.dtype, mode="r", offset=self.offset, shape=self.shape
        )


@dataclass(frozen=True, slots=True)
class _Update:
    """A low-rank update of one weight."""

    down: _Place
    up: _Place
    scale: float

    def apply(self, weight: Array) -> Array:
        update = self.up.map().astype(np.float32) @ self.down.map().astype(np.float32)
        merged: Array = weight.astype(np.float32) + np.float32(self.scale) * update
        return merged


class Shards:
    """Names to tensors."""

    def __init__(self, folder: Path, adapter: Path | None = None) -> None:
        """Read the headers of all files; with an ``adapter``, those of its updates too."""
        self._folder = folder
        self._places = _places(folder)
        self._updates = {} if adapter is None else self._read_adapter(adapter)

    def __contains__(self, name: str) -> bool:
        """Return whether there is a tensor of this name."""
        return name in self._places

    def __getitem__(self, name: str) -> Array:
        """Return a tensor: mapped, or merged where the adapter changes it."""
        if name not in self._places:
            raise PackError(
                f"there is no tensor {name!r}",
                where=str(self._folder),
                remedy="The folder is not whole, or of a kind this exporter does not know.",
            )
        weight = self._places[name].map()
        update = self._updates.get(name)
        return weight if update is None else update.apply(weight)

    def get(self, name: str) -> Array | None:
        """Return a tensor, or None where there is none of this name."""
        if name not in self._places:
            return None
        return self[name]

    def prefix(self, ending: str) -> str:
        """Return what comes before ``ending`` in the one name that ends with it."""
        found = [name for name in self._places if name.endswith(ending)]
        if len(found) != 1:
            raise PackError(
                f"{len(found)} tensors end with {ending!r}, and one is needed",
                where=str(self._folder),
                remedy="The folder is of a kind this exporter does not know.",
            )
        return found[0].removesuffix(ending)

    def has(self, ending: str) -> bool:
        """Return whether a name ends with ``ending``."""
        return any(name.endswith(ending) for name in self._places)

    @property
    def numbers(self) -> int:
        """How many numbers all tensors hold."""
        return sum(math.prod(place.shape) for place in self._places.values())

    def _read_adapter(self, adapter: Path) -> dict[str, _Update]:
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        if config.get("use_dora") or config.get("bias", "none") != "none":
            raise PackError(
                "only plain LoRA without biases can be merged while writing",
                where=str(adapter),
                remedy="Merge it with peft (merge_and_unload) first.",
            )
        rank = int(config["r"])
        scale = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
        parts = _places(adapter)
        ours = {_plain(name): name for name in self._places}
        updates: dict[str, _Update] = {}
        replaced = 0
        for name, place in parts.items():
            if ".lora_" not in name:
                self._replace(name, place, adapter)
                replaced += 1
            if not name.endswith(".lora_A.weight"):
                continue
            target = name.removesuffix(".lora_A.weight")
            weight = ours.get(_plain(target + ".weight"))
            up = parts.get(target + ".lora_B.weight")
            if weight is None or up is None:
                raise PackError(
                    f"the adapter changes {target!r}, which the model does not have",
                    where=str(adapter),
                    remedy="Name the base model the adapter was made for.",
                )
            updates[weight] = _Update(place, up, scale)
        unknown = len(parts) - 2 * len(updates) - replaced
        if unknown:
            raise PackError(
                f"{unknown} of the adapter's tensors are no LoRA updates",
                where=str(adapter),
                remedy="Merge it with peft (merge_and_unload) first.",
            )
        return updates

    def _replace(self, name: str, place: _Place, adapter: Path) -> None:
        """Take a tensor that was trained whole (a projector) from the adapter."""
        ending = "." + ".".join(name.split(".")[-3:])
        found = [known for known in self._places if f".{known}".endswith(ending)]
        if len(found) != 1 or self._places[found[0]].shape != place.shape:
            raise PackError(
                f"the adapter holds {name!r}, which the model does not have",
                where=str(adapter),
                remedy="Name the base model the adapter was made for.",
            )
        self._places[found[0]] = place


def _plain(name: str) -> str:
    """Return a name that is the same in a checkpoint, in a loaded model and in an adapter.

    Releases of transformers differ in what they put before and between the parts.
    """
    name = name.removeprefix("base_model.model.")
    seen = "vision" if re.search(r"visual|vision", name) else "text"
    match = re.search(r"(?:^|\.)((?:layers|blocks)\.\d+\..*)$", name)
    rest = match.group(1) if match else name.rsplit(".", 2)[-2] + "." + name.rsplit(".", 1)[-1]
    return f"{seen}:{rest}"


def _places(folder: Path) -> dict[str, _Place]:
    places: dict[str, _Place] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 0 < size <= min(_LARGEST_HEADER, path.stat().st_size - 8):
                raise PackError("no safetensors file", where=str(path), remedy="Get it again.")
            try:
                header = json.loads(file.read(size))
            except ValueError as error:
                raise PackError(
                    "a damaged safetensors file", where=str(path), remedy="Get it again."
                ) from error
        header.pop("__metadata__", None)
        for name, entry in header.items():
            dtype = _DTYPES.get(entry["dtype"])
            if dtype is None:
                continue  # buffers of integers: nothing that is multiplied
            start, end = entry["data_offsets"]
            if 8 + size + end > path.stat().st_size:
                raise PackError("a file that was cut", where=str(path), remedy="Get it again.")
            places[name] = _Place(path, dtype, 8 + size + start, tuple(entry["shape"]))
    if not places:
        raise PackError(
            "there are no weights in it (*.safetensors)",
            where=str(folder),
            remedy="Give the folder of a model in transformers' layout.",
        )
    return places
