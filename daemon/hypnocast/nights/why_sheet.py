"""The answer to ``why`` on one sheet."""

from __future__ import annotations

import base64
from html import escape
from zoneinfo import ZoneInfo

import numpy as np

from hypnocast.core.evidence.occlusion import StageBasis
from hypnocast.core.pictures.compressed import png
from hypnocast.core.pictures.labels import annotate
from hypnocast.core.types import Pixels
from hypnocast.core.wire.payloads import StageEvent, StageName, StageProbabilities
from hypnocast.nights.figures import COLOURS
from hypnocast.nights.report import pack_names
from hypnocast.nights.sheet import or_undefined, section, sheet
from hypnocast.nights.why import AROUND, Answer

_STAGES: tuple[StageName, ...] = ("W", "N1", "N2", "N3", "R")
_HEAT = np.array([255.0, 96.0, 40.0])
_FULL_HEAT = 0.25
"""The fall of the stage's probability at which a patch has its full colour: the same on every page,
so that a model that looks at nothing shows nothing."""


def why_sheet(answer: Answer, zone: ZoneInfo) -> str:
    """Return the answer as one HTML page that needs nothing else."""
    event, view = answer.event, answer.view
    begins = view.begins(event.epoch).astimezone(zone)
    outcome = event.stage or f"withheld ({event.reason})"
    facts = [
        ("bed", f"{event.bed}, {event.site}"),
        ("session", event.session),
        ("page", f"{event.epoch}, {begins:%Y-%m-%d %H:%M:%S} {zone.key}"),
    ]
    body = "".join(
        (
            _verdict(answer),
            section("The page as the model saw it", _page(answer), _sameness(answer)),
            f'<div class="cols">{_probabilities(event)}{_rests(answer)}</div>',
            _around(answer, zone),
            f'<div class="cols">{_quality(event)}{_provenance(answer)}</div>',
        )
    )
    return sheet(f"Why {outcome} at {begins:%H:%M:%S}?", facts, event.source, body)


