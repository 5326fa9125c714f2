"""Opening a stream: the part that may wait, on a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hypnocast.core.types import StreamHeader
from hypnocast.errors import HypnocastError
from hypnocast.ports.lsl.announcements import Announced
from hypnocast.ports.lsl.beds import Selector, is_marker
from hypnocast.ports.lsl.inlet import Inlet
from hypnocast.ports.lsl.problems import ProblemKind
from hypnocast.ports.stream_xml import ParsedHeader, relabel

OPEN_TIMEOUT_S = 3.0
CLOCK_TIMEOUT_S = 3.0


@dataclass(eq=False)
class Opening:
    """One attempt to open one stream. Its fields are read once ``done`` is set."""

    uid: str
    began: float
    done: threading.Event = field(default_factory=threading.Event)
    inlet: Inlet | None = None
    described: ParsedHeader | None = None
    offset: float | None = None
    error: HypnocastError | None = None

    @classmethod
    def start(
        cls,
        announced: Announced,
        *,
        now: float,
        buffer_s: int,
        wake: Callable[[], None],
        measure: bool = True,
    ) -> Opening:
        """Begin the attempt in the background; ``wake`` is called when it has come to an end."""
        opening = cls(uid=announced.seen.uid, began=now)

        def run() -> None:
            try:
                inlet = Inlet(announced.info, buffer_s=buffer_s)
                opening.described = inlet.open(timeout_s=OPEN_TIMEOUT_S)
                if measure:
                    opening.offset = inlet.measure(timeout_s=CLOCK_TIMEOUT_S)
                opening.inlet = inlet
            except HypnocastError as error:
                opening.error = error
            finally:
                opening.done.set()
                wake()

        threading.Thread(target=run, name=f"lsl-open-{opening.uid[:8]}", daemon=True).start()
        return opening


def close_later(inlet: Inlet) -> None:
    """Close an inlet without waiting for it."""
    threading.Thread(target=inlet.close, name="lsl-close", daemon=True).start()


def effective_header(described: ParsedHeader, selector: Selector, key: str) -> StreamHeader:
    """Return the header as it counts: what the config says goes before what the stream says."""
    header = relabel(described.header, labels=selector.labels, rate=selector.rate)
    return replace(header, key=key)


def header_problems(
    described: ParsedHeader, header: StreamHeader
) -> list[tuple[ProblemKind, str, str]]:
    """Return kind, text and remedy for everything the header leaves out or gets wrong."""
    if is_marker(header):
        return []
    problems: list[tuple[ProblemKind, str, str]] = []
    labelled = any(channel.label for channel in header.channels)
    count = len(header.channels)
    if header.rate == 0:
        problems.append(
            (
                ProblemKind.NO_RATE,
                "carries signals but declares no sampling rate; it is not read",
                "Give its rate in the config",
            )
        )
    if described.labels_disagree and not labelled:
        problems.append(
            (
                ProblemKind.LABELS_DISAGREE,
                f"describes {described.labels_found} channels, has {count}; no label is believed",
                "Give all labels in the config",
            )
        )
    elif not labelled:
        problems.append(
            (
                ProblemKind.NO_LABELS,
                f"none of its {count} channels has a label",
                "Give all labels in the config",
            )
        )
    without = [channel.label or "?" for channel in header.channels if not channel.unit]
    if without:
        problems.append(
            (
                ProblemKind.NO_UNIT,
                f"no unit for {', '.join(without[:8])}{' …' if len(without) > 8 else ''}",
                "Give the unit in the config",
            )
        )
    return problems
