"""A small LLaVA: the page tower, a projector and a two-layer language model.

It is a ``LlavaForConditionalGeneration`` like the large ones and goes through the same export
and the same stager; only its eye, its size and its vocabulary of a dozen words are its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from hypnocast_models.small.tower import PageTowerConfig

WORDS = (
    "<pad>", "<s>", "</s>", "<unk>", "<image>", "W", "N1", "N2", "N3", "R", "stage",
)  # fmt: skip
ANSWERS = ("W", "N1", "N2", "N3", "R")
IMAGE_TOKEN = "<image>"  # noqa: S105 - a word, not a password
PAGES_BEFORE = 8
PICTURES = PAGES_BEFORE + 1
PROMPT = "<|picture|> stage " * PICTURES


@dataclass(frozen=True, slots=True)
class Size:
    """How large the small model is."""

    width: int = 128
    trace_channels: int = 64
    spectrum_channels: int = 128
    latents: int = 4
    tower_layers: int = 1
    decoder_layers: int = 2
    dropout: float = 0.1


def build(size: Size) -> Any:
    """Build the model with random weights."""
    text = LlamaConfig(
        hidden_size=size.width,
        intermediate_size=2 * size.width,
        num_hidden_layers=size.decoder_layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=len(WORDS),
        max_position_embeddings=256,
        bos_token_id=WORDS.index("<s>"),
        eos_token_id=WORDS.index("</s>"),
        pad_token_id=WORDS.index("<pad>"),
        # The usual 0.02 is for wide models: at this width the picture would fade at the start.
        initializer_range=size.width**-0.5,
        tie_word_embeddings=True,
    )
    vision = PageTowerConfig(
        hidden_size=size.width,
        trace_channels=size.trace_channels,
        spectrum_channels=size.spectrum_channels,
        latents=size.latents,
        num_hidden_layers=size.tower_layers,
        intermediate_size=2 * size.width,
        dropout=size.dropout,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=WORDS.index(IMAGE_TOKEN),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_seq_length=size.latents,
        tie_word_embeddings=True,
    )
    for part in (config, config.text_config, config.vision_config):
        part._attn_implementation = "eager"  # noqa: SLF001 - SDPA is slow on a dozen tokens
    return LlavaForConditionalGeneration(config)


def look(model: Any, ink: Tensor, power: Tensor, band: Tensor) -> Tensor:
    """Give the visual features (pages, latents, width) of pages that were cut to strips.

    Same numbers as for the whole page; only the black is left out.
    """
    features = model.model.vision_tower.read(ink, power, band)
    pictures: Tensor = model.model.multi_modal_projector(features)
    return pictures


def read_on(model: Any, pictures: Tensor) -> Tensor:
    """Give the logits of the five answers behind every picture of some stretches of night.

    ``pictures`` is (stretches, pages, latents, width), in their order; what comes out is
    (stretches, pages, 5), each page judged with those before it in its stretch. Behind the last
    page of :data:`PICTURES` that is what the pack's prompt gives.
    """
    stretches, pages, latents, _ = pictures.shape
    words = model.get_input_embeddings()
    embedded = words(torch.tensor([WORDS.index("<s>"), WORDS.index("stage")]))
    begin = embedded[0].expand(stretches, 1, -1)
    asked = embedded[1].expand(stretches, pages, 1, -1)
    sentence = torch.cat([begin, torch.cat([pictures, asked], 2).flatten(1, 2)], 1)
    states = model.model.language_model(inputs_embeds=sentence, use_cache=False)
    behind = states.last_hidden_state[:, latents + 1 :: latents + 1]
    answers = [WORDS.index(word) for word in ANSWERS]
    logits: Tensor = model.lm_head(behind)[..., answers]
    return logits


def tokenizer_json() -> str:
    """Return ``tokenizer.json``: a word is what lies between spaces."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    vocabulary = {word: place for place, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106 - a word
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in WORDS[:5]])
    text: str = tokenizer.to_str(pretty=True)
    return text