def heat_map(pixels: Pixels, rests: StageBasis) -> Pixels:
    """Lay the patches' falls over a page: full colour where blanking one costs 25 points."""
    falls = np.clip(np.asarray(rests.patches or ((0.0,),)), 0.0, None)
    height, width, _ = pixels.shape
    rows = np.minimum(np.arange(height) * len(falls) // height, len(falls) - 1)
    columns = np.minimum(np.arange(width) * falls.shape[1] // width, falls.shape[1] - 1)
    heat = np.minimum(falls / _FULL_HEAT, 1.0)[np.ix_(rows, columns)][..., None]
    return np.asarray((1.0 - 0.6 * heat) * pixels + 0.6 * heat * _HEAT, dtype=np.uint8)


def _verdict(answer: Answer) -> str:
    event = answer.event
    if event.stage is None:
        return f"<p>No stage was given: <b>{escape(str(event.reason))}</b>.</p>"
    words = [f"<b>{event.stage}</b> with {event.confidence or 0.0:.0%}"]
    if answer.rests is not None:
        words.append(escape(answer.rests.sentence))
    if event.review:
        words.append("marked for review: less sure than the lab's threshold")
    if event.status == "provisional":
        words.append("provisional: its terminal verdict is still to come")
    if event.rationale:
        words.append(f"the model wrote: “{escape(event.rationale)}”")
    if event.rules:
        words.append(f"rules {escape(', '.join(event.rules))}")
    theirs = [
        f"{escape(name)}: {stages[event.epoch] or 'no stage'}"
        for name, stages in answer.view.scorers.items()
    ]
    words += [f"scorers: {', '.join(theirs)}"] if theirs else []
    return f"<p>{'; '.join(words)}.</p>"


def _sameness(answer: Answer) -> str:
    match answer.same:
        case True:
            return "drawn again from the tape: every pixel equal, the digests agree"
        case False if not answer.same_recipe:
            return "DRAWN BY ANOTHER RECIPE THAN THAT NIGHT'S: its pack is not the configured one"
        case False:
            return "DRAWN AGAIN FROM THE TAPE, BUT IT DIFFERS: the digests do not agree"
        case None:
            return "drawn from the tape; the model was not shown this page"


def _page(answer: Answer) -> str:
    picture, recipe = answer.picture, answer.redrawn.recipe
    title = f"page {picture.epoch}, {recipe.name}"
    pages = [annotate(picture.rgb, recipe, picture.channels, title)]
    if answer.rests is not None and answer.rests.patches is not None:
        heat = heat_map(picture.rgb, answer.rests)
        most = 100 * max((fall for row in answer.rests.patches for fall in row), default=0.0)
        title = f"full colour: 25 points; dearest patch: {most:.0f}"
        pages.append(annotate(heat, recipe, picture.channels, title))
    images = "".join(f"<figure>{_image(page, 'a page of 30 s')}</figure>" for page in pages)
    return f'<div class="{"cols" if len(pages) > 1 else "one"}">{images}</div>'


def _image(pixels: Pixels, words: str) -> str:
    data = base64.b64encode(png(pixels)).decode("ascii")
    return f'<img alt="{escape(words)}" src="data:image/png;base64,{data}">'


def _probabilities(event: StageEvent) -> str:
    if event.probabilities is None:
        return section("Probabilities", "<p>None: no stage was given.</p>")
    rows = "".join(
        f"<tr><th>{stage}</th>{_bar(event.raw_probabilities, stage)}"
        f"{_bar(event.probabilities, stage)}</tr>"
        for stage in _STAGES
    )
    head = "<tr><th></th><th>the model alone</th><th>with the night so far</th></tr>"
    return section("Probabilities", f"<table>{head}{rows}</table>", "before and after filtering")


def _bar(probabilities: StageProbabilities | None, stage: StageName) -> str:
    if probabilities is None:
        return f"<td>{or_undefined(None, '')}</td>"
    share = float(getattr(probabilities, stage))
    style = f"width:{110 * share:.0f}px;background:{COLOURS[stage]}"
    return f'<td><span class="meter" style="{style}"></span> {share:.1%}</td>'


def _rests(answer: Answer) -> str:
    rests = answer.rests
    if rests is None:
        return section("What it rests on", "<p>Not explained.</p>")
    most = max([_FULL_HEAT, *(abs(fall) for fall in rests.channels.values())])
    rows = "".join(
        f"<tr><th>{escape(role)}</th><td>"
        f'<span class="meter" style="width:{150 * max(fall, 0.0) / most:.0f}px;'
        f'background:#d8622a"></span> {100 * fall:+.1f}</td></tr>'
        for role, fall in sorted(rests.channels.items(), key=lambda item: -item[1])
    )
    alone = ", ".join(f"{escape(kind)} {p:.0%}" for kind, p in rests.alone.items())
    small = (
        "<p><small>By how many points the stage’s probability falls where a channel is blanked: "
        "the mean of blanking it first and of blanking it last of its kind. The model gives "
        f"{rests.stage} {rests.probability:.0%} on this page, and where only one kind of channel "
        f"is left: {alone}.</small></p>"
    )
    other = answer.explained_by != answer.event.digests.pack
    note = "<p><b>Explained by another pack than the one that judged.</b></p>" if other else ""
    return section("What it rests on", f"<p>{escape(rests.sentence)}.</p>{note}<table>{rows}"
                   f"</table>{small}")  # fmt: skip


def _around(answer: Answer, zone: ZoneInfo) -> str:
    epoch, view = answer.event.epoch, answer.view
    figures = []
    for number in range(epoch - AROUND, epoch + AROUND + 1):
        picture = answer.redrawn.pictures.get(number)
        if picture is None:
            continue
        event = view.pages[number] if number < len(view.pages) else None
        outcome = "—" if event is None else event.stage or f"withheld: {event.reason}"
        sure = "" if event is None or event.confidence is None else f" {event.confidence:.0%}"
        here = ' style="outline:3px solid #16222c"' if number == epoch else ""
        figures.append(
            f"<figure{here}>{_image(picture.rgb, f'page {number}')}<figcaption>"
            f"{view.begins(number).astimezone(zone):%H:%M:%S} · page {number}<br>"
            f"<b>{outcome}</b>{sure}</figcaption></figure>"
        )
    style = f"display:grid;gap:10px;grid-template-columns:repeat({len(figures)},1fr)"
    return section("The pages around it", f'<div style="{style}">{"".join(figures)}</div>')


def _quality(event: StageEvent) -> str:
    rows = "".join(
        f"<tr><th>{escape(role)}</th><td>{escape(event.channels.get(role, '—'))}</td>"
        f'<td class="n">{report.coverage:.1%}</td>'
        f"<td>{escape(', '.join(report.flags)) or 'good'}</td></tr>"
        for role, report in event.quality.items()
    )
    head = '<tr><th>Role</th><th>Derivation</th><th class="n">Samples</th><th></th></tr>'
    return section("Signal quality", f"<table>{head}{rows}</table>")


def _provenance(answer: Answer) -> str:
    event, timing = answer.event, answer.event.timing
    name = pack_names().get(event.digests.pack or "", "")
    delays = ", ".join(
        f"{step} {value:.0f}"
        for step in ("closed", "drawn", "judged", "journaled")
        if (value := getattr(timing, step)) is not None
    )
    rows = (
        ("Event", f"<code>{escape(event.id)}</code>, number {event.sequence}"),
        ("Pack", f"{name} <code>{event.digests.pack}</code>"),
        ("Recipe", f"{answer.redrawn.recipe.name} <code>{event.digests.recipe}</code>"),
        ("Picture", f"<code>{event.digests.picture}</code>"),
        ("Drawn again", f"<code>{answer.picture.digest}</code>"),
        ("Tape", f"<code>{escape(answer.redrawn.tape.name)}</code>"),
        ("Judged on", escape(event.provider or "—")),
        ("ms after the page", delays or "—"),
        ("Lights", event.lights),
    )
    table = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows)
    return section("Provenance", f"<table>{table}</table>")
