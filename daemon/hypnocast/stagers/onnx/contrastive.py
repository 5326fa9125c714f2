"""CLIP and SigLIP: which of the stages' descriptions lies nearest to the picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hypnocast.core.types import STAGES, Look
from hypnocast.core.verdicts.sequence_filter import log_normalise
from hypnocast.stagers.base import ModelOutput
from hypnocast.stagers.onnx.engine import Engine
from hypnocast.stagers.onnx.vision_encoder import VisionEncoder
from hypnocast.stagers.packs.manifest import Contrastive
from hypnocast.stagers.packs.pack import Pack


class ContrastiveModel:
    """An image tower, and prompts embedded when the pack was built."""

    def __init__(self, pack: Pack, model: Contrastive, engine: Engine) -> None:
        """Open the tower and read the embedded prompts."""
        self._eye = VisionEncoder(
            pack, model.image_encoder, model.preprocess, engine, remember=False
        )
        stored = np.fromfile(pack.path(model.prompt_embeddings), dtype="<f4").astype(np.float64)
        prompts = stored.reshape(len(model.prompts), model.dimensions)
        prompts /= np.linalg.norm(prompts, axis=1, keepdims=True)
        names = np.asarray(model.prompt_stages)
        self._scaled = model.logit_scale * np.stack(
            [prompts[names == stage.value].mean(axis=0) for stage in STAGES], axis=1
        )

    def read(self, looks: Sequence[Look]) -> list[ModelOutput]:
        """Compare each page's picture with the description of every stage."""
        features = self._eye.see([look.page for look in looks])
        towers = np.concatenate(features).astype(np.float64)
        towers /= np.maximum(np.linalg.norm(towers, axis=1, keepdims=True), 1e-12)
        return [ModelOutput(row) for row in log_normalise(towers @ self._scaled)]
