"""``pack.toml``: everything that is needed to run a model and to judge it.

These types are the pack format. They are strict: an unknown key is refused, and the message
names its path. What each key means for a researcher is told in ``docs/packs.md``.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from hypnocast.core.calibration import (
    Calibration,
    HiddenMarkov,
    Logistic,
    Positive,
    SequenceModel,
    Share,
    StageVector,
    Table,
)

__all__ = [
    "FORMAT",
    "Calibration",
    "Context",
    "Contrastive",
    "Digest",
    "Generative",
    "HiddenMarkov",
    "Logistic",
    "Manifest",
    "Metric",
    "Model",
    "Montage",
    "Name",
    "Preprocess",
    "Provenance",
    "SequenceModel",
    "Source",
    "StageVector",
    "parse_manifest",
]

FORMAT = "hypnocast.pack/1"

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Digest = Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}$")]


class Context(Table, frozen=True, kw_only=True):
    """How many neighbouring pages the model looks at together with the page itself."""

    before: Annotated[int, Meta(ge=0, le=8)] = 0
    after: Annotated[int, Meta(ge=0, le=1)] = 0


class Montage(Table, frozen=True, kw_only=True):
    """Which roles the model needs and which it can use.

    ``needed`` is a list of groups; of each group at least one role must be usable.
    """

    needed: tuple[tuple[str, ...], ...]
    wanted: tuple[str, ...] = ()
    min_coverage: Share = 0.8


class Preprocess(Table, frozen=True, kw_only=True):
    """From RGB bytes to the model's input tensor."""

    layout: Literal["nchw", "tiles", "patches"] = "nchw"
    """``nchw`` (batch, 3, height, width); ``tiles`` the same for models that take a list of
    tiles; ``patches`` flattened patches as Qwen2.5-VL takes them."""
    dtype: Literal["float32", "float16", "uint8"] = "float32"
    width: Annotated[int, Meta(ge=14, le=4096)]
    height: Annotated[int, Meta(ge=14, le=4096)]
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """``(pixel / 255 − mean) / std``."""
    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2


class Contrastive(Table, frozen=True, kw_only=True, tag_field="family", tag="contrastive"):
    """CLIP or SigLIP: an image tower, and prompts embedded when the pack was built."""

    image_encoder: str
    preprocess: Preprocess
    prompts: tuple[str, ...]
    """The texts that were embedded, one or more per stage, for the record."""
    prompt_stages: tuple[Literal["W", "N1", "N2", "N3", "R"], ...]
    prompt_embeddings: str
    """File of (prompts, dimensions) unit vectors: little-endian float32, nothing else."""
    dimensions: Annotated[int, Meta(ge=1, le=16384)]
    logit_scale: float
    logit_bias: float = 0.0


class Generative(Table, frozen=True, kw_only=True, tag_field="family", tag="generative"):
    """LLaVA, LLaVA-NeXT, Qwen2.5-VL, SmolVLM: three graphs and a tokenizer."""

    vision_encoder: str
    embed_tokens: str
    decoder: str
    tokenizer: str
    preprocess: Preprocess
    prompt: str
    """The whole text around the pictures; each picture stands as ``<|picture|>``."""
    answers: tuple[str, str, str, str, str]
    """What the model writes for W, N1, N2, N3, R (``prefill``), or the value of
    ``answer_key`` in its JSON answer (``generate``)."""
    scoring: Literal["prefill", "generate"]
    image_token: str
    """The token that stands for one visual feature vector."""
    tokens_per_picture: Annotated[int, Meta(ge=1, le=16384)]
    layers: Annotated[int, Meta(ge=1, le=256)]
    kv_heads: Annotated[int, Meta(ge=1, le=256)]
    head_dim: Annotated[int, Meta(ge=1, le=1024)]
    rope: Literal["default", "mrope"] = "default"
    bos: bool = True
    eos_token: str | None = None
    schema: str | None = None
    """File with the JSON Schema of the answer; ``generate`` only."""
    answer_key: str = "stage"
    rationale_key: str | None = None
    rules_key: str | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=4096)] = 256
    max_seconds: Positive = 20.0


Model = Contrastive | Generative


class Source(Table, frozen=True, kw_only=True):
    """One database that went into the model."""

    name: str
    licence: str
    attribution: str
    subjects: tuple[str, ...]
    pages: int


class Provenance(Table, frozen=True, kw_only=True):
    """Where the model comes from."""

    base: str
    """The weights it started from, or ``from scratch``."""
    sources: tuple[Source, ...]
    seed: int
    commit: str
    """Commit of the code that trained it."""
    command: str
    notes: str = ""


class Metric(Table, frozen=True, kw_only=True):
    """One figure that was measured, and on what."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    on: str
    """Database, subjects and conditions in words."""
    gain: float | None = None


class Manifest(Table, frozen=True, kw_only=True):
    """The whole of ``pack.toml``."""

    format: Literal["hypnocast.pack/1"]
    name: Name
    version: Annotated[str, Meta(pattern=r"^\d+\.\d+\.\d+([+-][0-9A-Za-z.-]+)?$")]
    licence: str
    intended_use: str
    recipe: str
    """Name of a built-in recipe, or a recipe file in the pack (``recipe.toml``)."""
    recipe_digest: Digest
    context: Context = Context()
    montage: Montage
    model: Model
    calibration: Calibration
    provenance: Provenance
    metrics: tuple[Metric, ...] = ()
    files: dict[str, Digest]
    """SHA-256 of every file of the pack but ``pack.toml`` itself."""


def parse_manifest(text: str | bytes) -> Manifest:
    """Read ``pack.toml`` strictly; ``msgspec.ValidationError`` names the path of a fault."""
    return msgspec.toml.decode(text, type=Manifest)
