"""Messages that break the contract of the public topics, or strain what a viewer can show.

Each is a topic below the site's prefix and a payload, as anybody who may write to the broker
could retain it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec

from hypnocast.core.night.ledger import NightTitle, build_night
from hypnocast.core.wire import payloads
from support.nights import an_event, instant

BED = "bed2"
EVIL = "\x1b]0;owned\x07\x1b[2J[link=http://evil.example]x[/link]"


def _event(**changes: Any) -> bytes:
    return json.dumps(json.loads(a_stage()) | changes).encode()


def a_stage(bed: str = BED) -> bytes:
    """Return a bed's newest stage, good in every part."""
    return payloads.encode(msgspec.structs.replace(an_event(3, bed=bed), sequence=4))


def _night(change: Callable[[dict[str, Any]], object] = lambda _: None, pages: int = 4) -> bytes:
    title = NightTitle("lab", BED, f"{BED}-night", "S001", "simulated", instant())
    events = [an_event(epoch, bed=BED) for epoch in range(pages)]
    document = json.loads(payloads.encode(build_night(title, events, at=instant(200))))
    change(document)
    return json.dumps(document).encode()


def a_status(bed: str = BED, **changes: Any) -> bytes:
    """Return a bed's status, good but for the changes."""
    fields: dict[str, Any] = {
        "schema": "hypnocast.status/1", "at": instant(60), "site": "lab", "bed": bed,
        "node": "node1", "state": "live", "phase": "recording", "session": f"{bed}-night",
        "subject": "S001", "source": "live", "since": instant(), "epoch": 3, "lights": "off",
        "streams": [], "channels": {}, "problems": [], "latency_ms": 12.0, "provider": "cpu",
        "pack": "p", "research_use_only": True,
    }  # fmt: skip
    return json.dumps(fields | changes).encode()


REFUSED: dict[str, tuple[str, bytes]] = {
    "an epoch of gigabytes": (f"bed/{BED}/stage", _event(epoch=2_000_000_000)),
    "an epoch beyond memory": (f"bed/{BED}/stage", _event(epoch=10**18)),
    "an epoch of more than a week": (f"bed/{BED}/stage", _event(epoch=20_161)),
    "an epoch before the first": (f"bed/{BED}/stage", _event(epoch=-1)),
    "an epoch that is no whole number": (f"bed/{BED}/stage", _event(epoch=1.5)),
    "an epoch of a thousand digits": (
        f"bed/{BED}/stage", _event().replace(b'"epoch": 3', b'"epoch": ' + b"9" * 1000),
    ),
    "a number that is none": (f"bed/{BED}/stage", _event().replace(b'"epoch": 3', b'"epoch": NaN')),
    "a page before time began": (f"bed/{BED}/stage", _event(start="0001-01-01T00:00:00.000Z",
                                                           end="0001-01-01T00:00:30.000Z")),
    "a page at the end of time": (f"bed/{BED}/stage", _event(start="9999-12-31T23:59:59.999Z",
                                                            end="9999-12-31T23:59:59.999Z")),
    "a day that no calendar has": (f"bed/{BED}/stage", _event(start="2026-02-30T00:00:00.000Z",
                                                             end="2026-02-31T00:00:00.000Z")),
    "an hour that no clock has": (f"bed/{BED}/stage", _event(end="2026-02-01T99:99:99.000Z")),
    "a stage that is none": (f"bed/{BED}/stage", _event(stage="N4")),
    "no object": (f"bed/{BED}/stage", b"[]"),
    "half an object": (f"bed/{BED}/stage", _event()[:200]),
    "brackets without end": (f"bed/{BED}/stage", b"[" * 100_000),
    "no text at all": (f"bed/{BED}/stage", bytes(range(256))),
    "four megabytes": (f"bed/{BED}/stage", _event(rationale="x" * (4 << 20))),
    "a night of a billion pages": (f"bed/{BED}/night", _night(lambda n: n.update(epochs=10**9))),
    "a night of a month": (
        f"bed/{BED}/night",
        _night(lambda n: n.update(epochs=86_400, status="f" * 86_400, stages=["W"] * 86_400,
                                  reasons=[None] * 86_400, probabilities=[None] * 86_400)),
    ),
    "a night whose lists differ": (f"bed/{BED}/night", _night(lambda n: n["stages"].pop())),
    "a night without probabilities": (
        f"bed/{BED}/night", _night(lambda n: n.update(probabilities=[])),
    ),
    "a night before time began": (
        f"bed/{BED}/night", _night(lambda n: n.update(start="0001-01-01T00:00:00.000Z")),
    ),
    "a night at the end of time": (
        f"bed/{BED}/night", _night(lambda n: n.update(start="9999-12-31T23:59:59.000Z")),
    ),
    "a night reviewed in a million years": (
        f"bed/{BED}/night", _night(lambda n: n.update(review=[10**12])),
    ),
    "a status before time began": (
        f"bed/{BED}/status", a_status(at="0001-01-01T00:00:00.000Z"),
    ),
    "a status of a billionth page": (f"bed/{BED}/status", a_status(epoch=10**9)),
    "a status of three megabytes": (f"bed/{BED}/status", a_status(problems=["x" * (3 << 20)])),
    "a bed without a name": ("bed//status", a_status()),
    "a bed with a long name": (f"bed/{'x' * 65}/status", a_status()),
    "a bed named by number": (f"bed/{'9' * 5000}/status", a_status()),
    "a bed that steers a terminal": ("bed/\x1b[2J/status", a_status()),
    "a bed of markup": ("bed/<img src=x onerror=alert(1)>/status", a_status()),
    "a picture that is none": (f"bed/{BED}/page", b"<svg onload=alert(1)>"),
    "a picture of five megabytes": (f"bed/{BED}/page", b"\x89PNG\r\n\x1a\n" + b"x" * (5 << 20)),
    "an explanation of a billionth page": (
        f"bed/{BED}/explanation",
        json.dumps({"epoch": 10**9, "stage": "R", "sentence": "s", "probability": 0.5,
                    "channels": {}, "alone": {}, "patches": None, "site": "lab", "bed": BED,
                    "session": "s", "source": "live", "event": "e"}).encode(),
    ),
    "a daemon neither here nor away": ("daemon/node1/available", b"perhaps"),
    "a daemon without a name": ("daemon//available", b"online"),
    "a daemon's state that is none": ("daemon/node1/state", b"{}"),
}  # fmt: skip
"""What must be refused, by what it is."""

SHOWN: dict[str, tuple[str, bytes]] = {
    "a subject that steers a terminal": (f"bed/{BED}/status", a_status(subject=EVIL)),
    "a problem that steers a terminal": (f"bed/{BED}/status", a_status(problems=[EVIL])),
    "a node that steers a terminal": (f"bed/{BED}/status", a_status(problems=[EVIL] * 1000)),
    "a session that is markup": (f"bed/{BED}/status", a_status(session="<script>x</script>")),
    "a thousand channels": (
        f"bed/{BED}/status",
        a_status(channels={
            f"{EVIL}{number}": {"derivation": EVIL, "unit": EVIL, "flags": ["flat"], "words": EVIL}
            for number in range(1000)
        }),
    ),
    "the last page of the longest night": (f"bed/{BED}/stage", _event(epoch=20_160)),
}  # fmt: skip
"""What keeps the contract and must be shown without harm."""
