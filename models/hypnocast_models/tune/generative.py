"""Fine-tuning of generative models: loss on the answer's tokens and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hypnocast.core.types import Pixels
from hypnocast.stagers.generative.prompt import build_prompt, encode_answers, load_tokenizer
from hypnocast.stagers.onnx.pixels import prepare
from hypnocast.stagers.packs.manifest import Generative
from hypnocast_models.export.parts import vision_part
from hypnocast_models.tune.lessons import PERCEIVED_HZ, TrainingPage

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_PERCEIVED = 30 * (len(PERCEIVED_HZ) + 1)


class GenerativeStudent(nn.Module):  # type: ignore[misc]  # torch is passed over by mypy
    """A model with its prompt, as the daemon will run it: pictures in, answer tokens out."""

    def __init__(self, model: Any, described: Generative, tokenizer_file: Path) -> None:
        """Tokenise prompt and answers with the daemon's own code."""
        super().__init__()
        self.model = model
        self._how = described.preprocess
        tokenizer = load_tokenizer(tokenizer_file)
        prompt = build_prompt(tokenizer, described)
        answers = encode_answers(tokenizer, described)
        self._answers = [torch.tensor(answer) for answer in answers]
        self._ids = torch.from_numpy(prompt.ids)
        self._slots = torch.from_numpy(prompt.slots)
        longest = max(len(answer) for answer in answers)
        behind = prompt.next_position + np.arange(longest)
        if prompt.positions.ndim == 2:
            behind = np.repeat(behind[None], 3, axis=0)
        self._positions = torch.from_numpy(np.concatenate([prompt.positions, behind], axis=-1))
        # The part shares the model's layers; kept out of the module tree so that a weight is
        # listed once.
        self._vision = [vision_part(model, self._how.height, self._how.width)]
        self.perceive = nn.Linear(model.config.get_text_config().hidden_size, _PERCEIVED)

    def loss(self, lesson: TrainingPage) -> Tensor:
        """Mean cross-entropy of the answers' tokens."""
        features = self._see(lesson.pictures)
        answers = [self._answers[int(stage)] for stage in lesson.stages]
        longest = max(len(answer) for answer in answers)
        filled = torch.stack([nn.functional.pad(a, (0, longest - len(a))) for a in answers])
        asked = torch.stack([nn.functional.pad(torch.ones(len(a)), (0, longest - len(a)))
                             for a in answers])  # fmt: skip
        device = features.device
        ids = torch.cat([self._ids[None].expand(len(answers), -1), filled], 1).to(device)
        embeds = self.model.get_input_embeddings()(ids)
        slots = self._slots.to(device)
        embeds = embeds.index_copy(1, slots, features.to(embeds.dtype))
        positions = self._positions[..., : ids.shape[1]].unsqueeze(-2)
        positions = positions.expand(*positions.shape[:-2], len(answers), -1).to(device)
        core = self.model.model
        language = getattr(core, "language_model", None) or core.text_model
        states = language(inputs_embeds=embeds, position_ids=positions, use_cache=False)
        behind = states.last_hidden_state[:, len(self._ids) - 1 : -1]
        logits = self.model.lm_head(behind).float()
        each = nn.functional.cross_entropy(
            logits.flatten(0, 1), filled.flatten().to(device), reduction="none"
        )
        weights = asked.flatten().to(device)
        return (each * weights).sum() / weights.sum()

    def perception_loss(self, lesson: TrainingPage) -> Tensor:
        """How badly band power and amplitude of each second are read from the picture."""
        features = self._see(lesson.pictures).mean(1)
        wanted = torch.from_numpy(lesson.perceived).to(features)
        return nn.functional.smooth_l1_loss(self.perceive(features), wanted)

    def _see(self, pictures: Sequence[Pixels]) -> Tensor:
        device = next(self.model.parameters()).device
        vision = self._vision[0]
        if self._how.layout == "patches":
            seen = [
                vision(torch.from_numpy(prepare([picture], self._how)[0]).to(device))
                for picture in pictures
            ]
            return torch.stack(seen)
        pixels = torch.from_numpy(prepare(pictures, self._how)).to(device)
        features: Tensor = vision(pixels)
        return features.unflatten(0, (len(pictures), -1))


def add_lora(model: Any, rank: int) -> Any:
    """Freeze the model and put LoRA adapters into its language part; the eye's projector learns."""
    from peft import LoraConfig, get_peft_model

    names = _language_layers(model)
    wrapped = get_peft_model(
        model, LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.05, target_modules=names)
    )
    for name, parameter in wrapped.named_parameters():
        if any(part in name for part in ("multi_modal_projector", "connector", "merger")):
            parameter.requires_grad_(requires_grad=True)
    return wrapped


def _language_layers(model: Any) -> list[str]:
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and name.rsplit(".", 1)[-1] in LORA_TARGETS
        and ("language_model" in name or "text_model" in name)
    ]
