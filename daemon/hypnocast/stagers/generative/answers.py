"""The five answers as a tree of tokens, and how likely a model finds each.

``N1``, ``N2`` and ``N3`` often begin with the same token. What a decoder must be asked is then
the next token after the prompt, and after each shared beginning; nothing is asked twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.types import FloatArray
from hypnocast.core.verdicts.sequence_filter import log_normalise

Path = tuple[int, ...]
"""Tokens from the beginning of the answer."""


@dataclass(frozen=True, slots=True)
class AnswerTree:
    """Which beginnings the decoder must see to know the likelihood of every answer."""

    answers: tuple[Path, ...]
    paths: tuple[Path, ...]
    """Longest beginnings to run; every other one is a part of these. Empty where each answer
    is one token."""

    @classmethod
    def grow(cls, answers: Sequence[Sequence[int]]) -> AnswerTree:
        """Build the tree; no answer may be empty, or the beginning of another."""
        leaves = tuple(tuple(answer) for answer in answers)
        for one in leaves:
            if not one:
                msg = "an answer has no tokens"
                raise ValueError(msg)
            if sum(other[: len(one)] == one for other in leaves) > 1:
                msg = "an answer is the beginning of another, so a token must end it"
                raise ValueError(msg)
        inner = {leaf[:-1] for leaf in leaves} - {()}
        longest = [
            path
            for path in sorted(inner)
            if not any(other[: len(path)] == path for other in inner - {path})
        ]
        return cls(leaves, tuple(longest))

    def score(self, after: Mapping[Path, NDArray[Any]]) -> FloatArray:
        """Sum up each answer: ``after`` gives the logits behind every beginning, ``()`` included.

        The logits are (beds, vocabulary); what comes out is (beds, 5), normalised over the five.
        """
        known = {path: log_softmax(logits) for path, logits in after.items()}
        columns = [
            np.sum([known[leaf[:at]][:, leaf[at]] for at in range(len(leaf))], axis=0)
            for leaf in self.answers
        ]
        return log_normalise(np.stack(columns, axis=1))


def log_softmax(logits: NDArray[Any]) -> FloatArray:
    """Log-probabilities over the whole vocabulary, in float64."""
    return log_normalise(np.asarray(logits, dtype=np.float64))
