"""Jobs of packs: stage a night under a condition, and ask what its stages rest on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hypnocast.core.types import STAGES, Look, Role, Stage
from hypnocast.errors import CommandError
from hypnocast.live.explaining.explanations import explain_channels
from hypnocast.stagers.packs.manifest import Signals
from hypnocast.stagers.packs.pack import Pack, load_pack
from hypnocast_models.experiments.jobs import NightPart, experts_of, keep
from hypnocast_models.staging.night import looks_of, stage_night

if TYPE_CHECKING:
    from hypnocast.stagers.base import Stager

ROLES = tuple(Role)
"""The order of the columns of what was explained."""


@dataclass(frozen=True)
class PackJob(NightPart):
    """What a pack makes of a night, kept in a file."""

    path: Path
    pack: Path

    @property
    def done(self) -> bool:
        """Whether it was made."""
        return self.path.is_file()


@dataclass(frozen=True)
class StagePart(PackJob):
    """Let a pack stage a night under a condition."""

    def run(self) -> None:
        """Stage it as the daemon would, whatever its coverage; what it publishes is kept."""
        part = self.part()
        pack, stager = open_pack(self.pack)
        staged = stage_night(
            part, pack, stager, min_coverage=0.0, change=self.change, mains_hz=self.mains_hz
        )
        chances = staged.hypnogram.probabilities
        assert chances is not None  # noqa: S101 - stage_night gives them
        keep(
            self.path,
            log=np.log(np.maximum(chances, 1e-6)),
            prior=np.full(5, 0.2),
            transitions=np.full((5, 5), 0.2),
            experts=experts_of(part),
        )


@dataclass(frozen=True)
class ExplainPart(PackJob):
    """Ask what the stages of some pages of a night rest on."""

    pages: int

    def run(self) -> None:
        """Blank every channel of each page and see what becomes of its stage."""
        part = self.part()
        scored = [epoch for epoch, stage in enumerate(part.stages) if stage is not None]
        asked = np.linspace(0, len(scored) - 1, min(self.pages, len(scored))).round().astype(int)
        wanted = {scored[place] for place in asked.tolist()}
        pack, stager = open_pack(self.pack)
        if isinstance(pack.manifest.model, Signals):
            raise CommandError(
                "reads signals: nothing of what it reads can be covered on a picture",
                where=str(self.pack),
                remedy="Leave this arm out of [explanation].",
            )
        rows, stages = [], []
        for look in looks_of(part, pack, min_coverage=0.0, mains_hz=self.mains_hz):
            if isinstance(look, Look) and look.page.epoch in wanted:
                (opinion,) = stager.judge([look])
                stage: Stage = STAGES[int(np.argmax(opinion.log_probabilities))]
                rests = explain_channels(stager, pack.recipe, look, stage)
                rows.append([rests.channels.get(role, np.nan) for role in ROLES])
                stages.append(STAGES.index(stage))
        falls = np.array(rows, np.float64).reshape(-1, len(ROLES))
        keep(self.path, falls=falls, stages=np.array(stages, np.int64))


@lru_cache(maxsize=1)
def open_pack(pack: Path) -> tuple[Pack, Stager]:
    """Open a pack; jobs on the same one come one after another."""
    from hypnocast.stagers.onnx.local import LocalStager

    loaded = load_pack(pack)
    return loaded, LocalStager(loaded, "cpu", threads=1)
