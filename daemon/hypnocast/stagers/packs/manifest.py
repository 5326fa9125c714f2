"""``pack.toml``: everything that is needed to run a model and to judge it.

These types are the pack format. They are strict: an unknown key is refused, and the message
names its path. What each key means for a researcher is written in ``docs/packs.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from hypnocast.core.types import Role
from hypnocast.core.verdicts.calibration import (
    Calibration,
    HiddenMarkov,
    Logistic,
    PackTomlTable,
    Positive,
    SequenceModel,
    Share,
    StageVector,
)

__all__ = [
    "FORMAT",
    "PICTURE_MARK",
    "TILE_MARK",
    "Calibration",
    "Context",
    "Contrastive",
    "Digest",
    "Generative",
    "HiddenMarkov",
    "JudgedRecordings",
    "Logistic",
    "Manifest",
    "Metric",
    "Model",
    "Name",
    "PackMontage",
    "Preprocess",
    "Provenance",
    "SequenceModel",
    "SignalInput",
    "Signals",
    "StageVector",
    "TrainingSource",
    "Vote",
    "parse_manifest",
]

FORMAT = "hypnocast.pack/1"

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Version = Annotated[str, Meta(pattern=r"^\d+\.\d+\.\d+([+-][0-9A-Za-z.-]+)?$")]
Token = Annotated[str, Meta(min_length=1, max_length=64)]
Text = Annotated[str, Meta(max_length=65536)]
Digest = Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}$")]


PICTURE_MARK = "<|picture|>"
TILE_MARK = "<|tile|>"


class Context(PackTomlTable, frozen=True, kw_only=True):
    """How many neighbouring pages the model looks at together with the page itself."""

    before: Annotated[int, Meta(ge=0, le=8)] = 0
    after: Annotated[int, Meta(ge=0, le=1)] = 0

    @property
    def pictures(self) -> int:
        """Places in a look."""
        return self.before + 1 + self.after


class PackMontage(PackTomlTable, frozen=True, kw_only=True):
    """Which roles the model needs and which it can use.

    ``needed`` is a list of groups; of each group at least one role must be usable.
    """

    needed: tuple[tuple[Role, ...], ...]
    wanted: tuple[Role, ...] = ()
    min_coverage: Share = 0.8


class Preprocess(PackTomlTable, frozen=True, kw_only=True):
    """From RGB bytes to the model's input tensor."""

    layout: Literal["nchw", "tiles", "patches"] = "nchw"
    """``nchw`` (pictures, 3, height, width); ``tiles`` cuts each picture into tiles of that size
    and gives (pictures × tiles, 3, height, width); ``patches`` flattens one picture into the
    patches that Qwen2.5-VL reads."""
    dtype: Literal["float32", "float16", "uint8"] = "float32"
    width: Annotated[int, Meta(ge=14, le=4096)]
    height: Annotated[int, Meta(ge=14, le=4096)]
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """``(pixel / 255 − mean) / std``; ``uint8`` pixels are given as they are."""
    tile_rows: Annotated[int, Meta(ge=1, le=16)] = 1
    tile_columns: Annotated[int, Meta(ge=1, le=16)] = 1
    """``tiles`` only: the picture is resized to rows × columns tiles and cut, row by row; where
    that is more than one tile, the whole picture in the size of a tile comes last."""
    patch_size: Annotated[int, Meta(ge=1, le=256)] = 14
    temporal_patch_size: Annotated[int, Meta(ge=1, le=8)] = 2
    merge_size: Annotated[int, Meta(ge=1, le=16)] = 2
    resample: Literal["bicubic", "bilinear", "lanczos"] = "bicubic"
    """How a picture of another size is resized."""
    fit: Literal["stretch", "crop"] = "stretch"
    """``crop`` keeps the proportions: the shorter side is fitted, and the middle is seen."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be cut."""
        unit = self.patch_size * self.merge_size
        if self.layout == "patches" and (self.width % unit or self.height % unit):
            msg = f"patches: {self.width}×{self.height} is no multiple of {unit}"
            raise ValueError(msg)
        if self.layout != "tiles" and self.tiles > 1:
            msg = 'tile_rows and tile_columns are for layout = "tiles"'
            raise ValueError(msg)

    @property
    def tiles(self) -> int:
        """Tiles made of one picture."""
        grid = self.tile_rows * self.tile_columns
        return grid if grid == 1 else grid + 1


class Contrastive(PackTomlTable, frozen=True, kw_only=True, tag_field="family", tag="contrastive"):
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
    """What the cosine of picture and prompt is multiplied with (already exponentiated). A
    stage with several prompts has the mean of theirs. A SigLIP's bias falls out."""

    def __post_init__(self) -> None:
        """Refuse a stage without a prompt."""
        if len(self.prompts) != len(self.prompt_stages) or len(self.prompts) > 1000:
            msg = "prompts and prompt_stages need the same length, 1000 at most"
            raise ValueError(msg)
        if len(set(self.prompt_stages)) != 5:
            msg = "prompt_stages: each of the five stages needs a prompt"
            raise ValueError(msg)


