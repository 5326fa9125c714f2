"""What is on the network, for ``hypnocast streams``: headers, problems, and whose bed it is."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from hypnocast.core.montage.gear_channels import signal_labels
from hypnocast.core.types import StreamHeader
from hypnocast.errors import StreamError
from hypnocast.ports.lsl.announcements import Announced, Network
from hypnocast.ports.lsl.beds import (
    AnnouncedStream,
    BedStreams,
    Selector,
    auto_bed,
    auto_selector,
    eeg_like,
    is_marker,
    matches,
)
from hypnocast.ports.lsl.library import load_pylsl
from hypnocast.ports.lsl.opening import (
    OPEN_TIMEOUT_S,
    Openers,
    Opening,
    effective_header,
    header_problems,
)
from hypnocast.ports.lsl.problems import ProblemKind, StreamProblem
from hypnocast.ports.supervision import Supervisor


@dataclass(frozen=True, slots=True)
class FoundStream:
    """A stream on the network."""

    seen: AnnouncedStream
    header: StreamHeader | None
    """None where the stream did not answer."""
    bed: str | None
    """The bed that reads it; None where no bed does."""
    problems: tuple[StreamProblem, ...]


def discover(
    beds: tuple[BedStreams, ...] | None = None, *, wait_s: float = 2.0
) -> list[FoundStream]:
    """Look at the network for a while, ask every stream for its header, sort by bed and name.

    With ``beds`` the streams are given to the beds of the config, else to those that
    :class:`~hypnocast.ports.lsl.source.LslSource` would make by itself.
    """
    clock = load_pylsl().local_clock
    network = Network(s.predicate for bed in beds or () for s in bed.selectors if s.predicate)
    threading.Event().wait(wait_s)
    announced = network.announced(clock())
    by_predicate = network.by_predicate()
    asked = _ask_all(announced, clock)
    found: list[tuple[FoundStream, Selector]] = []
    for uid, opening in asked.items():
        seen = announced[uid].seen
        claims = [
            (bed.bed, selector)
            for bed in beds or ()
            for selector in bed.selectors
            if matches(selector, seen, by_predicate)
        ]
        units = next((bed.units for bed in beds or () if claims and bed.bed == claims[0][0]), ())
        found.append(_judge(seen, opening, claims, units, by_itself=beds is None))
    if beds is None:
        found = _with_markers(found)
    streams = _with_rivals(found)
    return sorted(streams, key=lambda one: (one.bed is None, one.bed or "", one.seen.name))


def _ask_all(announced: Mapping[str, Announced], clock: Callable[[], float]) -> dict[str, Opening]:
    """Ask every stream who it is, a few at once; what has not answered in time stays unanswered."""
    someone = threading.Event()
    openers = Openers(Supervisor(), someone.set)
    asked: dict[str, Opening] = {}
    until = clock() + 3 * OPEN_TIMEOUT_S
    waiting = list(announced.values())
    while clock() < until and (waiting or not all(one.done.is_set() for one in asked.values())):
        while waiting and (probe := openers.probe(waiting[-1], now=clock())) is not None:
            asked[waiting.pop().seen.uid] = probe
        someone.wait(0.1)
        someone.clear()
    openers.end()
    asked.update({entry.seen.uid: Opening(entry.seen.uid, clock()) for entry in waiting})
    return asked


def _judge(
    seen: AnnouncedStream,
    opening: Opening,
    claims: list[tuple[str, Selector]],
    units: Collection[str],
    *,
    by_itself: bool,
) -> tuple[FoundStream, Selector]:
    described = opening.described
    bed, selector = claims[0] if claims else (None, auto_selector(seen))
    place = bed or ""
    if described is None:
        what = opening.error.what if opening.error else "announced, but gave no answer"
        problem = StreamProblem(ProblemKind.NO_ANSWER, place, seen.name, what)
        return FoundStream(seen, None, bed, (problem,)), selector
    try:
        header = effective_header(described, selector, described.header.key)
    except StreamError as error:
        problem = StreamProblem(
            ProblemKind.BAD_METADATA, place, seen.name, error.what, error.remedy
        )
        return FoundStream(seen, described.header, bed, (problem,)), selector
    problems = [
        StreamProblem(kind, place, header.key, text, remedy)
        for kind, text, remedy in header_problems(described, header, units)
    ]
    names = sorted({name for name, _ in claims})
    if len(names) > 1:
        text = f"the beds {', '.join(names)} select it; it is opened for none"
        problems.append(StreamProblem(ProblemKind.CLAIMED_TWICE, place, header.key, text))
    if by_itself and not is_marker(seen):
        like_eeg = seen.rate > 0 and eeg_like(signal_labels(header))
        bed = auto_bed(seen) if seen.is_psg or like_eeg else None
    named = tuple(replace(problem, bed=bed or "") for problem in problems)
    return FoundStream(seen, header, bed, named), selector


def _with_markers(found: list[tuple[FoundStream, Selector]]) -> list[tuple[FoundStream, Selector]]:
    """Give marker streams to the automatic bed whose prefix they share."""
    beds = {one.bed for one, _ in found}
    return [
        (replace(one, bed=auto_bed(one.seen)), selector)
        if is_marker(one.seen) and auto_bed(one.seen) in beds
        else (one, selector)
        for one, selector in found
    ]


def _with_rivals(found: list[tuple[FoundStream, Selector]]) -> list[FoundStream]:
    """Name the streams that one selector of one bed fits alike."""
    places = Counter((one.bed, selector) for one, selector in found)
    judged = []
    for one, selector in found:
        count = places[one.bed, selector]
        if one.bed is not None and count > 1:
            problem = StreamProblem(
                ProblemKind.AMBIGUOUS,
                one.bed,
                one.seen.source_id or one.seen.name,
                f"{count} streams fit {selector}; none of them is read",
                "Name the stream by its source_id or host",
            )
            judged.append(replace(one, problems=(*one.problems, problem)))
        else:
            judged.append(one)
    return judged
