"""The contract as others read it: validated by validators that know nothing of Hypnocast."""

from __future__ import annotations

import gzip
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator, ValidationError

from hypnocast.core.night.ledger import NightTitle, build_night
from hypnocast.core.timing.utc import instant as written
from hypnocast.core.wire import commands, payloads, schema
from hypnocast.core.wire.topics import Topics
from support.nights import an_event, instant

HERE = Path(__file__).parent
DOCS = HERE.parent.parent / "docs"


def _as_sent(message: payloads.Message) -> Any:
    return json.loads(payloads.encode(message))


def _numbered(event: payloads.StageEvent) -> payloads.StageEvent:
    return msgspec.structs.replace(event, sequence=1)


EVENTS = [
    _numbered(an_event(0)),
    _numbered(an_event(1, provisional=True)),
    _numbered(an_event(2, reason="detached")),
]


def test_documents_in_docs_are_what_the_types_say() -> None:
    there = {
        str(path.relative_to(DOCS)): path.read_text()
        for path in [DOCS / "asyncapi.json", *DOCS.glob("schemas/*.json")]
    }
    assert there == schema.documents()


def test_asyncapi_document_is_valid_by_the_official_schema() -> None:
    official = json.loads(gzip.decompress((HERE / "asyncapi-3.0.0.json.gz").read_bytes()))
    validator = Draft7Validator(official)
    document = schema.asyncapi()
    assert [error.message for error in validator.iter_errors(document)] == []
    document["channels"]["stage"]["adress"] = document["channels"]["stage"].pop("address")
    assert not validator.is_valid(document)


def test_every_reference_in_the_asyncapi_document_resolves() -> None:
    document = schema.asyncapi()
    references = 0

    def walk(node: Any) -> None:
        nonlocal references
        if isinstance(node, list):
            for item in node:
                walk(item)
        elif isinstance(node, dict):
            if "$ref" in node:
                references += 1
                target: Any = document
                for part in node["$ref"].removeprefix("#/").split("/"):
                    target = target[part]
            for item in node.values():
                walk(item)

    walk(document)
    assert references > 50


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: str(event.status))
def test_an_event_is_valid_and_every_key_is_required(event: payloads.StageEvent) -> None:
    validator = Draft202012Validator(schema.json_schemas()["event"])
    sent = _as_sent(event)
    validator.validate(sent)
    for key in sent:
        with pytest.raises(ValidationError):
            validator.validate({name: value for name, value in sent.items() if name != key})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("reason", "bad_mood"),
        ("stage", "S2"),
        ("status", "maybe"),
        ("revision", 2),
        ("sequence", 0),
        ("epoch", -1),
        ("confidence", 1.2),
        ("bed", "a/b"),
        ("start", "2026-03-01 22:00"),
        ("research_use_only", False),
        ("source", "dream"),
    ],
)
def test_what_is_not_in_a_closed_list_is_invalid(key: str, value: object) -> None:
    sent = _as_sent(EVENTS[0])
    validator = Draft202012Validator(schema.json_schemas()["event"])
    assert validator.is_valid(sent)
    assert not validator.is_valid({**sent, key: value})


def test_a_night_is_valid() -> None:
    title = NightTitle("lab", "bed1", "bed1-night", None, "live", instant())
    marks = [payloads.NightMark(at=instant(10), kind="lights_off", text="")]
    for events in ([], EVENTS):
        night = build_night(title, events, marks, at=instant(90))
        Draft202012Validator(schema.json_schemas()["night"]).validate(_as_sent(night))


def test_the_access_list_lets_each_daemon_write_all_that_it_sends_and_nothing_else() -> None:
    acl = (DOCS.parent / "systemd" / "mosquitto" / "hypnocast.acl").read_text()
    document = schema.asyncapi()
    sent = {
        document["channels"][operation["channel"]["$ref"].split("/")[-1]]["address"]
        for operation in document["operations"].values()
        if operation["action"] == "send"
    }
    for number in (1, 2):
        rules = acl.split(f"user bedside-{number}\n")[1].split("\n\n")[0].splitlines()
        names = {"site": "lab", "bed": f"bed{number}", "node": f"bedside-{number}"}
        own = f"hypnocast/lab/daemon/bedside-{number}/"
        topics = {
            f"{own}#" if topic.startswith(own) else topic
            for topic in (address.format_map(names) for address in sent)
        }
        written = {rule.split()[-1] for rule in rules if rule.startswith("topic write ")}
        assert written == topics
    assert f"# topic write {Topics('lab').discovery('bed1')}\n" in acl


@given(st.floats(-6.2e10, 2.5e11))
def test_every_time_there_is_can_be_written_and_read_back(utc: float) -> None:
    found = written(utc)
    msgspec.convert(found, payloads.Instant)
    assert datetime.fromisoformat(found).timestamp() == pytest.approx(utc, abs=2e-3)


def test_replies_are_valid_with_and_without_events() -> None:
    validator = Draft202012Validator(schema.json_schemas()["reply"])
    bare = commands.Reply(request="r", command="note", ok=False, error="no such session")
    full = commands.Reply(
        request="r", command="catch_up", ok=True, events=tuple(EVENTS), more=False
    )
    for reply in (bare, full):
        validator.validate(_as_sent(reply))


COMMANDS: list[tuple[object, bool]] = [
    ({"command": "start_session", "request": "1"}, True),
    ({"command": "start_session", "request": "1", "subject": "S-01", "phase": "setup"}, True),
    ({"command": "start_session", "request": "1", "subject": "Jane Doe"}, False),
    ({"command": "start_session", "request": "1", "phase": "ended"}, False),
    ({"command": "start_session"}, False),
    ({"command": "end_session", "request": "1", "session": "s"}, True),
    ({"command": "end_session", "request": "1"}, False),
    ({"command": "lights_off", "request": "1", "session": "s", "at": instant()}, True),
    ({"command": "lights_off", "request": "1", "session": "s", "at": 5}, False),
    ({"command": "lights_on", "request": "", "session": "s"}, False),
    ({"command": "note", "request": "1", "session": "s", "text": ""}, False),
    ({"command": "note", "request": "1", "session": "s", "text": "x" * 501}, False),
    ({"command": "explain", "request": "1", "session": "s", "epoch": -1}, False),
    ({"command": "page", "request": "1", "session": "s", "epoch": 4}, True),
    ({"command": "catch_up", "request": "1", "since": 0, "limit": 501}, False),
    ({"command": "catch_up", "request": "1", "since": 0}, True),
    ({"command": "catch_up", "request": "1", "since": 0, "extra": 1}, False),
    ({"command": "reboot", "request": "1"}, False),
    ([], False),
    ("start_session", False),
    (None, False),
]


@pytest.mark.parametrize(("command", "good"), COMMANDS)
def test_schema_and_daemon_agree_on_what_is_a_command(command: object, good: bool) -> None:
    assert Draft202012Validator(schema.json_schemas()["command"]).is_valid(command) is good
    payload = json.dumps(command).encode()
    if good:
        commands.decode_command(payload)
    else:
        with pytest.raises(msgspec.ValidationError):
            commands.decode_command(payload)
