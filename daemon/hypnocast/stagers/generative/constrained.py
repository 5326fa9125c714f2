"""A model that writes its answer: greedily, within the answer's JSON Schema, within limits.

The stage is not read from the text alone: once the answer is written, the likelihoods of all five
stages are read at the place where the stage is written. An answer that runs into a limit is
closed there, and the stage is read behind what was written so far.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.types import FloatArray
from hypnocast.errors import InferenceError, PackError
from hypnocast.stagers.base import ModelOutput
from hypnocast.stagers.generative.answers import AnswerTree
from hypnocast.stagers.generative.decoder import Decoder, KeyValues
from hypnocast.stagers.generative.prompt import token_id
from hypnocast.stagers.generative.unfinished_json import finished_json, lead_to
from hypnocast.stagers.packs.manifest import Generative
from hypnocast.stagers.packs.pack import Pack

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from tokenizers import Tokenizer


_BLANKS = r"[ \n]{0,8}"
"""What is allowed between the parts of an answer; unbounded, a model may write nothing else."""


_CUT_BYTES = 48
"""Of the last word of an answer that ran into a limit, and of what closes it."""


def most_tokens(model: Generative) -> int:
    """Return how many tokens may be read behind a prompt to write an answer and read its stage.

    An answer that ran into its limit is closed, and the stage's key written behind it.
    """
    if model.scoring != "generate":
        return model.max_tokens
    longest = max(len(answer.encode()) for answer in model.answers)
    return model.max_tokens + _CUT_BYTES + len((model.answer_key or "").encode()) + longest


@dataclass(frozen=True, slots=True, eq=False)
class AnswerOpening:
    """Where an answer begins."""

    logits: NDArray[Any]
    """(beds, vocabulary): for its first token."""
    length: int
    """Tokens read before it."""
    position: int
    """Its first position; less than ``length`` where pictures spread in rows and columns."""


class ConstrainedAnswer:
    """Writes the answers of one pack's model."""

    def __init__(
        self, pack: Pack, model: Generative, decoder: Decoder, tokenizer: Tokenizer
    ) -> None:
        """Read the schema of the answer and make it the grammar of what may be written."""
        self._model = model
        self._decoder = decoder
        self._tokenizer = tokenizer
        self._tokenizer_file = pack.path(model.tokenizer)
        assert model.schema is not None  # noqa: S101 - the manifest demands it for generate
        assert model.eos_token is not None  # noqa: S101 - likewise
        self._eos = token_id(tokenizer, model.eos_token, "eos_token")
        self._answers = tuple(answer.encode() for answer in model.answers)
        self._grammar = _grammar(pack.path(model.schema), model)
        self._guide: LLTokenizer | None = None

    def read(self, logits: NDArray[Any], memory: KeyValues, position: int) -> list[ModelOutput]:
        """Write one answer for each bed after a prompt, and read the stages in it."""
        opening = AnswerOpening(logits, memory.length, position)
        matchers = [self._matcher(logits.shape[-1]) for _ in logits]
        written, memory = self._write(matchers, opening, memory, self._model.max_tokens)
        return [self._conclude(tokens, bed, memory, opening) for bed, tokens in enumerate(written)]

    def go_on(
        self,
        begun: Sequence[int],
        row: FloatArray,
        opening: AnswerOpening,
        memory: KeyValues,
        wanted: Callable[[], bool],
    ) -> ModelOutput | None:
        """Write an answer on from where its stage stands; None where it is wanted no more.

        ``begun``: the tokens up to there; ``row``: how likely each stage is.
        """
        matcher = self._matcher(opening.logits.shape[-1])
        if not matcher.consume_tokens(list(begun)):
            raise InferenceError(
                "the answer's schema does not begin with the stage",
                where=str(self._model.schema),
                remedy="Let answer_key be the first of its properties.",
            )
        room = self._model.max_tokens - len(begun)
        written, _ = self._write([matcher], opening, memory, room, wanted)
        if not wanted():
            return None
        guide = self._guide_for(opening.logits.shape[-1])
        return self._output(row, finished_json(guide.decode_bytes([*begun, *written[0]])))

    def _write(
        self,
        matchers: Sequence[LLMatcher],
        opening: AnswerOpening,
        memory: KeyValues,
        most: int,
        wanted: Callable[[], bool] = lambda: True,
    ) -> tuple[list[list[int]], KeyValues]:
        """Write at most so many tokens for each bed, the likeliest that its grammar allows."""
        logits, position = opening.logits, opening.position
        written: list[list[int]] = [[] for _ in matchers]
        finished = [matcher.is_stopped() for matcher in matchers]
        deadline = time.monotonic() + self._model.max_seconds
        for count in range(most):
            tokens = [
                self._eos if done else self._choose(matcher, row)
                for done, matcher, row in zip(finished, matchers, logits, strict=True)
            ]
            for bed, token in enumerate(tokens):
                if not finished[bed] and token != self._eos:
                    written[bed].append(token)
                finished[bed] = finished[bed] or token == self._eos or matchers[bed].is_stopped()
            if all(finished) or time.monotonic() > deadline or not wanted():
                break
            embeds = self._decoder.embed(np.asarray(tokens, dtype=np.int64)[:, None])
            places = self._decoder.positions_from(position + count, 1)
            steps, memory = self._decoder.read(embeds, places, memory)
            logits = steps[:, -1]
        return written, memory

    def _conclude(
        self, tokens: list[int], bed: int, memory: KeyValues, opening: AnswerOpening
    ) -> ModelOutput:
        """Read the stages at their place in an answer, and the rest of the answer."""
        guide = self._guide_for(opening.logits.shape[-1])
        text = guide.decode_bytes(tokens)
        keep, more = lead_to(text, self._model.answer_key)
        kept = len(tokens)
        while len(guide.decode_bytes(tokens[:kept])) > keep:
            kept -= 1
        lead = text[len(guide.decode_bytes(tokens[:kept])) : keep] + more
        tree = AnswerTree.grow([self._encode(lead + answer) for answer in self._answers])
        # The last kept token is read once more: the logits behind it were not kept.
        before = memory.pick(bed, opening.length + max(kept - 1, 0))
        after: dict[tuple[int, ...], NDArray[Any]] = {(): opening.logits[bed : bed + 1]}
        if kept:
            embeds = self._decoder.embed(np.asarray([[tokens[kept - 1]]], dtype=np.int64))
            places = self._decoder.positions_from(opening.position + kept - 1, 1)
            logits, before = self._decoder.read(embeds, places, before)
            after[()] = logits[:, -1]
        after |= self._decoder.read_paths(before, opening.position + kept, tree.paths)
        row = tree.score(after)[0]
        return self._reading(row, text, text[:keep] + more)

    def _reading(self, row: FloatArray, text: bytes, lead: bytes) -> ModelOutput:
        best = self._answers[int(row.argmax())]
        try:
            answer = json.loads(text)
        except ValueError:
            answer = json.loads(lead + best + b'"}')
        return self._output(row, answer)

    def _output(self, row: FloatArray, answer: Mapping[str, Any]) -> ModelOutput:
        rationale = answer.get(self._model.rationale_key or "")
        rules = answer.get(self._model.rules_key or "")
        listed = rules if isinstance(rules, list) else [rules]
        return ModelOutput(
            row,
            rationale=None if rationale is None else _plain(rationale),
            rules=None if rules is None else tuple(_plain(rule) for rule in listed),
        )

    def _encode(self, text: bytes) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text.decode(), add_special_tokens=False).ids
        return ids

    def _choose(self, matcher: LLMatcher, logits: NDArray[Any]) -> int:
        """Choose the likeliest token that the schema allows here."""
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")[
            : len(logits)
        ]
        token = int(np.where(bits, logits, -np.inf).argmax())
        if not bits[token] or not matcher.consume_token(token):
            raise InferenceError(
                f"the answer's schema allows no token: {matcher.get_error()[:200]}",
                where=str(self._model.schema),
                remedy="Check the schema of the pack.",
            )
        return token

    def _matcher(self, vocabulary: int) -> LLMatcher:
        import llguidance

        return llguidance.LLMatcher(self._guide_for(vocabulary), self._grammar)

    def _guide_for(self, vocabulary: int) -> LLTokenizer:
        import llguidance

        if self._guide is None:
            self._guide = llguidance.LLTokenizer(
                self._tokenizer_file.read_text(encoding="utf-8"),
                n_vocab=vocabulary,
                eos_token=self._eos,
            )
        return self._guide


def _grammar(path: Path, model: Generative) -> str:
    """Read the schema; refuse one whose stage is not a choice of the five answers."""
    import llguidance

    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
        fits = (
            schema["type"] == "object"
            and model.answer_key in schema["required"]
            and set(schema["properties"][model.answer_key]["enum"]) == set(model.answers)
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _wrong(path, f"has no choice {model.answer_key!r}: {error!r}") from error
    if not fits:
        raise _wrong(
            path, f"is no object in which {model.answer_key!r} is required and an enum of answers"
        )
    if any(one != two and two.startswith(one) for one in model.answers for two in model.answers):
        raise _wrong(path, "an answer is the beginning of another")
    grammar: str = llguidance.LLMatcher.grammar_from_json_schema(
        schema, overrides={"whitespace_pattern": _BLANKS}
    )
    problem = llguidance.LLMatcher.validate_grammar(grammar)
    if problem:
        raise _wrong(path, problem[:200])
    return grammar


def _plain(value: object) -> str:
    """Give what a model wrote as text that any encoder accepts: no half characters."""
    return str(value).encode("utf-8", "replace").decode()


def _wrong(path: Path, what: str) -> PackError:
    return PackError(what, where=str(path), remedy="See `generate` in docs/packs.md.")
