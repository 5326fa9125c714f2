"""What a validation looks like: the confusion of stages, and the pages that were surest wrong."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hypnocast.core.types import STAGES, FloatArray, Pixels
from hypnocast.ports.durable_files import replace_file
from hypnocast_models.compare import figures

MISJUDGED = 6
"""So many pages are shown."""
_NAMES = [stage.value for stage in STAGES]


def judged_pictures(
    log_probabilities: FloatArray, true: NDArray[np.int64], page: Callable[[int], Pixels]
) -> dict[str, Pixels]:
    """Give the pictures of a validation by name; ``page`` draws the page of a place."""
    from matplotlib.figure import Figure

    ours = log_probabilities.argmax(axis=1).astype(np.int64)
    table = figures.confusion(true, ours)[:, : len(STAGES)]
    shown = Figure(figsize=(4.5, 4.2), layout="constrained")
    axes = shown.subplots()
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(table):
        ink = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(count), ha="center", va="center", color=ink)
    axes.set_xticks(range(len(STAGES)), _NAMES)
    axes.set_yticks(range(len(STAGES)), _NAMES)
    axes.set_xlabel("model")
    axes.set_ylabel("expert")
    pictures = {"confusion": _pixels(shown)}
    wrong = np.flatnonzero(ours != true)
    surest = wrong[np.argsort(-log_probabilities[wrong, ours[wrong]], kind="stable")][:MISJUDGED]
    if len(surest):
        shown = Figure(figsize=(10, 1.9 * -(-len(surest) // 2)), layout="constrained")
        cells = shown.subplots(-(-len(surest) // 2), 2, squeeze=False)
        for cell in cells.flat:
            cell.axis("off")
        for place, cell in zip(surest.tolist(), cells.flat, strict=False):
            cell.imshow(page(place), aspect="auto")
            sure = np.exp(log_probabilities[place, ours[place]])
            words = f"expert {_NAMES[true[place]]}, model {_NAMES[ours[place]]} ({sure:.0%})"
            cell.set_title(words, fontsize=9)
        pictures["misjudged"] = _pixels(shown)
    return pictures


def keep_pictures(pictures: dict[str, Pixels], folder: Path, step: int, writer: Any | None) -> None:
    """Keep them in a run folder by their step; show them in TensorBoard where it is written."""
    folder.mkdir(exist_ok=True)
    for name, pixels in pictures.items():
        out = BytesIO()
        Image.fromarray(pixels).save(out, "png")
        replace_file(folder / f"{name}-{step:06d}.png", out.getvalue(), mode=0o666)
        if writer is not None:
            writer.add_image(f"judged/{name}", pixels, step, dataformats="HWC")


def _pixels(figure: Any) -> Pixels:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn: Pixels = np.asarray(canvas.buffer_rgba())[:, :, :3].copy()
    return drawn
