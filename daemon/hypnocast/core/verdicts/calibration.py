"""The numbers that lead from a model's answers to Hypnocast's verdicts.

They lie in the pack (``[calibration]`` of ``pack.toml``) and are used by :mod:`.decide`. Each
type refuses numbers that cannot be: the reader of the pack names the path of the fault.
"""

from __future__ import annotations

import math
from typing import Annotated

from msgspec import Meta, Struct

Positive = Annotated[float, Meta(gt=0.0, le=1e6)]
Power = Annotated[float, Meta(ge=0.0, le=1e6)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]

StageVector = tuple[float, float, float, float, float]
"""One number per stage in the order W, N1, N2, N3, R."""

MAX_LAGS = 64


class PackTomlTable(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of ``pack.toml``: strict, and never changed once read."""


def _refuse_unless(good: bool, what: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not good:
        raise ValueError(what)


def _check_distribution(numbers: StageVector, what: str) -> None:
    _refuse_unless(all(0.0 <= n <= 1.0 for n in numbers), f"{what}: a share is outside 0 … 1")
    _refuse_unless(abs(sum(numbers) - 1.0) < 1e-3, f"{what}: the shares do not sum to 1")


def _check_finite(numbers: tuple[float, ...], what: str) -> None:
    _refuse_unless(all(math.isfinite(n) for n in numbers), f"{what}: a number is not finite")


def _check_weights(weights: tuple[tuple[float, ...], ...], features: int, what: str) -> None:
    _refuse_unless(len(weights) == 5, f"{what}: needs one row for each of 5 stages")
    for row in weights:
        _refuse_unless(
            len(row) == features, f"{what}: a row has {len(row)} numbers, not {features}"
        )
        _check_finite(row, what)


class HiddenMarkov(PackTomlTable, frozen=True, kw_only=True, tag_field="kind", tag="hmm"):
    """A causal forward filter: emissions are posterior / training prior.

    With five equal rows of ``transitions`` it remembers nothing and only divides the training
    prior out and multiplies that row in.
    """

    transitions: tuple[StageVector, StageVector, StageVector, StageVector, StageVector]
    """Row: the stage of a page; column: the stage of the next."""
    initial: StageVector
    """What is believed of the first page, and of the first page after a reset."""
    emission_power: Positive = 1.0
    """Exponent of the emissions: below 1 the neighbouring pages count for more."""
    sparse_power: Positive | None = None
    """That exponent for a page of which next to nothing came; between it and a whole page it
    follows the coverage. None: :attr:`emission_power` whatever came."""

    def __post_init__(self) -> None:
        """Refuse what is no transition matrix."""
        for row in self.transitions:
            _check_distribution(row, "transitions")
        _check_distribution(self.initial, "initial")


class Logistic(PackTomlTable, frozen=True, kw_only=True, tag_field="kind", tag="logistic"):
    """A logistic over the last log-probability vectors and their running means.

    Features, in this order: the calibrated log-probabilities of the page, of each of the
    ``lags`` pages before it (newest first), then one exponential average per time constant in
    ``averages``, the page itself included. A page without evidence counts as ``neutral``, in
    the lags and in the averages; so does every page before the first.
    """

    lags: Annotated[int, Meta(ge=0, le=MAX_LAGS)]
    averages: tuple[Annotated[float, Meta(ge=1.0, le=1e4)], ...]
    """Time constants in pages: the newest page weighs 1 / constant."""
    neutral: StageVector
    """Log-probabilities of a page about which nothing is known."""
    weights: tuple[tuple[float, ...], ...]
    """(5, features)."""
    bias: StageVector
    log_floor: Annotated[float, Meta(lt=0.0, ge=-700.0)] = -7.0
    """Log-probabilities below are raised to this before they enter."""
    whole_weights: tuple[tuple[float, ...], ...] | None = None
    """The weights for a page that came whole; those for a page of which next to nothing came are
    then :attr:`weights`, and between they follow the coverage. None: the same for every page."""
    whole_bias: StageVector | None = None
    """The bias that belongs to :attr:`whole_weights`."""

    def __post_init__(self) -> None:
        """Refuse weights that do not fit the features."""
        _refuse_unless(len(self.averages) <= MAX_LAGS, f"averages: more than {MAX_LAGS}")
        features = 5 * (1 + self.lags + len(self.averages))
        _check_weights(self.weights, features, "weights")
        _check_finite(self.bias, "bias")
        _check_finite(self.neutral, "neutral")
        whole, bias = self.whole_weights, self.whole_bias
        _refuse_unless(
            (whole is None) == (bias is None), "whole_weights and whole_bias: only one of the two"
        )
        if whole is not None and bias is not None:
            _check_weights(whole, features, "whole_weights")
            _check_finite(bias, "whole_bias")


class Corrected(PackTomlTable, frozen=True, kw_only=True, tag_field="kind", tag="corrected"):
    """A forward filter and a logistic that corrects it: their logarithms are added.

    The filter knows how nights go on; the logistic knows how this model tends to err.
    """

    filter: HiddenMarkov
    logistic: Logistic
    belief_power: Power = 1.0
    """Exponent of what the filter believes."""
    sparse_belief_power: Power | None = None
    """That exponent for a page of which next to nothing came, as with the weights. None: the
    same for every page."""


SequenceModel = HiddenMarkov | Logistic | Corrected


class Calibration(PackTomlTable, frozen=True, kw_only=True):
    """From a model's answers to Hypnocast's verdicts."""

    temperature: Positive = 1.0
    """The model's log-probabilities are divided by it, then normalised again."""
    prior: StageVector
    """Stage shares that the model's training weighed in, so that they can be divided out."""
    sequence: SequenceModel | None = None
    """What the pages before imply for this one; None: each page is judged alone."""
    review_below: Share = 0.5
    """Default confidence under which a page is marked for review."""

    def __post_init__(self) -> None:
        """Refuse a prior that cannot be divided out."""
        _check_distribution(self.prior, "prior")
        _refuse_unless(min(self.prior) > 0.0, "prior: a share is 0 and cannot be divided out")
