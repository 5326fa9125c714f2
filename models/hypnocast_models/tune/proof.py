"""How near a pack is to the model it was made of: on pages, by the model's own processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from hypnocast.stagers.generative.prompt import (
    Prompt,
    build_prompt,
    encode_answers,
    load_tokenizer,
)
from hypnocast.stagers.onnx.engine import Engine
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.onnx.pixels import prepare
from hypnocast.stagers.packs.manifest import Contrastive, Generative
from hypnocast.stagers.packs.pack import Pack
from hypnocast_models.export.generative import reference_features
from hypnocast_models.tune.families import load
from hypnocast_models.tune.run_folder import taught_here

EXACT = 1e-4
"""Largest difference that an fp32 pack may show, of a logit or a log-probability."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was compared on some pages."""

    pages: int
    largest: float
    """Difference of a logit behind the prompt, or of a stage's log-probability (contrastive)."""
    same_stages: int
    processor: bool = True
    """Whether the pages were prepared by the model's own processor, else as `finetune` does."""

    def __str__(self) -> str:
        processor = " and its processor" if self.processor else ""
        return (
            f"parity with transformers{processor} on {self.pages} pages: "
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
    """Compare a pack with the model on pages; ``weights`` may be an adapter of ``base``.

    Pages are prepared by the model's own processor; where it has none, or where ``finetune`` made
    the weights, they are prepared as the pack says.
    """
    table = pack.manifest.model
    source = base or weights
    own = (source / "preprocessor_config.json").is_file() and not taught_here(weights)
    model, tokenizer = load(weights, base=base)
    model = model.float().eval()
    processor = (
        hf.AutoImageProcessor.from_pretrained(source, local_files_only=True) if own else None
    )
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
    if processor is None:
        shown = [picture.rgb for look in looks for picture in look.pictures if picture is not None]
        pixels = torch.from_numpy(prepare(shown, table.preprocess))
    else:
        pages = [_images(look)[0] for look in looks]
        pixels = processor(images=pages, return_tensors="pt")["pixel_values"]
    logits = network(**given, pixel_values=pixels).logits_per_image
    wanted = logits.log_softmax(-1).double().numpy()
    stager = LocalStager(pack, "cpu")
    got = np.stack([opinion.log_probabilities for opinion in stager.judge(looks)])
    same = int((wanted.argmax(1) == got.argmax(1)).sum())
    return Proof(len(looks), float(np.abs(wanted - got).max()), same, processor is not None)


def _generative(
    pack: Pack, table: Generative, looks: Sequence[Look], *, model: tuple[Any, Any]
) -> Proof:
    tokenizer = load_tokenizer(pack.path(table.tokenizer))
    prompt = build_prompt(tokenizer, table)
    tree = AnswerTree.grow(encode_answers(tokenizer, with_lead(table)))
    ours = GenerativeModel(pack, table, Engine("cpu"))
    network, processor = model
    scored = table.scoring != "generate"
    largest, same = 0.0, 0
    for look in looks:
        if processor is None:
            read = _as_the_pack_says(network, table, prompt, look)
        else:
            read = _as_its_processor_does(network, processor, look)
        behind = _behind(read, torch.from_numpy(prompt.ids), tree.paths)
        got = ours.open_prompts([look], ()).logits[0, -1]
        largest = max(largest, float(np.abs(behind[()][0] - got).max()))
        if scored:
            stage = tree.score(behind)[0].argmax()
            same += int(stage == ours.read([look])[0].log_probabilities.argmax())
    return Proof(len(looks), largest, same if scored else len(looks), processor is not None)


Read = Callable[[torch.Tensor], torch.Tensor]
"""From token ids (tokens,) to logits (tokens, vocabulary), a look at a page being given."""


def _as_its_processor_does(network: Any, processor: Any, look: Look) -> Read:
    """Give a look's pictures as the model's processor does."""
    how: dict[str, Any] = {}
    if network.config.model_type in {"smolvlm", "idefics3"}:
        # A page is one tile of the tower's size: it is not cut, and made smaller once.
        how = {"do_image_splitting": False, "do_resize": False}
    pixels = dict(processor(images=_images(look), return_tensors="pt", **how))

    def read(ids: torch.Tensor) -> torch.Tensor:
        mask = torch.ones_like(ids)[None]
        logits: torch.Tensor = network(input_ids=ids[None], attention_mask=mask, **pixels).logits
        return logits[0]

    return read


def _as_the_pack_says(network: Any, table: Generative, prompt: Prompt, look: Look) -> Read:
    """Give a look's pictures as its pack prepares them, through the model's own parts."""
    how = table.preprocess
    if how.tiles > 1:
        raise ConfigError(
            "there is no preprocessor_config.json: the model's own processor is not known",
            where="export",
            remedy="Get the model's whole folder, or leave the proof out.",
        )
    shown = [picture.rgb for picture in look.pictures if picture is not None]
    pixels = torch.from_numpy(prepare(shown, how))
    features = torch.cat(
        [reference_features(network, one if how.layout == "patches" else one[None], how)
         for one in pixels]
    )  # fmt: skip
    language = getattr(network.model, "language_model", None) or network.model.text_model

    def read(ids: torch.Tensor) -> torch.Tensor:
        embeds = network.get_input_embeddings()(ids)
        embeds = embeds.index_copy(0, torch.from_numpy(prompt.slots), features)
        behind = np.arange(len(ids) - len(prompt.ids)) + prompt.next_position
        behind = np.broadcast_to(behind, (*prompt.positions.shape[:-1], len(behind)))
        places = torch.from_numpy(np.concatenate([prompt.positions, behind], axis=-1))
        states = language(
            inputs_embeds=embeds[None], position_ids=places.unsqueeze(-2), use_cache=False
        )
        logits: torch.Tensor = network.lm_head(states.last_hidden_state)[0]
        return logits

    return read


def _behind(read: Read, prompt: torch.Tensor, paths: Sequence[Tokens]) -> dict[Tokens, FloatArray]:
    """Give the model's own logits behind the prompt and every beginning of an answer."""
    behind: dict[Tokens, FloatArray] = {}
    for path in paths or ((),):
        logits = read(torch.cat([prompt, torch.tensor(path, dtype=prompt.dtype)]))
        for at in range(len(path) + 1):
            row = logits[None, len(prompt) - 1 + at].double().numpy()
            behind.setdefault(path[:at], row)
    return behind
