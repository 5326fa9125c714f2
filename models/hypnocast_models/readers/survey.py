"""Checking a local copy of a data set: what is there, what is strange, what is broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypnocast.core.quality import assess
from hypnocast.core.types import PAGE_S, Role
from hypnocast.errors import HypnocastError
from hypnocast_models.readers.datasets import FoundRecording, open_night
from hypnocast_models.readers.night import ScoredNight

_LOOKED_AT = 3
"""Pages of each night whose signals are looked at."""
MAINS_HZ = 50


@dataclass
class ArchiveSurvey:
    """What was found, night by night."""

    dataset: str = ""
    nights: int = 0
    subjects: set[str] = field(default_factory=set)
    pages: int = 0
    stages: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    experts: Counter[int] = field(default_factory=Counter)
    channels: dict[Role, Counter[str]] = field(default_factory=dict)
    oddities: Counter[str] = field(default_factory=Counter)
    odd_nights: dict[str, tuple[str, ...]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    """One line for each recording that could not be read."""

    def add(self, night: ScoredNight) -> None:
        """Enter a night."""
        odd = (*night.oddities, *_strange_signals(night))
        self.nights += 1
        self.subjects.add(night.subject)
        self.pages += len(night.stages)
        self.stages.update("none" if stage is None else stage.value for stage in night.stages)
        self.rules[night.scorings[0].rules] += 1
        self.experts[len(night.scorings)] += 1
        for role, name in night.channels.items():
            self.channels.setdefault(role, Counter())[name] += 1
        self.oddities.update(odd)
        if odd:
            self.odd_nights[night.name] = odd

    def to_json(self) -> dict[str, Any]:
        """Give it as plain data."""
        return {
            "dataset": self.dataset,
            "nights": self.nights,
            "subjects": len(self.subjects),
            "hours": round(self.pages * PAGE_S / 3600, 2),
            "stages": dict(self.stages),
            "rules": dict(self.rules),
            "experts": {str(k): n for k, n in self.experts.items()},
            "channels": {role.value: dict(names) for role, names in self.channels.items()},
            "oddities": dict(self.oddities),
            "odd_nights": {name: list(odd) for name, odd in self.odd_nights.items()},
            "broken": self.broken,
        }

    def lines(self) -> Iterator[str]:
        """Return it in words for people."""
        yield (
            f"{self.dataset}: {self.nights} nights of {len(self.subjects)} subjects, "
            f"{self.pages * PAGE_S / 3600:.1f} h scored by {' and '.join(self.rules) or 'nobody'}"
        )
        yield "  stages    " + "  ".join(
            f"{name} {self.stages[name]}" for name in ("W", "N1", "N2", "N3", "R", "none")
        )
        for role, names in self.channels.items():
            names_of = ", ".join(f"{name} ({n})" for name, n in names.most_common(4))
            yield f"  {role.value:<9} {names_of}"
        for odd, count in self.oddities.most_common():
            yield f"  odd       {odd}: {count} nights"
        for line in self.broken:
            yield f"  broken    {line}"
        if self.broken:
            yield f"  {len(self.broken)} recordings could not be read"


def survey(
    found: Sequence[FoundRecording], advance: Callable[[int], None] = lambda _done: None
) -> ArchiveSurvey:
    """Open every recording; one that is broken is a line of the answer, and the next follows."""
    surveyed = ArchiveSurvey(dataset=found[0].dataset if found else "")
    for one in found:
        try:
            surveyed.add(open_night(one))
        except HypnocastError as error:
            surveyed.broken.append(str(error))
        advance(1)
    return surveyed


def _strange_signals(night: ScoredNight) -> tuple[str, ...]:
    """Look at a few pages spread over the night, as the daemon would before it draws one."""
    pages = len(night.stages)
    looked = sorted({(2 * k + 1) * pages // (2 * _LOOKED_AT) for k in range(_LOOKED_AT)})
    roles = tuple(night.channels)
    flags: Counter[tuple[Role, str]] = Counter()
    for epoch in looked:
        for role, quality in assess(night.page(epoch, 0.0, 0.0), roles, MAINS_HZ).items():
            flags.update((role, flag.value) for flag in quality.flags)
    return tuple(
        f"{role.value} is {flag} on every page looked at"
        for (role, flag), count in flags.items()
        if count == len(looked)
    )