class Generative(PackTomlTable, frozen=True, kw_only=True, tag_field="family", tag="generative"):
    """LLaVA, LLaVA-NeXT, Qwen2.5-VL, SmolVLM: three graphs and a tokenizer."""

    vision_encoder: str
    embed_tokens: str
    decoder: str
    tokenizer: str
    preprocess: Preprocess
    prompt: Text
    """The whole text around the pictures, ``bos`` excepted; each picture is written as
    ``<|picture|>``, in the order before, page, after. A neighbour that does not exist is a
    black picture."""
    picture_prompt: Text = TILE_MARK
    """The text of one picture: the features of each tile go where ``<|tile|>`` is."""
    answers: tuple[str, str, str, str, str]
    """What the model writes for W, N1, N2, N3, R (``prefill``), or the value of
    ``answer_key`` in its JSON answer (``generate``). Prompt and answer are tokenised together."""
    scoring: Literal["prefill", "generate", "stage-first"]
    image_token: Token
    """The token of one visual feature vector."""
    tokens_per_picture: Annotated[int, Meta(ge=1, le=16384)]
    layers: Annotated[int, Meta(ge=1, le=256)]
    kv_heads: Annotated[int, Meta(ge=1, le=256)]
    head_dim: Annotated[int, Meta(ge=1, le=1024)]
    rope: Literal["default", "mrope"] = "default"
    cache: Literal["grown", "shared"] = "grown"
    """``shared``: past and present key-values may lie in one buffer, which is never copied
    (``GroupQueryAttention``); several tokens behind a past are read for one bed at a time."""
    bos_token: Token | None = None
    """Put before the prompt, where the tokenizer's model was trained with one."""
    eos_token: Token | None = None
    """Ends an answer; needed by ``generate``, and where one answer begins with another."""
    schema: str | None = None
    """File with the JSON Schema of the answer; ``generate`` only."""
    answer_key: str = "stage"
    rationale_key: str | None = None
    rules_key: str | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=4096)] = 256
    max_seconds: Positive = 20.0
    """An answer longer than either is closed there, and the stage read from what there is."""

    @property
    def gives_reasons_later(self) -> bool:
        """Whether reasons are written behind a stage that was published before."""
        return self.scoring == "stage-first" and self.rationale_key is not None

    def __post_init__(self) -> None:
        """Refuse keys that contradict each other."""
        for fault in _generative_faults(self):
            raise ValueError(fault)


def _generative_faults(model: Generative) -> Iterator[str]:
    if len(set(model.answers)) != 5 or not all(model.answers):
        yield "answers: needs five different texts"
    if model.picture_prompt.count(TILE_MARK) != model.preprocess.tiles:
        yield f"picture_prompt: needs one {TILE_MARK} for each of {model.preprocess.tiles} tile(s)"
    together = TILE_MARK * model.preprocess.tiles in model.picture_prompt
    if model.tokens_per_picture % model.preprocess.tiles and not together:
        yield "tokens_per_picture: is no multiple of the tiles, which stand apart"
    if model.scoring != "prefill" and (model.schema is None or model.eos_token is None):
        yield f"scoring: {model.scoring} needs schema and eos_token"
    if model.scoring == "prefill" and (model.rationale_key or model.rules_key or model.schema):
        yield (
            "scoring: prefill cannot be used where the answer has a rationale, rules or a schema: "
            "they may stand before the stage; use generate"
        )
    if model.rope == "mrope" and model.preprocess.layout != "patches":
        yield 'rope: mrope needs layout = "patches"'


Scaling = Literal["microvolts", "page", "running"]


class SignalInput(PackTomlTable, frozen=True, kw_only=True):
    """One signal that a model reads."""

    name: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    roles: Annotated[tuple[Role, ...], Meta(min_length=1)]
    """The first of these that can be judged on the page is read."""
    low_hz: Positive = 0.3
    high_hz: Positive = 35.0


class Vote(PackTomlTable, frozen=True, kw_only=True):
    """One opinion of several: a graph, and which signals it is given."""

    graph: str
    """From (pages, 1, samples) float32 per input, in the order of ``inputs``, to one row a page:
    log-probabilities, or features for the ``recurrent`` graph."""
    inputs: Annotated[tuple[str, ...], Meta(min_length=1)]


