"""What markers mean: lights off and on, and where sessions and their phases begin and end."""

from __future__ import annotations

import unicodedata
from enum import StrEnum


class MarkMeaning(StrEnum):
    """What a marker asks for, where it asks for anything."""

    LIGHTS_OFF = "lights_off"
    LIGHTS_ON = "lights_on"
    START_SESSION = "start_session"
    SETUP = "setup"
    CALIBRATION = "calibration"
    RECORDING = "recording"
    END_SESSION = "end_session"


_WORDS = {
    MarkMeaning.LIGHTS_OFF: (
        *("lightsoff", "lightoff", "lightsout", "lightout", "lichtaus"),
        *("lumièreéteinte", "lumièreséteintes", "extinctiondesfeux"),
    ),
    MarkMeaning.LIGHTS_ON: (
        *("lightson", "lighton", "lichtan"),
        *("lumièreallumée", "lumièresallumées"),
    ),
    MarkMeaning.START_SESSION: ("startsession", "sessionstart", "sessionstarted"),
    MarkMeaning.SETUP: ("setup", "startsetup", "setupstart"),
    MarkMeaning.CALIBRATION: (
        "calibration",
        "startcalibration",
        "calibrationstart",
        "biocalibration",
        "biocalibrations",
        "biocals",
    ),
    MarkMeaning.RECORDING: (
        "recording",
        "startrecording",
        "recordingstart",
        "recordingstarted",
    ),
    MarkMeaning.END_SESSION: (
        "endsession",
        "sessionend",
        "sessionended",
        "endrecording",
        "recordingend",
        "stoprecording",
        "recordingstopped",
    ),
}
_MEANINGS = {word: meaning for meaning, words in _WORDS.items() for word in words}


def meaning_of(text: str) -> MarkMeaning | None:
    """Return what a marker's text means: ``Lights Off``, ``lights_out`` and the like.

    Case, blanks and punctuation are ignored; any other text is a note and means nothing here.
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    return _MEANINGS.get("".join(c for c in plain if c.isalnum()))
