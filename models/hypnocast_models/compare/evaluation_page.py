"""The report of an evaluation: one table beside other scorers, and the plots that go with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from hypnocast.core.types import STAGES
from hypnocast_models.compare import figures
from hypnocast_models.compare.figures import ScoredPages
from hypnocast_models.compare.page import html_page, html_table, inline, new_figure
from hypnocast_models.compare.side_by_side import SideBySide

NAMES = [stage.value for stage in STAGES]
HEIGHT = {"W": 4, "R": 3, "N1": 2, "N2": 1, "N3": 0}
"""Where a hypnogram has each stage."""
COLOURS = ("#e0a030", "#7fb8d8", "#3f7fb0", "#1d3f70", "#b04f70")
BINS = 10


def evaluation_page(heading: str, note: str, found: SideBySide) -> str:
    """Give the page; a scorer without nights was not to be had."""
    name, own = next(iter(found.scorers.items()))
    gain, ours = next(iter(own.items()))
    at_first = {scorer: by_gain.get(gain, []) for scorer, by_gain in found.scorers.items()}
    parts = [f"<p>{escape(note)}</p>", _table(at_first), _by_gain(found)]
    parts += [f"<h2>{escape(name)}</h2>", _confusion(ours), _reliability(ours), _risk(ours)]
    parts += ["<h2>Nights</h2>", *(_night(night) for night in _shown(ours))]
    return html_page(heading, parts)


def _by_gain(found: SideBySide) -> str:
    """Show κ of everybody at every gain, and how far the pack is ahead of each."""
    gains = list(found.own)
    kappas = [
        [name, *(str(figures.bootstrap(by_gain[g])) if by_gain.get(g) else "" for g in gains)]
        for name, by_gain in found.scorers.items()
    ]
    ahead = [
        [name, *(str(found.difference(name, g) or "") for g in gains)]
        for name in list(found.scorers)[1:]
    ]
    head = ("κ", *(f"×{gain:g}" for gain in gains))
    return (
        "<h2>At every gain</h2>"
        + html_table(head, kappas)
        + "<h2>How far the pack is ahead</h2>"
        + html_table(("κ of the pack minus κ of", *head[1:]), ahead)
        + "<p>Paired: the same subjects are drawn for both.</p>"
    )


def _table(scorers: Mapping[str, Sequence[ScoredPages]]) -> str:
    head = ("scorer", "κ", "accuracy", "macro-F1", *(f"F1 {name}" for name in NAMES),
            "calibration error", "coverage", "worst subject κ")  # fmt: skip
    rows: list[list[str]] = []
    for name, nights in scorers.items():
        if not nights:
            rows.append([name, "not available here", *[""] * (len(head) - 2)])
            continue
        alone = [
            figures.kappa(figures.pooled([n for n in nights if n.subject == subject]))
            for subject in {n.subject for n in nights}
        ]
        rows.append(
            [
                name,
                *(
                    str(figures.bootstrap(nights, figure))
                    for figure in (figures.kappa, figures.accuracy, figures.macro_f1)
                ),
                *(f"{f1:.2f}" for f1 in figures.stage_f1(figures.pooled(nights))),
                f"{figures.calibration_error(nights):.3f}",
                f"{figures.coverage(nights):.3f}",
                f"{min(alone):.2f}",
            ]
        )
    return html_table(head, rows) + (
        "<p>A withheld page counts as wrong. In brackets: 95 % bootstrap intervals over "
        "subjects.</p>"
    )


def _confusion(nights: Sequence[ScoredPages]) -> str:
    table = figures.pooled(nights)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    figure = new_figure(5.2, 4.0)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(table):
        ink = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(count), ha="center", va="center", color=ink, fontsize=8)
    axes.set_xticks(range(len(NAMES) + 1), [*NAMES, "withheld"])
    axes.set_yticks(range(len(NAMES)), NAMES)
    axes.set_xlabel("published")
    axes.set_ylabel("expert")
    return inline(figure, "confusion of stages, in pages")


def _reliability(nights: Sequence[ScoredPages]) -> str:
    given = [n.ours >= 0 for n in nights]
    sure = np.concatenate(
        [n.probabilities[g].max(axis=1) for n, g in zip(nights, given, strict=True)]
    )
    right = np.concatenate([(n.expert == n.ours)[g] for n, g in zip(nights, given, strict=True)])
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    some = counts > 0
    mean = np.bincount(place, sure, BINS)[some] / counts[some]
    share = np.bincount(place, right, BINS)[some] / counts[some]
    figure = new_figure(4.4, 4.0)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], ":", color="grey", lw=1)
    axes.scatter(mean, share, s=8 + 160 * counts[some] / counts.max(), color="C0")
    axes.set_xlabel("probability published (area: pages)")
    axes.set_ylabel("share that agree with the expert")
    return inline(figure, "reliability of the probabilities")


def _risk(nights: Sequence[ScoredPages]) -> str:
    thresholds, kept, risk = figures.risk_coverage(nights)
    if not kept.size:
        return "<p>Every page was withheld.</p>"
    figure = new_figure(5.2, 4.0)
    axes = figure.subplots()
    axes.plot(kept, risk, color="C0")
    for share in (0.5, 0.7, 0.9):
        at = min(int(np.searchsorted(kept, share)), kept.size - 1)
        axes.plot(kept[at], risk[at], "o", color="C0", ms=4)
        axes.annotate(
            f"review_below = {thresholds[at]:.2f}",
            (kept[at], risk[at]),
            xytext=(-6, 6),
            textcoords="offset points",
            ha="right",
            fontsize=8,
        )
    axes.set_xlabel("share of pages that need no second look")
    axes.set_ylabel("errors among them")
    axes.set_ylim(bottom=0)
    return inline(figure, "errors that remain when the least sure pages are reviewed")


def _shown(nights: Sequence[ScoredPages]) -> list[ScoredPages]:
    """Choose the night of least, middling and greatest agreement."""
    order = sorted(nights, key=lambda night: figures.kappa(figures.pooled([night])))
    return list(dict.fromkeys((order[0], order[len(order) // 2], order[-1])))


def _night(night: ScoredPages) -> str:
    figure = new_figure(9.0, 4.2)
    expert, ours, density = figure.subplots(3, 1, sharex=True)
    for axes, stages, label in ((expert, night.expert, "expert"), (ours, night.ours, "published")):
        heights = [HEIGHT[NAMES[s]] if s >= 0 else np.nan for s in stages]
        axes.step(np.arange(len(stages)), heights, where="post", lw=0.9)
        axes.set_yticks(list(HEIGHT.values()), list(HEIGHT), fontsize=7)
        axes.set_ylabel(label)
    _density(density, night)
    density.set_xlabel("scored page")
    kappa = figures.kappa(figures.pooled([night]))
    return f"<h3>{escape(night.night)}: κ {kappa:.2f}</h3>" + inline(
        figure, f"hypnogram of the expert, as published, and hypnodensity of {night.night}"
    )


def _density(axes: Any, night: ScoredPages) -> None:
    rows = np.nan_to_num(night.probabilities)
    axes.stackplot(np.arange(len(rows)), rows.T, colors=COLOURS, labels=NAMES, lw=0)
    axes.set_ylim(0, 1)
    axes.set_ylabel("probability")
    axes.legend(loc="upper right", ncols=len(NAMES), fontsize=7)
