"""What a model's own files give on how it is fed: pixels, tokens around a picture, its ends."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypnocast.errors import ConfigError, PackError
from hypnocast.stagers.packs.manifest import PICTURE_MARK, TILE_MARK, Generative, Preprocess
from hypnocast_models.export.llama import DECODER, EMBED, DecoderShape

VISION = "vision_encoder.onnx"
QUESTION = "Classify the PSG. Choose from: W, N1, N2, N3, REM."
ANSWERS = (" W", " N1", " N2", " N3", " REM")

_CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
_RESAMPLE: Mapping[int, Any] = {1: "lanczos", 2: "bilinear", 3: "bicubic"}

Config = dict[str, Any]


def read_json(path: Path) -> Config:
    """Read a file of a model folder; empty where there is none."""
    if not path.is_file():
        return {}
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(
            f"no JSON: {error}", where=str(path), remedy="Get the model's folder again."
        ) from error
    if not isinstance(loaded, dict):
        raise ConfigError("no table", where=str(path), remedy="Get the model's folder again.")
    return loaded


def read_config(folder: Path) -> Config:
    """Read ``config.json``."""
    config = read_json(folder / "config.json")
    if "model_type" not in config:
        raise ConfigError(
            "there is no model in it (config.json)",
            where=str(folder),
            remedy="Give the folder of weights in transformers' layout.",
        )
    return config


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds peft's adapter."""
    return (folder / "adapter_config.json").is_file()


def base_of(adapter: Path, base: Path | None = None) -> Path:
    """Return the folder of weights that an adapter changes: ``base``, or what it names."""
    config = read_json(adapter / "adapter_config.json")
    folder = base or Path(config.get("base_model_name_or_path") or "")
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"is an adapter for {folder}, which is no local folder of weights",
            where=str(adapter),
            remedy="Name the weights that it was trained on with --base.",
        )
    return folder


KINDS = ("clip", "siglip", "llava", "llava_next", "qwen2_5_vl", "smolvlm", "idefics3")


def check_known(folder: Path, config: Config) -> None:
    """Refuse a model of which it is not known how it is fed."""
    if config["model_type"] not in KINDS:
        raise PackError(
            f"models of type {config['model_type']!r} are not known",
            where=str(folder / "config.json"),
            remedy=f"Known are {', '.join(KINDS)}, and image classifiers of any type.",
        )


