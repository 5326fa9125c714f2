"""``hypnocast replay``: tapes and recordings through the same pipeline as a live night."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hypnocast.app.build import (
    JOURNAL,
    Script,
    bedside_maker,
    boot_id,
    broker_settings,
    make_kit,
    open_pack,
    topic_word,
)
from hypnocast.app.config import Config
from hypnocast.app.sources import RecordedSource
from hypnocast.app.ward import Plan, Ward, Watcher
from hypnocast.core.decisions import Decision, decision_from_json
from hypnocast.core.topics import Topics
from hypnocast.core.types import Arrival
from hypnocast.core.utc import UtcAnchor
from hypnocast.errors import TapeError
from hypnocast.ports.broker import embedded_broker
from hypnocast.ports.files import open_recording
from hypnocast.ports.journal import Journal
from hypnocast.ports.recording import Recording


@dataclass(frozen=True, slots=True)
class ReplaySettings:
    """What to replay, and where its events go."""

    path: Path
    bed: str = ""
    """Default: the file's name."""
    journal: Path | None = None
    """Folder of the journal to write; None: one that is thrown away."""
    to_broker: bool = False
    """Send the events to the configured broker."""
    obey: bool = True
    """Follow what a tape says the live run decided about time."""


def decisions_of(recording: Recording) -> tuple[Decision, ...]:
    """Return what the live run decided about time; notes that are none are passed over."""
    decisions = []
    for text in recording.decisions:
        with contextlib.suppress(msgspec.DecodeError):
            decisions.append(decision_from_json(text))
    return tuple(decisions)


async def replay(
    config: Config,
    settings: ReplaySettings,
    *,
    watchers: tuple[Watcher, ...] = (),
    opened: Callable[[Recording], None] = lambda _: None,
) -> None:
    """Replay a recording until its end."""
    pack = open_pack(config)
    recording = open_recording(settings.path, timezone=config.site.timezone)
    opened(recording)
    if not recording.headers:
        raise TapeError("holds no signals", where=str(settings.path), remedy="Name another file.")
    bed = topic_word(settings.bed or settings.path.stem)
    start = recording.start.timestamp() if recording.start is not None else 0.0
    source = RecordedSource(_of_bed(bed, recording), UtcAnchor(recording.t0, start), kind="replay")
    decisions = decisions_of(recording) if settings.obey else ()
    script = Script({bed: decisions}) if decisions else None
    async with contextlib.AsyncExitStack() as stack:
        folder = settings.journal
        if folder is None:
            made = tempfile.TemporaryDirectory(prefix="hypnocast-replay-")
            folder = Path(stack.enter_context(made))
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        journal = await stack.enter_async_context(Journal.open(folder / JOURNAL))
        if settings.to_broker:
            broker = broker_settings(config.broker)
        else:
            broker = await stack.enter_async_context(embedded_broker())
        ward = Ward(
            Plan(
                source=source,
                pack=pack,
                kit=make_kit(config, pack, journal, live=False, on_step=lambda _: None),
                topics=Topics(config.site.id, config.broker.topic_root),
                node=f"{config.daemon.node}-replay",
                broker=broker,
                make_bedside=bedside_maker(
                    config, pack, source, boot_id=boot_id(), auto=script is None, script=script
                ),
                show_pages=config.publish.page and settings.to_broker,
                watchers=watchers,
            )
        )
        await ward.run()


def _of_bed(bed: str, recording: Recording) -> Iterator[tuple[str, Arrival]]:
    for arrival in recording.arrivals():
        yield bed, arrival
