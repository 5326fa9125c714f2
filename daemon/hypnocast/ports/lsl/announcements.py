"""What the network shows: streams as they are announced, before any is opened."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from hypnocast.core.plain_text import plain
from hypnocast.ports.lsl.beds import OWN_SOURCE, AnnouncedStream
from hypnocast.ports.lsl.library import load_pylsl
from hypnocast.ports.lsl.limits import MAX_ANNOUNCED
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
        self._pylsl = load_pylsl()
        self._format_names: list[str] = list(self._pylsl.lib.fmt2string)
        self._known: dict[str, tuple[AnnouncedStream, float]] = {}
        """Each announced stream, and since when it is there."""
        self._room = (ctypes.c_void_p * MAX_ANNOUNCED)()
        self.crowded = False
        """Whether there were more announcements than are looked at: some streams are not seen."""
        self._all = self._pylsl.ContinuousResolver(forget_after=FORGET_AFTER_S)
        self._by_predicate = {
            predicate: self._pylsl.ContinuousResolver(pred=predicate, forget_after=FORGET_AFTER_S)
            for predicate in sorted(set(predicates))
        }

    def announced(self, now: float) -> dict[str, Announced]:
        """Return what is there now, by uid. Never waits."""
        found: dict[str, Announced] = {}
        known: dict[str, tuple[AnnouncedStream, float]] = {}
        count = 0
        for info in self._results(self._all):
            count += 1
            uid = info.uid()
            seen, since = known[uid] = self._known.get(uid) or (self._describe(info, uid), now)
            if seen.source_id.startswith(OWN_SOURCE):
                continue  # what Hypnocast sends is no input, whichever daemon sends it
            found[uid] = Announced(seen, info, since)
        self._known = known
        self.crowded = count >= MAX_ANNOUNCED
        return found

    def by_predicate(self) -> dict[str, frozenset[str]]:
        """Return the uids of the streams that fit each predicate."""
        return {
            predicate: frozenset(info.uid() for info in self._results(resolver))
            for predicate, resolver in self._by_predicate.items()
        }

    def _results(self, resolver: Any) -> Iterator[Any]:
        """Give what a resolver has found; pylsl's own ``results`` gives 1024 at most."""
        found = self._pylsl.lib.lib.lsl_resolver_results(
            resolver.obj, ctypes.byref(self._room), MAX_ANNOUNCED
        )
        infos = [self._pylsl.StreamInfo(handle=self._room[place]) for place in range(max(0, found))]
        return iter(infos)

    def _describe(self, info: Any, uid: str) -> AnnouncedStream:
        code = info.channel_format()
        name = self._format_names[code] if 0 <= code < len(self._format_names) else ""
        return AnnouncedStream(
            uid=uid,
            name=plain(info.name()),
            type=plain(info.type()),
            source_id=plain(info.source_id()),
            host=plain(info.hostname()),
            rate=info.nominal_srate(),
            channel_count=info.channel_count(),
            format=name if name in FORMATS else "undefined",
        )
