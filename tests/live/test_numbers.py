"""Every number is seen or gone: one table, and everything that uses it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from hypnocast.live.service import ward
from hypnocast.live.service.numbers import METRICS, counters_of, table, value
from hypnocast.ports.host_clock import HostClock
from hypnocast.simulate import SimulatedSource
from support.brokers import Mosquitto
from support.mqtt_lab import listening, until
from support.ward_lab import HandDriven, night, running_ward

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples"


def exported() -> dict[str, tuple[str, ...]]:
    """Return every name as Prometheus has it, and its labels."""
    return {
        f"hypnocast_{metric.name}" + ("_total" if metric.kind == "counter" else ""): metric.labels
        for metric in METRICS.values()
    }


def test_the_documentation_has_the_table() -> None:
    assert table() in (ROOT / "docs" / "numbers.md").read_text(encoding="utf-8")


def test_the_alert_rules_ask_for_numbers_there_are() -> None:
    rules = yaml.safe_load((EXAMPLES / "prometheus-alerts.yml").read_text(encoding="utf-8"))
    (group,) = rules["groups"]
    names = exported()
    for rule in group["rules"]:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["annotations"].keys() == {"summary", "do"}
        for name in re.findall(r"\bhypnocast_[a-z_]+\b", rule["expr"]):
            assert name in names, f"{rule['alert']} asks for {name}"
        for name, label in re.findall(r"(hypnocast_[a-z_]+)\{(\w+)[=!~]", rule["expr"]):
            assert label in names[name], f"{name} has no {label}"


def test_the_dashboard_shows_numbers_there_are() -> None:
    dashboard = json.loads((EXAMPLES / "grafana-dashboard.json").read_text(encoding="utf-8"))
    names = exported()
    places = [tuple(panel["gridPos"].values()) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(places)
    shown = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"\bhypnocast_[a-z_]+\b", target["expr"])
    }
    assert shown
    assert shown <= set(names)


def test_what_a_ward_publishes_stands_in_the_table_and_in_its_state() -> None:
    values = [
        value("pages", 7, bed="a", status="final"),
        value("pages", 5, bed="b", status="final"),
        value("worker_failures", 2, worker="tape"),
        value("worker_failures", 1, worker="lsl-reader"),
        value("judge_waiting", 3),
    ]
    assert counters_of(values) == {"final": 12, "worker_failures": 3}
    with pytest.raises(KeyError):
        value("not in the table", 1)
    with pytest.raises(AssertionError):
        value("pages", 1, bed="a")


async def test_what_is_wrong_for_a_moment_reaches_the_broker_and_so_does_its_end(
    tmp_path: Path, pack: Path, broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing waits for the next state that is due anyway."""
    monkeypatch.setattr(ward, "STATE_EVERY_S", float("inf"))
    coming = night(SimulatedSource(["bed1"], seed=7, pages=1, skip_pages=60, truth=False))
    async with (
        listening(broker.port) as listener,
        running_ward(tmp_path, pack, HandDriven(coming), broker.port),
    ):

        def said() -> str:
            return " ".join(listener.json_of("hypnocast/lab/daemon/node1/state")[-1]["degraded"])

        await until(lambda: listener.of("hypnocast/lab/daemon/node1/state"), "its first state")
        problem = "memory is short"
        monkeypatch.setattr(ward, "memory_problem", lambda _: problem)
        await until(lambda: problem in said(), "it is published")
        problem = ""
        await until(lambda: "memory" not in said(), "its end is published")


def test_a_step_of_the_hosts_clock_is_reported_for_a_while_and_a_slow_clock_is_not() -> None:
    utc, steady = 1_800_000_000.0, 100.0
    clock = HostClock(lambda: utc, lambda: steady)
    for _ in range(100):
        utc, steady = utc + 0.5005, steady + 0.5
        clock.look()
    assert clock.problem == ""
    utc += 3600.0
    clock.look()
    assert clock.problem == "the host's clock was set by +3600 s; pages keep their grid"
    steady, utc = steady + 61.0, utc + 61.0
    clock.look()
    assert clock.problem == ""
    assert clock.steps == 1
