"""A second opinion's part of the night's report: both hypnograms, agreement, where they part."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from zoneinfo import ZoneInfo

from hypnocast.core.night.agreement import compare
from hypnocast.nights.figures import Axis, hypnogram
from hypnocast.nights.night_view import NightView, SecondHypnogram
from hypnocast.nights.scorer_section import confusion_table
from hypnocast.nights.sheet import or_undefined, section

MOST_SHOWN = 12
"""Pages shown with their pictures: those where both packs are surest of different stages."""

MOST_LISTED = 120


def second_section(
    view: NightView,
    axis: Axis,
    second: SecondHypnogram,
    pictures: Mapping[int, bytes],
    zone: ZoneInfo,
) -> str:
    """Return a pack's second opinion, how far it agrees, and the pages where it does not."""
    found = compare(view.stages, second.stages)
    body = hypnogram(
        axis,
        second.stages[: axis.pages],
        review=second.parted,
        title=f"Hypnogram of {second.name}",
        row=17.0,
    )
    words = (
        f"<p>{found.pages} pages staged by both: agreement "
        f"{or_undefined(found.agreed, '{:.1%}')}, Cohen's κ "
        f"{or_undefined(found.kappa, '{:.2f}')}; they part on {len(second.parted)}.<br>"
        f"{found.not_ours} staged by {escape(second.name)} alone, {found.not_theirs} by the pack "
        "that spoke alone. Ticks: where they part.</p>"
    )
    table = confusion_table(found, rows=second.name, columns="the pack that spoke")
    shown = worth_showing(view, second)
    figures = "".join(_figure(view, second, epoch, pictures.get(epoch), zone) for epoch in shown)
    listed = [epoch for epoch in second.parted if epoch not in shown][:MOST_LISTED]
    items = "".join(f"<li>{_words(view, second, epoch, zone)}</li>" for epoch in listed)
    rest = f'<ul class="pages">{items}</ul>' if items else ""
    figures = f'<div class="parted">{figures}</div>' if figures else ""
    cols = f'<div class="cols"><div>{words}</div>{table}</div>'
    return section(f"Second opinion: {second.name}", body + cols + figures + rest)


def worth_showing(view: NightView, second: SecondHypnogram) -> tuple[int, ...]:
    """Return the epochs on which both are surest of different stages, in their order."""

    def sure(epoch: int) -> float:
        page = view.pages[epoch]
        ours = 0.0 if page is None or page.confidence is None else page.confidence
        return min(ours, second.confidences[epoch])

    return tuple(sorted(sorted(second.parted, key=sure, reverse=True)[:MOST_SHOWN]))


def _figure(
    view: NightView, second: SecondHypnogram, epoch: int, png: bytes | None, zone: ZoneInfo
) -> str:
    words = _words(view, second, epoch, zone)
    if png is None:
        image = '<p class="soft">no picture kept</p>'
    else:
        data = base64.b64encode(png).decode("ascii")
        image = f'<img alt="page {epoch}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{words}</figcaption></figure>"


def _words(view: NightView, second: SecondHypnogram, epoch: int, zone: ZoneInfo) -> str:
    page = view.pages[epoch]
    ours = "" if page is None else f"<b>{page.stage}</b> {page.confidence or 0.0:.0%}"
    theirs = f"<b>{second.stages[epoch]}</b> {second.confidences[epoch]:.0%}"
    when = view.begins(epoch).astimezone(zone)
    name = escape(second.name)
    return f"<span>{when:%H:%M:%S} · page {epoch}</span> <span>{ours} · {name} {theirs}</span>"
