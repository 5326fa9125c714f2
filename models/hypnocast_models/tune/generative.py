"""Fine-tuning of generative models: loss on the answer's tokens and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hypnocast.core.types import Pixels
from hypnocast.stagers.generative.prompt import (
    build_prompt,
    encode_answers,
    encode_behind,
    load_tokenizer,
    token_id,
)
from hypnocast.stagers.onnx.pixels import prepare
from hypnocast.stagers.packs.manifest import Generative
from hypnocast_models.export.parts import vision_part
from hypnocast_models.tune.lessons import PERCEIVED_HZ, TrainingPage
from hypnocast_models.tune.recipe import Training

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MOST_TOKENS = 512
"""Of one answer that is learnt."""
_PERCEIVED = 30 * (len(PERCEIVED_HZ) + 1)


class GenerativeStudent(nn.Module):  # type: ignore[misc]  # torch is passed over by mypy
    """A model with its prompt, as the daemon will run it: pictures in, answer tokens out."""

    def __init__(
        self,
        model: Any,
        described: Generative,
        tokenizer_file: Path,
        answers: Sequence[str] = (),
    ) -> None:
        """Tokenise prompt and answers with the daemon's own code.

        ``answers`` are the five by which a model is judged that says more than the stage.
        """
        super().__init__()
        self.model = model
        self._how = described.preprocess
        tokenizer = load_tokenizer(tokenizer_file)
        prompt = build_prompt(tokenizer, described)
        self._described, self._tokenizer = described, tokenizer
        self._ends: list[int] = []
        if answers and described.eos_token is not None:  # who writes freely learns to end
            self._ends = [token_id(tokenizer, described.eos_token, "eos_token")]
        self._answers = self._encoded(answers or described.answers)
        self._ids = torch.from_numpy(prompt.ids)
        self._slots = torch.from_numpy(prompt.slots)
        longest = max(len(answer) for answer in self._answers) + (MOST_TOKENS if answers else 0)
        behind = prompt.next_position + np.arange(longest)
        if prompt.positions.ndim == 2:
            behind = np.repeat(behind[None], 3, axis=0)
        self._positions = torch.from_numpy(np.concatenate([prompt.positions, behind], axis=-1))
        # The part shares the model's layers; kept out of the module tree so that a weight is
        # listed once.
        self._vision = [vision_part(model, self._how.height, self._how.width)]
        self.stage_weights = torch.ones(len(answers))
        """The weight of each stage in the loss."""
        self.perceive = nn.Linear(model.config.get_text_config().hidden_size, _PERCEIVED)

    def forward(
        self, lesson: TrainingPage, labels: Tensor, *, perceiving: bool = False
    ) -> dict[str, Tensor]:
        """Give the loss; where it is judged, the log-probability of each answer too."""
        if perceiving:
            return {"loss": self._perception_loss(lesson)}
        pages = len(lesson.stages)
        features = self._see(lesson.pictures)
        features = features.reshape(pages, -1, features.shape[-1])
        if self.training:
            wanted = (
                self._encoded(lesson.answers)
                if lesson.answers
                else [self._answers[int(stage)] for stage in lesson.stages]
            )
            likelihoods = self._log_likelihoods(features, wanted)
            return {"loss": self._weighted(-likelihoods, labels, lesson)}
        repeated = features.repeat_interleave(len(self._answers), 0)
        means = self._log_likelihoods(repeated, self._answers * pages)
        lengths = torch.tensor([len(answer) for answer in self._answers], device=means.device)
        logits = means.unflatten(0, (pages, -1)) * lengths
        true = means.unflatten(0, (pages, -1))[torch.arange(pages), labels]
        return {"loss": self._weighted(-true, labels, lesson), "logits": logits.log_softmax(-1)}

    def gradient_checkpointing_enable(self, **how: Any) -> None:
        """Trade time for memory, as the Trainer asks."""
        self.model.enable_input_require_grads()
        self.model.gradient_checkpointing_enable(**how)

    def _weighted(self, losses: Tensor, stages: Tensor, lesson: TrainingPage) -> Tensor:
        weights = self.stage_weights.to(losses.device)[stages.to(losses.device)]
        weights = weights * torch.from_numpy(lesson.weights).to(weights)
        return (losses * weights).sum() / weights.sum()

    def _encoded(self, answers: Sequence[str]) -> list[Tensor]:
        """Tokenise answers as they stand behind the prompt; the pack's own so that they differ."""
        if answers == self._described.answers:
            encoded = encode_answers(self._tokenizer, self._described)
        else:
            encoded = encode_behind(self._tokenizer, self._described, answers)
        return [torch.tensor([*answer, *self._ends][:MOST_TOKENS]) for answer in encoded]

    def _log_likelihoods(self, features: Tensor, answers: Sequence[Tensor]) -> Tensor:
        """Give the mean log-likelihood of the tokens of one answer for each page."""
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
        ).unflatten(0, filled.shape)
        weights = asked.to(device)
        means: Tensor = -(each * weights).sum(1) / weights.sum(1)
        return means

    def _perception_loss(self, lesson: TrainingPage) -> Tensor:
        """How badly band power and amplitude of each second are read from the picture."""
        around = len(lesson.pictures) // len(lesson.stages)
        features = self._see(lesson.pictures[around // 2 :: around]).mean(1)
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


def add_lora(model: Any, training: Training) -> Any:
    """Freeze the model and put LoRA adapters into its language part; the eye's projector learns.

    The eye has adapters too where the recipe asks for it, and wherever perception is trained: what
    only the eye can learn would else be learned by nothing.
    """
    from peft import LoraConfig, get_peft_model

    eye = training.lora_eye or bool(training.perception_steps)
    return get_peft_model(
        model,
        LoraConfig(
            r=training.lora_rank,
            lora_alpha=training.lora_alpha or 2 * training.lora_rank,
            lora_dropout=training.lora_dropout,
            target_modules=_adapted(model, eye=eye),
            modules_to_save=[name for name in _PROJECTORS if _has(model, name)],
        ),
    )


_PROJECTORS = ("multi_modal_projector", "connector", "merger")


def _has(model: Any, name: str) -> bool:
    return any(known.rsplit(".", 1)[-1] == name for known, _ in model.named_modules())


def _adapted(model: Any, *, eye: bool) -> list[str]:
    """Name the linear layers that get adapters."""
    names = []
    for name, module in model.named_modules():
        parts = name.split(".")
        if not isinstance(module, nn.Linear) or set(_PROJECTORS) & set(parts):
            continue
        language = "language_model" in parts or "text_model" in parts
        vision = not language and any("vision" in part or part == "visual" for part in parts)
        if (language and parts[-1] in LORA_TARGETS) or (eye and vision):
            names.append(name)
    return names
