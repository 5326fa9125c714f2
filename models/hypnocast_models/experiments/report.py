"""The report of an experiment: one HTML page, a CSV of each table, a picture of each plot."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from hypnocast_models.compare.figures import Interval
from hypnocast_models.compare.page import csv_of, html_page, html_table, new_figure
from hypnocast_models.experiments.plan import Experiment
from hypnocast_models.experiments.run import JudgedStretch
from hypnocast_models.experiments.simulated import SIMULATED
from hypnocast_models.experiments.tables import (
    LOOKS,
    REPORTED,
    Row,
    arms_table,
    corruption_table,
    cross_table,
    differences_table,
)


def write_report(plan: Experiment, judged: Sequence[JudgedStretch], folder: Path) -> list[str]:
    """Write the report, and give the names of its files."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [f"<p>{escape(line)}</p>" for line in _facts(plan, judged)]
    for name, title, head, rows in (
        ("arms", "Arms", ("arm", "verdict knows", *REPORTED), arms_table(plan, judged)),
        ("differences", "Paired differences", ("what", *REPORTED), differences_table(plan, judged)),
        (
            "corruption",
            "Damaged pages",
            ("arm", "damage", "share", "balanced accuracy", "change", "withheld"),
            corruption_table(plan, judged),
        ),
        (
            "cross-dataset",
            "Another data set",
            ("arm", *REPORTED, "pages"),
            cross_table(plan, judged),
        ),
    ):
        if not rows:
            continue
        parts.append(f"<h2>{title}</h2>")
        if name in ("arms", "corruption"):
            picture = f"{name}.png"
            _plot(name, rows, folder / picture)
            parts.append(f'<p><img src="{picture}" alt="{title}, with intervals"></p>')
        parts.append(html_table(head, rows))
        (folder / f"{name}.csv").write_text(_csv(head, rows), encoding="utf-8")
    (folder / "index.html").write_text(html_page(plan.title, parts), encoding="utf-8")
    return sorted(path.name for path in folder.iterdir())


def _facts(plan: Experiment, judged: Sequence[JudgedStretch]) -> list[str]:
    sound = [one for one in judged if one.condition == "sound" and one.arm == plan.arm[0].name]
    subjects = {one.subject for one in sound}
    pages = sum(int((one.stages >= 0).sum()) for one in sound) // len({s.seed for s in sound})
    what = (
        f"{pages} pages of {len(subjects)} subjects ({plan.data.folder or plan.data.kind}); "
        f"{plan.folds} folds, split by subject; seeds {', '.join(map(str, plan.seeds))}."
    )
    how = (
        "In brackets: 95 % bootstrap intervals over subjects; the pages of all seeds are counted "
        "together. Differences are paired: the same subjects are drawn for both sides."
    )
    if plan.data.kind == SIMULATED:
        how += " The people are simulated: this is agreement with the simulator, not accuracy."
    return [what, how]


def _csv(head: Sequence[str], rows: Sequence[Row]) -> str:
    """Give a table with an interval in three columns."""
    wide = [place for place in range(len(head)) if any(_is(row[place]) for row in rows)]
    names: list[str] = []
    for place, name in enumerate(head):
        names += [name, f"{name} low", f"{name} high"] if place in wide else [name]
    lines: list[list[object]] = []
    for row in rows:
        line: list[object] = []
        for place, cell in enumerate(row):
            if isinstance(cell, Interval):
                line += [cell.value, cell.low, cell.high]
            else:
                line += [cell, "", ""] if place in wide else [cell]
        lines.append(line)
    return csv_of(names, lines)


def _is(cell: object) -> bool:
    return isinstance(cell, Interval)


def _plot(name: str, rows: Sequence[Row], path: Path) -> None:
    (_plot_arms if name == "arms" else _plot_corruption)(rows, path)


def _plot_arms(rows: Sequence[Row], path: Path) -> None:
    figure = new_figure(8, 3.6)
    axes = figure.subplots()
    arms = list(dict.fromkeys(str(row[0]) for row in rows))
    for number, look in enumerate(LOOKS):
        for row in rows:
            if row[1] == look and isinstance(row[2], Interval):
                _bar(axes, arms.index(str(row[0])) + 0.15 * number, row[2], f"C{number}")
        axes.plot([], [], f"C{number}o", label=look)
    axes.set_xticks(np.arange(len(arms)) + 0.2, arms)
    axes.set_ylabel("Cohen's κ, 95 %")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(LOOKS))
    figure.savefig(path)


def _plot_corruption(rows: Sequence[Row], path: Path) -> None:
    kinds = [kind for kind in dict.fromkeys(str(row[1]) for row in rows) if kind != "none"]
    arms = list(dict.fromkeys(str(row[0]) for row in rows))
    columns = min(3, len(kinds))
    figure = new_figure(3.1 * columns, 2.6 * -(-len(kinds) // columns))
    panels = np.atleast_1d(
        figure.subplots(-(-len(kinds) // columns), columns, sharex=True, sharey=True)
    ).ravel()
    for axes, kind in zip(panels, kinds, strict=False):
        for number, arm in enumerate(arms):
            line = sorted(
                (float(str(row[2])), row[3].value)
                for row in rows
                if row[0] == arm and row[1] in (kind, "none") and isinstance(row[3], Interval)
            )
            axes.plot(
                [100 * share for share, _ in line], [v for _, v in line], f"C{number}o-", ms=3
            )
            for row in rows:
                if row[0] == arm and row[1] in (kind, "none") and isinstance(row[3], Interval):
                    _bar(axes, 100 * float(str(row[2])), row[3], f"C{number}")
            axes.plot([], [], f"C{number}o-", label=arm)
        axes.axhline(0.2, color="grey", ls=":", lw=1)
        axes.set_title(kind, fontsize=9)
        axes.grid(alpha=0.3)
    for axes in panels[len(kinds) :]:
        axes.axis("off")
    panels[0].legend(fontsize=7)
    figure.supxlabel("damaged share of each page, %", fontsize=9)
    figure.supylabel("balanced accuracy, 95 %", fontsize=9)
    figure.savefig(path)


def _bar(axes: Any, at: float, interval: Interval, colour: str) -> None:
    below, above = interval.value - interval.low, interval.high - interval.value
    axes.errorbar([at], [interval.value], [[below], [above]], fmt="o", color=colour, ms=3, lw=1)
