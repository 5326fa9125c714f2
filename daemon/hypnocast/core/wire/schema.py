"""JSON Schemas of every payload, and the AsyncAPI 3 document, made from the types in ``wire``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from hypnocast.core.wire import commands, notices, payloads, spectra, traces
from hypnocast.core.wire.topics import Topics

Json = dict[str, Any]

_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
_CONTRACT_VERSION: Final = "1.0.0"


@dataclass(frozen=True, slots=True)
class _Payload:
    """One kind of message, and the channel it goes over."""

    name: str
    channel: str
    address: str
    type: Any
    direction: Literal["send", "receive"]
    """As the daemon sees it."""
    retained: bool
    summary: str
    content_type: str = "application/json"
    qos: Literal[0, 1] = 1


def _payloads() -> tuple[_Payload, ...]:
    """Return the contract, topic by topic."""
    topics = Topics("{site}")
    node, bed = "{node}", "{bed}"
    return (
        _Payload(
            "available",
            "available",
            topics.available(node),
            Literal["online", "offline"],
            "send",
            retained=True,
            summary="Whether the daemon has a connection; its last will says offline.",
            content_type="text/plain",
        ),
        _Payload(
            "daemon",
            "daemonState",
            topics.daemon(node),
            payloads.DaemonState,
            "send",
            retained=True,
            summary="How the daemon does, every 30 s.",
        ),
        _Payload(
            "status",
            "bedStatus",
            topics.status(bed),
            payloads.BedStatus,
            "send",
            retained=True,
            summary="What goes on at a bed.",
        ),
        _Payload(
            "stage",
            "stage",
            topics.stage(bed),
            payloads.StageEvent,
            "send",
            retained=True,
            summary="The newest event; cleared (empty payload) when the session ends.",
        ),
        _Payload(
            "event",
            "events",
            topics.events(bed),
            payloads.StageEvent,
            "send",
            retained=False,
            summary="Every event in the order of its sequence; a repeat carries the same id.",
        ),
        _Payload(
            "night",
            "night",
            topics.night(bed),
            payloads.Night,
            "send",
            retained=True,
            summary="The night so far; a late subscriber needs nothing else.",
        ),
        _Payload(
            "spectrum",
            "spectrum",
            topics.spectrum(bed),
            spectra.NightSpectrum,
            "send",
            retained=True,
            summary="Power spectrum of one EEG, page by page, unless switched off.",
        ),
        _Payload(
            "page",
            "page",
            topics.page(bed),
            bytes,
            "send",
            retained=True,
            summary="The PNG the model saw, if switched on; cleared when the session ends.",
            content_type="image/png",
        ),
        _Payload(
            "rolling",
            "rolling",
            topics.rolling(bed),
            payloads.Rolling,
            "send",
            retained=False,
            summary="Verdicts on the last 30 s between page closes, if switched on.",
            qos=0,
        ),
        _Payload(
            "traces",
            "traces",
            topics.traces(bed),
            traces.Traces,
            "send",
            retained=False,
            summary="The newest second of every channel, if switched on: for people's eyes.",
            qos=0,
        ),
        _Payload(
            "notice",
            "notice",
            topics.notice(bed),
            notices.Notice,
            "send",
            retained=False,
            summary="A rule of the lab's own was met, where there are any; no alarm function.",
        ),
        _Payload(
            "beside",
            "beside",
            topics.beside(bed),
            payloads.Beside,
            "send",
            retained=True,
            summary="What packs beside say of the night, where there are any: second opinions.",
        ),
        _Payload(
            "explanation",
            "explanation",
            topics.explanation(bed),
            payloads.Explained,
            "send",
            retained=True,
            summary="What the newest explained stage rests on, if switched on; cleared when the "
            "session ends.",
        ),
        _Payload(
            "command",
            "command",
            topics.command(bed),
            commands.Command,
            "receive",
            retained=False,
            summary="Commands and questions to a bed; a retained command is ignored.",
        ),
        _Payload(
            "reply",
            "reply",
            topics.reply(bed),
            commands.Reply,
            "send",
            retained=False,
            summary="The answer to a command, with its request id.",
        ),
    )


def json_schemas() -> dict[str, Json]:
    """Return one self-contained JSON Schema per kind of JSON payload."""
    schemas: dict[str, Json] = {}
    for payload in _payloads():
        if payload.content_type != "application/json":
            continue
        root, components = _components(payload.type, "#/$defs/{name}")
        schemas[payload.name] = {
            "$schema": _DRAFT,
            "$id": f"urn:hypnocast:schema:{payload.name}:1",
            "title": payload.summary,
            **root,
            "$defs": components,
        }
    return schemas


def asyncapi() -> Json:
    """Return the contract as an AsyncAPI 3.0 document."""
    channels: Json = {}
    operations: Json = {}
    messages: Json = {}
    schemas: Json = {}
    for payload in _payloads():
        messages[payload.name] = _message(payload, schemas)
        channels[payload.channel] = {
            "address": payload.address,
            "description": payload.summary,
            "messages": {payload.name: {"$ref": f"#/components/messages/{payload.name}"}},
            "parameters": {
                name: {"$ref": f"#/components/parameters/{name}"}
                for name in re.findall(r"\{(\w+)\}", payload.address)
            },
        }
        operations[f"{payload.direction}_{payload.channel}"] = _operation(payload)
    operations["receive_command"]["reply"] = {
        "channel": {"$ref": "#/channels/reply"},
        "messages": [{"$ref": "#/channels/reply/messages/reply"}],
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Hypnocast",
            "version": _CONTRACT_VERSION,
            "description": (
                "Sleep stages of live polysomnography, one terminal event for every page of 30 s. "
                "For research; no diagnosis, no alarm function."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": schemas,
            "parameters": {
                "site": {"description": "The site, as configured."},
                "node": {"description": "The daemon, as configured; its host's name by default."},
                "bed": {"description": "The bed: a pseudonymous id, never a name."},
            },
        },
    }


def _message(payload: _Payload, schemas: Json) -> Json:
    message: Json = {
        "name": payload.name,
        "title": payload.name,
        "summary": payload.summary,
        "contentType": payload.content_type,
    }
    if payload.type is bytes:
        message["payload"] = {"type": "string", "format": "binary"}
        return message
    root, components = _components(payload.type, "#/components/schemas/{name}")
    schemas.update(components)
    message["payload"] = _openapi_free(root)
    return message


def _operation(payload: _Payload) -> Json:
    return {
        "action": payload.direction,
        "channel": {"$ref": f"#/channels/{payload.channel}"},
        "messages": [{"$ref": f"#/channels/{payload.channel}/messages/{payload.name}"}],
        "bindings": {
            "mqtt": {"qos": payload.qos, "retain": payload.retained, "bindingVersion": "0.2.0"}
        },
    }


def _components(kind: Any, template: str) -> tuple[Json, Json]:
    (root,), components = msgspec.json.schema_components([kind], ref_template=template)
    return _openapi_free(root), {
        name: _strict(_openapi_free(schema)) for name, schema in sorted(components.items())
    }


def _strict(schema: Json) -> Json:
    """Require every key of what Hypnocast publishes: null says that there is no value.

    What it receives says ``additionalProperties: false`` already, and keeps its optional keys.
    """
    if "properties" in schema and schema.get("additionalProperties") is not False:
        return {**schema, "required": list(schema["properties"])}
    return schema


def _openapi_free(schema: Json) -> Json:
    """Drop OpenAPI's ``discriminator``: the tag is a required one-word enum in each command."""
    return {key: value for key, value in schema.items() if key != "discriminator"}


def documents() -> dict[str, str]:
    """Return every document as it lies in ``docs``, by its path there."""
    schemas = {f"schemas/{name}.json": schema for name, schema in json_schemas().items()}
    return {
        path: msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"
        for path, document in {"asyncapi.json": asyncapi(), **schemas}.items()
    }
