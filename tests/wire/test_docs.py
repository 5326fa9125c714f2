"""The one-liners of docs/mqtt.md do what they promise, on a real broker."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from paho.mqtt import publish

from hypnocast.core.night.ledger import NightTitle, build_night
from hypnocast.core.wire import commands, payloads
from hypnocast.core.wire.notices import Notice
from support.brokers import running_mosquitto
from support.mqtt_lab import TOPICS
from support.needs import need_program
from support.nights import a_night_of_spectra, an_event, instant

TEXT = (Path(__file__).parents[2] / "docs" / "mqtt.md").read_text()
LINES = re.findall(r"^mosquitto_sub .*$", TEXT, flags=re.MULTILINE)

EVENT = msgspec.structs.replace(an_event(7), sequence=8)
NIGHT = build_night(
    NightTitle("lab", "bed1", "bed1-night", None, "live", instant()),
    [an_event(0, stage="W"), an_event(1)],
    at=instant(60),
)
STATUS = payloads.BedStatus(
    at=instant(),
    site="lab",
    bed="bed1",
    node="node1",
    state="stale",
    phase="recording",
    session="bed1-night",
    subject=None,
    source="live",
    since=instant(),
    epoch=7,
    lights="off",
    streams=(),
    channels={},
    problems=("amp1 has sent nothing for 40 s: check its cable",),
    latency_ms=None,
    provider="cpu",
    pack="p",
)
STATE = payloads.DaemonState(
    at=instant(),
    site="lab",
    node="node1",
    version="0",
    pack="p",
    pack_version="1",
    pack_digest="sha256:" + "0" * 64,
    recipe="r",
    provider="cpu",
    degraded=("journal_degraded",),
    uptime_s=1.0,
    beds=("bed1",),
    counters={},
    outbox=payloads.OutboxCounters(waiting=3, oldest_s=1.0, sent=0),
)
EXPLAINED = payloads.Explained(
    epoch=7,
    stage="R",
    sentence="R rests on E1-M2 and Chin",
    probability=0.9,
    channels={"E1-M2": 0.3, "Chin": 0.2},
    alone={"eyes": 0.6, "chin": 0.4},
    patches=None,
    site="lab",
    bed="bed1",
    session="bed1-night",
    source="live",
    event="bed1-night/7/1",
)
NOTICE = Notice(
    id="bed1-night/7/three pages of N2",
    source="live",
    site="lab",
    bed="bed1",
    session="bed1-night",
    rule="three pages of N2",
    stage="N2",
    pages=3,
    epoch=7,
    start="2026-03-01T22:02:00.000Z",
    end="2026-03-01T22:03:30.000Z",
    confidence=0.8,
)
BESIDE = payloads.Beside(
    at="2026-03-01T22:04:01.000Z",
    site="lab",
    bed="bed1",
    session="bed1-night",
    source="live",
    packs=(
        payloads.SecondOpinion(
            pack="gssc 0.0.9",
            digest="sha256:" + "0" * 64,
            provider="cpu",
            epoch=7,
            stage="N1",
            reason=None,
            probabilities=None,
            review=True,
            stages=("W",) * 7 + ("N1",),
            parted=(7,),
            compared=8,
            kappa=0.6,
            shed=0,
        ),
    ),
)
SPECTRUM = a_night_of_spectra().message(at=instant(60))
SHOWN: dict[str, tuple[payloads.Message, str]] = {
    "stage": (EVENT, "bed1 7 N2 0.8"),
    "events": (EVENT, '"bed1","bed1-night",7,"2026-03-01T22:03:30.000Z","final","N2",'),
    "status": (STATUS, "bed1: amp1 has sent nothing for 40 s: check its cable"),
    "night": (NIGHT, '"efficiency": 50'),
    "beside": (BESIDE, "bed1 7: gssc 0.0.9 says N1, kappa 0.6"),
    "notice": (NOTICE, "bed1 2026-03-01T22:03:30.000Z three pages of N2"),
    "spectrum": (SPECTRUM, "bed1 2 pages of F4-M1"),
    "explanation": (EXPLAINED, "bed1 7: R rests on E1-M2 and Chin"),
    "state": (STATE, '{"node":"node1","waiting":3,"degraded":["journal_degraded"]}'),
}


@pytest.mark.parametrize("line", LINES)
def test_a_documented_one_liner_prints_what_it_promises(line: str, tmp_path: Path) -> None:
    need_program("jq")
    need_program("mosquitto_sub")
    kind = re.findall(r"/(\w+)'", line)[0]
    message, expected = SHOWN[kind]
    topic = TOPICS.daemon("node1") if kind == "state" else f"{TOPICS.prefix}/bed/bed1/{kind}"
    with running_mosquitto(tmp_path) as broker:
        # Retained here, so that the subscriber cannot come too late.
        publish.single(topic, payloads.encode(message), qos=1, retain=True, port=broker.port)
        listen = line.replace("mosquitto_sub", f"mosquitto_sub -p {broker.port} -C 1 -W 10", 1)
        done = subprocess.run(["sh", "-c", listen], check=True, capture_output=True, text=True)
    assert expected in done.stdout


def test_every_topic_has_its_one_liner() -> None:
    assert {re.findall(r"/(\w+)'", line)[0] for line in LINES} == set(SHOWN)


def test_every_reason_and_command_is_documented() -> None:
    for reason in get_args(payloads.ReasonName):
        assert f"`{reason}`" in TEXT
    for command in get_args(commands.Command):
        assert f"`{command.__struct_config__.tag}`" in TEXT
