"""``hypnocast page``: one page of a recording, drawn by the same code as a live one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hypnocast.config.tables import Config
from hypnocast.core.montage.choice import choose_montage
from hypnocast.core.pages.bed_streams import Choose
from hypnocast.core.pages.page_builder import PageBuilder, PageNeeds
from hypnocast.core.pictures.compressed import png
from hypnocast.core.pictures.labels import annotate
from hypnocast.core.pictures.recipe import Recipe, builtin
from hypnocast.core.pictures.render import draw_page
from hypnocast.core.timing.decisions import Decision
from hypnocast.core.types import (
    PAGE_S,
    Arrival,
    Page,
    Picture,
)
from hypnocast.errors import TapeError
from hypnocast.live.bed.stream_intake import SETTLE_S
from hypnocast.live.service.build import open_pack, topic_word
from hypnocast.nights.fitting import fitting_choice
from hypnocast.nights.joined_chunks import arrivals_of
from hypnocast.nights.replay import decisions_of
from hypnocast.ports.durable_files import replace_file
from hypnocast.ports.recordings.files import open_recording
from hypnocast.ports.recordings.recording import Recording


@dataclass(frozen=True, slots=True, eq=False)
class DrawnPage:
    """A page, and what it was drawn from."""

    picture: Picture
    recipe: Recipe

    def save(self, path: Path, *, labels: bool) -> None:
        """Write a PNG; labels go around the picture, never into it."""
        pixels = self.picture.rgb
        if labels:
            title = f"{self.recipe.name}, page {self.picture.epoch}"
            pixels = annotate(pixels, self.recipe, self.picture.channels, title)
        replace_file(path, png(pixels), mode=0o666)

    def words(self) -> str:
        """Return in words what is in it."""
        quality = self.picture.quality
        shown = [
            f"{name} {quality[role].coverage:.0%}" + "".join(f" {f}" for f in quality[role].flags)
            for role, name in self.picture.channels.items()
        ]
        return ", ".join(shown) or "no channel"


def draw_from_file(
    config: Config,
    path: Path,
    epoch: int,
    recipe_name: str | None,
    *,
    bed: str = "",
    passed: Callable[[int], None] = lambda _: None,
) -> DrawnPage:
    """Draw one page of a recording, by the channel names of a bed (default: the file's name).

    ``passed`` is called with the number of every page on the way: reading a night is slow.
    """
    recipe = builtin(recipe_name) if recipe_name is not None else open_pack(config).recipe
    recording = open_recording(path, timezone=config.site.timezone)
    mains_hz = config.signal.mains_hz
    choose = fitting_choice(config, recording, recipe.roles, topic_word(bed or path.stem))
    # Beyond the last sample nothing need be read; the grid begins with the recording or later.
    there = epoch * PAGE_S < recording.duration_s
    for page in pages_of(recording, recipe, choose) if there else ():
        passed(page.epoch)
        if page.epoch == epoch:
            return DrawnPage(draw_page(page, recipe, mains_hz), recipe)
    raise TapeError(
        f"has no page {epoch}",
        where=str(path),
        remedy=f"It is {recording.duration_s / PAGE_S:.1f} pages long; numbers begin at 0.",
    )


def pages_of(
    recording: Recording, recipe: Recipe, choose: Choose = choose_montage
) -> Iterator[Page]:
    """Give a recording's pages; on a tape those that the live run had."""
    return pages_from(arrivals_of(recording), recipe, decisions_of(recording), choose)


def pages_from(
    arrivals: Iterable[Arrival],
    recipe: Recipe,
    decisions: Sequence[Decision] = (),
    choose: Choose = choose_montage,
) -> Iterator[Page]:
    """Give the pages that arrivals make, the grid begun where all streams had."""
    needs = PageNeeds(recipe.roles, recipe.context_s, recipe.tail_s)
    builder = PageBuilder(needs, choose=choose, obey=decisions or None)
    for arrival in arrivals:
        builder.add(arrival)
        now, since = builder.watermark, builder.all_since
        if now is None:
            continue
        if builder.anchor is None and since is not None and now >= since + SETTLE_S:
            builder.begin(since)
        yield from builder.close_due(now)
    if builder.watermark is not None:
        yield from builder.end(builder.watermark)
