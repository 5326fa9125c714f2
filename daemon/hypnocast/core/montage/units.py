"""Units: what one value of a stream is worth in µV, in all spellings that amplifiers use."""

from __future__ import annotations

import re
import unicodedata

_PREFIXES = {
    "": 1e6,
    "m": 1e3,
    "milli": 1e3,
    "u": 1.0,
    "µ": 1.0,
    "mc": 1.0,
    "mu": 1.0,
    "micro": 1.0,
    "n": 1e-3,
    "nano": 1e-3,
}
_VOLTS = re.compile(r"(?P<prefix>[a-zµ]*?)[ _-]?(?:volts?|v)")
_SCALED = re.compile(
    r"(?P<number>[0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?) ?\*? ?(?P<unit>[a-zµ _-]+?)"
    r"(?: ?(?:/|per) ?(?:count|counts|lsb|bit|digit|adu))?"
)


def microvolts_per(unit: str | None, scale: float | None = None) -> float | None:
    """Return what one value is worth in µV, or None where the unit is not known for certain.

    ``scale`` is what one raw count is worth in ``unit``. The unit may carry it itself, as in
    ``0.1 uV`` or ``0.0238 µV/count``. Nothing is guessed: no unit, ``counts`` without a scale,
    and whatever is no voltage are unknown.
    """
    if unit is None:
        return None
    # µ and μ look alike and are two characters; upper-cased headers make Μ of them, and of mV MV,
    # which nobody means: there are no megavolts on a head.
    text = (
        unicodedata.normalize("NFKC", unit).lower().replace("μ", "µ").strip().strip("[]()").strip()
    )
    per_unit = _per_volt_name(text)
    if per_unit is None:
        scaled = _SCALED.fullmatch(text)
        per_name = _per_volt_name(scaled["unit"]) if scaled is not None else None
        if scaled is not None and per_name is not None:
            per_unit = float(scaled["number"]) * per_name
    if per_unit is None:
        return None
    worth = per_unit if scale is None else per_unit * scale
    return worth if 0 < abs(worth) < float("inf") else None


def _per_volt_name(text: str) -> float | None:
    found = _VOLTS.fullmatch(text.strip())
    return _PREFIXES.get(found["prefix"].rstrip(" _-")) if found is not None else None
