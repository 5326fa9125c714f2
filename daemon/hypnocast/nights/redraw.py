"""Past pages drawn again, from the tape that the night left."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hypnocast.config.tables import Config
from hypnocast.core.pages.page_builder import PageBuilder, PageNeeds
from hypnocast.core.pictures.recipe import Recipe, builtin, builtin_names
from hypnocast.core.pictures.render import draw_page
from hypnocast.core.timing.decisions import Anchored, Ended, PageClosed
from hypnocast.core.types import (
    Page,
    Picture,
)
from hypnocast.errors import TapeError
from hypnocast.live.service.build import chooser
from hypnocast.nights.joined_chunks import arrivals_of
from hypnocast.nights.night_view import NightView
from hypnocast.nights.replay import decisions_of
from hypnocast.ports.recordings.files import open_recording
from hypnocast.ports.recordings.recording import Recording
from hypnocast.ports.recordings.tape_reader import tape_facts

_SAME_S = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Redrawn:
    """Pages of a night, drawn again."""

    tape: Path
    recipe: Recipe
    pictures: dict[int, Picture]


def redraw(
    config: Config,
    view: NightView,
    recipe: Recipe,
    epochs: range,
    *,
    needed: int,
    tape: Path | None = None,
) -> Redrawn:
    """Draw pages again; :class:`TapeError` where no tape has page ``needed``."""
    tried = [tape] if tape is not None else tapes_of(config, view, needed)
    for path in tried:
        pictures = {
            picture.epoch: picture for picture in draw_again(config, view, recipe, path, epochs)
        }
        if needed in pictures:
            return Redrawn(path, recipe, pictures)
    raise TapeError(
        f"no tape has page {needed} of {view.session.id}",
        where=str(tape or config.tape_dir),
        remedy="Name the recording with --tape, if it lies elsewhere.",
    )


def draw_again(
    config: Config, view: NightView, recipe: Recipe, tape: Path, epochs: range
) -> Iterator[Picture]:
    """Give those pages of a night that a tape has, up to the last that is wanted."""
    recording = open_recording(tape, timezone=config.site.timezone)
    mains_hz = config.signal.mains_hz
    needs = PageNeeds(recipe.roles, recipe.context_s, recipe.tail_s)
    for page in pages_of_night(config, view, recording, needs):
        if page.epoch in epochs:
            yield draw_page(page, recipe, mains_hz)
        if page.epoch >= epochs.stop - 1:
            return


def tapes_of(config: Config, view: NightView, epoch: int) -> list[Path]:
    """Return the tapes that may have a page, the likeliest first."""
    boots = {anchor.boot_id for anchor in view.anchors}
    ends = view.begins(epoch + 1)
    firsts: dict[str, Path] = {}
    for path in sorted(config.tape_dir.glob("*_*_[0-9][0-9][0-9]*.xdf")):
        firsts.setdefault(path.name.rpartition("_")[0], path)
    found = []
    for stem, path in firsts.items():
        began = _began(stem)
        if began is None or (view.session.source == "live" and began > ends):
            continue
        facts = tape_facts(path)
        if facts.get("bed") == view.session.bed and facts.get("boot_id", "") in {*boots, ""}:
            found.append((began, path))
    return [path for _, path in sorted(found, reverse=True)]


def recipe_of(view: NightView, epoch: int, fallback: Callable[[], Recipe]) -> Recipe:
    """Return the recipe that drew a page: a built-in one, or that of the configured pack."""
    digest = view.page(epoch).digests.recipe
    for name in builtin_names():
        if builtin(name).digest == digest:
            return builtin(name)
    return fallback()


def pages_of_night(
    config: Config, view: NightView, recording: Recording, needs: PageNeeds
) -> Iterator[Page]:
    """Give the pages of a night that a recording has, as the live run closed them."""
    beds = {bed.id: bed for bed in config.bed}
    anchors = [anchor.lsl_t0 for anchor in view.anchors]
    choose = chooser(beds.get(view.session.bed))
    decisions = decisions_of(recording)
    builder = PageBuilder(needs, choose=choose, obey=decisions or None)
    ours: Container[float] = _Near(anchors)
    if not decisions and anchors:
        builder.begin(anchors[-1])
    on_grid = False
    for arrival in arrivals_of(recording):
        builder.add(arrival)
        if (now := builder.watermark) is not None:
            closed = builder.close_due(now)
            on_grid = yield from _of_grid(builder, closed, ours, on_grid=on_grid)
    if (now := builder.watermark) is not None:
        yield from _of_grid(builder, builder.end(now), ours, on_grid=on_grid)


@dataclass(frozen=True, slots=True)
class _Near:
    """Times that differ by less than any clock can resolve are the same."""

    times: Sequence[float]

    def __contains__(self, time: object) -> bool:
        return isinstance(time, float) and any(abs(time - one) < _SAME_S for one in self.times)


def _of_grid(
    builder: PageBuilder, closed: list[Page], ours: Container[float], *, on_grid: bool
) -> Generator[Page, None, bool]:
    """Pass the pages that closed on our grid; several grids may lie on one tape."""
    pages = iter(closed)
    for decision in builder.pop_decisions():
        match decision:
            case Anchored():
                on_grid = decision.anchor in ours
            case PageClosed():
                page = next(pages)
                if on_grid:
                    yield page
            case Ended():
                on_grid = False
    return on_grid


def _began(stem: str) -> datetime | None:
    found = re.search(r"_(\d{8}T\d{6}\.\d+)Z$", stem)
    if found is None:
        return None
    return datetime.strptime(found[1], "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC)
