"""Which stream belongs to which bed: selectors, candidates, automatic grouping.

Pure decisions over what the network shows. The rule throughout: a stream is opened only where
exactly one fits, and a stream that is being read is never exchanged for another that also fits.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Protocol

from msgspec import Meta, Struct

from hypnocast.errors import ConfigError

PSG_TYPES = frozenset(
    {"eeg", "eog", "emg", "ecg", "ekg", "psg", "exg", "polysomnography", "biosignals"}
)
MARKER_TYPES = frozenset({"marker", "markers", "event", "events", "trigger", "triggers", "stim"})

_EEG_LABEL = re.compile(
    r"^(?:eeg[ _-]*)?(?:fp?[z1-9]|c[z1-6]|o[z12]|p[z1-8]|t[3-8]|f[3478z])(?:\b|[-_:/ ])"
    r"|^(?:eog|loc|roc|e1|e2|chin\d?|emg)\b",
    re.IGNORECASE,
)
_MODALITY = re.compile(
    r"[\s_\-./:]*(?:eeg|eog|emg|ecg|ekg|psg|exg|aux|markers?|events?|triggers?|truth|stages?)$",
    re.IGNORECASE,
)

OWN_SOURCE: Final = "hypnocast/"
"""How the source ids of the streams begin that Hypnocast itself sends."""


class Selector(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One stream a bed wants, as the configuration names it; every field that is set must agree."""

    source_id: str | None = None
    name: str | None = None
    type: str | None = None
    host: str | None = None
    predicate: str | None = None
    """An XPath 1.0 predicate over the stream's header, evaluated by the sender's liblsl."""
    labels: tuple[str, ...] = ()
    """Names for all channels, where the stream gives none or wrong ones."""
    rate: Annotated[float, Meta(gt=0.0, le=100_000.0)] | None = None
    """The nominal rate, where the stream gives none."""

    @property
    def chooses(self) -> bool:
        """Whether it names anything that a stream must have."""
        return any((self.source_id, self.name, self.type, self.host, self.predicate))

    def __str__(self) -> str:
        parts = [
            f"{field}={value!r}"
            for field in ("source_id", "name", "type", "host")
            if (value := getattr(self, field)) is not None
        ]
        return " ".join([*parts, *([f"[{self.predicate}]"] if self.predicate else [])])


@dataclass(frozen=True, slots=True)
class BedStreams:
    """A bed and the streams it is made of."""

    bed: str
    selectors: tuple[Selector, ...]
    units: Collection[str] = ()
    """Labels of channels (or ``*``) whose unit the configuration gives."""

    def __post_init__(self) -> None:
        if not all(selector.chooses for selector in self.selectors):
            raise ConfigError(
                "a selector says nothing about the stream it wants",
                where=f"bed {self.bed}",
                remedy="Give source_id, name, type, host or predicate",
            )


@dataclass(frozen=True, slots=True)
class AnnouncedStream:
    """A stream as the network announces it, before it is opened."""

    uid: str
    name: str
    type: str
    source_id: str
    host: str
    rate: float
    channel_count: int
    format: str

    @property
    def is_psg(self) -> bool:
        """Whether its type is one of sleep signals."""
        return not is_marker(self) and self.type.lower() in PSG_TYPES


class StreamDescription(Protocol):
    """What announcements and headers have in common."""

    @property
    def type(self) -> str:
        """Content type."""

    @property
    def format(self) -> str:
        """Channel format."""

    @property
    def rate(self) -> float:
        """Nominal rate in Hz, 0 where irregular."""


def is_marker(stream: StreamDescription) -> bool:
    """Return whether a stream carries texts or codes at irregular times."""
    return stream.format == "string" or (stream.rate == 0 and stream.type.lower() in MARKER_TYPES)


def matches(
    selector: Selector, seen: AnnouncedStream, by_predicate: Mapping[str, frozenset[str]]
) -> bool:
    """Return whether a stream fits; ``by_predicate`` has the uids that fit each predicate."""
    return (
        selector.source_id in (None, seen.source_id)
        and selector.name in (None, seen.name)
        and (selector.type is None or selector.type.lower() == seen.type.lower())
        and selector.host in (None, seen.host)
        and (
            selector.predicate is None
            or seen.uid in by_predicate.get(selector.predicate, frozenset())
        )
    )


@dataclass(frozen=True, slots=True)
class StreamChoice:
    """What to do about one selector: open ``uid`` or nothing, and who else fits."""

    uid: str | None = None
    rivals: tuple[AnnouncedStream, ...] = ()
    """All that fit, where more than one does."""


def choose(
    candidates: Sequence[AnnouncedStream], *, current: str | None, suspects: frozenset[str]
) -> StreamChoice:
    """Decide which stream a selector gets.

    ``current`` is being read; ``suspects`` broke off a moment ago and may still be announced by
    a network that has not noticed. A suspect is tried again only where nothing else fits.
    """
    fresh = [seen for seen in candidates if seen.uid not in suspects and seen.uid != current]
    if current is not None and current not in suspects:
        keep = [seen for seen in candidates if seen.uid == current]
        return StreamChoice(rivals=tuple(keep + fresh) if fresh else ())
    if not fresh:
        again = [seen for seen in candidates if seen.uid in suspects and seen.uid != current]
        fresh = again if len(again) == 1 else []
    if len(fresh) == 1:
        return StreamChoice(uid=fresh[0].uid)
    return StreamChoice(rivals=tuple(fresh))


def claimed_twice(
    wanted: Mapping[str, Iterable[str]],
) -> dict[str, tuple[str, ...]]:
    """Return uid → beds, for every stream that selectors of more than one bed fit."""
    beds: dict[str, set[str]] = {}
    for bed, uids in wanted.items():
        for uid in uids:
            beds.setdefault(uid, set()).add(bed)
    return {uid: tuple(sorted(names)) for uid, names in beds.items() if len(names) > 1}


def eeg_like(labels: Iterable[str]) -> bool:
    """Return whether at least two labels read like those of a polysomnogram."""
    return sum(1 for label in labels if _EEG_LABEL.search(label.strip())) >= 2


def name_prefix(name: str) -> str:
    """Return what the streams of one bed have in common: the name without the modality."""
    prefix = name.strip()
    while (cut := _MODALITY.sub("", prefix)) != prefix:
        prefix = cut
    return prefix


def auto_bed(seen: AnnouncedStream) -> str:
    """Name the bed of a stream nobody configured: its host and the prefix of its name.

    Always both, so that the name does not depend on who else is on the network today.
    """
    parts = (seen.host.split(".")[0], name_prefix(seen.name))
    slug = "-".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts if part)
    return slug.strip("-") or "bed"


def auto_selector(seen: AnnouncedStream) -> Selector:
    """Select what restarts of the same outlet have in common, even under another source_id."""
    return Selector(name=seen.name, type=seen.type, host=seen.host)
