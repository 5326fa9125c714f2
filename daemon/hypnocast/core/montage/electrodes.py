"""Channel labels in the wild, read as what they mean: one electrode against another.

``EEG F4-A1``, ``F4:M1``, ``F4M1`` are the same derivation; ``F4`` and ``F4-REF`` are an electrode
against whatever reference the amplifier uses. Electrodes have one name here: A1 is M1, LOC is
E1, every chin electrode is ``Chin`` with a letter or number. A label that is not understood is
not guessed at.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

LINKED_EARS = "LE"
CHIN = "Chin"
EMG = "EMG"
ECG = "ECG"
EEG = "EEG"
EOG = "EOG"


@dataclass(frozen=True, slots=True)
class Lead:
    """What a label means: an electrode, and what it is measured against."""

    electrode: str
    against: str | None = None
    """None: whatever all electrodes of its stream are measured against."""

    @property
    def name(self) -> str:
        """As people write it."""
        return self.electrode if self.against is None else f"{self.electrode}-{self.against}"


_KIND = r"EEG|EOG|EMG|ECG|EKG"
_SYSTEM = re.compile(r"^(?:PSG|POL|CH(?:AN(?:NEL)?)? ?\d+)[ :.]+")
_BEFORE = re.compile(rf"^({_KIND})(?=[ :.-]|$)[ :.-]*")
_AFTER = re.compile(rf"[ .]({_KIND})$")
_UNIT = re.compile(r"[(\[][UMΜN]?V[)\]]")
_SECOND = re.compile(r" ?(?:SEC|SECONDARY)$")
_REFERENCE = re.compile(r"REF\d*|REFERENCE|COM(?:MON)?|CAR|AVG?|AVERAGE|G2|GND")
_TOGETHER = re.compile(
    r"((?:FP|AF|FC|F|CP|C|PO|P|O)(?:Z|[1-8])|E[12]|LOC|ROC) ?([AM][12]|LER?|CLE)"
)
_PLACES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"LER?|CLE|[AM]1[ +/]*[AM]2|[AM]12|LINKED ?(?:EARS?|MASTOIDS?)", LINKED_EARS),
        (r"[AM] ?(?P<place>[12])", "M"),
        (r"(?P<place>(?:FP|AF|FT|FC|F|TP|T|CP|C|PO|P|O) ?(?:Z|10|[1-9]))", ""),
        (r"E1|LOC|LEOC|EOG ?(?:L|LEFT|1)|(?:L|LEFT)[ -]?(?:EOG|EYE)|LEFT OUTER CANTHUS", "E1"),
        (r"E2|ROC|REOC|EOG ?(?:R|RIGHT|2)|(?:R|RIGHT)[ -]?(?:EOG|EYE)|RIGHT OUTER CANTHUS", "E2"),
        (r"EOG ?(?:H|HORIZ|HORIZONTAL)", EOG),
        (
            (
                r"(?:EMG ?)?(?:(?:SUB ?)?MENT(?:AL(?:IS)?)?|SUBM|CHIN)(?: ?EMG)? ?"
                r"(?P<place>LEFT|RIGHT|[1-3LRZAC])?"
            ),
            CHIN,
        ),
        (r"(?:ECG|EKG) ?(?P<place>I{1,3}|V?[1-6]|[LR][AL]?)?", ECG),
        (r"EMG ?(?P<place>[1-3])", EMG),
    )
)


def read_label(label: str) -> Lead | None:
    """Read a channel's label, or None where it is not one of a sleep montage."""
    text = _UNIT.sub("", unicodedata.normalize("NFKC", label).upper())
    text = re.sub(r"[()\[\]_]", " ", re.sub(r"[–—−]", "-", text))
    text = _SYSTEM.sub("", " ".join(text.split()))
    text, kind = _without_kind(_SECOND.sub("", text))
    if not text or _REFERENCE.fullmatch(text):
        return Lead(kind) if kind else None
    whole = _electrode(text, kind)
    if whole is not None:
        return Lead(whole)
    parts = re.split(r" ?[-:/] ?", text)
    if len(parts) == 2:
        return _pair(parts[0], parts[1], kind)
    together = _TOGETHER.fullmatch(text)
    return _pair(together[1], together[2], kind) if together is not None else None


def read_electrode(name: str) -> str | None:
    """Read the name of one electrode."""
    lead = read_label(name)
    return lead.electrode if lead is not None and lead.against is None else None


def _without_kind(text: str) -> tuple[str, str]:
    for pattern in (_BEFORE, _AFTER):
        found = pattern.search(text)
        if found is not None:
            return pattern.sub("", text, count=1), found[1].replace("EKG", "ECG")
    return text, ""


def _pair(positive: str, negative: str, kind: str) -> Lead | None:
    electrode = _electrode(positive, kind)
    if electrode is None or _REFERENCE.fullmatch(negative):
        return Lead(electrode) if electrode is not None else None
    against = _electrode(negative, kind)
    return Lead(electrode, against) if against is not None else None


def _electrode(text: str, kind: str) -> str | None:
    for form in (text, f"{kind} {text}") if kind else (text,):
        for pattern, name in _PLACES:
            found = pattern.fullmatch(form)
            if found is not None:
                return name + _place(found.groupdict().get("place") or "", scalp=not name)
    return None


def _place(place: str, *, scalp: bool) -> str:
    if scalp:
        return place.replace(" ", "").replace("FP", "Fp").replace("Z", "z")
    return place[0] if place in {"LEFT", "RIGHT"} else place