class Signals(PackTomlTable, frozen=True, kw_only=True, tag_field="family", tag="signal"):
    """A model that reads conditioned samples; several votes, and a state that is carried on."""

    samples: Annotated[int, Meta(ge=30, le=61440)]
    """Samples of a 30-s page."""
    scaling: Scaling = "microvolts"
    """``page``: less the page's mean, over its deviation; ``running``: over those of the night
    so far."""
    inputs: Annotated[tuple[SignalInput, ...], Meta(min_length=1, max_length=16)]
    votes: Annotated[tuple[Vote, ...], Meta(min_length=1, max_length=64)]
    """A vote whose inputs are not all there is left out of the page."""
    voting: Literal["loudest", "mean"] = "loudest"
    """``loudest``: the vote that is surest of its stage counts for all."""
    recurrent: str | None = None
    """The graph that follows the votes' features from page to page: ``features`` and ``state``
    in, ``log_probabilities`` and ``next_state`` out, one row for each vote of each page."""
    state_shape: tuple[Annotated[int, Meta(ge=1, le=65536)], ...] = ()
    """Shape of one vote's state; zeros at the start."""

    def __post_init__(self) -> None:
        """Refuse keys that contradict each other."""
        names = [each.name for each in self.inputs]
        if len(set(names)) != len(names):
            msg = "inputs: two have the same name"
            raise ValueError(msg)
        if unknown := {name for vote in self.votes for name in vote.inputs} - set(names):
            msg = f"votes: there is no input {min(unknown)!r}"
            raise ValueError(msg)
        bands = {(role, each.low_hz, each.high_hz) for each in self.inputs for role in each.roles}
        if len(bands) != len({role for role, _, _ in bands}):
            msg = "inputs: a role is read in two bands"
            raise ValueError(msg)
        if (self.recurrent is None) == bool(self.state_shape):
            msg = "recurrent: needs a state_shape, and there is none without it"
            raise ValueError(msg)

    @property
    def carries(self) -> bool:
        """Whether a page is judged with what was carried over from the pages before."""
        return self.recurrent is not None or self.scaling == "running"


Model = Contrastive | Generative | Signals


class TrainingSource(PackTomlTable, frozen=True, kw_only=True):
    """One database that went into the model."""

    name: str
    licence: str
    attribution: str
    subjects: tuple[str, ...]
    pages: int


class Provenance(PackTomlTable, frozen=True, kw_only=True):
    """Where the model comes from."""

    base: str
    """The weights it started from, or ``from scratch``."""
    sources: tuple[TrainingSource, ...]
    seed: int
    commit: str
    """Commit of the code that trained it."""
    command: str
    notes: str = ""


class Metric(PackTomlTable, frozen=True, kw_only=True):
    """One figure that was measured, and on what."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    on: str
    """Database, subjects and conditions in words."""
    gain: float | None = None


class JudgedRecordings(PackTomlTable, frozen=True, kw_only=True):
    """One kind of recording that the pack was judged on."""

    derivations: Annotated[tuple[Token, ...], Meta(min_length=1, max_length=16)]
    """As events name them (``F4-M1``, ``Fpz-Cz``); ``Chin`` stands for any pair of the chin."""
    on: Annotated[str, Meta(max_length=300)]
    """Database, subjects and conditions in words."""


class Manifest(PackTomlTable, frozen=True, kw_only=True):
    """The whole of ``pack.toml``."""

    format: Literal["hypnocast.pack/1"]
    name: Name
    version: Version
    licence: str
    intended_use: str
    recipe: str
    """Name of a built-in recipe, or a recipe file in the pack (``recipe.toml``)."""
    recipe_digest: Digest
    context: Context = Context()
    montage: PackMontage
    model: Model
    calibration: Calibration
    provenance: Provenance
    metrics: tuple[Metric, ...] = ()
    judged: tuple[JudgedRecordings, ...] = ()
    """Without it, what the metrics say they were measured on."""
    files: dict[str, Digest]
    """SHA-256 of every file of the pack but ``pack.toml`` itself."""

    def __post_init__(self) -> None:
        """Refuse what no single table can see."""
        if isinstance(self.model, Contrastive):
            if self.context.pictures != 1:
                msg = "context: a contrastive model looks at one page"
                raise ValueError(msg)
        elif isinstance(self.model, Signals):
            if self.context.pictures != 1:
                msg = "context: a model that reads signals is given one page at a time"
                raise ValueError(msg)
        elif self.model.prompt.count(PICTURE_MARK) != self.context.pictures:
            msg = f"prompt: needs {PICTURE_MARK} {self.context.pictures} times, as context says"
            raise ValueError(msg)


def parse_manifest(text: str | bytes) -> Manifest:
    """Read ``pack.toml`` strictly; ``msgspec.ValidationError`` names the path of a fault."""
    return msgspec.toml.decode(text, type=Manifest)
