"""Whoever may write to the broker can blind no viewer: one bad message changes no other card.

In the long form the broker is that of a whole daemon, whose ward page reads all of it too.
"""

from __future__ import annotations

import io
import time
import tracemalloc

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from PIL import Image
from rich.console import Console

from attacks.bad_messages import BED, REFUSED, SHOWN, a_stage, a_status
from attacks.limits import TWO_GB
from hypnocast.dashboard.pictures import picture_digest
from hypnocast.dashboard.terminal import ward_view
from hypnocast.dashboard.view import card, fold
from hypnocast.dashboard.ward import MAX_BEDS, MAX_NODES, Incoming, WardView
from support.brokers import Mosquitto
from support.daemons import command
from support.paho_clients import end_client

pytestmark = pytest.mark.usefixtures("calm_bed")

CALM = "bed1"
COSTS_AT_MOST = 40 << 20


def calm_ward() -> WardView:
    """Return a ward with one bed that is staged."""
    ward = WardView()
    for topic, payload in (
        (f"bed/{CALM}/status", a_status(CALM)),
        (f"bed/{CALM}/stage", a_stage(CALM)),
    ):
        ward = fold(ward, Incoming(topic, payload, retained=True, at=time.time()))
    assert ward.refused == 0, ward.refusal
    return ward


def screen(ward: WardView) -> str:
    drawn = io.StringIO()
    Console(file=drawn, width=200, force_terminal=False).print(ward_view(ward, time.time()))
    return drawn.getvalue()


@pytest.mark.attack("messages to viewers")
@pytest.mark.parametrize("what", REFUSED)
def test_a_message_that_breaks_the_contract_is_refused_and_changes_no_card(what: str) -> None:
    topic, payload = REFUSED[what]
    before = calm_ward()
    tracemalloc.start()
    after = fold(before, Incoming(topic, payload, retained=True, at=time.time()))
    cost = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert after.refused == 1, "it was believed"
    assert after.refusal.isprintable()
    assert len(after.refusal) <= 256
    assert card(after.beds[CALM], after) == card(before.beds[CALM], before)
    assert set(after.beds) <= {CALM, BED}
    assert cost < COSTS_AT_MOST
    screen(after)


@pytest.mark.attack("messages to viewers")
@pytest.mark.parametrize("what", SHOWN)
def test_strange_words_that_keep_the_contract_are_shown_without_harm(what: str) -> None:
    topic, payload = SHOWN[what]
    ward = fold(calm_ward(), Incoming(topic, payload, retained=True, at=time.time()))
    assert ward.refused == 0, ward.refusal
    drawn = screen(ward)
    assert not [c for c in drawn if not c.isprintable() and c != "\n"]


@pytest.mark.attack("messages to viewers")
def test_beds_and_daemons_beyond_what_a_page_can_show_are_refused() -> None:
    ward = calm_ward()
    for number in range(MAX_BEDS + 50):
        name = f"invented{number}"
        ward = fold(ward, Incoming(f"bed/{name}/status", a_status(name), retained=True, at=1e9))
        ward = fold(ward, Incoming(f"daemon/{name}/available", b"online", retained=True, at=1e9))
    assert len(ward.beds) == MAX_BEDS
    assert len(ward.nodes) == MAX_NODES
    assert CALM in ward.beds


@pytest.mark.attack("messages to viewers")
@pytest.mark.parametrize("side", [3000, 20_000])
def test_a_small_picture_of_many_pixels_is_not_unpacked(side: int) -> None:
    packed = io.BytesIO()
    Image.new("1", (side, side)).save(packed, "PNG", optimize=True)
    assert packed.tell() < 300_000
    with pytest.raises(ValueError, match="pixels"):
        picture_digest(packed.getvalue())


@pytest.mark.attack("messages to viewers")
def test_watch_shows_the_calm_bed_beside_everything_that_can_be_retained(broker: Mosquitto) -> None:
    """A real broker, and ``watch`` as people start it, in 2 GB."""
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    kept = [
        (f"bed/{CALM}/status", a_status(CALM)),
        (f"bed/{CALM}/stage", a_stage(CALM)),
        *((topic, payload) for topic, payload in REFUSED.values() if _can_be_sent(topic)),
    ]
    for topic, payload in kept:
        client.publish(f"hypnocast/lab/{topic}", payload, qos=1, retain=True).wait_for_publish(10)
    end_client(client)
    outcome = command(
        "watch", "--once", "--broker", f"127.0.0.1:{broker.port}", memory_bytes=TWO_GB
    )
    assert outcome.returncode == 0, outcome.stderr
    assert "N2" in outcome.stdout, outcome.stdout
    assert "broke the contract" in outcome.stdout


def _can_be_sent(topic: str) -> bool:
    return topic.isprintable() and len(topic) < 200