@dataclass(frozen=True, slots=True)
class _Pixels:
    """The values of ``preprocessor_config.json``, with the family's own where it has none."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resample: Any
    fit: Any
    split: bool

    @classmethod
    def of(cls, folder: Path, *, clip: bool, whole: bool = False) -> _Pixels:
        config = read_json(folder / "preprocessor_config.json")
        mean, std = _CLIP if clip else _HALF
        crop = config.get("do_center_crop", False) and "shortest_edge" in (config.get("size") or {})
        return cls(
            mean=tuple(config.get("image_mean", mean)),
            std=tuple(config.get("image_std", std)),
            resample=_RESAMPLE.get(config.get("resample", 3), "bicubic"),
            fit="crop" if crop and not whole else "stretch",
            split=config.get("do_image_splitting", False),
        )


def contrastive_pixels(
    folder: Path, config: Config, *, clip: bool, whole: bool = False
) -> Preprocess:
    """Return the pixels of CLIP or SigLIP; ``whole`` as in ``describe_folder``."""
    pixels = _Pixels.of(folder, clip=clip, whole=whole)
    side = config["vision_config"].get("image_size", 224)
    return Preprocess(
        width=side,
        height=side,
        mean=pixels.mean,
        std=pixels.std,
        resample=pixels.resample,
        fit=pixels.fit,
    )


def describe_folder(
    folder: Path, config: Config, width: int, height: int, *, whole: bool = False
) -> Generative:
    """Describe a model that writes as the ``[model]`` table of its pack.

    ``width`` and ``height`` are those of the pictures it will be shown. ``whole``: a page is one
    picture of the tower's size, as ``finetune`` shows it, whatever its own processor would do.
    """
    kind, shape = config["model_type"], DecoderShape.of(config)
    if kind == "llava_next" and whole:
        kind = "llava"
    known: dict[str, Callable[[Path, Config, int, int], _Described]] = {
        "llava": _llava,
        "llava_next": _llava_next,
        "qwen2_5_vl": _qwen,
        "smolvlm": _idefics,
        "idefics3": _idefics,
    }
    check_known(folder, config)
    how, features, image, shown = known[kind](folder, config, width, height)
    bos, eos = _ends(folder)
    return Generative(
        vision_encoder=VISION,
        embed_tokens=EMBED,
        decoder=DECODER,
        tokenizer="tokenizer.json",
        preprocess=how,
        prompt=f"{shown}{QUESTION}",
        picture_prompt=TILE_MARK * how.tiles,
        answers=ANSWERS,
        scoring="prefill",
        image_token=image,
        tokens_per_picture=features,
        layers=shape.layers,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        rope="mrope" if shape.mrope else "default",
        cache="shared",
        bos_token=bos,
        eos_token=eos,
    )


_Described = tuple[Preprocess, int, str, str]


def _llava(folder: Path, config: Config, *_: int) -> _Described:
    vision = config["vision_config"]
    pixels = _Pixels.of(folder, clip="siglip" not in vision.get("model_type", ""))
    side = vision["image_size"]
    features = (side // vision["patch_size"]) ** 2
    how = Preprocess(
        width=side,
        height=side,
        mean=pixels.mean,
        std=pixels.std,
        resample=pixels.resample,
        fit=pixels.fit,
    )
    return how, features, "<image>", PICTURE_MARK


def _llava_next(folder: Path, config: Config, width: int, height: int) -> _Described:
    """Cut into tiles as its processor does: the grid that keeps most pixels and wastes least."""
    vision = config["vision_config"]
    pixels = _Pixels.of(folder, clip="siglip" not in vision.get("model_type", ""))
    side, grid = vision["image_size"], vision["image_size"] // vision["patch_size"]
    high, across = _best_grid(config["image_grid_pinpoints"], width, height)
    rows, columns = high // side, across // side
    if rows * side != high or columns * side != across or width * high != height * across:
        raise PackError(
            f"pictures of {width} × {height} do not fill its grid of {across} × {high}",
            where="config.json: image_grid_pinpoints",
            remedy="Draw by a recipe whose pictures have the proportions of one of its grids.",
        )
    how = Preprocess(
        layout="tiles",
        width=side,
        height=side,
        mean=pixels.mean,
        std=pixels.std,
        tile_rows=rows,
        tile_columns=columns,
        resample=pixels.resample,
    )
    features = grid * grid + rows * grid * (columns * grid + 1)
    return how, features, "<image>", PICTURE_MARK


def _best_grid(grids: list[list[int]], width: int, height: int) -> tuple[int, int]:
    best, most, least = (0, 0), -1, 0
    for high, across in grids:
        scale = min(across / width, high / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        wasted = high * across - kept
        if kept > most or (kept == most and wasted < least):
            best, most, least = (high, across), kept, wasted
    return best


def _qwen(folder: Path, config: Config, width: int, height: int) -> _Described:
    vision, pixels = config["vision_config"], _Pixels.of(folder, clip=True)
    unit = vision.get("window_size", 112)
    across, high = (max(unit, round(size / unit) * unit) for size in (width, height))
    merge = vision["patch_size"] * vision["spatial_merge_size"]
    how = Preprocess(
        layout="patches",
        width=across,
        height=high,
        mean=pixels.mean,
        std=pixels.std,
        patch_size=vision["patch_size"],
        temporal_patch_size=vision["temporal_patch_size"],
        merge_size=vision["spatial_merge_size"],
        resample=pixels.resample,
    )
    shown = f"<|vision_start|>{PICTURE_MARK}<|vision_end|>"
    return how, (across // merge) * (high // merge), "<|image_pad|>", shown


def _idefics(folder: Path, config: Config, *_: int) -> _Described:
    vision, pixels = config["vision_config"], _Pixels.of(folder, clip=False)
    side = vision["image_size"]
    features = (side // vision["patch_size"]) ** 2 // config["scale_factor"] ** 2
    around = "<fake_token_around_image>"
    how = Preprocess(
        layout="tiles",
        width=side,
        height=side,
        mean=pixels.mean,
        std=pixels.std,
        resample=pixels.resample,
    )
    return how, features, "<image>", f"{around}<global-img>{PICTURE_MARK}{around}"


def _ends(folder: Path) -> tuple[str | None, str | None]:
    """Return what begins a text, where the tokenizer puts it there, and what ends one."""
    config = read_json(folder / "tokenizer_config.json")
    begins, ends = (_word(config.get(key)) for key in ("bos_token", "eos_token"))
    return begins, ends


def _word(token: Any) -> str | None:
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) and token else None
