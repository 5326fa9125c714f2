"""Pictures of a night's pages for a report: as they are kept, or drawn again from the tape."""

from __future__ import annotations

from collections.abc import Collection

from hypnocast.config.tables import Config
from hypnocast.core.pictures.compressed import png
from hypnocast.errors import HypnocastError
from hypnocast.live.explaining.picture_store import PAGES, kept_png
from hypnocast.live.service.build import open_pack
from hypnocast.nights.night_view import NightView
from hypnocast.nights.redraw import recipe_of, redraw


def pictures_of(config: Config, view: NightView, epochs: Collection[int]) -> dict[int, bytes]:
    """Return the PNG files of pages; of those that are neither kept nor on a tape, none."""
    folder, night = config.state_dir / PAGES, view.session.id
    drawn_by = {epoch: view.page(epoch).digests.recipe or "" for epoch in epochs}
    kept = {epoch: kept_png(folder, recipe, night, epoch) for epoch, recipe in drawn_by.items()}
    found = {epoch: picture for epoch, picture in kept.items() if picture is not None}
    missing = sorted(set(epochs) - set(found))
    if not missing:
        return found
    try:
        recipe = recipe_of(view, missing[0], lambda: open_pack(config).recipe)
        around = range(missing[0], missing[-1] + 1)
        drawn = redraw(config, view, recipe, around, needed=missing[0]).pictures
    except HypnocastError:
        return found  # a report without them shows that
    return found | {epoch: png(drawn[epoch].rgb) for epoch in missing if epoch in drawn}
