"""Stages as people and programs write them, and digits by the scheme they follow."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hypnocast.core.types import Stage
from hypnocast.errors import TapeError


@dataclass(frozen=True, slots=True)
class StageWord:
    """What a word scores."""

    stage: Stage | None
    """None: no stage (movement, artefact, unscored)."""
    rk: bool = False
    """Whether only Rechtschaffen & Kales write it so."""


_RK_TO_AASM = MappingProxyType({"1": Stage.N1, "2": Stage.N2, "3": Stage.N3, "4": Stage.N3})
"""S3 and S4 are N3, as everywhere here."""

_LEAD = re.compile(r"^(?:sleep ?stage|stage|sleep|schlafstadium|stadium|stade|sdo|sro)\b ?")
_NREM = re.compile(r"(?:n|nrem|non ?rem|nonrapideyemovementsleep n)? ?([1-3])(?: sleep)?")
_RK = re.compile(
    r"(?:(?:s|stage ?)([1-4])|(?:n|nrem|non ?rem)? ?(4|34|3 ?/ ?4))(?: sleep)?(?:sleep)?"
)
_WAKE = frozenset(
    {"w", "wake", "awake", "wach", "wk", "s0", "0", "wakestate", "wakefulness", "sw", "awa"}
    | {"eveil", "éveil", "veglia", "vigilia"}
)
_REM = frozenset(
    {"r", "rem", "rem sleep", "rapideyemovement", "rapideyemovementsleep", "sr", "5", "paradoxical"}
    | {"sommeil paradoxal", "paradoxal"}
)
_DEEP = frozenset({"sws", "slow wave sleep", "delta sleep", "tiefschlaf", "sommeil lent profond"})
_NOTHING = frozenset(
    {
        *("", "?", "n/a", "na", "nan", "none", "unscored", "unknown", "u", "uns", "unk", "-"),
        *("mt", "m", "movement", "movement time", "body movement", "bewegung", "bew", "mvt"),
        *("a", "art", "artifact", "artefact", "artefakt", "notscored", "not scored", "no stage"),
        *("undefined", "unclassified", "indeterminate", "withheld", "unbekannt", "l", "lights"),
        *("nicht klassifiziert", "unsure", "unscorable", "non scored", "missing", "null"),
    }
)
_BARE = re.compile(r"-?\d{1,2}(?:\.0+)?")
_LIKE_A_STAGE = re.compile(
    r"(?:sleep[ _-]*stage|stage|stadium|nrem|n|s)[ _:-]*\S{1,2}", re.IGNORECASE
)

MOMENTS = frozenset({"lights off", "lights on", "lights out", "licht aus", "licht an"})


def read_word(text: str) -> StageWord | None:
    """Read a stage as people write it; None where the text scores nothing.

    A bare digit is read by Rechtschaffen & Kales' own numbers 1 to 4, as in EDF+ annotations;
    whole columns of digits go through :func:`digit_scheme`.
    """
    word = unicodedata.normalize("NFKC", text).casefold().partition("@@")[0]
    word = re.sub(r"[\s_:;.\-]+", " ", word.partition("|")[0].strip().strip("\"'")).strip(" ,")
    rest = _LEAD.sub("", word, count=1).strip()
    if word in _NOTHING or rest in _NOTHING:
        return StageWord(None, rk=word in {"mt", "movement time"})
    if rest != word or not rest.isdigit():
        if rest in _WAKE:
            return StageWord(Stage.W, rk=rest in {"s0", "0"})
        if rest in _REM:
            return StageWord(Stage.R, rk=rest == "5")
        if word in _DEEP:
            return StageWord(Stage.N3)
    return _read_nrem(rest)


def _read_nrem(rest: str) -> StageWord | None:
    if (found := _RK.fullmatch(rest)) is not None:
        return StageWord(_RK_TO_AASM[(found[1] or found[2])[0]], rk=True)
    if (found := _NREM.fullmatch(rest)) is not None:
        return StageWord(_RK_TO_AASM[found[1]], rk=rest.removesuffix(" sleep").isdigit())
    return None


def stage_of(text: str) -> Stage | None:
    """Return the stage an annotation scores: AASM's, or R&K's with S3 and S4 merged to N3."""
    word = read_word(text)
    return None if word is None else word.stage


def looks_like_a_stage(text: str) -> bool:
    """Whether a text that scores nothing was probably meant to score: ``N7``, ``Stage X``."""
    return _LIKE_A_STAGE.fullmatch(text.strip()) is not None


# --- digits -----------------------------------------------------------------------------------

_TO_THREE = {"0": Stage.W, "1": Stage.N1, "2": Stage.N2, "3": Stage.N3}
SCHEMES: Mapping[str, Mapping[str, Stage | None]] = MappingProxyType(
    {
        "nsrr": _TO_THREE | {"4": Stage.N3, "5": Stage.R, "6": None, "9": None, "-1": None},
        "isruc": _TO_THREE | {"5": Stage.R},
        "yasa": _TO_THREE | {"4": Stage.R, "-1": None, "-2": None},
    }
)  # fmt: skip
"""Numbers by who writes them: NSRR, Profusion and R&K (4 is stage 4, 5 is REM), ISRUC (no 4),
YASA and most machine learning (4 is REM)."""

_LONG = 100


def is_digit(text: str) -> bool:
    """Whether a cell is a bare number of a stage."""
    return _BARE.fullmatch(text.strip()) is not None


def digit(text: str) -> str:
    """Return a number as its scheme has it (``2.0`` is ``2``)."""
    return text.strip().partition(".")[0]


def digit_scheme(
    digits: Iterable[str], scheme: str | None, where: str
) -> Mapping[str, Stage | None]:
    """Return what the numbers of a file mean.

    Without a scheme they are read where every scheme agrees, and refused elsewhere: a 4 is
    REM to one program and deep sleep to another.
    """
    if scheme is not None:
        if scheme not in SCHEMES:
            raise TapeError(
                f"there is no scheme {scheme!r}", remedy=f"There are {', '.join(SCHEMES)}."
            )
        return SCHEMES[scheme]
    used = [digit(one) for one in digits]
    fitting = [name for name, table in SCHEMES.items() if set(used) <= table.keys()]
    alike = all(len({SCHEMES[name][one] for name in fitting}) == 1 for one in set(used))
    if not fitting:
        return SCHEMES["nsrr"]
    if not alike or (len(used) >= _LONG and "0" not in used):
        raise TapeError(
            "its stages are bare digits that programs read differently (is 4 REM or stage 4?)",
            where=where,
            remedy=f"Say which: --scheme {' or --scheme '.join(SCHEMES)}.",
        )
    return SCHEMES[fitting[0]]
