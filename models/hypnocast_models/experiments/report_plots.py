"""The pictures of an experiment's report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hypnocast.core.types import STAGES, Role
from hypnocast_models.compare.figures import Interval
from hypnocast_models.compare.page import new_figure, save_figure
from hypnocast_models.experiments.tables import LOOKS, Row


def plot(name: str, rows: Sequence[Row], path: Path) -> None:
    """Draw one table of the report."""
    {
        "arms": _plot_arms,
        "corruption": _plot_corruption,
        "ablation": _plot_ablation,
        "explanation": _plot_explanation,
    }[name](rows, path)


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
    save_figure(figure, path)


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
    save_figure(figure, path)


def _bar(axes: Any, at: float, interval: Interval, colour: str) -> None:
    below, above = interval.value - interval.low, interval.high - interval.value
    axes.errorbar([at], [interval.value], [[below], [above]], fmt="o", color=colour, ms=3, lw=1)


def _plot_ablation(rows: Sequence[Row], path: Path) -> None:
    states = list(dict.fromkeys(str(row[1]) for row in rows))
    arms = list(dict.fromkeys(str(row[0]) for row in rows))
    figure = new_figure(8, 1.2 + 0.5 * len(states))
    axes = figure.subplots()
    for number, arm in enumerate(arms):
        for row in rows:
            if row[0] == arm and isinstance(row[2], Interval):
                at = states.index(str(row[1])) + 0.15 * number
                below, above = row[2].value - row[2].low, row[2].high - row[2].value
                axes.errorbar(
                    [row[2].value], [at], xerr=[[below], [above]], fmt="o", color=f"C{number}",
                    ms=3, lw=1,
                )  # fmt: skip
        axes.plot([], [], f"C{number}o", label=arm)
    axes.set_yticks(
        np.arange(len(states)) + 0.1, ["all channels", *(f"without {one}" for one in states[1:])]
    )
    axes.invert_yaxis()
    axes.axvline(0.2, color="grey", ls=":", lw=1)
    axes.set_xlabel("balanced accuracy, 95 %")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(arms))
    save_figure(figure, path)


def _plot_explanation(rows: Sequence[Row], path: Path) -> None:
    arms = list(dict.fromkeys(str(row[0]) for row in rows))
    names = [role.value for role in Role]
    figure = new_figure(1 + 3.4 * len(arms), 3.0)
    panels = np.atleast_1d(figure.subplots(1, len(arms), sharey=True))
    for axes, arm in zip(panels, arms, strict=True):
        falls = [[_number(cell) for cell in row[3:]] for row in rows if row[0] == arm]
        # One scale for all: what hardly matters must look so.
        shown = axes.imshow(np.array(falls), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
        for (stage, role), fall in np.ndenumerate(np.array(falls)):
            if np.isfinite(fall):
                axes.text(role, stage, f"{fall:.2f}", ha="center", va="center", fontsize=7)
        axes.set_xticks(range(len(names)), names, rotation=60, fontsize=7)
        axes.set_yticks(range(len(STAGES)), [stage.value for stage in STAGES])
        axes.set_title(arm, fontsize=9)
    figure.colorbar(shown, ax=panels.tolist(), label="fall of the probability")
    save_figure(figure, path)


def _number(cell: object) -> float:
    return float(str(cell)) if cell != "" else float("nan")
