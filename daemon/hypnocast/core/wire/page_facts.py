"""What an event says of its page beside the stage: what was measured, and what the pack knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta, Struct

from hypnocast.core.types import EEG_ROLES

Share = Annotated[float, Meta(ge=0.0, le=1.0)]

MIRRORED = " (mirrored)"
ASSUMED = " (reference assumed)"
"""What the name of a derivation ends with that is not quite the recommended one."""

_ANY_PAIR = frozenset({"Chin", "ECG"})
"""Roles that any pair of their electrodes fills as well."""
_OTHER_SIDE = str.maketrans("12345678", "21436587")


class Evidence(Struct, frozen=True, kw_only=True):
    """What was measured on the page's signals, whatever the model says; off by default."""

    slow_wave_share: Share | None
    """Share of the page with slow waves of at least 75 µV."""
    spindles: tuple[float, ...] | None
    """Seconds after the page's start, as all times here."""
    k_complexes: tuple[float, ...] | None
    alpha_share: Share | None
    rapid_eye_movements: tuple[float, ...] | None
    slow_eye_movements: tuple[float, ...] | None
    chin_tone_quantile: Share | None
    """Where the chin's tone lies among the night's pages so far."""
    claims: dict[str, Literal["supported", "unsupported"]]
    """Claims read from the rationale, checked against the above."""


class Judged(Struct, frozen=True, kw_only=True):
    """On what montages the pack was judged, and whether this is one of them."""

    montages: tuple[tuple[str, ...], ...]
    """Derivations of each kind of recording that the pack was judged on; empty where it does not
    say."""
    inside: bool | None
    """Whether the derivations used here are those of one of them; null where it does not say."""
    words: str | None
    """For people; null where the montage was judged."""


@dataclass(frozen=True, slots=True)
class JudgedMontages:
    """The kinds of recordings that a pack was judged on."""

    recordings: tuple[tuple[tuple[str, ...], str], ...] = ()
    """Derivations, and in words on what else: database, subjects, conditions."""
    one_eeg: bool = False
    """Whether of all channels the model is shown one EEG alone."""

    def of(self, channels: Mapping[str, str]) -> Judged | None:
        """Judge a montage (role → derivation); None where there is none."""
        if self.one_eeg:
            only = next((role.value for role in EEG_ROLES if role.value in channels), None)
            channels = {role: name for role, name in channels.items() if role == only}
        if not channels:
            return None
        montages = tuple(names for names, _ in self.recordings)
        if not montages:
            words = "The pack does not say on which montage it was judged."
            return Judged(montages=(), inside=None, words=words)
        if any(_same(names, channels) for names in montages):
            return Judged(montages=montages, inside=True, words=None)
        recordings = "; or ".join(f"{', '.join(names)} ({on})" for names, on in self.recordings)
        words = f"The pack was not judged on this montage, but on {recordings}."
        return Judged(montages=montages, inside=False, words=words)


def _same(judged: tuple[str, ...], channels: Mapping[str, str]) -> bool:
    """Return whether a montage has these derivations, or their mirror images, and no others."""
    return all(
        any(_covers(name, role, used) for name in judged) for role, used in channels.items()
    ) and all(any(_covers(name, role, used) for role, used in channels.items()) for name in judged)


def _covers(judged: str, role: str, used: str) -> bool:
    if used.endswith(ASSUMED):
        return False
    name = used.removesuffix(MIRRORED)
    return judged in (name, name.translate(_OTHER_SIDE)) or (judged == role and role in _ANY_PAIR)
