"""``hypnocast replay``: tapes and recordings through the same pipeline as a live night."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from hypnocast.config.tables import Config
from hypnocast.core.night.agreement import Agreement, compare
from hypnocast.core.timing.decisions import Decision, decision_from_json
from hypnocast.core.timing.utc import UtcAnchor, seconds_of
from hypnocast.core.types import PAGE_S
from hypnocast.core.wire import payloads
from hypnocast.core.wire.topics import Topics
from hypnocast.errors import JournalError, TapeError
from hypnocast.live.bed.sources import RecordedSource
from hypnocast.live.service.build import (
    JOURNAL,
    WardDecisions,
    boot_id,
    broker_settings,
    make_parts,
    open_pack,
    pipeline_maker,
    topic_word,
)
from hypnocast.live.service.ward import Ward, WardParts, Watcher
from hypnocast.nights.fitting import fitting_choice
from hypnocast.nights.joined_chunks import JOINED_S, joined
from hypnocast.nights.replay_agreement import agreement_as_json, agreement_lines
from hypnocast.ports.hypnograms.scoring import scored_pages
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.recordings.files import open_recording
from hypnocast.ports.recordings.recording import Recording


@dataclass(slots=True)
class Replayed:
    """What came of a replay; collects events as they become durable."""

    recording: Recording | None = None
    events: list[payloads.StageEvent] = field(default_factory=list)
    took_s: float = 0.0

    def event(self, event: payloads.StageEvent) -> None:
        """Handle an event."""
        if event.status != "provisional":
            self.events.append(event)

    @property
    def agreement(self) -> Agreement | None:
        """Against the stages in the file; None where it has none."""
        if self.recording is None or not self.events or self.recording.start is None:
            return None
        start = seconds_of(self.events[0].start)
        begun = start - PAGE_S * self.events[0].epoch - self.recording.start.timestamp()
        model = {event.epoch: event.stage for event in self.events}
        epochs = max(model) + 1
        expert = scored_pages(
            self.recording.annotations, anchor=self.recording.t0 + begun, epochs=epochs
        )
        if not any(expert):
            return None
        ours = [model.get(epoch) for epoch in range(epochs)]
        return compare(ours, [None if stage is None else stage.value for stage in expert])

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        agreement = self.agreement
        return {
            "pages": len(self.events),
            "final": sum(event.status == "final" for event in self.events),
            "took_s": round(self.took_s, 3),
            "sessions": [event.session for event in self.events],
            "epochs": [event.epoch for event in self.events],
            "stages": [event.stage for event in self.events],
            "probabilities": [msgspec.to_builtins(event.probabilities) for event in self.events],
            "reasons": [event.reason for event in self.events],
            "pictures": [event.digests.picture for event in self.events],
            "agreement": None if agreement is None else agreement_as_json(agreement),
        }

    def lines(self) -> Iterator[str]:
        """Return it for people."""
        final = sum(event.status == "final" for event in self.events)
        rate = len(self.events) / self.took_s if self.took_s else 0.0
        yield f"{len(self.events)} pages, {final} staged, {self.took_s:.1f} s, {rate:.0f} pages/s"
        reasons = Counter(event.reason for event in self.events if event.reason)
        for reason, count in reasons.most_common():
            yield f"  withheld: {reason} {count}"
        agreement = self.agreement
        if agreement is not None:
            yield from agreement_lines(agreement)


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
    """Follow what the tape's live run decided about time."""


@dataclass(frozen=True, slots=True)
class _Sole:
    """Ends a replay into a journal that has the same night as another pack judged it.

    Events are never changed: the old ones would pass for this pack's.
    """

    pack: str
    journal: Path

    def event(self, event: payloads.StageEvent) -> None:
        """Look whose event this is."""
        if event.digests.pack != self.pack:
            raise JournalError(
                f"has session {event.session} already, as another pack judged it",
                where=str(self.journal),
                remedy="Name another folder with --journal.",
            )


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
    fitting_choice(config, recording, pack.recipe.roles, bed)
    start = recording.start.timestamp() if recording.start is not None else 0.0
    arrivals = joined((bed, arrival) for arrival in recording.arrivals(JOINED_S))
    source = RecordedSource(arrivals, UtcAnchor(recording.t0, start), kind="replay")
    decisions = decisions_of(recording) if settings.obey else ()
    script = WardDecisions({bed: decisions}) if decisions else None
    async with contextlib.AsyncExitStack() as stack:
        folder = settings.journal
        if folder is None:
            made = tempfile.TemporaryDirectory(prefix="hypnocast-replay-")
            folder = Path(stack.enter_context(made))
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        journal = await stack.enter_async_context(Journal.open(folder / JOURNAL))
        ward = Ward(
            WardParts(
                source=source,
                pack=pack,
                parts=make_parts(config, pack, journal, live=False, on_step=lambda _: None),
                topics=Topics(config.site.id, config.broker.topic_root),
                node=f"{config.daemon.node}-replay",
                broker=broker_settings(config.broker) if settings.to_broker else None,
                make_pipeline=pipeline_maker(
                    config, pack, source, boot_id=boot_id(), auto=script is None, script=script
                ),
                show_pages=config.publish.page and settings.to_broker,
                show_spectrum=config.publish.spectrum and settings.to_broker,
                watchers=(_Sole(pack.digest, folder), *watchers),
            )
        )
        await ward.run()


async def replay_with_progress(config: Config, settings: ReplaySettings) -> Replayed:
    """Replay with a progress bar on standard error, and return what came of it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    replayed = Replayed()
    console = Console(stderr=True)
    columns = ("[progress.description]{task.description}", BarColumn(), MofNCompleteColumn())
    bars = Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bars as progress:
        bar = progress.add_task("reading", total=None)

        def opened(recording: Recording) -> None:
            replayed.recording = recording
            pages = int(recording.duration_s // PAGE_S) or None
            progress.update(bar, description="pages", total=pages)
            for problem in recording.problems:
                console.print(f"note: {problem}", highlight=False)

        class Bar:
            def event(self, event: payloads.StageEvent) -> None:
                if event.status != "provisional":
                    progress.advance(bar)

        began = time.monotonic()
        await replay(config, settings, watchers=(replayed, Bar()), opened=opened)
        replayed.took_s = time.monotonic() - began
    return replayed
