"""Home Assistant: a device per bed whose templates give what the topics hold."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hypnocast.core.types import PAGE_S, Stage
from hypnocast.core.wire import payloads
from hypnocast.core.wire.topics import HOME_ASSISTANT_STATUS, Topics
from hypnocast.live.publishing.home_assistant import discovery
from hypnocast.simulate import SimulatedSource
from support.brokers import Mosquitto, running_mosquitto
from support.needs import need_module
from support.packs import make_tiny_pack
from support.taped_nights import tape_nights
from wire.listening import PlainListener

TOPICS = Topics("lab")
PAGES = 6


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with running_mosquitto(tmp_path_factory.mktemp("broker")) as mosquitto:
        yield mosquitto


@pytest.fixture(scope="module")
def listener(
    broker: Mosquitto, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PlainListener]:
    """A night with Home Assistant at the broker, which is born again in the middle of it."""
    folder = tmp_path_factory.mktemp("night")
    pack = make_tiny_pack(folder / "tiny")
    sim = SimulatedSource(2, seed=1, stages=[Stage.N2] * PAGES)
    ears = PlainListener(broker.port)
    born = threading.Event()

    def hold(data_s: float) -> None:
        if data_s > 3 * PAGE_S and not born.is_set():
            topic = TOPICS.discovery("bed-01")
            before = len(ears.wait(topic, 1))
            ears.publish(HOME_ASSISTANT_STATUS, b"online")
            ears.wait(topic, before + 1)
            born.set()

    run = tape_nights(folder / "state", pack, sim, port=broker.port, hold=hold, home_assistant=True)
    asyncio.run(run)
    ears.wait(TOPICS.available("node1"), 2)
    yield ears
    ears.close()


def document(listener: PlainListener, bed: str = "bed-01") -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(listener.payloads(TOPICS.discovery(bed))[-1])
    return fields


def test_every_bed_is_a_device_and_is_announced_again_after_a_birth(
    listener: PlainListener,
) -> None:
    ids = set()
    for bed in ("bed-01", "bed-02"):
        found = listener.payloads(TOPICS.discovery(bed))
        assert len(found) >= 2
        assert len(set(found)) == 1
        assert found[0] == discovery(TOPICS, "node1", bed, pages=True)
        whole = document(listener, bed)
        assert whole["device"]["name"] == f"Bed {bed}"
        assert whole["origin"]["name"] == "Hypnocast"
        for key, component in whole["components"].items():
            assert component["platform"] in {"sensor", "binary_sensor", "image"}, key
            ids.add(component["unique_id"])
            if component.get("device_class") == "enum":
                assert "unit_of_measurement" not in component
    assert len(ids) == 2 * len(document(listener)["components"])


def test_every_topic_of_the_document_is_published(listener: PlainListener) -> None:
    whole = document(listener)
    topics = {value for component in whole["components"].values()
              for key, value in component.items() if key.endswith("topic")}  # fmt: skip
    topics |= {one["topic"] for one in whole["availability"]}
    for topic in topics:
        assert listener.payloads(topic), topic
    assert listener.payloads(whole["availability"][0]["topic"])[-1] == b"offline"
    # An empty one may come first: what an earlier night left on the broker is cleared.
    drawn = [payload for payload in listener.payloads(TOPICS.page("bed-01")) if payload]
    assert drawn[0].startswith(b"\x89PNG")


def rendered(template: str, payload: bytes) -> str:
    """Render a template as Home Assistant does: without JSON there is no ``value_json``."""
    need_module("jinja2")
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    known: dict[str, Any] = {"value": payload.decode()}
    if payload:
        known["value_json"] = json.loads(payload)
    return str(ImmutableSandboxedEnvironment().from_string(template).render(known)).strip()


def test_the_templates_give_what_the_topics_say(listener: PlainListener) -> None:
    components = document(listener)["components"]
    stages = listener.payloads(TOPICS.stage("bed-01"))
    assert stages[-1] == b"", "retained stage is cleared at the night's end"
    for payload in stages:
        stage = rendered(components["stage"]["value_template"], payload)
        sure = rendered(components["confidence"]["value_template"], payload)
        attributes = rendered(components["stage"]["json_attributes_template"], payload)
        if not payload:
            assert (stage, sure, json.loads(attributes)) == ("None", "None", {})
            continue
        event = json.loads(payload)
        assert stage == str(event["stage"])
        assert stage in {*components["stage"]["options"], "None"}
        assert json.loads(attributes)["epoch"] == event["epoch"]
        if event["confidence"] is not None:
            assert float(sure) == pytest.approx(100 * event["confidence"], abs=0.06)
    for payload in listener.payloads(TOPICS.status("bed-01")):
        status = json.loads(payload)
        assert rendered(components["state"]["value_template"], payload) == status["state"]
        assert rendered(components["problem"]["value_template"], payload) in {"ON", "OFF"}
        assert rendered(components["lights"]["value_template"], payload) == status["lights"]
    for payload in listener.payloads(TOPICS.night("bed-01")):
        found = json.loads(payload)["statistics"]
        asleep = rendered(components["asleep"]["value_template"], payload)
        assert float(asleep) == found["total_sleep_min"]
        efficiency = rendered(components["efficiency"]["value_template"], payload)
        expected = found["sleep_efficiency_percent"]
        assert efficiency == ("None" if expected is None else str(round(expected, 1)))


def test_a_bad_electrode_is_a_problem(listener: PlainListener) -> None:
    template = document(listener)["components"]["problem"]["value_template"]
    newest = json.loads(listener.payloads(TOPICS.status("bed-01"))[-1])
    channel = payloads.ChannelHealth(derivation="F4-M1", unit="uV", flags=("flat",), words="flat")
    good = newest | {"state": "live", "problems": [], "channels": {}}
    flat = good | {"channels": {"F4-M1": msgspec.to_builtins(channel)}}
    assert rendered(template, json.dumps(good).encode()) == "OFF"
    assert rendered(template, json.dumps(flat).encode()) == "ON"
    assert rendered(template, json.dumps(good | {"state": "stale"}).encode()) == "ON"


def test_pages_are_offered_only_where_they_are_published() -> None:
    assert "page" not in json.loads(discovery(TOPICS, "n", "b", pages=False))["components"]


def _refused(document: dict[str, Any]) -> list[str]:
    """Return what Home Assistant's own schemas refuse, in the Python that has Home Assistant."""
    python = os.environ.get("HYPNOCAST_HOMEASSISTANT")
    if not python:
        pytest.skip("HYPNOCAST_HOMEASSISTANT names no Python that has Home Assistant")
    checker = Path(__file__).with_name("homeassistant_check.py")
    text = json.dumps(document)
    ran = subprocess.run(
        [python, str(checker)], input=text, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    faults: list[str] = json.loads(ran.stdout)["faults"]
    return faults


@pytest.mark.long
def test_home_assistants_own_schemas_accept_the_document_and_refuse_a_wrong_one() -> None:
    document = json.loads(discovery(TOPICS, "node1", "bed-01", pages=True))
    assert _refused(document) == []
    document["components"]["confidence"]["state_class"] = "measured"
    document["components"]["stage"].pop("state_topic")
    refused = _refused(document)
    assert len(refused) == 2
    assert any("state_class" in fault for fault in refused)
