"""LLaVA and its kin: a prompt with pictures in it, and how likely each answer is after it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from hypnocast.core.types import PAGE_S, FloatArray, Look, Picture
from hypnocast.errors import PackError
from hypnocast.stagers.base import ModelOutput
from hypnocast.stagers.generative.answers import AnswerTree, Path
from hypnocast.stagers.generative.constrained import (
    AnswerOpening,
    ConstrainedAnswer,
    most_tokens,
)
from hypnocast.stagers.generative.decoder import Decoder, KeyValues, Prompts
from hypnocast.stagers.generative.prompt import build_prompt, encode_answers, load_tokenizer
from hypnocast.stagers.generative.shared_buffer import SharedBufferDecoder
from hypnocast.stagers.onnx.engine import Engine
from hypnocast.stagers.onnx.vision_encoder import VisionEncoder
from hypnocast.stagers.packs.manifest import Generative
from hypnocast.stagers.packs.pack import Pack

SECOND_LOOK_S = 3 * PAGE_S
"""The second look at a page comes when the next one has closed."""

NEXT_LOOK_S = 1.5 * PAGE_S
"""The first look at the next page comes when that has closed."""

REASONS_S = PAGE_S
"""Reasons that come later than the next page's stage are of no use."""


def with_lead(model: Generative) -> Generative:
    """Return the model with what its answers really begin with: the stage's key comes first."""
    if model.scoring != "stage-first":
        return model
    lead = f'{{"{model.answer_key}": "'
    whole = tuple(f'{lead}{answer}"' for answer in model.answers)
    return msgspec.structs.replace(model, answers=cast("Any", whole))


def without_end(answers: Sequence[Path]) -> list[Path]:
    """Leave out the quotation mark behind each stage: the schema allows nothing else there.

    To learn how likely it is would need a run of the decoder for each stage.
    """
    ends = {path[-1] for path in answers}
    shorter = [path[:-1] for path in answers]
    distinct = len(set(shorter)) == len(shorter) and all(shorter)
    return shorter if len(ends) == 1 and distinct else list(answers)


def _beginning(paths: Sequence[Path]) -> Path:
    """Return what all paths begin with."""
    same = itertools.takewhile(lambda tokens: len(set(tokens)) == 1, zip(*paths, strict=False))
    return tuple(tokens[0] for tokens in same)


