"""A scorer's part of the night's report: both hypnograms, agreement, confusion."""

from __future__ import annotations

from html import escape

from hypnocast.core.night.agreement import Agreement, compare
from hypnocast.nights.figures import Axis, hypnogram
from hypnocast.nights.night_view import NightView
from hypnocast.nights.sheet import or_undefined, section


def scorer_section(view: NightView, axis: Axis, name: str) -> str:
    """Return what a scorer staged, and how far that agrees with the night and with others."""
    theirs = view.scorers[name]
    against = compare(view.stages, theirs)
    body = hypnogram(axis, theirs[: axis.pages], title=f"Hypnogram of {name}", row=17.0)
    words = (
        f"<p>{against.pages} pages staged by both: agreement "
        f"{or_undefined(against.agreed, '{:.1%}')}, Cohen's κ "
        f"{or_undefined(against.kappa, '{:.2f}')}.<br>{against.not_ours} staged by the scorer "
        f"alone, {against.not_theirs} by Hypnocast alone.</p>"
    )
    others = "".join(
        f"<p>Against {escape(other)}: κ "
        f"{or_undefined(compare(view.scorers[other], theirs).kappa, '{:.2f}')}</p>"
        for other in view.scorers
        if other != name
    )
    counts = confusion_table(against, rows="scorer", columns="Hypnocast")
    table = f'<div class="cols"><div>{words}{others}</div>{counts}</div>'
    return section(f"Scorer {name}", body + table)


def confusion_table(against: Agreement, *, rows: str, columns: str) -> str:
    """Return how often which stage met which."""
    names = ("W", "N1", "N2", "N3", "R")
    head = "".join(f"<th>{stage}</th>" for stage in names)
    body = "".join(
        f"<tr><th>{stage}</th>"
        + "".join(
            f"<td{' class=same' if place == column else ''}>{count or '·'}</td>"
            for column, count in enumerate(row)
        )
        + "</tr>"
        for place, (stage, row) in enumerate(zip(names, against.confusion, strict=True))
    )
    return (
        f'<table class="confusion"><tr><th></th>{head}</tr>{body}'
        f'<caption class="soft">rows: {escape(rows)}, columns: {escape(columns)}</caption></table>'
    )
