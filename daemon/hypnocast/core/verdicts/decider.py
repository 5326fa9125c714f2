"""From opinions to verdicts: calibration, the pages before, provisional and terminal.

A :class:`Decider` holds a pack's numbers and nothing else. What it knows of a night is a
frozen :class:`NightState` that every call gets and gives back, so a state may be kept,
compared, thrown away or rebuilt from the journal at any time.

The protocol of one page, where the pack looks at the page after it:

    first opinion ──▶ provisional ──┬─ second opinion ─────────────▶ terminal
                                    └─ settle (no second will come) ▶ terminal, with the first

Where it does not, the first opinion is terminal at once. Pages become terminal in their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from hypnocast.core.types import STAGES, FloatArray, Opinion, Stage, Staged
from hypnocast.core.verdicts.calibration import Calibration
from hypnocast.core.verdicts.sequence_filter import (
    EMPTY,
    FORGET_AFTER,
    FilterMemory,
    calibrate,
    follow,
    skip,
)


@dataclass(frozen=True, slots=True)
class NightState:
    """What is known of one night.

    ``memory`` covers all pages before ``next_epoch``; ``pending`` are the provisional pages
    from there on, in their order.
    """

    next_epoch: int = 0
    memory: FilterMemory = EMPTY
    pending: tuple[Opinion, ...] = ()

    @property
    def newest(self) -> int:
        """The first epoch without any verdict yet."""
        return self.pending[-1].epoch + 1 if self.pending else self.next_epoch


@dataclass(frozen=True, slots=True)
class Decider:
    """Turns opinions into verdicts by the numbers of one pack."""

    calibration: Calibration
    context_after: bool = False
    """Whether the pack looks at the page after, so that first opinions are provisional."""

    def step(self, state: NightState, opinion: Opinion) -> tuple[NightState, Staged]:
        """Add an opinion: the first of a new page, or the second of the oldest provisional one.

        Epochs passed over between the newest page and a new one carry no evidence.
        """
        if state.pending and opinion.epoch == state.pending[0].epoch:
            return self._conclude(state, opinion)
        if opinion.epoch < state.newest:
            msg = f"epoch {opinion.epoch} is terminal already, or an older one is still provisional"
            raise ValueError(msg)
        if not self.context_after:
            return self._conclude(state, opinion)
        memory, at = state.memory, state.next_epoch
        for earlier in state.pending:
            memory, _ = self._look(memory, at, earlier)
            at = earlier.epoch + 1
        _, log_staged = self._look(memory, at, opinion)
        waiting = replace(state, pending=(*state.pending, opinion))
        return waiting, _staged(opinion, log_staged, provisional=True)

    def settle(self, state: NightState) -> tuple[NightState, Staged]:
        """Make the oldest provisional page terminal with the opinion there is."""
        if not state.pending:
            msg = "no page is provisional"
            raise ValueError(msg)
        return self._conclude(state, state.pending[0])

    def withhold(self, state: NightState, epoch: int) -> tuple[NightState, tuple[Staged, ...]]:
        """Pass over a page without evidence, and return what became terminal thereby.

        Provisional pages before it become terminal first: their second look will not come.
        """
        settled: list[Staged] = []
        while state.pending:
            state, staged = self.settle(state)
            settled.append(staged)
        if epoch < state.next_epoch:
            msg = f"epoch {epoch} is terminal already"
            raise ValueError(msg)
        memory = self._pass_over(state.memory, epoch + 1 - state.next_epoch)
        return NightState(next_epoch=epoch + 1, memory=memory), tuple(settled)

    def rebuild(self, past: Iterable[tuple[int, Opinion | None]]) -> NightState:
        """Follow a night again from its terminal pages: the opinion of each, None if withheld."""
        state = NightState()
        for epoch, opinion in past:
            if opinion is None:
                state, _ = self.withhold(state, epoch)
            else:
                if epoch < state.next_epoch:
                    msg = f"epoch {epoch} comes twice in what is to be rebuilt, or out of order"
                    raise ValueError(msg)
                state, _ = self._conclude(state, opinion)
        return state

    def _conclude(self, state: NightState, opinion: Opinion) -> tuple[NightState, Staged]:
        memory, log_staged = self._look(state.memory, state.next_epoch, opinion)
        after = NightState(next_epoch=opinion.epoch + 1, memory=memory, pending=state.pending[1:])
        return after, _staged(opinion, log_staged, provisional=False)

    def _look(
        self, memory: FilterMemory, at: int, opinion: Opinion
    ) -> tuple[FilterMemory, FloatArray]:
        memory = self._pass_over(memory, opinion.epoch - at)
        evidence = calibrate(opinion.log_probabilities, self.calibration.temperature)
        calibration = self.calibration
        return follow(calibration.sequence, calibration.prior, memory, evidence, opinion.coverage)

    def _pass_over(self, memory: FilterMemory, pages: int) -> FilterMemory:
        if pages >= FORGET_AFTER:
            return EMPTY
        for _ in range(pages):
            memory = skip(self.calibration.sequence, memory)
        return memory


def decide_night(
    calibration: Calibration, opinions: Mapping[int, Opinion], pages: int
) -> tuple[list[Stage | None], FloatArray, FloatArray]:
    """Decide a whole night whose opinions are terminal at once.

    Returns for each page its stage, its probabilities and the model's raw log-probabilities;
    None and NaN where there is no opinion.
    """
    decider, state = Decider(calibration), NightState()
    stages: list[Stage | None] = [None] * pages
    chances = np.full((pages, len(STAGES)), np.nan)
    raw = np.full((pages, len(STAGES)), np.nan)
    for epoch in range(pages):
        opinion = opinions.get(epoch)
        if opinion is None:
            state, _ = decider.withhold(state, epoch)
            continue
        state, staged = decider.step(state, opinion)
        stages[epoch], chances[epoch] = staged.stage, staged.probabilities
        raw[epoch] = opinion.log_probabilities
    return stages, chances, raw


def _staged(opinion: Opinion, log_staged: FloatArray, *, provisional: bool) -> Staged:
    probabilities = np.exp(log_staged)
    return Staged(
        epoch=opinion.epoch,
        stage=STAGES[int(probabilities.argmax())],
        probabilities=probabilities,
        raw_probabilities=np.exp(opinion.log_probabilities),
        provisional=provisional,
        provider=opinion.provider,
        rationale=opinion.rationale,
        rules=opinion.rules,
    )
