"""Lower precision: fp16, int8 and 4-bit decoder weights, compared with the fp32 they come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from hypnocast.core.types import Look, Picture
from hypnocast.errors import ConfigError
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.packs.manifest import Contrastive, Generative, Signals
from hypnocast.stagers.packs.pack import Pack
from hypnocast_models.export.graphs import LARGEST_FILE, save_graph, weigh
from hypnocast_models.export.packing import write_pack

PRECISIONS = ("fp16", "int8", "int4")
_INT4_BLOCK = 32
_LOOKS = 8
_WRITTEN_TOKENS = 8


def lower(pack: Pack, precision: str, progress: Callable[[str], None] = lambda _: None) -> Pack:
    """Rewrite a pack's graphs in place, and report how far its opinions moved.

    ``fp16`` and ``int8`` change every graph with weights to multiply; ``int4`` the decoder only.
    Inputs and outputs stay float32.
    """
    if precision not in PRECISIONS:
        raise ConfigError(
            f"there is no precision {precision!r}",
            where="export",
            remedy=f"Use fp32, {', '.join(PRECISIONS)}.",
        )
    if isinstance(pack.manifest.model, Signals):
        raise ConfigError(
            f"{pack.manifest.name} reads signals; its graphs stay as they were converted",
            where="export",
            remedy="Adopt it anew where it is to be another.",
        )
    looks = _random_looks(pack)
    before = _opinions(pack, looks)
    for name in _graphs(pack, precision):
        _convert(pack.folder / name, precision)
    facts = msgspec.to_builtins(pack.manifest)
    lowered = write_pack(pack.folder, {k: v for k, v in facts.items() if k not in _WRITTEN})
    after = _opinions(lowered, looks)
    moved = float(np.abs(np.exp(after) - np.exp(before)).max())
    agree = float((after.argmax(axis=1) == before.argmax(axis=1)).mean())
    progress(
        f"{precision}: probabilities moved by {moved:.3f} at most, {agree:.0%} of stages the same"
    )
    return lowered


_WRITTEN = ("format", "files")


def _graphs(pack: Pack, precision: str) -> list[str]:
    model = pack.manifest.model
    if isinstance(model, Contrastive):
        return [model.image_encoder] if precision != "int4" else []
    assert isinstance(model, Generative)  # noqa: S101 - the others were refused
    return [model.decoder] if precision == "int4" else [model.vision_encoder, model.decoder]


def _convert(path: Path, precision: str) -> None:
    import onnx

    if precision == "fp16":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        # Its shape inference would need the whole graph within protobuf's 2 GB.
        small = weigh(path) <= LARGEST_FILE
        model = convert_float_to_float16(
            onnx.load(str(path)), keep_io_types=True, disable_shape_infer=not small
        )
        save_graph(model, path)
    elif precision == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        plain = onnx.load(str(path))
        # The shapes noted by the exporter are those of the float graph and mislead the quantiser.
        del plain.graph.value_info[:]
        with TemporaryDirectory(dir=path.parent) as scratch:
            bare, lowered = Path(scratch) / "bare.onnx", Path(scratch) / path.name
            save_graph(plain, bare)
            quantize_dynamic(
                bare,
                lowered,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=["MatMul", "Gemm"],
                use_external_data_format=weigh(bare) > LARGEST_FILE,
            )
            save_graph(onnx.load(str(lowered)), path)
    else:
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        quantizer = MatMulNBitsQuantizer(onnx.load(str(path)), block_size=_INT4_BLOCK)
        quantizer.process()
        save_graph(quantizer.model.model, path)


def _random_looks(pack: Pack) -> list[Look]:
    rng = np.random.default_rng(0)
    recipe, context = pack.recipe, pack.manifest.context
    looks = []
    for epoch in range(_LOOKS):
        pictures = tuple(
            Picture(
                epoch=epoch,
                rgb=rng.integers(0, 256, (recipe.height, recipe.width, 3), dtype=np.uint8),
                digest=f"random-{epoch}-{place}",
                recipe=recipe.digest,
                quality={},
                channels={},
            )
            for place in range(context.pictures)
        )
        looks.append(Look(pictures, center=context.before))
    return looks


def _opinions(pack: Pack, looks: list[Look]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    model = pack.manifest.model
    if isinstance(model, Generative):
        # A model that writes its reasons is not asked for all of them: the stage is what counts.
        short = msgspec.structs.replace(model, max_tokens=min(model.max_tokens, _WRITTEN_TOKENS))
        pack = replace(pack, manifest=msgspec.structs.replace(pack.manifest, model=short))
    stager = LocalStager(pack, "cpu")
    opinions = stager.judge(looks)
    stager.close()
    return np.stack([opinion.log_probabilities for opinion in opinions])
