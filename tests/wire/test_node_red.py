"""The example flow runs in a real Node-RED, and shows what it promises."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hypnocast.core.wire import payloads
from support.brokers import running_mosquitto
from support.nights import an_event
from support.node_red import running_node_red
from wire.listening import PlainListener

FLOW = Path(__file__).parents[2] / "examples" / "node-red" / "flow.json"
ATTENTION = "nodered/hypnocast/lab/bed1/attention"


def flow_for(port: int) -> str:
    nodes: list[dict[str, Any]] = json.loads(FLOW.read_text(encoding="utf-8"))
    [broker] = [node for node in nodes if node["type"] == "mqtt-broker"]
    broker["port"] = str(port)
    return json.dumps(nodes)


def night() -> list[payloads.StageEvent]:
    """Three pages with a stage, four without, two with; each provisional first, one repeated."""
    events = []
    for epoch, stage in enumerate(["W", "N1", "N2", None, None, None, None, "N2", "R"]):
        if stage is None:
            events.append(an_event(epoch, stage=None, reason="detached"))
        else:
            name: payloads.StageName = msgspec.convert(stage, payloads.StageName)
            events.append(an_event(epoch, stage=name, provisional=True))
            events.append(an_event(epoch, stage=name))
    numbered = [msgspec.structs.replace(e, sequence=k + 1) for k, e in enumerate(events)]
    return [*numbered[:4], numbered[3], *numbered[4:]]


@pytest.mark.timeout(240)
def test_the_example_flow_runs_in_node_red(tmp_path: Path) -> None:
    with running_mosquitto(tmp_path) as broker:
        listener = PlainListener(broker.port)
        with running_node_red(tmp_path, flow_for(broker.port)) as log:
            listener.publish("hypnocast/lab/daemon/node1/available", b"offline", retain=True)
            [gone] = listener.wait("nodered/hypnocast/lab/daemon-node1/attention", 1)
            assert json.loads(gone)["attention"] is True
            for event in night():
                listener.publish("hypnocast/lab/bed/bed1/events", payloads.encode(event))
            first, then = (json.loads(one) for one in listener.wait(ATTENTION, 2))
            assert "error" not in log.read_text().lower()
        listener.close()
    assert first["attention"] is True
    assert (first["since_epoch"], first["reason"]) == (3, "detached")
    assert then["attention"] is False
    rows = list(csv.reader((tmp_path / "hypnocast-stages.csv").read_text().splitlines()))
    assert [int(row[3]) for row in rows] == list(range(9))
    assert [row[5] for row in rows] == ["W", "N1", "N2", "", "", "", "", "N2", "R"]
    assert {row[6] for row in rows} == {"", "detached"}
