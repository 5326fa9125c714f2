"""Draws what the dashboard for Grafana shows of a simulated night, without Grafana.

Grafana is no package of Debian or of a registry, so its dashboard is drawn here: the night's
messages go through the rules of ``telegraf.conf``, each panel's query picks its points, and the
panel's own size, kind, limits, unit, names of values and length of gaps say how they are drawn.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

from browser.ward_topics import Scene
from hypnocast.core.wire.payloads import Message, encode

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
COLUMNS, ROW_IN, HEAD_IN, WIDTH_IN = 24, 0.36, 0.5, 14.0
UNITS = {
    "percentunit": (100.0, " %"),
    "percent": (1.0, " %"),
    "ms": (1.0, " ms"),
    "m": (1.0, " min"),
}
QUERY = re.compile(r'_measurement == "(\w+)" and r\._field == "(\w+)" and r\.bed == "\$\{bed\}"')
GROUND, PANEL, TEXT, LINE = "#111217", "#181b1f", "#ccccdc", "#73bf69"
TITLE: Final[dict[str, Any]] = {"color": TEXT, "fontsize": 11, "loc": "left", "pad": 8}


@dataclass(frozen=True)
class InfluxPoint:
    """A field of a measurement at a time, as Telegraf writes it."""

    measurement: str
    field: str
    bed: str
    at: datetime
    value: float


def written(config: dict[str, Any], topic: str, message: Message) -> Iterator[InfluxPoint]:
    """Give what Telegraf writes of a message: numbers only, which is what the panels ask for."""
    said = json.loads(encode(message))
    heights = config["processors"]["enum"][0]["mapping"][0]
    for source in config["inputs"]["mqtt_consumer"]:
        if not any(one.endswith(f"/{topic}") for one in source["topics"]):
            continue
        for part in source["json_v2"]:
            at = datetime.fromisoformat(said[part["timestamp_path"]])
            for field in part["field"]:
                value: Any = said
                for key in field["path"].split("."):
                    value = value[key]
                name = field.get("rename", field["path"])
                if name == heights["field"] and value is not None:
                    name, value = heights["dest"], heights["value_mappings"][value]
                if isinstance(value, int | float):
                    yield InfluxPoint(part["measurement_name"], name, said["bed"], at, float(value))


def draw_grafana(scene: Scene, path: Path) -> None:
    """Draw the dashboard of a scene's night as a PNG."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    board = json.loads((EXAMPLES / "grafana-night.json").read_text(encoding="utf-8"))
    config = tomllib.loads((EXAMPLES / "telegraf.conf").read_text(encoding="utf-8"))
    points = [
        point
        for epoch in range(scene.pages)
        for point in written(config, "events", scene.event(epoch))
    ]
    points += written(config, "night", scene.night())
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    figure = plt.figure(figsize=(WIDTH_IN, ROW_IN * rows + HEAD_IN), facecolor=GROUND)
    for panel in board["panels"]:
        axes = _place(figure, panel["gridPos"])
        axes.set_title(panel["title"].replace("${bed}", scene.bed), **TITLE)
        (target,) = panel["targets"]
        found = QUERY.search(target["query"])
        assert found is not None, panel["title"]
        wanted = (*found.groups(), scene.bed)
        shown = [one for one in points if (one.measurement, one.field, one.bed) == wanted]
        if panel["type"] == "stat":
            _draw_number(axes, panel, shown[-1].value if shown else None)
        else:
            _draw_course(axes, panel, shown)
    title = f"{board['title']} (simulated; drawn from grafana-night.json, not by Grafana)"
    figure.text(0.01, 1 - 0.6 * HEAD_IN / figure.get_figheight(), title, color=TEXT, fontsize=13)
    figure.savefig(path, dpi=110, facecolor=GROUND)
    plt.close(figure)


def _place(figure: Any, place: dict[str, int]) -> Any:
    """Return axes within a panel's place on the board's grid of 24 columns."""
    height = figure.get_figheight()
    top = 1 - (HEAD_IN + ROW_IN * place["y"]) / height
    left, width = place["x"] / COLUMNS, place["w"] / COLUMNS
    tall = ROW_IN * place["h"] / height
    from matplotlib.patches import Rectangle

    gap = 0.003
    figure.add_artist(
        Rectangle(
            (left + gap, top - tall + gap), width - 2 * gap, tall - 2 * gap, color=PANEL, zorder=-1
        )
    )
    beside, above, below = 0.65 / WIDTH_IN, 0.45 / height, 0.35 / height
    rect = (left + beside, top - tall + below, width - 1.4 * beside, tall - above - below)
    axes = figure.add_axes(rect, facecolor=PANEL)
    axes.tick_params(colors=TEXT, labelsize=9)
    for side in axes.spines.values():
        side.set_visible(False)
    return axes


def _draw_number(axes: Any, panel: dict[str, Any], value: float | None) -> None:
    factor, unit = UNITS[panel["fieldConfig"]["defaults"]["unit"]]
    words = "No data" if value is None else f"{value * factor:.3g}{unit}"
    axes.text(0.5, 0.5, words, color=LINE, fontsize=30, ha="center", va="center")
    axes.set(xticks=[], yticks=[])


def _draw_course(axes: Any, panel: dict[str, Any], shown: list[InfluxPoint]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults.get("custom", {})
    factor, unit = UNITS.get(defaults.get("unit", ""), (1.0, ""))
    times: list[datetime] = []
    values: list[float] = []
    for one in shown:
        gap_s = custom.get("insertNulls", 0) / 1000
        if gap_s and times and (one.at - times[-1]).total_seconds() > gap_s:
            times.append(times[-1])
            values.append(float("nan"))
        times.append(one.at)
        values.append(one.value * factor)
    how = "steps-post" if custom.get("lineInterpolation") == "stepAfter" else "default"
    axes.plot(times, values, color=LINE, linewidth=custom.get("lineWidth", 1), drawstyle=how)
    if "min" in defaults:
        room = 0.04 * (defaults["max"] - defaults["min"])
        axes.set_ylim((defaults["min"] - room) * factor, (defaults["max"] + room) * factor)
    names = {
        float(value): one["text"]
        for mapping in defaults.get("mappings", [])
        for value, one in mapping["options"].items()
    }
    if names:
        axes.set_yticks(list(names), labels=list(names.values()))
    elif unit:
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}{unit}")
    from matplotlib import dates

    axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M"))
    axes.grid(color="#2c3235", linewidth=0.6)
