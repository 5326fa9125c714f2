"""What each family of models needs: its tokens around a picture, its pixels, its tiny form.

A model is described once, as the ``[model]`` table of the pack it will become. Training,
export and the daemon all read that table, so a prompt or a pixel cannot differ between them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers as hf

from hypnocast.errors import ConfigError
from hypnocast.stagers.packs.manifest import PICTURE_MARK, TILE_MARK, Generative, Preprocess
from hypnocast_models.export.generative import DECODER, EMBED, VISION, Shape
from hypnocast_models.export.model_files import read_json

GENERATIVE = ("llava", "llava_next", "qwen2_5_vl", "smolvlm")
CONTRASTIVE = ("clip", "siglip")
QUESTION = "Classify the PSG. Choose from: W, N1, N2, N3, REM."
ANSWERS = (" W", " N1", " N2", " N3", " REM")
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)


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


def describe(model: Any, tokenizer: Any, width: int, height: int) -> Generative:
    """Describe a loaded model as the ``[model]`` table of its pack.

    A picture is one tile in the tower's own size (LLaVA-NeXT and SmolVLM without splitting), or
    ``width`` × ``height`` in patches (Qwen2.5-VL).
    """
    kind = model.config.model_type
    if kind not in GENERATIVE:
        raise ConfigError(
            f"models of type {kind!r} are not known",
            where="finetune",
            remedy=f"Use one of {', '.join(GENERATIVE + CONTRASTIVE)}.",
        )
    tokens, shape = _TOKENS[kind], Shape.of(model)
    preprocess, features = _pixels(model, width, height)
    return Generative(
        vision_encoder=VISION,
        embed_tokens=EMBED,
        decoder=DECODER,
        tokenizer="tokenizer.json",
        preprocess=preprocess,
        prompt=f"{tokens.before}{PICTURE_MARK}{tokens.after}{QUESTION}",
        picture_prompt=TILE_MARK,
        answers=ANSWERS,
        scoring="prefill",
        image_token=tokens.image,
        tokens_per_picture=features,
        layers=shape.layers,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        rope="mrope" if shape.mrope else "default",
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
    )


def colours_of(model: Any) -> dict[str, Any]:
    """Return mean, deviation and resampling of a model's pixels, as its own processor has them.

    Where no ``preprocessor_config.json`` lies beside the weights, those of its tower's family.
    """
    config = read_json(Path(model.config.name_or_path or "") / "preprocessor_config.json")
    tower = getattr(model.config.vision_config, "model_type", "")
    half = any(name in f"{tower} {model.config.model_type}" for name in ("siglip", "smolvlm"))
    mean, std = (HALF, HALF) if half else (CLIP_MEAN, CLIP_STD)
    return {
        "mean": tuple(config.get("image_mean", mean)),
        "std": tuple(config.get("image_std", std)),
        "resample": {1: "lanczos", 2: "bilinear"}.get(config.get("resample", 3), "bicubic"),
    }


def _pixels(model: Any, width: int, height: int) -> tuple[Preprocess, int]:
    vision, kind = model.config.vision_config, model.config.model_type
    colours = colours_of(model)
    if kind == "qwen2_5_vl":
        unit = vision.patch_size * vision.spatial_merge_size
        how = Preprocess(
            layout="patches",
            width=max(unit, width // unit * unit),
            height=max(unit, height // unit * unit),
            **colours,
            patch_size=vision.patch_size,
            temporal_patch_size=vision.temporal_patch_size,
            merge_size=vision.spatial_merge_size,
        )
        return how, (how.width // unit) * (how.height // unit)
    side = vision.image_size
    patches = (side // vision.patch_size) ** 2
    if kind == "smolvlm":
        how = Preprocess(layout="tiles", width=side, height=side, **colours)
        return how, patches // model.config.scale_factor**2
    how = Preprocess(width=side, height=side, **colours)
    return how, patches


# --- loading, and small models from a configuration -----------------------------------------------


def load(folder: Path, *, four_bit: bool = False, base: Path | None = None) -> tuple[Any, Any]:
    """Load weights and tokenizer from a local folder; nothing is downloaded.

    A folder of peft's adapter is merged into the weights of ``base``.
    """
    if (folder / "adapter_config.json").is_file():
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

    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    folder = base or Path(config.get("base_model_name_or_path") or "")
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"is an adapter for {folder}, which is no local folder of weights",
            where=str(adapter),
            remedy="Name the weights that it was trained on with --base.",
        )
    model, tokenizer = load(folder)
    return PeftModel.from_pretrained(model, adapter).merge_and_unload(), tokenizer


def tiny_tokenizer(kind: str, folder: Path, words: Sequence[str] = ()) -> Any:
    """Make a byte-level tokenizer with a family's special tokens; saved as a model's is.

    ``words``: texts whose words become tokens, so that a prompt is as long as a real model's.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    family = _TOKENS.get(kind)
    wanted = (family.image, family.before, family.after) if family else ()
    chat = ("<|im_start|>", "<|im_end|>") if kind == "qwen2_5_vl" else ()
    extra = [token for token in dict.fromkeys((*wanted, *chat)) if token]
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
    if kind not in GENERATIVE + CONTRASTIVE:
        raise ConfigError(
            f"there is no tiny model called {kind!r}",
            where="tiny",
            remedy=f"Use one of {', '.join(GENERATIVE + CONTRASTIVE)}.",
        )


def tiny(kind: str, folder: Path) -> None:
    """Write a small random model of a family, to try the tools on or to train from scratch."""
    tokenizer = tiny_tokenizer(kind, folder)
    image = tokenizer.convert_tokens_to_ids(_TOKENS[kind].image) if kind in _TOKENS else None
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
        case "smolvlm":
            return hf.SmolVLMForConditionalGeneration(
                hf.SmolVLMConfig(
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
