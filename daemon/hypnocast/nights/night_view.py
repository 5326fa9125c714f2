"""One night as the journal has it, laid out page by page."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType

from hypnocast.config.tables import Config
from hypnocast.core.night.ledger import NightTitle, build_night
from hypnocast.core.timing.utc import instant
from hypnocast.core.types import PAGE_S, PageSpectrum
from hypnocast.core.wire.payloads import Night, StageEvent, StageName
from hypnocast.errors import CommandError
from hypnocast.live.service.build import JOURNAL
from hypnocast.ports.journal.reader import JournalReader, NightRecord
from hypnocast.ports.journal.records import BesideRecord, ClockAnchor, SessionRecord

LATEST = "latest"


@dataclass(frozen=True, slots=True)
class SecondHypnogram:
    """The opinion of a pack beside on a night."""

    name: str
    stages: tuple[StageName | None, ...]
    """Per epoch; None where it has no stage, or did not judge the page."""
    confidences: tuple[float, ...]
    parted: tuple[int, ...]
    """Epochs to which the two gave different stages."""


@dataclass(frozen=True, slots=True)
class NightView:
    """A night, ready to be shown, exported or compared."""

    session: SessionRecord
    night: Night
    pages: tuple[StageEvent | None, ...]
    """The last word on each epoch: its terminal event, else its provisional one; None where
    the journal has neither."""
    anchors: tuple[ClockAnchor, ...]
    scorers: Mapping[str, tuple[StageName | None, ...]]
    """What each scorer staged, epoch by epoch: a later correction goes before an earlier one."""
    seconds: tuple[SecondHypnogram, ...] = ()
    """Second opinions, pack by pack."""
    spectra: Mapping[int, PageSpectrum] = field(default_factory=lambda: MappingProxyType({}))
    """Epoch → its page's spectrum, for the pages that have one."""

    @property
    def start(self) -> datetime:
        """When epoch 0 began, in UTC."""
        return datetime.fromisoformat(self.night.start)

    @property
    def stages(self) -> tuple[StageName | None, ...]:
        """The stage of every page that is settled; None for any other."""
        return tuple(
            page.stage if page is not None and page.status == "final" else None
            for page in self.pages
        )

    def begins(self, epoch: int) -> datetime:
        """Return when a page begins, in UTC."""
        return self.start + timedelta(seconds=PAGE_S * epoch)

    def page(self, epoch: int) -> StageEvent:
        """Return the last word on a page; :class:`CommandError` where there is none."""
        event = self.pages[epoch] if 0 <= epoch < len(self.pages) else None
        if event is None:
            raise CommandError(
                f"there is no page {epoch}",
                where=f"night {self.session.id}",
                remedy=f"It has pages 0 to {len(self.pages) - 1}."
                if self.pages
                else "It has no pages.",
            )
        return event


def view_of(record: NightRecord, *, now: float | None = None) -> NightView:
    """Lay out what the journal has of a night; ``now`` is when it is looked at."""
    session = record.session
    title = NightTitle(
        site=session.site,
        bed=session.bed,
        session=session.id,
        subject=session.subject,
        source=session.source,
        start=session.start or session.opened,
    )
    at = instant(time.time() if now is None else now)
    seconds = _seconds(record)
    night = build_night(
        title,
        record.events,
        record.marks,
        at=at,
        ended=session.ended,
        doubted={epoch for second in seconds for epoch in second.parted},
    )
    pages: list[StageEvent | None] = [None] * night.epochs
    for event in record.events:
        before = pages[event.epoch]
        if before is None or event.revision > before.revision:
            pages[event.epoch] = event
    scorers = _scorers(record, night.epochs)
    spectra = MappingProxyType(dict(record.spectra))
    return NightView(session, night, tuple(pages), record.anchors, scorers, seconds, spectra)


def _seconds(record: NightRecord) -> tuple[SecondHypnogram, ...]:
    terminal = {event.epoch: event.stage for event in record.events if event.revision == 1}
    length = max([0, *(epoch + 1 for epoch in terminal)])
    packs: dict[str, list[BesideRecord]] = {}
    for opinion in record.beside:
        packs.setdefault(opinion.pack, []).append(opinion)
    return tuple(_second(opinion, terminal, length) for opinion in packs.values())


def _second(
    records: Sequence[BesideRecord], terminal: Mapping[int, StageName | None], length: int
) -> SecondHypnogram:
    length = max([length, *(one.epoch + 1 for one in records)])
    stages: list[StageName | None] = [None] * length
    confidences = [0.0] * length
    for one in records:
        stages[one.epoch] = one.stage
        if one.probabilities is not None:
            confidences[one.epoch] = float(one.probabilities.max())
    parted = tuple(
        one.epoch
        for one in records
        if one.stage is not None and terminal.get(one.epoch) not in (None, one.stage)
    )
    return SecondHypnogram(records[0].name, tuple(stages), tuple(confidences), parted)


def _scorers(record: NightRecord, epochs: int) -> Mapping[str, tuple[StageName | None, ...]]:
    length = max([epochs, *(one.epoch + 1 for one in record.corrections)])
    scorers: dict[str, list[StageName | None]] = {}
    for one in record.corrections:
        scorers.setdefault(one.scorer, [None] * length)[one.epoch] = one.stage
    return MappingProxyType({name: tuple(stages) for name, stages in scorers.items()})


def journal_of(config: Config) -> Path:
    """Return where the journal of a configuration lies."""
    return config.state_dir / JOURNAL


def open_night(config: Config, wanted: str) -> NightView:
    """Return a night by its id, by an unmistakable beginning of it, or ``latest``."""
    with JournalReader(journal_of(config)) as reader:
        return view_of(reader.night(_find(reader, wanted)))


def _find(reader: JournalReader, wanted: str) -> str:
    nights = reader.nights(limit=100_000)
    if wanted == LATEST and nights:
        return nights[0].id
    found = [night.id for night in nights if night.id.startswith(wanted)]
    if wanted in found:
        return wanted
    if len(found) == 1:
        return found[0]
    raise CommandError(
        f"{len(found)} nights begin with {wanted!r}" if found else f"there is no night {wanted!r}",
        where="NIGHT",
        remedy="`hypnocast nights` lists those there are.",
    )
