"""The local stager: a pack on ONNX Runtime, on the bedside GPU or the CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from hypnocast.core.quality import coverage_of
from hypnocast.core.types import STAGES, Look, Opinion, Picture, Stage
from hypnocast.errors import InferenceError, TooLateError
from hypnocast.stagers.base import ModelOutput
from hypnocast.stagers.generative.model import GenerativeModel
from hypnocast.stagers.onnx.contrastive import ContrastiveModel
from hypnocast.stagers.onnx.engine import Engine, Provider
from hypnocast.stagers.pace import Pace
from hypnocast.stagers.packs.manifest import Contrastive, Signals
from hypnocast.stagers.packs.pack import Pack
from hypnocast.stagers.signal import SignalModel, still_samples

MAX_BATCH = 16
"""Pages judged in one run: more would only cost memory."""

QUICK_S = 0.25
"""A model that judges one page sooner than this is also warmed up on a full batch."""

SLOW_BATCH = 4
"""A slower one is warmed up on so many pages, as four beds close them together."""

WARM_UP_S = 20.0
"""A batch that would last longer than this is not measured: the night waits."""

MEASURE_S = 60.0
"""A model slower over its first look, which is its slowest, is not asked for another."""


class Model(Protocol):
    """A family of models."""

    def read(self, looks: Sequence[Look]) -> list[ModelOutput]:
        """Give a reading of each look."""
        ...


class LocalStager:
    """Judges pages with a pack on this machine.

    Where the GPU fails in the night, the pack is opened again on the CPU and the same pages
    are judged there: :attr:`provider` shows it, and so does every opinion. It stays there until
    the stager is made anew.
    """

    def __init__(
        self,
        pack: Pack,
        provider: Provider = "auto",
        threads: int | None = None,
        *,
        make_engine: Callable[[Provider, int | None], Engine] = Engine,
    ) -> None:
        """Open the pack and judge black pages, so that the first real one is not the slowest."""
        self.pack = pack
        self.pace = Pace()
        self.failure: InferenceError | None = None
        """Why the provider that was asked for was given up."""
        self._engine = make_engine(provider, threads)
        self._model: Model | None = None
        self._warm = _black_looks(pack)
        try:
            self._open()
        except InferenceError as error:
            self._move_to_cpu(error)

    @property
    def provider(self) -> str:
        """What computes: ``cpu``, ``cuda`` or ``tensorrt``."""
        return self._engine.provider

    def judge(self, looks: Sequence[Look]) -> list[Opinion]:
        """Give an opinion on each look."""
        opinions: list[Opinion] = []
        for start in range(0, len(looks), MAX_BATCH):
            opinions += self._judge(looks[start : start + MAX_BATCH])
        return opinions

    def reasons(self, look: Look, stage: Stage, go_on: Callable[[], bool]) -> Opinion:
        """Give the opinion on a look with the reasons for a stage, written word by word."""
        self._check(look)
        model = self._model
        if not isinstance(model, GenerativeModel) or not model.gives_reasons:
            raise InferenceError("gives no reasons", where=self.pack.manifest.name)
        self.pace.begin(1)
        output = model.reasons(look, STAGES.index(stage), go_on)
        if output is None:
            raise TooLateError("pages wait for their stage", where=self.pack.manifest.name)
        return self._opinion(look, output)

    @property
    def reads_ahead(self) -> bool:
        """Whether the next look is quicker where the pages before it were read already."""
        return isinstance(self._model, GenerativeModel) and self._model.reads_ahead

    def read_ahead(self, look: Look) -> None:
        """Read the pages that the first look at the next page begins with."""
        if isinstance(self._model, GenerativeModel):
            self._check(look)
            self.pace.begin(1)
            self._model.read_ahead(look)

    def close(self) -> None:
        """Let go of the models."""
        self._model = None

    def _judge(self, looks: Sequence[Look]) -> list[Opinion]:
        for look in looks:
            self._check(look)
        try:
            readings = self._read(looks)
        except InferenceError as error:
            self._move_to_cpu(error)
            readings = self._read(looks)
        return [self._opinion(look, reading) for look, reading in zip(looks, readings, strict=True)]

    def _opinion(self, look: Look, output: ModelOutput) -> Opinion:
        return Opinion(
            epoch=look.page.epoch,
            log_probabilities=output.log_probabilities,
            provider=self.provider,
            rationale=output.rationale,
            rules=output.rules,
            coverage=coverage_of(look.page.quality, self.pack.manifest.montage.needed),
            carried=output.carried,
        )

    def _read(self, looks: Sequence[Look]) -> list[ModelOutput]:
        if self._model is None:
            raise InferenceError(
                "the stager is closed", where=self.pack.manifest.name, remedy="Open it again."
            )
        self.pace.begin(len(looks))
        readings = self._model.read(looks)
        self.pace.beat()
        if not all(np.isfinite(reading.log_probabilities).all() for reading in readings):
            raise InferenceError(
                f"the model's answer on {self.provider} is no number",
                where=self.pack.manifest.name,
                remedy="If it was exported in float16, export it in float32.",
            )
        return readings

    def _check(self, look: Look) -> None:
        context, recipe = self.pack.manifest.context, self.pack.manifest.recipe_digest
        if len(look.pictures) != context.pictures or look.center != context.before:
            raise InferenceError(
                f"the pack looks at {context.before} + 1 + {context.after} pages, and was shown "
                f"{len(look.pictures)}",
                where=self.pack.manifest.name,
                remedy="Build looks by the pack's context.",
            )
        if any(picture is not None and picture.recipe != recipe for picture in look.pictures):
            raise InferenceError(
                "a picture was drawn by another recipe than the pack's",
                where=self.pack.manifest.name,
                remedy="Draw pages by the pack's recipe.",
            )

    def _open(self) -> None:
        self.pace.open()
        self._engine.beat = self.pace.beat
        model = self.pack.manifest.model
        if isinstance(model, Contrastive):
            self._model = ContrastiveModel(self.pack, model, self._engine)
        elif isinstance(model, Signals):
            self._model = SignalModel(self.pack, model, self._engine)
        else:
            self._model = GenerativeModel(self.pack, model, self._engine)
        page_s = self._warm_up(self._warm[:1])
        if page_s < MEASURE_S:
            self.pace.page_s = 0.0  # the first look allocates memory: the second one counts
            page_s = self._warm_up(self._warm[1:2])
        if page_s < QUICK_S:
            # What a full batch needs is allocated now, and not in the middle of the night.
            self._warm_up(self._warm)
        elif page_s * SLOW_BATCH < WARM_UP_S:
            self._warm_up(self._warm[-SLOW_BATCH:])
        elif page_s * 2 < WARM_UP_S:
            self._warm_up(self._warm[-2:])

    def _warm_up(self, looks: Sequence[Look]) -> float:
        """Judge black pages; return the seconds that needed."""
        began = time.perf_counter()
        self._read(looks)
        took = time.perf_counter() - began
        self.pace.measured(len(looks), took)
        return took

    def _move_to_cpu(self, error: InferenceError) -> None:
        if self._engine.provider == "cpu":
            raise error
        self.failure = error
        self._model = None
        self._engine = self._engine.on_cpu()
        self._open()


def _black_looks(pack: Pack) -> list[Look]:
    recipe, context = pack.recipe, pack.manifest.context
    black = np.zeros((recipe.height, recipe.width, 3), dtype=np.uint8)
    model = pack.manifest.model
    samples = still_samples(model) if isinstance(model, Signals) else None
    looks = []
    for place in range(MAX_BATCH):
        places: list[Picture | None] = [None] * context.pictures
        places[context.before] = Picture(
            epoch=0,
            rgb=black,
            digest=f"black {place}",
            recipe=recipe.digest,
            quality={},
            channels={},
            samples=samples,
        )
        looks.append(Look(tuple(places), context.before))
    return looks
