"""The report of an experiment: one HTML page, a CSV of each table, a picture of each plot."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from hypnocast.core.types import STAGES, Role
from hypnocast.ports.durable_files import replace_file
from hypnocast_models.compare.figures import Interval
from hypnocast_models.compare.page import csv_of, html_page, html_table
from hypnocast_models.experiments.experts import compare_arms, experts_table
from hypnocast_models.experiments.plan import Experiment
from hypnocast_models.experiments.report_plots import plot
from hypnocast_models.experiments.run import JudgedStretch, Results
from hypnocast_models.experiments.simulated import SIMULATED
from hypnocast_models.experiments.tables import (
    REPORTED,
    Row,
    ablation_table,
    archives_table,
    arms_table,
    corruption_table,
    cross_table,
    differences_table,
)
from hypnocast_models.experiments.tuned import mean_falls

_PLOTTED = ("arms", "corruption", "ablation", "explanation")
_TUNED = (
    "arm", "subjects judged", "seed", "base", "training", "steps", "taught", "loss", "parity",
    "pack", "tuning, s", "export, s",
)  # fmt: skip


def write_report(plan: Experiment, results: Results, folder: Path) -> list[str]:
    """Write the report, and give the names of its files."""
    folder.mkdir(parents=True, exist_ok=True)
    judged = results.judged
    parts = [f"<p>{escape(line)}</p>" for line in _facts(plan, judged)]
    compare_arms(plan, judged, folder / "compare.html")
    parts.append('<p><a href="compare.html">Every arm, and the other experts, beside the first '
                 "expert</a>: confusion, sleep statistics, borders.</p>")  # fmt: skip
    for name, title, head, rows in (
        ("tuned", "Tuned models", _TUNED, results.tuned),
        ("arms", "Arms", ("arm", "verdict knows", *REPORTED), arms_table(plan, judged)),
        ("archives", "By archive", ("arm", "archive", *REPORTED), archives_table(plan, judged)),
        (
            "experts",
            "Beside the experts",
            ("scorer", "against", *REPORTED),
            experts_table(plan, judged),
        ),
        ("differences", "Paired differences", ("what", *REPORTED), differences_table(plan, judged)),
        (
            "corruption",
            "Damaged pages",
            ("arm", "damage", "share", "balanced accuracy", "change", "withheld"),
            corruption_table(plan, judged),
        ),
        (
            "ablation",
            "Channels taken away",
            ("arm", "without", "balanced accuracy", "change", "withheld"),
            ablation_table(plan, judged),
        ),
        (
            "explanation",
            "What stages rest on: fall of a stage's probability where a channel is blanked",
            ("arm", "stage", "pages", *(role.value for role in Role)),
            _explained(results),
        ),
        (
            "cross-dataset",
            "Other data sets",
            ("arm", "data set", *REPORTED, "withheld", "pages"),
            cross_table(plan, judged),
        ),
    ):
        if not rows:
            continue
        parts.append(f"<h2>{title}</h2>")
        if name in _PLOTTED:
            picture = f"{name}.png"
            plot(name, rows, folder / picture)
            parts.append(f'<p><img src="{picture}" alt="{title}"></p>')
        parts.append(html_table(head, rows))
        replace_file(folder / f"{name}.csv", _csv(head, rows).encode())
    replace_file(folder / "index.html", html_page(plan.title, parts).encode())
    return sorted(path.name for path in folder.iterdir())


def _facts(plan: Experiment, judged: Sequence[JudgedStretch]) -> list[str]:
    sound = [one for one in judged if one.condition == "sound" and one.arm == plan.arm[0].name]
    subjects = {one.subject for one in sound}
    pages = sum(int((one.stages >= 0).sum()) for one in sound) // len({s.seed for s in sound})
    what = (
        f"{pages} pages of {len(subjects)} subjects ({', '.join(d.name for d in plan.archives)}); "
        f"{plan.folds} folds, split by subject; seeds {', '.join(map(str, plan.seeds))}."
    )
    how = (
        "In brackets: 95 % bootstrap intervals over subjects; the pages of all seeds are counted "
        "together. Differences are paired: the same subjects are drawn for both sides."
    )
    if any(data.kind == SIMULATED for data in plan.archives):
        how += " The people are simulated: this is agreement with the simulator, not accuracy."
    return [what, how]


def _explained(results: Results) -> list[Row]:
    """Give the mean fall for each stage and channel; empty where a channel was never there."""
    rows: list[Row] = []
    for arm, jobs in results.explained.items():
        falls, pages = mean_falls(jobs)
        for stage, row, count in zip(STAGES, falls.tolist(), pages.tolist(), strict=True):
            cells = ["" if np.isnan(fall) else f"{fall:.3f}" for fall in row]
            rows.append([arm, stage.value, int(count), *cells])
    return rows


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
