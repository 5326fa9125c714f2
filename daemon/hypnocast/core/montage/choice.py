"""The montage: which derivation of which stream fills each role, and why.

AASM's recommended derivation comes first, then its mirror image, then what still shows the same
region, each named as what it is. Electrodes that a stream carries against a common reference are
subtracted; the two must come in one stream, because only there are their samples simultaneous.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from hypnocast.core.montage.electrodes import Lead, read_electrode, read_label
from hypnocast.core.montage.gear_channels import gear_kind
from hypnocast.core.montage.preferences import ANY, WISHES
from hypnocast.core.montage.units import microvolts_per
from hypnocast.core.pictures.conditioning import passband
from hypnocast.core.types import Derivation, DerivationKind, Role, StreamHeader
from hypnocast.core.wire.page_facts import ASSUMED, MIRRORED
from hypnocast.errors import ConfigError

_NO_WORDS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Montage:
    """The derivations of one bed."""

    derivations: Mapping[Role, Derivation]
    why: Mapping[Role, str]
    """For each derivation, in words, what it is and how it came about."""
    problems: Mapping[str, str]
    """Role or stream → what is wrong with it and what to do, in words."""

    @property
    def channels(self) -> Mapping[Role, str]:
        """Role → name of the derivation, as events carry it."""
        return {role: derivation.name for role, derivation in self.derivations.items()}

    def problem_lines(self, about: Callable[[str], bool] = lambda _: True) -> Iterator[str]:
        """Give each problem once, with all roles and streams that it is about."""
        found: dict[str, list[str]] = {}
        for what, problem in self.problems.items():
            if about(what):
                found.setdefault(problem, []).append(what)
        for problem, names in found.items():
            yield f"{', '.join(names)}: {problem}"


@dataclass(frozen=True, slots=True)
class _Found:
    """A way to fill a role."""

    stream: StreamHeader
    positive: int
    negative: int | None
    name: str
    how: str


@dataclass(frozen=True, slots=True)
class _Channel:
    stream: StreamHeader
    index: int
    lead: Lead
    by_reference: bool = False
    """Whether the configuration gives what it is measured against."""


def choose_montage(
    headers: Sequence[StreamHeader],
    *,
    overrides: Mapping[str, str] = _NO_WORDS,
    units: Mapping[str, str] = _NO_WORDS,
    reference: str | None = None,
) -> Montage:
    """Fill as many roles as the streams allow. The order of the streams does not matter.

    ``overrides``: role → derivation by labels or electrodes, used or refused, never replaced;
    ``units``: label (or ``*``) → unit; ``reference``: what lone electrodes are measured against.
    """
    against = _reference(reference)
    streams = sorted((h for h in headers if h.rate > 0), key=lambda header: header.key)
    channels = [channel for stream in streams for channel in _channels(stream, against)]
    wanted = {_role(role): text for role, text in overrides.items()}
    derivations: dict[Role, Derivation] = {}
    why: dict[Role, str] = {}
    problems = {
        header.key: "its rate is irregular, and a page needs a regular one; have the sender "
        "declare its nominal rate, or give `rate` for this stream in the configuration"
        for header in headers
        if header.rate <= 0 and header.format != "string"
    }
    for role in Role:
        found: list[tuple[_Found, DerivationKind]]
        if role in wanted:
            found = [(each, "recommended") for each in _named(wanted[role], streams, channels)]
        else:
            found = [
                (each, kind)
                for positive, negative, kind in WISHES[role]
                for each in _fill(positive, negative, channels)
            ]
        usable = [each for each in found if passband(role, each[0].stream.rate) is not None]
        if not usable:
            problems[role.value] = _lacking(role, wanted.get(role), [each for each, _ in found])
            continue
        # A derivation of known unit is worth more than a better one of unknown unit.
        derived = [_derivation(role, each, kind, units) for each, kind in usable]
        best = next(
            (place for place, d in enumerate(derived) if d.microvolts_per_unit is not None), 0
        )
        derivations[role] = derived[best]
        why[role] = _words(usable[best][0], derived[best], [each for each, _ in usable])
        if derived[best].microvolts_per_unit is None:
            problems[role.value] = _unit_unknown(usable[best][0], units)
    return Montage(MappingProxyType(derivations), MappingProxyType(why), MappingProxyType(problems))


def _reference(name: str | None) -> str | None:
    if name is None:
        return None
    electrode = read_electrode(name)
    if electrode is None:
        raise ConfigError(
            f"{name!r} is no electrode",
            where="reference",
            remedy="Name what lone electrodes are measured against, such as M1, Cz or LE.",
        )
    return electrode


def _role(name: str) -> Role:
    try:
        return Role(name)
    except ValueError:
        raise ConfigError(
            f"there is no role {name!r}",
            where="roles",
            remedy=f"The roles are {', '.join(Role)}.",
        ) from None


def _channels(stream: StreamHeader, reference: str | None) -> Iterator[_Channel]:
    for index, info in enumerate(stream.channels):
        lead = read_label(info.label)
        if lead is None or gear_kind(stream, info) is not None:
            continue
        yield _Channel(stream, index, lead)
        if lead.against is None and reference is not None and lead.electrode != reference:
            yield _Channel(stream, index, Lead(lead.electrode, reference), by_reference=True)


def _fill(positive: str, negative: str | None, channels: Sequence[_Channel]) -> Iterator[_Found]:
    """All ways to a derivation: ready-made ones, then differences of two channels."""
    plus = [channel for channel in channels if channel.lead.electrode == positive]
    for channel in plus:
        against = channel.lead.against
        if against == negative or (negative == ANY and against is not None):
            how = "by the configured reference" if channel.by_reference else "as the stream has it"
            yield _Found(channel.stream, channel.index, None, channel.lead.name, how)
    if negative is None or negative == ANY:
        return
    for channel in plus:
        for other in channels:
            if (
                other.stream.key == channel.stream.key
                and other.lead.electrode == negative
                and other.lead.against == channel.lead.against
                and other.index != channel.index
            ):
                name = f"{positive}-{negative}"
                how = "the difference of two channels"
                yield _Found(channel.stream, channel.index, other.index, name, how)


def _named(
    text: str, streams: Sequence[StreamHeader], channels: Sequence[_Channel]
) -> Iterator[_Found]:
    """Find what the configuration names: a label, two labels, or two electrodes."""
    how = "as configured"
    for stream in streams:
        labels = [info.label.strip().casefold() for info in stream.channels]
        whole = text.strip().casefold()
        if whole in labels:
            yield _Found(stream, labels.index(whole), None, text.strip(), how)
        for cut in (place for place, sign in enumerate(whole) if sign == "-"):
            positive, negative = whole[:cut].strip(), whole[cut + 1 :].strip()
            if positive in labels and negative in labels:
                pair = labels.index(positive), labels.index(negative)
                yield _Found(stream, *pair, text.strip(), how)
    lead = read_label(text)
    if lead is not None:
        for found in _fill(lead.electrode, lead.against, channels):
            yield _Found(found.stream, found.positive, found.negative, found.name, how)


def _derivation(
    role: Role, found: _Found, kind: DerivationKind, units: Mapping[str, str]
) -> Derivation:
    mark = {"mirrored": MIRRORED, "assumed_reference": ASSUMED}.get(kind, "")
    return Derivation(
        role=role,
        name=found.name + mark,
        stream=found.stream.key,
        positive=found.positive,
        negative=found.negative,
        microvolts_per_unit=_worth(found, units),
        kind=kind,
        rate=found.stream.rate,
    )


def _worth(found: _Found, units: Mapping[str, str]) -> float | None:
    """Find what a value is worth in µV; two channels are subtracted only in the same unit."""
    indices = [found.positive] if found.negative is None else [found.positive, found.negative]
    worths = {_channel_worth(found.stream, index, units) for index in indices}
    return worths.pop() if len(worths) == 1 else None


def _channel_worth(stream: StreamHeader, index: int, units: Mapping[str, str]) -> float | None:
    info = stream.channels[index]
    given = {label.strip().casefold(): unit for label, unit in units.items()}
    unit = given.get(info.label.strip().casefold(), given.get(ANY, info.unit))
    return microvolts_per(unit, info.scale)


def _words(found: _Found, derivation: Derivation, ways: Sequence[_Found]) -> str:
    kinds = {
        "recommended": "recommended derivation",
        "mirrored": "mirror image of the recommended derivation",
        "substitute": "in place of the recommended derivation",
        "assumed_reference": "electrode whose reference nobody gave",
    }
    labels = found.stream.channels[found.positive].label
    if found.negative is not None:
        labels += f" − {found.stream.channels[found.negative].label}"
    words = f"{kinds[derivation.kind]}, {found.how}: {labels} of {found.stream.key}"
    twins = {way.stream.key for way in ways if way.name == found.name} - {found.stream.key}
    return f"{words} (also in {', '.join(sorted(twins))})" if twins else words


def _unit_unknown(found: _Found, units: Mapping[str, str]) -> str:
    indices = [found.positive] if found.negative is None else [found.positive, found.negative]
    named = ", ".join(
        f"{found.stream.channels[i].label} ({found.stream.channels[i].unit or 'none'})"
        for i in indices
    )
    known = [_channel_worth(found.stream, i, units) for i in indices]
    what = "differ" if None not in known else "are unknown"
    return (
        f"units {what}: {named} of {found.stream.key}; have the sender declare V, mV, µV or nV, "
        "or give `units` for this bed in the configuration"
    )


def _lacking(role: Role, wanted: str | None, found: Sequence[_Found]) -> str:
    if found:
        rates = ", ".join(sorted({f"{each.stream.rate:g} Hz" for each in found}))
        return f"what there is comes at {rates}, too slow for the band of {role.value}"
    if wanted is not None:
        return f"no stream has the configured {wanted!r}; correct `roles` for this bed"
    return "no channel fits; name one under `roles` for this bed if there is one"
