"""Models that read signals: conditioned samples in, votes out, and a state from page to page.

What a page leaves behind is not kept here but given out with the opinion and handed in with the
next look. So pages of many beds are judged in one batch, a model that is built anew has lost
nothing, and the journal can keep the state as it keeps everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType

import msgspec
import numpy as np
from numpy.typing import NDArray

from hypnocast.core.pictures.samples import SampleRecipe, Samples, sample
from hypnocast.core.quality import reason_against
from hypnocast.core.types import FloatArray, Look, Page, Picture
from hypnocast.core.verdicts.sequence_filter import log_normalise
from hypnocast.errors import InferenceError
from hypnocast.stagers.base import ModelOutput
from hypnocast.stagers.onnx.engine import Engine, Graph, on_host
from hypnocast.stagers.packs.manifest import Scaling, Signals
from hypnocast.stagers.packs.pack import Pack

Rows = NDArray[np.float32]


class _Scale(msgspec.Struct):
    """Moments of one input over the night so far."""

    pages: int = 0
    mean: float = 0.0
    power: float = 0.0
    """Mean of the squares."""


class _Carried(msgspec.Struct):
    """What one bed's pages leave behind."""

    scales: list[_Scale]
    states: list[bytes | None]
    """One for each vote: little-endian float32, None before its first page."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Carried)


def sample_recipe(model: Signals) -> SampleRecipe:
    """Return how a model's samples are conditioned."""
    bands = ((role, each.low_hz, each.high_hz) for each in model.inputs for role in each.roles)
    return SampleRecipe(model.samples, tuple(dict.fromkeys(bands)))


def with_samples(picture: Picture, page: Page, pack: Pack, mains_hz: int) -> Picture:
    """Put the samples beside a picture that the pack reads, where it reads any."""
    model = pack.manifest.model
    if not isinstance(model, Signals):
        return picture
    return replace(picture, samples=sample(page, sample_recipe(model), mains_hz))


def carries(pack: Pack) -> bool:
    """Return whether a pack's model hands something over from page to page."""
    model = pack.manifest.model
    return isinstance(model, Signals) and model.carries


def scaled(night: FloatArray, scaling: Scaling) -> FloatArray:
    """Scale the pages of a whole night, (pages, samples), as they are scaled one by one."""
    scale = _Scale()
    return np.stack([_scale_page(page, scaling, scale) for page in night])


def _scale_page(samples: FloatArray, scaling: Scaling, scale: _Scale) -> FloatArray:
    if scaling == "microvolts":
        return samples
    if scaling == "running":
        scale.pages += 1
        scale.mean += (float(samples.mean()) - scale.mean) / scale.pages
        scale.power += (float((samples**2).mean()) - scale.power) / scale.pages
        mean, deviation = scale.mean, max(0.0, scale.power - scale.mean**2) ** 0.5
    else:
        mean, deviation = float(samples.mean()), float(samples.std())
    # A page on which nothing moves stays at zero.
    scaled_page: FloatArray = (samples - mean) / (deviation or 1.0)
    return scaled_page


def still_samples(model: Signals) -> Samples:
    """Return the samples of a page on which nothing moves, to warm a model up with."""
    roles = (role for each in model.inputs for role in each.roles)
    return MappingProxyType({role: np.zeros(model.samples) for role in roles})


