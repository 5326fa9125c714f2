"""``hypnocast why``: everything that is known of one page, to settle a dispute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import msgspec

from hypnocast.config.tables import Config
from hypnocast.core.evidence.occlusion import StageBasis
from hypnocast.core.types import Look, Picture, Stage
from hypnocast.core.wire.payloads import StageEvent
from hypnocast.errors import CommandError
from hypnocast.live.explaining.explanations import explain_channels, explain_patches, explanation
from hypnocast.live.service.build import local_stager, open_pack
from hypnocast.nights.night_view import NightView
from hypnocast.nights.redraw import Redrawn, recipe_of, redraw
from hypnocast.stagers.base import Stager
from hypnocast.stagers.packs.manifest import Signals
from hypnocast.stagers.packs.pack import Pack

AROUND = 2
"""Pages shown before and after."""

Depth = Literal["off", "channels", "patches"]


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The verdict on a page, and its grounds."""

    view: NightView
    event: StageEvent
    redrawn: Redrawn
    rests: StageBasis | None
    """None where there is no stage to explain, or nobody asked."""
    explained_by: str
    """Digest of the pack that explained; empty without an explanation."""

    @property
    def picture(self) -> Picture:
        """The page, drawn again."""
        return self.redrawn.pictures[self.event.epoch]

    @property
    def same_recipe(self) -> bool:
        """Whether it was drawn by the recipe of that night, and not by one at hand instead."""
        return self.event.digests.recipe in (None, self.redrawn.recipe.digest)

    @property
    def same(self) -> bool | None:
        """Whether it is, pixel by pixel, what the model saw; None where it saw nothing."""
        seen = self.event.digests.picture
        return None if seen is None else seen == self.picture.digest


def answer(
    config: Config,
    view: NightView,
    epoch: int,
    *,
    depth: Depth = "patches",
    tape: Path | None = None,
    open_stager: Callable[[Pack], Stager] | None = None,
) -> Answer:
    """Draw a page again and explain its stage."""
    event = view.page(epoch)
    recipe = recipe_of(view, epoch, lambda: open_pack(config).recipe)
    explained = depth != "off" and event.stage is not None
    pack = open_pack(config) if explained else None
    if pack is not None and isinstance(pack.manifest.model, Signals):
        pack = None  # what it reads cannot be covered on a picture
    before = pack.manifest.context.before if pack is not None else 0
    after = pack.manifest.context.after if pack is not None else 0
    first, last = epoch - max(AROUND, before), epoch + max(AROUND, after)
    redrawn = redraw(config, view, recipe, range(max(first, 0), last + 1), needed=epoch, tape=tape)
    rests = None
    if pack is not None and pack.recipe.digest == recipe.digest and event.stage is not None:
        look = look_at(view, redrawn, epoch, before=before, after=after)
        stager = open_stager(pack) if open_stager is not None else _stager(config, pack)
        explain = explain_channels if depth == "channels" else explain_patches
        rests = explain(stager, recipe, look, Stage(event.stage))
    return Answer(view, event, redrawn, rests, pack.digest if rests and pack else "")


def look_at(view: NightView, redrawn: Redrawn, epoch: int, *, before: int, after: int) -> Look:
    """Return a page among its neighbours, as the model saw it; a withheld one is not there."""

    def shown(number: int) -> Picture | None:
        known = 0 <= number < len(view.pages)
        event = view.pages[number] if known else None
        if number != epoch and (event is None or event.digests.picture is None):
            return None
        return redrawn.pictures.get(number)

    around = range(epoch - before, epoch + after + 1)
    return Look(tuple(shown(number) for number in around), before)


def _stager(config: Config, pack: Pack) -> Stager:
    return local_stager(config.pack, pack)


def depth_called(name: str) -> Depth:
    """Return a depth by its name."""
    for depth in get_args(Depth):
        if depth == name:
            return cast("Depth", depth)
    raise CommandError(
        f"{name!r} is no depth", where="--explain", remedy=f"Use {', '.join(get_args(Depth))}."
    )


def as_json(answer: Answer) -> dict[str, object]:
    """Return an answer for programs."""
    rests = answer.rests
    return {
        "event": msgspec.to_builtins(answer.event),
        "tape": str(answer.redrawn.tape),
        "picture": answer.picture.digest,
        "same": answer.same,
        "explanation": None
        if rests is None
        else msgspec.to_builtins(explanation(answer.event.epoch, rests)),
        "explained_by": answer.explained_by or None,
    }
