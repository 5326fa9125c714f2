"""Models from local folders of weights, and small random ones of each family."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers as hf

from hypnocast.errors import ConfigError
from hypnocast_models.export.model_files import ANSWERS, QUESTION, base_of, is_adapter

GENERATIVE = ("llava", "llava_next", "qwen2_5_vl", "smolvlm")
CONTRASTIVE = ("clip", "siglip")
ALIKE = {"idefics3": "smolvlm"}
"""Public SmolVLM weights call themselves Idefics3: the same model under its older name."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The special tokens by which a family puts pictures into text."""

    image: str
    before: str = ""
    after: str = ""


_TOKENS = {
    "llava": Tokens("<image>"),
    "llava_next": Tokens("<image>"),
    "qwen2_5_vl": Tokens("<|image_pad|>", "<|vision_start|>", "<|vision_end|>"),
    "smolvlm": Tokens("<image>", "<fake_token_around_image>", "<fake_token_around_image>"),
}


def load(folder: Path, *, four_bit: bool = False, base: Path | None = None) -> tuple[Any, Any]:
    """Load weights and tokenizer from a local folder; nothing is downloaded.

    A folder of peft's adapter is merged into the weights of ``base``.
    """
    if is_adapter(folder):
        return _merged(folder, base)
    if not (folder / "config.json").is_file():
        raise ConfigError(
            "there is no model in it (config.json)",
            where=str(folder),
            remedy="Give the folder of weights in transformers' layout.",
        )
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    auto = hf.AutoModel if kind in CONTRASTIVE else hf.AutoModelForImageTextToText
    how: dict[str, Any] = {}
    if four_bit:
        how["quantization_config"] = hf.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4"
        )
    model = auto.from_pretrained(folder, local_files_only=True, **how)
    return model, hf.AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _merged(adapter: Path, base: Path | None) -> tuple[Any, Any]:
    from peft import PeftModel

    model, tokenizer = load(base_of(adapter, base))
    return PeftModel.from_pretrained(model, adapter).merge_and_unload(), tokenizer


def tiny_tokenizer(kind: str, folder: Path, words: Sequence[str] = ()) -> Any:
    """Make a byte-level tokenizer with a family's special tokens; saved as a model's is.

    ``words``: texts whose words become tokens, so that a prompt is as long as a real model's.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    family = _TOKENS.get(ALIKE.get(kind, kind))
    wanted = (family.image, family.before, family.after) if family else ()
    more = {"qwen2_5_vl": ("<|im_start|>", "<|im_end|>"), "smolvlm": ("<global-img>",)}
    extra = [
        token for token in dict.fromkeys((*wanted, *more.get(ALIKE.get(kind, kind), ()))) if token
    ]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<unk>", *extra]
    text = [f"{QUESTION}{answer} sleep stage page{answer}" for answer in ANSWERS] * 20
    text += [*words] * 20
    trainer = trainers.BpeTrainer(
        vocab_size=1000 if words else 400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    wrapped = hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",  # noqa: S106 - a word
        bos_token="<s>",  # noqa: S106 - a word
        eos_token="</s>",  # noqa: S106 - a word
        unk_token="<unk>",  # noqa: S106 - a word
        additional_special_tokens=extra,
    )
    wrapped.save_pretrained(folder)
    return wrapped


def check_tiny(kind: str) -> None:
    """Refuse a kind of which there is no small model."""
    known = (*GENERATIVE, *ALIKE, *CONTRASTIVE)
    if kind not in known:
        raise ConfigError(
            f"there is no tiny model called {kind!r}",
            where="tiny",
            remedy=f"Use one of {', '.join(known)}.",
        )


def tiny(kind: str, folder: Path) -> None:
    """Write a small random model of a family, to try the tools on or to train from scratch."""
    tokenizer = tiny_tokenizer(kind, folder)
    tokens = _TOKENS.get(ALIKE.get(kind, kind))
    image = tokenizer.convert_tokens_to_ids(tokens.image) if tokens else None
    text = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 400,
        "max_position_embeddings": 512,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    vision = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": 56,
        "patch_size": 14,
    }
    _tiny_model(kind, text, vision, image, tokenizer).save_pretrained(folder)


def _tiny_model(
    kind: str, text: dict[str, Any], vision: dict[str, Any], image: int | None, tokenizer: Any
) -> Any:
    words = {key: text[key] for key in text if key != "num_key_value_heads"}
    match kind:
        case "clip":
            words["max_position_embeddings"] = 64
            return hf.CLIPModel(
                hf.CLIPConfig(text_config=words, vision_config=vision, projection_dim=32)
            )
        case "siglip":
            words["max_position_embeddings"] = 64
            return hf.SiglipModel(hf.SiglipConfig(text_config=words, vision_config=vision))
        case "llava" | "llava_next":
            config, model = {
                "llava": (hf.LlavaConfig, hf.LlavaForConditionalGeneration),
                "llava_next": (hf.LlavaNextConfig, hf.LlavaNextForConditionalGeneration),
            }[kind]
            return model(
                config(
                    vision_config=hf.CLIPVisionConfig(**vision),
                    text_config=hf.LlamaConfig(**text),
                    image_token_index=image,
                    tie_word_embeddings=False,
                    vision_feature_layer=-2,
                    vision_feature_select_strategy="default",
                )
            )
        case "smolvlm" | "idefics3":
            config, model = {
                "smolvlm": (hf.SmolVLMConfig, hf.SmolVLMForConditionalGeneration),
                "idefics3": (hf.Idefics3Config, hf.Idefics3ForConditionalGeneration),
            }[kind]
            return model(
                config(
                    vision_config={**vision, "image_size": 64, "patch_size": 16},
                    text_config=hf.LlamaConfig(**text),
                    image_token_id=image,
                    scale_factor=2,
                    pad_token_id=0,
                )
            )
        case "qwen2_5_vl":
            ids = tokenizer.convert_tokens_to_ids
            rope = {"type": "mrope", "rope_type": "default", "mrope_section": [2, 3, 3]}
            return hf.Qwen2_5_VLForConditionalGeneration(
                hf.Qwen2_5_VLConfig(
                    vision_config={
                        "depth": 2,
                        "hidden_size": 64,
                        "out_hidden_size": 64,
                        "intermediate_size": 128,
                        "num_heads": 4,
                        "patch_size": 14,
                        "spatial_merge_size": 2,
                        "temporal_patch_size": 2,
                        "window_size": 56,
                        "fullatt_block_indexes": [1],
                    },
                    text_config={**text, "rope_scaling": rope},
                    image_token_id=image,
                    tie_word_embeddings=False,
                    vision_start_token_id=ids("<|vision_start|>"),
                    vision_end_token_id=ids("<|vision_end|>"),
                )
            )
        case _:
            raise AssertionError(kind)  # check_tiny knows all kinds
