"""A scored recording through the daemon's own steps, page by page, as it would run live.

Quality, drawing, stager and decider are the daemon's; only arrival is skipped. What is judged
here is therefore what Hypnocast publishes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hypnocast.core.decide import Decider, NightState
from hypnocast.core.quality import assess, verdict_on
from hypnocast.core.render import draw
from hypnocast.core.types import STAGES, FloatArray, Look, Picture, Reason, Role, Staged
from hypnocast.stagers.base import Stager
from hypnocast.stagers.pack import Pack
from hypnocast_models.data.recordings import Recording
from hypnocast_models.figures import Scored

BATCH = 16
MAINS_HZ = 50


@dataclass(frozen=True, eq=False)
class Streamed:
    """One night as the daemon staged it."""

    scored: Scored
    log_probabilities: FloatArray
    """(pages, 5) as the model gave them; NaN where withheld."""
    withheld: dict[str, int]
    """Reason → pages."""


def stream_night(
    recording: Recording,
    pack: Pack,
    stager: Stager,
    *,
    role: Role = Role.F4,
    gain: float = 1.0,
    min_coverage: float | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Streamed:
    """Stage one night; pages that the recording does not hold are gaps of the night."""
    needed = pack.manifest.montage.needed
    least = pack.manifest.montage.min_coverage if min_coverage is None else min_coverage
    decider = Decider(pack.manifest.calibration, context_after=bool(pack.manifest.context.after))
    if decider.context_after:
        msg = "stream_night judges packs that do not look at the next page"
        raise ValueError(msg)
    state = NightState()
    pages = len(recording.stages)
    ours = np.full(pages, -1, dtype=np.int64)
    chances = np.full((pages, len(STAGES)), np.nan)
    raw = np.full((pages, len(STAGES)), np.nan)
    withheld: dict[str, int] = {}
    for batch in _batches(_looks(recording, pack, needed, least=least, role=role, gain=gain)):
        opinions = iter(stager.judge([look for _, look, _ in batch if look is not None]))
        for row, look, reason in batch:
            if look is None:
                if row is not None and reason is not None:
                    withheld[reason.value] = withheld.get(reason.value, 0) + 1
                state, _ = decider.withhold(state, state.next_epoch)
                continue
            opinion = next(opinions)
            state, staged = decider.step(state, opinion)
            if row is not None and isinstance(staged, Staged):
                ours[row] = STAGES.index(staged.stage)
                chances[row] = staged.probabilities
                raw[row] = opinion.log_probabilities
        advance(sum(row is not None for row, _, _ in batch))
    scored = Scored(
        night=recording.name,
        subject=f"{recording.database}/{recording.subject}",
        expert=recording.stages.astype(np.int64),
        ours=ours,
        probabilities=chances,
    )
    return Streamed(scored, raw, withheld)


_Item = tuple[int | None, Look | None, Reason | None]


def _looks(
    recording: Recording,
    pack: Pack,
    needed: Sequence[Sequence[Role]],
    *,
    least: float,
    role: Role,
    gain: float,
) -> Iterator[_Item]:
    """Yield (row, look, reason) for every epoch of the night."""
    before = pack.manifest.context.before
    recent: deque[Picture | None] = deque([None] * (before + 1), maxlen=before + 1)
    recipe = pack.recipe
    for epoch in range(int(recording.epochs.max()) + 1):
        row = recording.row_of_epoch.get(epoch)
        if row is None:
            recent.append(None)
            yield None, None, None
            continue
        page = recording.page(row, recipe.context_s, recipe.tail_s, role, gain)
        quality = assess(page, recipe.roles, MAINS_HZ)
        reason = verdict_on(quality, needed, least)
        if reason is not None:
            recent.append(None)
            yield row, None, reason
            continue
        recent.append(draw(page, recipe, MAINS_HZ, quality, {role: recording.channel}))
        yield row, Look(pictures=tuple(recent), center=before), None


def _batches(items: Iterator[_Item]) -> Iterator[list[_Item]]:
    batch: list[_Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
