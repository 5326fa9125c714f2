"""What :mod:`fuzz.learn` fuzzes: whatever comes over the network, and the corpora it has learnt."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from attacks.bad_messages import REFUSED, SHOWN, a_stage, a_status
from fuzz.targets import Target, command_target, header_target
from hypnocast.dashboard.view import card, fold
from hypnocast.dashboard.ward import Incoming, WardView

CORPUS = Path(__file__).parent / "corpus"


def viewer_target() -> Target:
    """Return what viewers make of a message: a topic, a line's end, a payload."""
    calm = WardView()
    for leaf, payload in (("status", a_status("calm")), ("stage", a_stage("calm"))):
        calm = fold(calm, Incoming(f"bed/calm/{leaf}", payload, retained=True, at=time.time()))
    assert calm.refused == 0, calm.refusal
    shown = card(calm.beds["calm"], calm)

    def read(data: bytes) -> object:
        topic, _, payload = data.partition(b"\n")
        words = topic.decode("utf-8", "replace")
        ward = fold(calm, Incoming(words, payload, retained=True, at=2e9))
        for bed in ward.beds.values():
            card(bed, ward)
        if not words.startswith(("bed/calm/", "daemon/")):
            assert card(ward.beds["calm"], ward) == shown, "another bed's card changed"
        return ward

    told = [*REFUSED.values(), *SHOWN.values(), ("bed/b/status", a_status("b")),
            ("bed/b/stage", a_stage("b")), ("daemon/n/available", b"online")]  # fmt: skip
    seeds = tuple(
        topic.encode() + b"\n" + payload for topic, payload in told if len(payload) < 16_000
    )
    return Target("messages to viewers", seeds, read)


TARGETS: dict[str, Callable[[], Target]] = {
    "header": header_target,
    "command": command_target,
    "viewer": viewer_target,
}


def learnt(name: str) -> Iterator[Path]:
    """Give the inputs that were learnt for a target."""
    yield from sorted((CORPUS / name).glob("*"))
