"""A night as an HL7 v2.5.1 message, ORU^R01: research only, marked as training data.

One OBX for each number of the night, then one for each page. ``MSH-11`` is ``T`` (training), so
that no receiving system takes it for a patient's result by itself.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from hypnocast.core.types import PAGE_S
from hypnocast.core.wire.payloads import StageName
from hypnocast.nights.fhir import STATISTICS
from hypnocast.nights.night_view import NightView

_SYSTEM: Final = "99HYPNOCAST"
_ESCAPES: Final = str.maketrans(
    {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\", "\r": " ", "\n": " "}
)
_NOTES: Final = (
    "RESEARCH USE ONLY. Not a medical device: no diagnosis, no alarm function.",
    "Stages by a model, not by a person; codes are Hypnocast's own (99HYPNOCAST).",
)
PRELIMINARY, NO_RESULT = "P", "X"


def hl7_message(view: NightView, zone: ZoneInfo) -> str:
    """Return the night as one message; segments end in a carriage return, as HL7 has it."""
    night = view.night
    ended = (
        datetime.fromisoformat(night.ended)
        if night.ended is not None
        else view.start + timedelta(seconds=PAGE_S * night.epochs)
    )
    made = _time(datetime.fromisoformat(night.at), zone)
    control = f"{night.last_sequence}-{int(view.start.timestamp())}"[:20]
    service = f"HYPNOGRAM^Sleep stages by 30 s^{_SYSTEM}"
    begin, end = _time(view.start, zone), _time(ended, zone)
    segments = [
        (
            *("MSH", "^~\\&", "HYPNOCAST", _text(night.site), "", "", made, ""),
            *("ORU^R01^ORU_R01", control, "T", "2.5.1", "", "", "", "", "", "UNICODE UTF-8"),
        ),
        # The subject's code; a name is not known here, and PID-5 says so (S: coded pseudonym).
        ("PID", "1", "", f"{_text(night.subject or 'UNKNOWN')}^^^HYPNOCAST", "", "^^^^^^S"),
        (
            *("OBR", "1", "", _text(view.session.id), service, "", "", begin, end),
            *([""] * 13),
            *(made, "", "", PRELIMINARY),
        ),
        *(("NTE", str(n), "", _text(words)) for n, words in enumerate(_NOTES, 1)),
        *_numbers(view, begin),
    ]
    offset = len(STATISTICS)
    segments += [
        _page(offset + epoch + 1, epoch, stage, _time(view.begins(epoch), zone))
        for epoch, stage in enumerate(view.stages)
    ]
    return "".join("|".join(segment) + "\r" for segment in segments)


def _numbers(view: NightView, at: str) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for number, (key, words, unit) in enumerate(STATISTICS, 1):
        value = getattr(view.night.statistics, key)
        shown = "" if value is None else f"{value:.10g}"
        status = NO_RESULT if value is None else PRELIMINARY
        code = f"{key.rpartition('_')[0].upper()}^{words}^{_SYSTEM}"
        units = f"{unit}^{unit}^UCUM"
        rows.append(_obx(number, ("NM", code, "", shown, units), status, at))
    return rows


def _page(number: int, epoch: int, stage: StageName | None, at: str) -> tuple[str, ...]:
    code = f"STAGE^Sleep stage^{_SYSTEM}"
    if stage is None:
        return _obx(number, ("CE", code, str(epoch), "", ""), NO_RESULT, at)
    said = f"{stage}^Stage {stage}^{_SYSTEM}"
    return _obx(number, ("CE", code, str(epoch), said, ""), PRELIMINARY, at)


def _obx(number: int, what: tuple[str, ...], status: str, at: str) -> tuple[str, ...]:
    """Return an observation; ``what``: type, code, sub-id, value, units."""
    return ("OBX", str(number), *what, "", "", "", "", status, "", "", at)


def _time(at: datetime, zone: ZoneInfo) -> str:
    local = at.astimezone(zone)
    return f"{local:%Y%m%d%H%M%S}.{local.microsecond // 1000:03d}{local:%z}"


def _text(words: str) -> str:
    """Escape what would end a field."""
    return words.translate(_ESCAPES)
