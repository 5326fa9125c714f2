"""What the network shows: streams as they are announced, before any is opened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hypnocast.ports.lsl.beds import AnnouncedStream
from hypnocast.ports.lsl.library import load_pylsl
from hypnocast.ports.stream_xml import FORMATS

FORGET_AFTER_S = 3.0
"""An outlet that has not answered for this long is no longer announced."""


@dataclass(frozen=True, slots=True, eq=False)
class Announced:
    """A stream on the network, with liblsl's handle to open it."""

    seen: AnnouncedStream
    info: Any
    since: float
    """When it was first seen, on the local LSL clock."""


class Network:
    """Watches the network in liblsl's own background thread."""

    def __init__(self, predicates: Iterable[str] = ()) -> None:
        """Begin to watch, also for what fits each XPath predicate."""
        pylsl = load_pylsl()
        self._format_names: list[str] = list(pylsl.lib.fmt2string)
        self._since: dict[str, float] = {}
        self._all = pylsl.ContinuousResolver(forget_after=FORGET_AFTER_S)
        self._by_predicate = {
            predicate: pylsl.ContinuousResolver(pred=predicate, forget_after=FORGET_AFTER_S)
            for predicate in sorted(set(predicates))
        }

    def announced(self, now: float) -> dict[str, Announced]:
        """Return what is there now, by uid. Never waits."""
        infos = {info.uid(): info for info in self._all.results()}
        self._since = {uid: self._since.get(uid, now) for uid in infos}
        return {uid: self._describe(info, self._since[uid]) for uid, info in infos.items()}

    def by_predicate(self) -> dict[str, frozenset[str]]:
        """Return the uids of the streams that fit each predicate."""
        return {
            predicate: frozenset(info.uid() for info in resolver.results())
            for predicate, resolver in self._by_predicate.items()
        }

    def _describe(self, info: Any, since: float) -> Announced:
        code = info.channel_format()
        name = self._format_names[code] if 0 <= code < len(self._format_names) else ""
        seen = AnnouncedStream(
            uid=info.uid(),
            name=info.name(),
            type=info.type(),
            source_id=info.source_id(),
            host=info.hostname(),
            rate=info.nominal_srate(),
            channel_count=info.channel_count(),
            format=name if name in FORMATS else "undefined",
        )
        return Announced(seen, info, since)
