"""Fine-tuning and export of CLIP and SigLIP: a page against the description of every stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from hypnocast.core.types import Pixels
from hypnocast.errors import PackError
from hypnocast.stagers.onnx.pixels import prepare
from hypnocast.stagers.packs.manifest import Contrastive
from hypnocast_models.export.generative import BOUND_FP32, use_eager_attention
from hypnocast_models.export.graphs import write_graph
from hypnocast_models.export.model_files import contrastive_pixels
from hypnocast_models.tune.lessons import TrainingPage

PROMPTS = (
    "a polysomnogram of wakefulness",
    "a polysomnogram of sleep stage N1",
    "a polysomnogram of sleep stage N2",
    "a polysomnogram of sleep stage N3, slow waves",
    "a polysomnogram of REM sleep",
)
STAGES: tuple[Literal["W", "N1", "N2", "N3", "R"], ...] = ("W", "N1", "N2", "N3", "R")
ENCODER, EMBEDDINGS = "image_encoder.onnx", "prompts.f32"


class ContrastiveStudent(nn.Module):  # type: ignore[misc]  # torch is passed over by mypy
    """Image tower, text tower and the five descriptions."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        """Tokenise the descriptions once."""
        super().__init__()
        self.model = model
        length = model.config.text_config.max_position_embeddings
        tokens = tokenizer(
            list(PROMPTS), padding="max_length", max_length=length, truncation=True,
            return_tensors="pt",
        )  # fmt: skip
        self._ids = tokens["input_ids"]
        self._mask = tokens["attention_mask"] if model.config.model_type == "clip" else None
        folder, config = Path(model.config.name_or_path or ""), model.config.to_dict()
        clip = model.config.model_type == "clip"
        self.how = contrastive_pixels(folder, config, clip=clip, whole=True)
        self.stage_weights = torch.ones(len(PROMPTS))
        """The weight of each stage in the loss."""

    def texts(self) -> Tensor:
        """Give the unit vectors of the five descriptions."""
        device = next(self.model.parameters()).device
        mask = {} if self._mask is None else {"attention_mask": self._mask.to(device)}
        vectors = self.model.get_text_features(input_ids=self._ids.to(device), **mask)
        return nn.functional.normalize(vectors, dim=-1)

    def forward(
        self, lesson: TrainingPage, labels: Tensor, *, perceiving: bool = False
    ) -> dict[str, Tensor]:
        """Cross-entropy over the five descriptions, and where it is judged the answers."""
        del perceiving  # the whole eye learns anyway
        scale = self.model.logit_scale.exp()
        cosines = _image_vectors(self.model, self._pixels(lesson.pictures)) @ self.texts().T
        logits = (scale * cosines).float()
        stages = labels.to(logits.device)
        weights = self.stage_weights.to(logits.device)[stages]
        weights = weights * torch.from_numpy(lesson.weights).to(weights)
        each = nn.functional.cross_entropy(logits, stages, reduction="none")
        loss = (each * weights).sum() / weights.sum()
        if self.training:
            return {"loss": loss}
        return {"loss": loss, "logits": logits.log_softmax(-1)}

    def gradient_checkpointing_enable(self, **how: Any) -> None:
        """Trade time for memory, as the Trainer asks."""
        self.model.gradient_checkpointing_enable(**how)

    def _pixels(self, pictures: Sequence[Pixels]) -> Tensor:
        device = next(self.model.parameters()).device
        return torch.from_numpy(prepare(pictures, self.how)).to(device)


class ImageEncoder(nn.Module):  # type: ignore[misc]  # torch is passed over by mypy
    """Pixels to unit vectors: what runs at the bedside."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Encode pictures (pictures, 3, height, width)."""
        return _image_vectors(self.model, pixel_values)


def _image_vectors(model: Any, pixels: Tensor) -> Tensor:
    vectors = model.get_image_features(pixel_values=pixels)
    return cast("Tensor", nn.functional.normalize(vectors, dim=-1))


def export_contrastive(
    model: Any, tokenizer: Any, folder: Path, progress: Callable[[str], None] = lambda _: None
) -> Contrastive:
    """Write image tower and embedded prompts, and prove parity with PyTorch."""
    import onnxruntime

    folder.mkdir(parents=True, exist_ok=True)
    model = model.float().eval()
    use_eager_attention(model)
    student = ContrastiveStudent(model, tokenizer)
    how = student.how
    example = torch.randn(2, 3, how.height, how.width)
    with torch.no_grad():
        graph = write_graph(
            ImageEncoder(model),
            (example,),
            folder / ENCODER,
            names=["pixel_values"],
            outputs=["image_embeds"],
            free=[{0: "pictures"}],
        )
        progress(str(graph))
        texts = student.texts()
        scale = float(model.logit_scale.exp())
        wanted = scale * _image_vectors(model, example) @ texts.T
    session = onnxruntime.InferenceSession(
        str(folder / ENCODER), providers=["CPUExecutionProvider"]
    )
    vectors = session.run(None, {"pixel_values": example.numpy()})[0]
    largest = float(np.abs(scale * vectors @ texts.numpy().T - wanted.numpy()).max())
    progress(f"parity with PyTorch: max |Δlogit| {largest:.1e}")
    if largest > BOUND_FP32:
        raise PackError(
            f"logits differ from PyTorch by {largest:.1e}",
            where="export",
            remedy=f"At most {BOUND_FP32:g} is allowed; do not use these files.",
        )
    texts.numpy().astype("<f4").tofile(folder / EMBEDDINGS)
    return Contrastive(
        image_encoder=ENCODER,
        preprocess=how,
        prompts=PROMPTS,
        prompt_stages=STAGES,
        prompt_embeddings=EMBEDDINGS,
        dimensions=texts.shape[1],
        logit_scale=scale,
    )
