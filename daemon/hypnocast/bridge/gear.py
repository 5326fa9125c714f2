"""What a piece of gear gives, and the loop that publishes it until it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from hypnocast.core.plain_text import plain
from hypnocast.core.types import Arrival, ChannelInfo, Chunk, StreamHeader
from hypnocast.errors import ConfigError, StreamError
from hypnocast.ports.lsl.library import LslNetwork, configure_lsl
from hypnocast.ports.lsl.outlets import SignalOutlets

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
"""How long the bridge waits before it tries again; twice as long after each failure."""

MICROVOLTS: Final = "microvolts"


@dataclass(frozen=True, slots=True)
class BridgeRun:
    """What a piece of gear may ask of the bridge that publishes it."""

    stop: threading.Event
    """Set once the bridge is to end."""
    say: Callable[[str], None]
    """Takes one line for each change of state."""
    listened_to: Callable[[], bool] = lambda: True
    """Whether anybody reads what is published."""


class Gear(Protocol):
    """One piece of gear: connected to anew each time ``arrivals`` is called."""

    @property
    def name(self) -> str:
        """What people know it by, with its address."""

    def arrivals(self, run: BridgeRun) -> Iterator[Arrival]:
        """Connect, and give what comes with stamps on the local LSL clock, until it is stopped.

        Ends by itself where there is nothing more to come. A :class:`StreamError` is tried again.
        """


def run_bridge(
    gear: Gear,
    *,
    stop: threading.Event,
    say: Callable[[str], None],
    network: LslNetwork | None = None,
) -> None:
    """Publish a piece of gear until ``stop`` is set or nothing more can come. Blocks.

    ``say`` gets one line for each change of state. While the gear is away its streams stay
    announced and silent, so that those who listen go on where it comes back.
    """
    configure_lsl(network or LslNetwork())

    def opened(header: StreamHeader) -> None:
        rate = f"{header.rate:g} Hz" if header.rate else "markers"
        say(f"{header.name}  source_id={header.source_id}  {len(header.channels)} × {rate}")

    outlets = SignalOutlets(gear.name, opened=opened)
    run = BridgeRun(stop, say, outlets.listened_to)
    pause, state = FIRST_PAUSE_S, ""
    try:
        while not stop.is_set():
            try:
                for arrival in gear.arrivals(run):
                    outlets.send(arrival)
                    if isinstance(arrival, Chunk) and state != "sending":
                        pause, state = FIRST_PAUSE_S, "sending"
                        say(f"{gear.name}: sending")
            except StreamError as error:
                if state != error.what:
                    state = error.what
                    say(f"{error}. Trying again, at least every {LONGEST_PAUSE_S:g} s.")
                stop.wait(pause)
                pause = min(2.0 * pause, LONGEST_PAUSE_S)
            else:
                break
    finally:
        outlets.close()
    say(f"{gear.name}: {'ended' if stop.is_set() else 'over, nothing more will come'}")


def signal_header(
    kind: str,
    name: str,
    rate: float,
    labels: Iterable[str],
    *,
    unit: str | None = MICROVOLTS,
    sample_format: str = "float32",
) -> StreamHeader:
    """Describe a stream of signals; ``kind`` and ``name`` make an id that is the same tomorrow."""
    source_id = f"bridge-{kind}-{name}"
    channels = tuple(ChannelInfo(label, unit, _kind_of(label)) for label in labels)
    return StreamHeader(
        key=source_id,
        name=name,
        type="EEG",
        source_id=source_id,
        uid=source_id,
        host="",
        rate=rate,
        channels=channels,
        format=sample_format,
    )


def marker_header(kind: str, name: str) -> StreamHeader:
    """Describe the texts that belong to a stream of signals."""
    source_id = f"bridge-{kind}-{name}-markers"
    return StreamHeader(
        key=source_id,
        name=f"{name}-markers",
        type="Markers",
        source_id=source_id,
        uid=source_id,
        host="",
        rate=0.0,
        channels=(ChannelInfo("marker"),),
        format="string",
    )


def renamed(labels: Sequence[str], names: Mapping[str, str]) -> tuple[str, ...]:
    """Give channels other names: by their label, or by their number from 1.

    A name for a channel that does not exist is a mistake, and said.
    """
    renamed_labels = [plain(label.strip()) or f"channel {n}" for n, label in enumerate(labels, 1)]
    places = {str(number): number - 1 for number in range(1, len(renamed_labels) + 1)}
    places |= {label: place for place, label in enumerate(renamed_labels)}
    for old, new in names.items():
        if old not in places:
            raise ConfigError(
                f"there is no channel {old!r}",
                where="--label",
                remedy=f"The channels are {', '.join(renamed_labels)}; a number from 1 serves too.",
            )
        renamed_labels[places[old]] = new
    return tuple(renamed_labels)


def _kind_of(label: str) -> str:
    """Return what LSL metadata call a channel of this label."""
    text = label.upper()
    for kind, words in (
        ("EMG", ("EMG", "CHIN", "MENT")),
        ("EOG", ("EOG", "E1", "E2", "LOC", "ROC")),
        ("ECG", ("ECG", "EKG")),
    ):
        if text.startswith(words):
            return kind
    return "EEG"