class SignalModel:
    """Votes over the signals there are."""

    def __init__(self, pack: Pack, model: Signals, engine: Engine) -> None:
        """Open the graphs; one that several votes name is opened once."""
        self._model = model
        self._name = pack.manifest.name
        self._min_coverage = pack.manifest.montage.min_coverage
        names = dict.fromkeys(vote.graph for vote in model.votes)
        self._graphs: dict[str, Graph] = {name: engine.open(pack, name) for name in names}
        recurrent = model.recurrent
        self._recurrent = engine.open(pack, recurrent) if recurrent is not None else None

    def read(self, looks: Sequence[Look]) -> list[ModelOutput]:
        """Let every vote that has its signals judge each page."""
        carried = [self._unpack(look.carried) for look in looks]
        signals = [
            self._signals(look.page, each) for look, each in zip(looks, carried, strict=True)
        ]
        opinions: list[list[FloatArray]] = [[] for _ in looks]
        for page, row in self._ask(signals, carried):
            opinions[page].append(row)
        keeps = self._model.carries
        return [
            ModelOutput(self._combine(rows), carried=_encoder.encode(each) if keeps else None)
            for rows, each in zip(opinions, carried, strict=True)
        ]

    # --- what is read ---------------------------------------------------------------------------

    def _signals(self, page: Picture, carried: _Carried) -> dict[str, Rows]:
        """Return the inputs that a page has, scaled."""
        if page.samples is None:
            raise self._fault("a page came as a picture alone", "Give it the page's samples too.")
        read: dict[str, Rows] = {}
        for each, scale in zip(self._model.inputs, carried.scales, strict=True):
            for role in each.roles:
                there = page.samples.get(role)
                quality = page.quality.get(role)
                useless = quality is not None and reason_against(quality, self._min_coverage)
                if there is not None and not useless:
                    read[each.name] = self._scaled(there, scale)
                    break
        return read

    def _scaled(self, samples: FloatArray, scale: _Scale) -> Rows:
        if samples.shape != (self._model.samples,):
            raise self._fault(f"a page has {samples.shape} samples", "Condition it for the pack.")
        return _scale_page(samples, self._model.scaling, scale).astype(np.float32)

    # --- votes ----------------------------------------------------------------------------------

    def _ask(
        self, signals: Sequence[dict[str, Rows]], carried: Sequence[_Carried]
    ) -> list[tuple[int, FloatArray]]:
        """Return every vote as the page's place and its log-probabilities."""
        places: list[tuple[int, int]] = []
        features: list[Rows] = []
        for number, vote in enumerate(self._model.votes):
            pages = [at for at, each in enumerate(signals) if set(vote.inputs) <= set(each)]
            if not pages:
                continue
            graph = self._graphs[vote.graph]
            feeds = {
                name: np.stack([signals[at][wanted][None] for at in pages])
                for name, wanted in zip(graph.inputs, vote.inputs, strict=True)
            }
            features.append(on_host(graph.run(feeds)[graph.outputs[0]]))
            places += [(at, number) for at in pages]
        if not places:
            raise self._fault("no vote has its signals", "Look at the montage's needed roles.")
        rows = np.concatenate(features)
        if self._recurrent is not None:
            rows = self._follow(self._recurrent, rows, places, carried)
        rows_of = log_normalise(rows.astype(np.float64))
        return [(page, row) for (page, _), row in zip(places, rows_of, strict=True)]

    def _follow(
        self,
        graph: Graph,
        features: Rows,
        places: Sequence[tuple[int, int]],
        carried: Sequence[_Carried],
    ) -> Rows:
        """Go on from each vote's state, and leave the next one in its place."""
        states = np.stack([self._state(carried[page].states[vote]) for page, vote in places])
        outputs = graph.run({"features": features, "state": states})
        after = np.ascontiguousarray(on_host(outputs["next_state"]), dtype="<f4")
        for (page, vote), state in zip(places, after, strict=True):
            carried[page].states[vote] = state.tobytes()
        return on_host(outputs["log_probabilities"])

    def _combine(self, rows: Sequence[FloatArray]) -> FloatArray:
        if self._model.voting == "mean":
            return log_normalise(np.log(np.exp(np.stack(rows)).mean(axis=0) + 1e-300))
        return max(rows, key=lambda row: float(row.max()))

    # --- what is carried ------------------------------------------------------------------------

    def _unpack(self, carried: bytes | None) -> _Carried:
        inputs, votes = len(self._model.inputs), len(self._model.votes)
        if carried is None:
            return _Carried([_Scale() for _ in range(inputs)], [None] * votes)
        try:
            known = _decoder.decode(carried)
        except msgspec.DecodeError as error:
            raise self._foreign() from error
        sizes = {len(state) for state in known.states if state is not None}
        if len(known.scales) != inputs or len(known.states) != votes:
            raise self._foreign()
        if sizes - {4 * int(np.prod(self._model.state_shape))}:
            raise self._foreign()
        return known

    def _state(self, kept: bytes | None) -> Rows:
        shape = self._model.state_shape
        if kept is None:
            return np.zeros(shape, np.float32)
        return np.frombuffer(kept, dtype="<f4").reshape(shape)

    def _foreign(self) -> InferenceError:
        return self._fault(
            "what was carried over is of another model", "Begin the night anew with this pack."
        )

    def _fault(self, what: str, remedy: str) -> InferenceError:
        return InferenceError(what, where=self._name, remedy=remedy)
