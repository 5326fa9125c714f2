"""Scored nights, read by what is in the file and not by its name.

Which formats are read, and where the knowledge of each comes from, is written in
docs/scored-files.md.
"""

from __future__ import annotations

from pathlib import Path

from hypnocast.core.types import PAGE_S
from hypnocast.errors import TapeError
from hypnocast.ports.hypnograms.clinical_texts import (
    is_domino,
    is_remlogic,
    read_domino,
    read_remlogic,
)
from hypnocast.ports.hypnograms.scoring import ScoredSpan, Scoring, checked
from hypnocast.ports.hypnograms.stage_words import read_word
from hypnocast.ports.hypnograms.tables import read_table
from hypnocast.ports.hypnograms.text_files import read_text, refuse_known_binary
from hypnocast.ports.hypnograms.xml_files import read_xml
from hypnocast.ports.recordings.edf_file import EdfFile

_SHOWN = 5


def read_scoring(path: Path, *, scheme: str | None = None) -> Scoring:
    """Read a scored night; ``scheme`` names the scheme of bare digits."""
    try:
        with path.open("rb") as file:
            begin = file.read(256)
    except OSError as error:
        raise TapeError(
            f"cannot be opened ({error.strerror})",
            where=str(path),
            remedy="Name a file that can be read.",
        ) from error
    if begin[:8].strip() == b"0" or begin.startswith(b"\xffBIOSEMI"):
        return read_edf_scoring(EdfFile(path))
    refuse_known_binary(begin, path)
    return checked(_read_text(read_text(path), path, scheme), str(path))


def read_edf_scoring(file: EdfFile) -> Scoring:
    """Read the stages in the annotations of an EDF+ or BDF+ file."""
    spans: list[ScoredSpan] = []
    lights: dict[str, float] = {}
    others: list[str] = []
    rk = False
    for tal in file.annotations():
        # HMC writes the channel behind "@@".
        text = tal.text.partition("@@")[0].strip()
        if text.casefold() in ("lights off", "lights on"):
            lights.setdefault(text.casefold(), tal.onset)
        word = read_word(text) if text else None
        if word is not None and word.stage is not None:
            spans.append(ScoredSpan(tal.onset, tal.duration or PAGE_S, word.stage))
            rk |= word.rk
        elif text and len(others) < _SHOWN and text not in others:
            others.append(text)
    if not spans:
        raise TapeError(
            "holds no sleep stages among its annotations"
            + (f" ({', '.join(map(repr, others))} …)" if others else ""),
            where=str(file.path),
            remedy="Name the file with the hypnogram.",
        )
    scoring = Scoring(
        "EDF+ annotations",
        tuple(spans),
        "R&K" if rk else "AASM",
        start=file.start,
        lights_off=lights.get("lights off"),
        lights_on=lights.get("lights on"),
    )
    return checked(scoring, str(file.path))


def _read_text(text: str, path: Path, scheme: str | None) -> Scoring:
    if text.lstrip().startswith("<"):
        return read_xml(text, path)
    if is_domino(text):
        return read_domino(text, path)
    if is_remlogic(text):
        return read_remlogic(text, path)
    return read_table(text, path, scheme)