def _digests(pictures: Sequence[Picture | None]) -> tuple[str, ...]:
    return tuple("" if picture is None else picture.digest for picture in pictures)


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A prompt that the decoder has read for some beds."""

    logits: NDArray[np.generic]
    """(beds, kept, vocabulary): after the prompt, and after what was appended to it."""
    memory: KeyValues


class GenerativeModel:
    """Vision tower, token embeddings and decoder of one pack, and its prompt made ready."""

    def __init__(self, pack: Pack, model: Generative, engine: Engine) -> None:
        """Open the graphs, tokenise the prompt, and read the part before the first picture."""
        self._model = model
        context = pack.manifest.context
        self.gives_reasons = model.gives_reasons_later
        again = context.pictures > 1 or self.gives_reasons
        self._eye = VisionEncoder(
            pack, model.vision_encoder, model.preprocess, engine, remember=again
        )
        shared = model.cache == "shared" and engine.provider == "cpu"
        self._context = context
        self.decoder = (SharedBufferDecoder if shared else Decoder)(pack, model, engine)
        tokenizer = load_tokenizer(pack.path(model.tokenizer))
        self._prompt = build_prompt(tokenizer, model)
        self._answers = encode_answers(tokenizer, with_lead(model))
        stage_first = model.scoring == "stage-first"
        self._tree = AnswerTree.grow(without_end(self._answers) if stage_first else self._answers)
        self._read_lead(max(most_tokens(model), *map(len, (*self._tree.paths, ()))))
        black = np.zeros((pack.recipe.height, pack.recipe.width, 3), dtype=np.uint8)
        self._black = Picture(0, black, "black", pack.recipe.digest, quality={}, channels={})
        self._constrained: ConstrainedAnswer | None = None
        if model.scoring == "generate" or self.gives_reasons:
            self._constrained = ConstrainedAnswer(pack, model, self.decoder, tokenizer)

    @property
    def next_position(self) -> int:
        """Position of the first token behind the prompt."""
        return self._prompt.next_position

    def read(self, looks: Sequence[Look]) -> list[ModelOutput]:
        """Give a reading of each look."""
        most = self.decoder.beds_at_once
        if len(looks) > most:
            parts = (looks[start : start + most] for start in range(0, len(looks), most))
            return [reading for part in parts for reading in self.read(part)]
        if self._constrained is not None and not self.gives_reasons:
            opened = self.open_prompts(looks, ())
            return self._constrained.read(
                opened.logits[:, -1], opened.memory, self._prompt.next_position
            )
        return [ModelOutput(row) for row in self._score(looks)]

    @property
    def reads_ahead(self) -> bool:
        """Whether the pages before the next one can be read before that is there."""
        return self._context.before > 0 and isinstance(self.decoder, SharedBufferDecoder)

    def read_ahead(self, look: Look) -> None:
        """Read the pages that the first look at the next page begins with."""
        decoder, known = self.decoder, look.pictures[1 : self._context.before + 1]
        if isinstance(decoder, SharedBufferDecoder) and known and decoder.has_room:
            features = np.concatenate(self._eye.see(self._shown(known)))
            lead, tokens = self._prompt.lead, self._starts[len(known)]
            embeds = self._rest[:tokens].copy()
            embeds[self._slots[: len(features)]] = features
            prompts = Prompts(
                embeds[None],
                self._prompt.positions[..., lead : lead + tokens],
                pictures=[_digests(known)],
                starts=self._starts,
                expected_s=[NEXT_LOOK_S],
                keep=1,
            )
            decoder.read_prompts(prompts, self._lead_for(1))

    def reasons(self, look: Look, stage: int, go_on: Callable[[], bool]) -> ModelOutput | None:
        """Write why a page has a stage; None where that was not wanted to its end.

        The prompt is not read again where its row still has it.
        """
        assert self._constrained is not None  # noqa: S101 - asked only where gives_reasons
        row, path = self._score([look])[0], self._answers[stage]
        opened = self.open_prompts([look], path)
        position = self._prompt.next_position + len(path)
        opening = AnswerOpening(opened.logits[:, -1], opened.memory.length, position)
        return self._constrained.go_on(path, row, opening, opened.memory, go_on)

    def _score(self, looks: Sequence[Look]) -> FloatArray:
        """Return how likely each answer is; what all of them begin with is read with the prompt."""
        paths, decoder = self._tree.paths, self.decoder
        common = _beginning(paths)
        opened = self.open_prompts(looks, common)
        after = {common[:at]: opened.logits[:, at] for at in range(len(common) + 1)}
        rest = [path[len(common) :] for path in paths if len(path) > len(common)]
        place = self._prompt.next_position + len(common)
        for path, logits in decoder.read_paths(opened.memory, place, rest).items():
            after[common + path] = logits
        return self._tree.score(after)

    def _read_lead(self, answer: int) -> None:
        """Read the fixed text before the first picture, once for the whole night.

        ``answer``: how many tokens may follow the prompt.
        """
        prompt, lead = self._prompt, self._prompt.lead
        embeds = self.decoder.embed(prompt.ids[None])
        self._rest = embeds[0, lead:]
        self._slots = prompt.slots - lead
        self._starts = tuple(self._slots[:: len(self._slots) // self._context.pictures].tolist())
        self._lead = self.decoder.begin(len(prompt.ids) + answer)
        if lead:
            _, self._lead = self.decoder.read(
                embeds[:, :lead], prompt.positions[..., :lead], self._lead
            )
        self.decoder.keep_lead(lead)
        self._leads = self._lead

    def open_prompts(self, looks: Sequence[Look], path: Path) -> Opened:
        """Read the prompt with every look's pictures in it, and ``path`` behind it."""
        beds, prompt = len(looks), self._prompt
        pictures = [picture for look in looks for picture in self._shown(look.pictures)]
        features = np.stack(self._eye.see(pictures))
        if features.size != beds * len(self._slots) * self._rest.shape[-1]:
            raise PackError(
                f"gives {features.shape[1:]} for a picture, not "
                f"({self._model.tokens_per_picture}, {self._rest.shape[-1]})",
                where=self._model.vision_encoder,
                remedy="Correct tokens_per_picture in pack.toml.",
            )
        embeds = np.repeat(self._rest[None], beds, axis=0)
        embeds[:, self._slots] = features.reshape(beds, len(self._slots), -1)
        positions = prompt.positions[..., prompt.lead :]
        if path:
            behind = self.decoder.embed(np.asarray([path], dtype=np.int64))
            embeds = np.concatenate([embeds, np.repeat(behind, beds, axis=0)], axis=1)
            places = self.decoder.positions_from(prompt.next_position, len(path))
            positions = np.concatenate([positions, places], axis=-1)
        prompts = Prompts(
            embeds,
            positions,
            pictures=[_digests(look.pictures) for look in looks],
            starts=self._starts,
            expected_s=[self._expected_s(look) for look in looks],
            keep=1 + len(path),
        )
        return Opened(*self.decoder.read_prompts(prompts, self._lead_for(beds)))

    def _shown(self, pictures: Sequence[Picture | None]) -> list[Picture]:
        return [self._black if picture is None else picture for picture in pictures]

    def _expected_s(self, look: Look) -> float:
        """Return how long a look may be followed by one that begins with the same pictures."""
        if self._context.after and look.pictures[-1] is None:
            return SECOND_LOOK_S
        return REASONS_S if self.gives_reasons else 0.0

    def _lead_for(self, beds: int) -> KeyValues:
        if self._leads.beds != beds:
            self._leads = self.decoder.leads(self._lead, beds)
        return self._leads
