"""Reports for people: one HTML file that carries its plots, and opens without a network."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from hypnocast.core.types import STAGES
from hypnocast.ports.durable_files import replace_file
from hypnocast_models.compare.comparison import Comparison
from hypnocast_models.compare.figures import Interval

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}th,td{border:1px solid #bbb;padding:.2rem .6rem;"
    "text-align:right}th:first-child,td:first-child{text-align:left}img{max-width:100%}"
)


def html_page(title: str, parts: Sequence[str]) -> str:
    """Give a whole page; the parts are HTML already."""
    body = "\n".join(parts)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>\n{body}\n"
        "<p>Research use only: no diagnosis.</p></body></html>\n"
    )


def html_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Give a table."""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = ["".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows]
    return f"<table><tr>{top}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def new_figure(width: float, height: float) -> Any:
    """Begin a figure that no screen is needed for."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=110)


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as a PNG file, whole or not at all."""
    out = io.BytesIO()
    figure.savefig(out, format="png")
    replace_file(path, out.getvalue())


def inline(figure: Any, alt: str) -> str:
    """Give a figure as an image within the page."""
    out = io.BytesIO()
    figure.savefig(out, format="png")
    code = base64.b64encode(out.getvalue()).decode("ascii")
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{code}">'


def write_page(
    path: Path, comparisons: Sequence[Comparison], paired: Mapping[str, Mapping[str, Interval]]
) -> None:
    """Write the report of one or more comparisons, and beside it the figures as CSV."""
    parts: list[str] = []
    rows: list[list[object]] = []
    for one in comparisons:
        named = f"{one.other} against {one.reference}"
        parts.append(f"<h2>{escape(named)}</h2>")
        parts.append(
            f"<p>{len(one.nights)} nights of {len(one.tables)} subjects, {one.pages} pages. "
            "In brackets: 95 % bootstrap intervals over subjects.</p>"
        )
        figures = [(name, str(value)) for name, value in one.figures.items()]
        parts.append(html_table(("figure", "value"), figures))
        parts += [_confusion(one), _bland_altman(one)]
        rows += [[named, k, v.value, v.low, v.high] for k, v in one.figures.items()]
    for named, figures_of in paired.items():
        parts.append(f"<h2>{escape(named)}</h2>")
        parts.append(
            html_table(("figure", "difference"), [(k, str(v)) for k, v in figures_of.items()])
        )
        rows += [[named, k, v.value, v.low, v.high] for k, v in figures_of.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, html_page("Comparison of scorers", parts).encode())
    # Not NAME.csv: that may well be a scorer's file.
    table = csv_of(("what", "figure", "value", "low", "high"), rows)
    replace_file(path.with_name(f"{path.stem}-figures.csv"), table.encode())


def csv_of(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Give a table as CSV; numbers with four places."""
    import csv

    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(head)
    for row in rows:
        table.writerow([f"{cell:.4f}" if isinstance(cell, float) else cell for cell in row])
    return out.getvalue()


def _confusion(one: Comparison) -> str:
    figure = new_figure(5.2, 4.0)
    axes = figure.subplots()
    shares = one.table / np.maximum(one.table.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(one.table):
        ink = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(count), ha="center", va="center", color=ink, fontsize=8)
    names = [stage.value for stage in STAGES]
    axes.set_xticks(range(len(names) + 1), [*names, "none"])
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel(one.other)
    axes.set_ylabel(one.reference)
    return inline(figure, "confusion of stages, in pages")


def _bland_altman(one: Comparison) -> str:
    if not one.statistics:
        return ""
    columns = 3
    rows = -(-len(one.statistics) // columns)
    figure = new_figure(9.0, 2.4 * rows)
    panels = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axes, (name, agreement) in zip(panels, one.statistics.items(), strict=False):
        pairs = np.array(agreement.pairs)
        axes.plot(pairs.mean(axis=1), pairs[:, 1] - pairs[:, 0], "o", ms=4)
        for height, style in ((agreement.bias, "-"), (agreement.low, ":"), (agreement.high, ":")):
            if np.isfinite(height):
                axes.axhline(height, ls=style, color="grey", lw=1)
        axes.set_title(name.replace("_", " "), fontsize=8)
        axes.tick_params(labelsize=7)
    for axes in panels[len(one.statistics) :]:
        axes.axis("off")
    figure.supxlabel("mean of both", fontsize=8)
    figure.supylabel("other minus reference", fontsize=8)
    return inline(figure, "Bland–Altman plots of the sleep statistics")
