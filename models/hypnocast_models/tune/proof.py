"""How near a pack is to the model it was made of: on pages, by the model's own processor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from PIL import Image

from hypnocast.core.types import FloatArray, Look, Picture, Pixels
from hypnocast.errors import ConfigError, PackError
from hypnocast.stagers.generative.answers import AnswerTree
from hypnocast.stagers.generative.answers import Path as Tokens
from hypnocast.stagers.generative.model import GenerativeModel, with_lead
from hypnocast.stagers.generative.prompt import build_prompt, encode_answers, load_tokenizer
from hypnocast.stagers.onnx.engine import Engine
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.packs.manifest import Contrastive, Generative
from hypnocast.stagers.packs.pack import Pack
from hypnocast_models.tune.families import load

EXACT = 1e-4
"""Largest difference that an fp32 pack may show, of a logit or a log-probability."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was compared on some pages."""

    pages: int
    largest: float
    """Difference of a logit behind the prompt, or of a stage's log-probability (contrastive)."""
    same_stages: int

    def __str__(self) -> str:
        return (
            f"parity with transformers and its processor on {self.pages} pages: "
            f"max |Δ| {self.largest:.1e}, {self.same_stages} stages equal"
        )

    def demand(self, bound: float = EXACT) -> None:
        """Refuse a pack that is further off than ``bound`` or gives a page another stage."""
        if self.largest > bound or self.same_stages < self.pages:
            raise PackError(
                f"it differs from the model: {self}",
                where="export",
                remedy=f"At most {bound:g} and equal stages are allowed; do not use this pack.",
            )


def prove(pack: Pack, weights: Path, pages: Sequence[Pixels], *, base: Path | None = None) -> Proof:
    """Compare a pack with the model on pages; ``weights`` may be an adapter of ``base``."""
    table = pack.manifest.model
    source = base or weights
    if not (source / "preprocessor_config.json").is_file():
        raise ConfigError(
            "there is no preprocessor_config.json: the model's own processor is not known",
            where=str(source),
            remedy="Get the model's whole folder, or leave the proof out.",
        )
    model, tokenizer = load(weights, base=base)
    model = model.float().eval()
    processor = hf.AutoImageProcessor.from_pretrained(source, local_files_only=True)
    looks = _looks(pack, pages)
    with torch.no_grad():
        if isinstance(table, Contrastive):
            return _contrastive(pack, table, looks, model=(model, tokenizer, processor))
        assert isinstance(table, Generative)  # noqa: S101 - nothing else is made of such weights
        return _generative(pack, table, looks, model=(model, processor))


def _looks(pack: Pack, pages: Sequence[Pixels]) -> list[Look]:
    """Give each page among its neighbours."""
    context, digest = pack.manifest.context, pack.manifest.recipe_digest
    pictures = [
        Picture(place, page, f"page {place}", digest, quality={}, channels={})
        for place, page in enumerate(pages)
    ]
    around = range(context.before, len(pictures) - context.after)
    return [
        Look(tuple(pictures[at - context.before : at + context.after + 1]), context.before)
        for at in around
    ]


def _images(look: Look) -> list[Any]:
    return [Image.fromarray(picture.rgb) for picture in look.pictures if picture is not None]


def _contrastive(
    pack: Pack, table: Contrastive, looks: Sequence[Look], *, model: tuple[Any, Any, Any]
) -> Proof:
    network, tokenizer, processor = model
    clip = network.config.model_type == "clip"
    how = {"padding": True} if clip else {"padding": "max_length", "max_length": 64}
    words = tokenizer(list(table.prompts), return_tensors="pt", **how)
    given = {"input_ids": words["input_ids"]}
    if clip:
        given["attention_mask"] = words["attention_mask"]
    pixels = processor(images=[_images(look)[0] for look in looks], return_tensors="pt")
    logits = network(**given, pixel_values=pixels["pixel_values"]).logits_per_image
    wanted = logits.log_softmax(-1).double().numpy()
    stager = LocalStager(pack, "cpu")
    got = np.stack([opinion.log_probabilities for opinion in stager.judge(looks)])
    same = int((wanted.argmax(1) == got.argmax(1)).sum())
    return Proof(len(looks), float(np.abs(wanted - got).max()), same)


def _generative(
    pack: Pack, table: Generative, looks: Sequence[Look], *, model: tuple[Any, Any]
) -> Proof:
    tokenizer = load_tokenizer(pack.path(table.tokenizer))
    prompt = torch.from_numpy(build_prompt(tokenizer, table).ids)
    tree = AnswerTree.grow(encode_answers(tokenizer, with_lead(table)))
    ours = GenerativeModel(pack, table, Engine("cpu"))
    largest, same = 0.0, 0
    for look in looks:
        pixels = _processed(model, look)
        behind = _behind(model[0], prompt, tree.paths, pixels)
        got = ours.open_prompts([look], ()).logits[0, -1]
        largest = max(largest, float(np.abs(behind[()][0] - got).max()))
        if table.scoring != "generate":
            stage = tree.score(behind)[0].argmax()
            same += int(stage == ours.read([look])[0].log_probabilities.argmax())
    return Proof(len(looks), largest, same if table.scoring != "generate" else len(looks))


def _processed(model: tuple[Any, Any], look: Look) -> dict[str, Any]:
    """Give a look's pictures as the model's processor does."""
    network, processor = model
    how: dict[str, Any] = {}
    if network.config.model_type in {"smolvlm", "idefics3"}:
        # A page is one tile of the tower's size: it is not cut, and made smaller once.
        how = {"do_image_splitting": False, "do_resize": False}
    return dict(processor(images=_images(look), return_tensors="pt", **how))


def _behind(
    network: Any, prompt: torch.Tensor, paths: Sequence[Tokens], pixels: dict[str, Any]
) -> dict[Tokens, FloatArray]:
    """Give the model's own logits behind the prompt and every beginning of an answer."""
    behind: dict[Tokens, FloatArray] = {}
    for path in paths or ((),):
        ids = torch.cat([prompt, torch.tensor(path, dtype=prompt.dtype)])[None]
        logits = network(input_ids=ids, attention_mask=torch.ones_like(ids), **pixels).logits
        for at in range(len(path) + 1):
            row = logits[:, len(prompt) - 1 + at].double().numpy()
            behind.setdefault(path[:at], row)
    return behind
