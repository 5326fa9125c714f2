"""Home Assistant's device discovery: one device per bed, read-only, made of the public topics.

The document names which topics hold what; Home Assistant reads those itself. Nothing is offered
that would start or end a night: whoever builds that wants the commands, with their session.
"""

from __future__ import annotations

import json
from typing import Any, get_args

from hypnocast import __version__
from hypnocast.core.wire.payloads import BedState, StageName
from hypnocast.core.wire.topics import Topics

_NOTHING = "none"


def discovery(topics: Topics, node: str, bed: str, *, pages: bool) -> bytes:
    """Return the document of a bed's device; ``pages`` where its pictures are published."""
    device = topics.device(bed)
    components = _components(topics, bed) | (_picture(topics, bed) if pages else {})
    for key, component in components.items():
        component["unique_id"] = f"{device}-{key}"
        component["default_entity_id"] = f"{component['platform']}.{device}_{key}".replace(
            "-", "_"
        ).lower()
    whole = {
        "device": {
            "identifiers": [device],
            "name": f"Bed {bed}",
            "manufacturer": "Hypnocast",
            "model": "Sleep staging, for research only",
            "sw_version": __version__,
        },
        "origin": {"name": "Hypnocast", "sw_version": __version__},
        "availability": [{"topic": topics.available(node)}],
        "qos": 1,
        "components": components,
    }
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()


def _components(topics: Topics, bed: str) -> dict[str, dict[str, Any]]:
    status, stage, night = topics.status(bed), topics.stage(bed), topics.night(bed)
    return {
        "stage": {
            "platform": "sensor",
            "name": "Sleep stage",
            "icon": "mdi:sleep",
            "device_class": "enum",
            "options": list(get_args(StageName)),
            "state_topic": stage,
            "value_template": _value("stage"),
            "json_attributes_topic": stage,
            "json_attributes_template": (
                "{% if value_json is mapping %}{{ {'epoch': value_json.epoch,"
                " 'status': value_json.status, 'reason': value_json.reason,"
                " 'session': value_json.session, 'review': value_json.review,"
                " 'source': value_json.source, 'research_use_only': true} | tojson }}"
                "{% else %}{}{% endif %}"
            ),
        },
        "confidence": {
            "platform": "sensor",
            "name": "Confidence",
            "icon": "mdi:gauge",
            "unit_of_measurement": "%",
            "state_class": "measurement",
            "suggested_display_precision": 0,
            "state_topic": stage,
            "value_template": _value("confidence", "(100 * value_json.confidence) | round(1)"),
        },
        "state": {
            "platform": "sensor",
            "name": "State",
            "icon": "mdi:bed",
            "device_class": "enum",
            "options": list(get_args(BedState)),
            "state_topic": status,
            "value_template": _value("state"),
        },
        "problem": {
            "platform": "binary_sensor",
            "name": "Signal problem",
            "device_class": "problem",
            "entity_category": "diagnostic",
            "state_topic": status,
            "value_template": (
                "{% if value_json is mapping %}{{ 'ON' if value_json.state == 'stale'"
                " or value_json.problems or value_json.channels.values()"
                " | selectattr('flags') | list else 'OFF' }}{% else %}None{% endif %}"
            ),
        },
        "lights": {
            "platform": "sensor",
            "name": "Lights",
            "icon": "mdi:lightbulb-night-outline",
            "device_class": "enum",
            "options": ["on", "off", "unknown"],
            "state_topic": status,
            "value_template": _value("lights"),
        },
        "asleep": {
            "platform": "sensor",
            "name": "Total sleep time",
            "icon": "mdi:timer-sand",
            "device_class": "duration",
            "unit_of_measurement": "min",
            "state_topic": night,
            "value_template": _value("statistics", "value_json.statistics.total_sleep_min"),
        },
        "efficiency": {
            "platform": "sensor",
            "name": "Sleep efficiency",
            "icon": "mdi:percent",
            "unit_of_measurement": "%",
            "suggested_display_precision": 0,
            "state_topic": night,
            "value_template": _value(
                "statistics",
                "value_json.statistics.sleep_efficiency_percent | round(1)"
                " if value_json.statistics.sleep_efficiency_percent is not none else none",
            ),
        },
    }


def _picture(topics: Topics, bed: str) -> dict[str, dict[str, Any]]:
    return {
        "page": {
            "platform": "image",
            "name": "Page as the model saw it",
            "content_type": "image/png",
            "image_topic": topics.page(bed),
        }
    }


def _value(key: str, what: str = "") -> str:
    """Return a template that gives ``None``, Home Assistant's unknown, where there is nothing."""
    there = f"value_json is mapping and value_json.{key} is not none"
    return f"{{{{ ({what or f'value_json.{key}'}) if {there} else {_NOTHING} }}}}"
