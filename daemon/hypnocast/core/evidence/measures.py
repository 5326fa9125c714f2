"""Evidence: what is measured on a page's signals, independent of the model.

``measure`` is a pure function of the page and of the chin tones of the night's earlier pages
(:func:`chin_tone` gives each page's). ``with_claims`` checks what a rationale claims against it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import msgspec
import numpy as np

from hypnocast.core.evidence.detectors import (
    Stretch,
    alpha_share,
    eye_movements,
    k_complexes,
    muscle_tone,
    slow_wave_share,
    spindles,
    stretch_of,
)
from hypnocast.core.types import Flag, Page, Quality, Role
from hypnocast.core.wire.page_facts import Evidence

TONES_NEEDED = 20
"""Ten minutes of chin tone before a page's tone is ranked among them."""
_FRONT = (Role.F4, Role.C4)
_CENTRE = (Role.C4, Role.F4)
_BACK = (Role.O2, Role.C4, Role.F4)
_USELESS = frozenset({Flag.MISSING, Flag.FLAT, Flag.DETACHED, Flag.OUT_OF_SCALE, Flag.UNKNOWN_UNIT})
_NO_QUALITY: Quality = MappingProxyType({})
Verdict = Literal["supported", "unsupported"]


def measure(
    page: Page, earlier_tones: Sequence[float] = (), quality: Quality = _NO_QUALITY
) -> Evidence:
    """Measure a page. What cannot be measured on the channels there are is None.

    ``earlier_tones``: chin tones of the night's pages before this one. ``quality``: channels
    that are flagged as useless there are not measured.
    """
    front, centre, back = (_first(page, roles, quality) for roles in (_FRONT, _CENTRE, _BACK))
    occiput = _first(page, (Role.O2,), quality)
    left, right = _first(page, (Role.E1,), quality), _first(page, (Role.E2,), quality)
    rapid = slow = None
    if left is not None and right is not None and left.rate == right.rate:
        rapid, slow = eye_movements(left, right)
    return Evidence(
        slow_wave_share=None if front is None else slow_wave_share(front),
        spindles=None if centre is None else spindles(centre, occiput),
        k_complexes=None if front is None else k_complexes(front),
        alpha_share=None if back is None else alpha_share(back),
        rapid_eye_movements=rapid,
        slow_eye_movements=slow,
        chin_tone_quantile=_quantile(chin_tone(page, quality), earlier_tones),
        claims={},
    )


def chin_tone(page: Page, quality: Quality = _NO_QUALITY) -> float | None:
    """Give a page's chin tone in µV, to be kept for the pages after it."""
    chin = _first(page, (Role.CHIN,), quality)
    if chin is None:
        return None
    tone = muscle_tone(chin)
    return tone if np.isfinite(tone) else None


def with_claims(evidence: Evidence, rationale: str | None) -> Evidence:
    """Mark each claim that can be read in a rationale by what was measured.

    A claim about what could not be measured is not marked at all.
    """
    return msgspec.structs.replace(evidence, claims=_claims(evidence, rationale or ""))


def _first(page: Page, roles: Sequence[Role], quality: Quality) -> Stretch | None:
    for role in roles:
        signal = page.signals.get(role)
        useless = role in quality and bool(quality[role].flags & _USELESS)
        if signal is None or useless or signal.derivation.microvolts_per_unit is None:
            continue
        stretch = stretch_of(signal, page.context_s, page.tail_s)
        if stretch is not None:
            return stretch
    return None


def _quantile(tone: float | None, earlier: Sequence[float]) -> float | None:
    if tone is None or len(earlier) < TONES_NEEDED:
        return None
    return float(np.mean(np.asarray(earlier) <= tone))


# --- claims ---------------------------------------------------------------------------------------

_SLOW_WAVE_CRITERION = 0.2
_ALPHA_CRITERION = 0.5
"""AASM: N3 from a fifth of slow waves on, W from half of alpha on."""
_LOW_TONE, _HIGH_TONE = 0.35, 0.65

_WORDS: Mapping[str, tuple[re.Pattern[str], Callable[[Evidence], bool | None]]] = MappingProxyType(
    {
        "spindles": (
            re.compile(r"(?:sleep )?spindles?|sigma (?:bursts?|activity)"),
            lambda e: None if e.spindles is None else bool(e.spindles),
        ),
        "k_complexes": (
            re.compile(r"k[- ]?complex(?:es)?"),
            lambda e: None if e.k_complexes is None else bool(e.k_complexes),
        ),
        "slow_waves": (
            re.compile(
                r"(?:large |high[- ]amplitude )?slow[- ]?waves?(?: activity)?"
                r"|delta (?:waves?|activity)"
            ),
            lambda e: (
                None if e.slow_wave_share is None else e.slow_wave_share >= _SLOW_WAVE_CRITERION
            ),
        ),
        "alpha": (
            re.compile(r"(?:posterior |dominant )*alpha(?: rhythm| activity| waves?)?"),
            lambda e: None if e.alpha_share is None else e.alpha_share >= _ALPHA_CRITERION,
        ),
        "rapid_eye_movements": (
            re.compile(r"rapid eye movements?|\brems\b|saccades?"),
            lambda e: None if e.rapid_eye_movements is None else bool(e.rapid_eye_movements),
        ),
        "slow_eye_movements": (
            re.compile(r"slow (?:rolling )?eye movements?|\bsems?\b"),
            lambda e: None if e.slow_eye_movements is None else bool(e.slow_eye_movements),
        ),
        "low_chin_tone": (
            re.compile(
                r"(?:low|reduced|minimal|absent|decreased)(?: chin| submental| muscle)*"
                r" (?:tone|emg)|atonia|atonic"
            ),
            lambda e: None if e.chin_tone_quantile is None else e.chin_tone_quantile <= _LOW_TONE,
        ),
        "high_chin_tone": (
            re.compile(
                r"(?:high|elevated|increased|raised)(?: chin| submental| muscle)* (?:tone|emg)"
            ),
            lambda e: None if e.chin_tone_quantile is None else e.chin_tone_quantile >= _HIGH_TONE,
        ),
    }
)
_DENIED = re.compile(
    r"(?:\b(?:no|not|without|neither|nor|lack(?:s|ing)?(?: of)?|absence of|absent|free of|any)\b)"
    r"[^.;,]*$"
)
_DENIED_AFTER = re.compile(r"^[^.;,]{0,20}\b(?:is|are|were|was)? ?(?:absent|not (?:seen|present))")
_BREAK = re.compile(r"\b(?:but|however|with|although|while)\b")


def _claims(evidence: Evidence, rationale: str) -> dict[str, Verdict]:
    text = " ".join(rationale.lower().replace("‑", "-").split())
    found: dict[str, Verdict] = {}
    for name, (pattern, measured) in _WORDS.items():
        for match in pattern.finditer(text):
            truth = measured(evidence)
            if truth is None:
                break
            before = _BREAK.split(text[: match.start()])[-1]
            denied = bool(_DENIED.search(before) or _DENIED_AFTER.match(text[match.end() :]))
            key = f"no_{name}" if denied else name
            found.setdefault(key, "supported" if truth is not denied else "unsupported")
    return found
