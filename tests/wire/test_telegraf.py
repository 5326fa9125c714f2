"""The recipe for Telegraf, InfluxDB and Grafana asks for what the topics say, and nothing else.

Telegraf and Grafana themselves are no packages of Debian or of a registry, so neither runs here:
the files are held against the contract, path by path.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest

from hypnocast.core.night.ledger import NightTitle, build_night
from hypnocast.core.wire import payloads
from hypnocast.core.wire.topics import Topics
from support.nights import an_event, instant

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
CONFIG = tomllib.loads((EXAMPLES / "telegraf.conf").read_text(encoding="utf-8"))
BOARD = json.loads((EXAMPLES / "grafana-night.json").read_text(encoding="utf-8"))

TITLE = NightTitle("lab", "bed1", "bed1-night", None, "simulated", instant())
TOPICS = Topics("+")
SAID: dict[str, payloads.Message] = {
    TOPICS.events("+"): an_event(0),
    TOPICS.night("+"): build_night(TITLE, [an_event(0)], at=instant(30)),
}


def _parts() -> list[tuple[str, dict[str, Any]]]:
    return [
        (topic, part)
        for source in CONFIG["inputs"]["mqtt_consumer"]
        for topic in source["topics"]
        for part in source["json_v2"]
    ]


def _written() -> dict[str, set[str]]:
    """Return the fields of each measurement."""
    fields: dict[str, set[str]] = {}
    for _, part in _parts():
        names = {field.get("rename", field["path"]) for field in part["field"]}
        fields.setdefault(part["measurement_name"], set()).update(names)
    for processor in CONFIG["processors"]["enum"]:
        for mapping in processor["mapping"]:
            for measurement in processor["namepass"]:
                assert mapping["field"] in fields[measurement]
                fields[measurement].add(mapping["dest"])
    return fields


@pytest.mark.parametrize(("topic", "part"), _parts(), ids=[topic for topic, _ in _parts()])
def test_every_path_is_a_key_of_the_topic(topic: str, part: dict[str, Any]) -> None:
    said = json.loads(payloads.encode(SAID[topic]))
    wanted = [*part["tag"], *part["field"], {"path": part["timestamp_path"]}]
    for one in wanted:
        value: Any = said
        for key in one["path"].split("."):
            assert key in value, one["path"]
            value = value[key]
        nullable = one["path"] in ("stage", "reason", "confidence", "timing.journaled")
        assert not nullable or one["optional"]
    assert {"site", "bed", "session"} <= {tag["path"] for tag in part["tag"]}


def test_every_stage_has_a_height() -> None:
    (processor,) = CONFIG["processors"]["enum"]
    (mapping,) = processor["mapping"]
    assert set(mapping["value_mappings"]) == set(get_args(payloads.StageName))


def test_every_panel_asks_for_what_is_written() -> None:
    fields, bucket = _written(), CONFIG["outputs"]["influxdb_v2"][0]["bucket"]
    for panel in BOARD["panels"]:
        for target in panel["targets"]:
            query = target["query"]
            assert f'bucket: "{bucket}"' in query
            (measurement,) = re.findall(r'_measurement == "(\w+)"', query)
            (field,) = re.findall(r'_field == "(\w+)"', query)
            assert field in fields[measurement], panel["title"]
    heights = BOARD["panels"][0]["fieldConfig"]["defaults"]["mappings"][0]["options"]
    (processor,) = CONFIG["processors"]["enum"]
    mapped = processor["mapping"][0]["value_mappings"]
    assert {int(height): one["text"] for height, one in heights.items()} == {
        height: stage for stage, height in mapped.items()
    }
