"""``hypnocast report``: one night on a sheet of paper, for the scorer in the morning."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import get_args
from zoneinfo import ZoneInfo

from hypnocast.core.wire.payloads import NightStatistics, ReasonName, StatisticName
from hypnocast.nights.figures import COLOURS, ROWS, Axis, hypnodensity, hypnogram
from hypnocast.nights.figures import signal_quality as quality_figure
from hypnocast.nights.night_view import NightView
from hypnocast.nights.scorer_section import scorer_section
from hypnocast.nights.second_section import second_section
from hypnocast.nights.sheet import or_undefined, section, sheet
from hypnocast.nights.spectrum_figure import spectrum_figures

_MOST_REVIEWED = 60

_STATISTICS: Mapping[StatisticName, tuple[str, str]] = {
    "total_sleep_min": ("Total sleep time", "min"),
    "sleep_efficiency_percent": ("Sleep efficiency", "%"),
    "sleep_onset_latency_min": ("Sleep onset latency", "min"),
    "wake_after_sleep_onset_min": ("Wake after onset", "min"),
    "rem_latency_min": ("REM latency", "min"),
}
_REASONS: Mapping[ReasonName, str] = {
    "low_coverage": "too few samples came",
    "missing_channel": "a needed channel was missing",
    "detached": "the EEG was detached",
    "out_of_scale": "the EEG was implausibly scaled",
    "unknown_unit": "the unit is unknown",
    "too_late": "the model answered too late",
    "no_model": "no model answered",
    "daemon_down": "the daemon was down",
    "session_end": "the session ended within the page",
}


def report(
    view: NightView, zone: ZoneInfo, pictures: Mapping[int, bytes] = MappingProxyType({})
) -> str:
    """Return the report as one HTML page that needs nothing else.

    ``pictures``: PNG files of pages on which a second opinion parts.
    """
    night = view.night
    axis = Axis(view.start, zone, max(night.epochs, 1))
    body = "".join(
        (
            _tiles(night.statistics),
            section(
                "Hypnogram",
                hypnogram(
                    axis,
                    night.stages,
                    reasons=night.reasons,
                    review=night.review,
                    marks=night.marks,
                ),
                "ticks below: pages for review; hatched: no stage",
            ),
            section("Hypnodensity", hypnodensity(axis, view.pages) + _key(), "how sure, of what"),
            _spectrum(view, axis),
            section("Signal quality", quality_figure(axis, view.pages) + _quality_key()),
            f'<div class="cols">{_stages(night.statistics)}{_withheld(view)}</div>',
            _review(view, zone),
            *(second_section(view, axis, one, pictures, zone) for one in view.seconds),
            *(scorer_section(view, axis, name) for name in view.scorers),
            _marks(view, zone),
            _provenance(view),
        )
    )
    return sheet(f"Night of {view.session.subject or view.session.bed}", _facts(view, zone),
                 view.session.source, body)  # fmt: skip


def _facts(view: NightView, zone: ZoneInfo) -> list[tuple[str, str]]:
    start = view.start.astimezone(zone)
    end = view.begins(view.night.epochs).astimezone(zone)
    state = "" if view.session.ended else " (still running)"
    return [
        ("bed", f"{view.session.bed}, {view.session.site}"),
        ("session", view.session.id),
        ("from", f"{start:%A %d %B %Y, %H:%M:%S}"),
        ("to", f"{end:%H:%M:%S} {zone.key}, {view.night.epochs} pages{state}"),
    ]


# --- statistics -------------------------------------------------------------------------------


def _tiles(stats: NightStatistics) -> str:
    begins = stats.time_in_bed_from.replace("_", " ")
    ends = stats.time_in_bed_to.replace("_", " ")
    bed = _tile("Time in bed", stats.time_in_bed_min, "min", f"{begins} – {ends}")
    tiles = "".join(_statistic(stats, name) for name in get_args(StatisticName))
    return f'<div class="tiles">{bed}{tiles}</div>'


def _statistic(stats: NightStatistics, name: StatisticName) -> str:
    title, unit = _STATISTICS[name]
    small = "† pages without a stage" if name in stats.affected_by_withheld else ""
    return _tile(title, getattr(stats, name), unit, small)


def _tile(title: str, value: float | None, unit: str, small: str) -> str:
    shown = '<b class="none">undefined</b>' if value is None else f"<b>{value:.1f} {unit}</b>"
    return f'<div class="tile"><span>{title}</span>{shown}<small>{escape(small)}</small></div>'


def _spectrum(view: NightView, axis: Axis) -> str:
    drawn = spectrum_figures(axis, view.spectra)
    small = "power of the first EEG, page by page; empty: no page was drawn"
    return section("Spectrum", drawn, small) if drawn else ""


def _stages(stats: NightStatistics) -> str:
    rows = []
    longest = max([1.0, *(one.minutes for one in stats.stages.values())])
    for stage in ROWS:
        one = stats.stages[stage]
        percent = "" if stage == "W" else or_undefined(one.percent, "{:.1f} %")
        rows.append(
            f'<tr><th>{stage}</th><td class="n">{one.minutes:.1f} min</td>'
            f'<td class="n">{percent}</td><td><span class="meter" style="width:'
            f'{130 * one.minutes / longest:.0f}px;background:{COLOURS[stage]}"></span></td></tr>'
        )
    rows.append(
        f'<tr><th>none</th><td class="n">{stats.withheld_min:.1f} min</td><td></td>'
        '<td class="soft">in bed, without a stage</td></tr>'
    )
    table = (
        '<table><tr><th>Stage</th><th class="n">Time</th><th class="n">of sleep</th><th></th></tr>'
        + "".join(rows)
        + "</table>"
    )
    dagger = (
        "<p><small>† Pages without a stage count as neither sleep nor wake; had they been staged, "
        "this figure might be another.</small></p>"
        if stats.affected_by_withheld
        else ""
    )
    return section("Stages", table + dagger, "within the time in bed")


def _withheld(view: NightView) -> str:
    counts = Counter(reason for reason in view.night.reasons if reason is not None)
    unknown = view.night.status.count("u")
    if not counts and not unknown:
        body = "<p>Nothing: every page has a stage.</p>"
        return section("Withheld", body)
    rows = [
        f'<tr><th><code>{reason}</code></th><td class="n">{pages}</td>'
        f'<td class="n">{pages / 2:.1f} min</td><td>{escape(_REASONS[reason])}</td></tr>'
        for reason, pages in counts.most_common()
    ]
    if unknown:
        rows.append(
            f'<tr><th>unknown</th><td class="n">{unknown}</td><td class="n">{unknown / 2:.1f} min'
            "</td><td>the journal has no event of them</td></tr>"
        )
    table = (
        '<table><tr><th>Reason</th><th class="n">Pages</th><th class="n">Time</th><th></th></tr>'
        + "".join(rows)
        + "</table>"
    )
    return section("Withheld", table, "no stage was given, and why")


def _review(view: NightView, zone: ZoneInfo) -> str:
    wanted = frozenset(view.night.review)
    marked = [page for page in view.pages if page is not None and page.epoch in wanted]
    if not marked:
        return section("For review", "<p>No page is marked for review.</p>")
    shown = sorted(marked, key=lambda page: page.confidence or 0.0)[:_MOST_REVIEWED]
    items = "".join(
        f"<li><span>{view.begins(page.epoch).astimezone(zone):%H:%M:%S} · page {page.epoch}</span>"
        f"<span><b>{page.stage}</b> {page.confidence or 0.0:.0%}</span></li>"
        for page in sorted(shown, key=lambda page: page.epoch)
    )
    of = f"{len(marked)} pages"
    if len(marked) > len(shown):
        of += f", the {len(shown)} least sure are listed"
    return section("For review", f'<ul class="pages">{items}</ul>', of)


# --- the rest ---------------------------------------------------------------------------------


def _marks(view: NightView, zone: ZoneInfo) -> str:
    rows = ""
    for mark in view.night.marks:
        kind = mark.kind.replace("_", " ")
        text = "" if mark.text.casefold() == kind else mark.text
        rows += f"<tr><td>{_clock(mark.at, zone)}</td><td>{kind}</td><td>{escape(text)}</td></tr>"
    if not rows:
        return section("Marks and notes", "<p>None.</p>")
    return section("Marks and notes", f'<table class="marks">{rows}</table>')


def _provenance(view: NightView) -> str:
    pages = [page for page in view.pages if page is not None]
    names = pack_names()
    packs = Counter(page.digests.pack for page in pages if page.digests.pack)
    recipes = Counter(page.digests.recipe for page in pages if page.digests.recipe)
    providers = Counter(page.provider for page in pages if page.provider)
    channels = dict.fromkeys(
        f"{role}: {name}" for page in pages for role, name in page.channels.items()
    )
    rows = [
        *(("Pack", f"{names.get(digest, '')} <code>{digest}</code>, {count} pages")
          for digest, count in packs.items()),
        *(("Recipe", f"<code>{digest}</code>, {count} pages")
          for digest, count in recipes.items()),
        ("Judged on", escape(_counted(providers)) or "—"),
        ("Derivations", escape(", ".join(channels)) or "—"),
        ("Events", f"{len(pages)} pages, last sequence number {view.night.last_sequence}"),
        ("Report made", escape(view.night.at)),
    ]  # fmt: skip
    table = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows)
    return section("Provenance", f"<table>{table}</table>", "what made these stages")


def pack_names() -> dict[str, str]:
    """Return digest → name and version of the packs there are on this machine."""
    from hypnocast.stagers.packs.catalogue import find_packs
    from hypnocast.stagers.packs.files import MANIFEST

    names = {}
    for pack in find_packs():
        manifest = Path(pack.folder) / MANIFEST
        if pack.fault is None and manifest.is_file():
            digest = f"sha256:{hashlib.sha256(manifest.read_bytes()).hexdigest()}"
            names[digest] = escape(f"{pack.name} {pack.version}")
    return names


def _key() -> str:
    items = "".join(f'<span><i style="background:{COLOURS[s]}"></i>{s}</span>' for s in ROWS)
    return f'<div class="key">{items}<span><i class="hatch"></i>no stage</span></div>'


def _quality_key() -> str:
    words = (
        ("#8fcdb4", "good"),
        ("#e9d58a", "part of the page missing"),
        ("#e89a62", "flat, clipped, mains hum or out of scale"),
        ("#8d2f1f", "detached or nothing there"),
        ("#e6eaed", "not recorded"),
    )
    items = "".join(f'<span><i style="background:{c}"></i>{word}</span>' for c, word in words)
    return f'<div class="key">{items}</div>'


def _counted(values: Counter[str]) -> str:
    return ", ".join(f"{name} ({count} pages)" for name, count in values.items())


def _clock(at: str, zone: ZoneInfo) -> str:
    return f"{datetime.fromisoformat(at).astimezone(zone):%H:%M:%S}"
