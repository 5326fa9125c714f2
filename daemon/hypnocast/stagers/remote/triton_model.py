"""A pack as a model of Triton's Python backend: what ``model.py`` of a repository imports.

It runs where the server runs, in a Python that has Hypnocast and ONNX Runtime. The same local
stager judges there as would on the bedside machine, so a verdict does not depend on where it was
computed. Features of pictures are remembered by what is in them, whoever sent them.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import OrderedDict
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hypnocast.core.types import Look, Opinion, Picture
from hypnocast.errors import InferenceError
from hypnocast.stagers.onnx.engine import Provider
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.packs.pack import Pack, load_pack
from hypnocast.stagers.remote.open_inference import ANSWER, LOG_PROBABILITIES, PICTURES

UNPACKED = 512
"""Pictures kept unpacked: 0.6 MB each in the size of the shipped pack."""


class PackServer:
    """Judges looks that came as PNG files."""

    def __init__(self, pack: Pack, provider: Provider = "auto") -> None:
        """Open the pack."""
        self._pack = pack
        self._stager = LocalStager(pack, provider)
        self._unpacked: OrderedDict[bytes, Picture] = OrderedDict()

    def judge(self, rows: Sequence[Sequence[bytes]]) -> list[Opinion]:
        """Judge looks, each given as the PNGs of its places; empty where there is no picture."""
        context = self._pack.manifest.context
        looks = []
        for row in rows:
            places = [self._picture(bytes(png)) if png else None for png in row]
            if len(places) != context.pictures or places[context.before] is None:
                raise InferenceError(
                    f"a look needs {context.pictures} places and the page itself",
                    where=self._pack.manifest.name,
                )
            looks.append(Look(tuple(places), context.before))
        return self._stager.judge(looks)

    def close(self) -> None:
        """Let go of the model."""
        self._stager.close()

    def _picture(self, png: bytes) -> Picture:
        key = hashlib.sha256(png).digest()
        picture = self._unpacked.get(key)
        if picture is None:
            recipe = self._pack.recipe
            with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
                if image.size != (recipe.width, recipe.height) or image.mode != "RGB":
                    raise InferenceError(
                        f"a picture of {image.size} {image.mode} was not drawn by {recipe.name}",
                        where=self._pack.manifest.name,
                    )
                rgb = np.asarray(image)
            picture = Picture(0, rgb, key.hex(), recipe.digest, quality={}, channels={})
            self._unpacked[key] = picture
        self._unpacked.move_to_end(key)
        while len(self._unpacked) > UNPACKED:
            self._unpacked.popitem(last=False)
        return picture


class TritonPythonModel:
    """What Triton's Python backend looks for in ``model.py``."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the pack that lies beside ``model.py``."""
        self._tensors: Any = import_module("triton_python_backend_utils")
        folder = Path(args["model_repository"]) / args["model_version"] / "pack"
        self._server = PackServer(load_pack(folder))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Judge all that the dynamic batcher has brought together, in one go."""
        rows = [self._rows(request) for request in requests]
        tensors = self._tensors
        try:
            opinions = iter(self._server.judge([row for part in rows for row in part]))
        except InferenceError as error:
            failure = tensors.TritonError(str(error))
            return [tensors.InferenceResponse([], failure) for _ in requests]
        return [self._response([next(opinions) for _ in part]) for part in rows]

    def finalize(self) -> None:
        """Let go of the model."""
        self._server.close()

    def _rows(self, request: Any) -> list[list[bytes]]:
        given = self._tensors.get_input_tensor_by_name(request, PICTURES).as_numpy()
        rows: list[list[bytes]] = given.tolist()
        return rows

    def _response(self, opinions: Sequence[Opinion]) -> Any:
        stages = np.stack([opinion.log_probabilities for opinion in opinions])
        answers = np.array([[answer_of(opinion)] for opinion in opinions], dtype=np.object_)
        tensor = self._tensors.Tensor
        return self._tensors.InferenceResponse(
            [tensor(LOG_PROBABILITIES, stages.astype(np.float64)), tensor(ANSWER, answers)]
        )


def answer_of(opinion: Opinion) -> bytes:
    """Return what a model wrote beside the stage, as JSON; empty where it writes nothing."""
    if opinion.rationale is None and opinion.rules is None:
        return b""
    return json.dumps({"rationale": opinion.rationale, "rules": opinion.rules}).encode()
