"""Text as Windows programs write it, and what a file that is no text looks like."""

from __future__ import annotations

import codecs
import zipfile
from pathlib import Path

from hypnocast.errors import TapeError

MOST_BYTES = 64 * 1024 * 1024

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LOOKS = 4096
_BEGINNINGS = (
    (b"SQLite format 3", "a database, such as Noxturnal's", "Export the events as CSV"),
    (b"%PDF", "a PDF report", "Export the stages as text"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "Save the sheet as CSV"),
    (b"MATLAB 5.0", "a MATLAB file", "Export the stages as CSV"),
    (b"\x89HDF", "an HDF5 or MATLAB 7.3 file", "Export the stages as CSV"),
    (b"\x1f\x8b", "a gzip archive", "Unpack it"),
    (b"Embla data file", "an Embla signal file", "Export the events from RemLogic as text"),
    (b"EEG-1100", "a Nihon Kohden recording", "Export from Polysmith as OpenXDF"),
    (b"EEG-2100", "a Nihon Kohden recording", "Export from Polysmith as OpenXDF"),
    (b"XDF:", "an XDF recording", "Name the file with the hypnogram"),
)
_ENDINGS = (
    ((".erd", ".ent", ".stc", ".snc", ".epo", ".vtc"), "Natus SleepWorks", "EDF+ with annotations"),
    ((".ndf", ".ndb", ".esrc"), "Noxturnal", "the events as CSV"),
    ((".ebm", ".esedb"), "Embla RemLogic", "the events as text"),
    ((".slp", ".sdy", ".rda"), "Compumedics Profusion", "the study as Profusion XML"),
    ((".als", ".g3"), "Philips Sleepware", "the study as .rml"),
    ((".eeg", ".pnt", ".log", ".21e"), "Nihon Kohden", "the study from Polysmith as OpenXDF"),
    ((".dom", ".som"), "SOMNOmedics DOMINO", "the sleep profile as text"),
)


def decode(raw: bytes, path: Path) -> str:
    """Return a text file's text: UTF-8, UTF-16 with or without its mark, Windows' Latin-1."""
    for mark, encoding in _BOMS:
        if raw.startswith(mark):
            return _decoded(raw, encoding, path)
    begin = raw[:_LOOKS]
    if b"\x00" in begin:
        odd, even = begin[1::2].count(0), begin[::2].count(0)
        if max(odd, even) < len(begin) // 5 or min(odd, even) > max(odd, even) // 4:
            raise _no_text(begin, path)
        text = _decoded(raw, "utf-16-le" if odd > even else "utf-16-be", path)
        if not _is_plain(text[:_LOOKS]):
            raise _no_text(begin, path)
        return text
    if not _is_plain(begin.decode("latin-1")):
        raise _no_text(begin, path)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        # The five bytes that cp1252 leaves out are what Latin-1 has there.
        return raw.decode("cp1252", "replace") if not _gaps(raw) else raw.decode("latin-1")


def _is_plain(text: str) -> bool:
    """Whether a text has next to no control characters."""
    return sum(ord(c) < 32 and c not in "\t\n\r\x0c\x1a" for c in text) * 50 <= len(text)


def read_text(path: Path) -> str:
    """Read a text file."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise TapeError(f"has {path.stat().st_size} bytes: no table", where=str(path))
        return decode(path.read_bytes(), path)
    except OSError as error:
        raise TapeError(f"cannot be opened ({error.strerror})", where=str(path)) from error


def _gaps(raw: bytes) -> bool:
    return any(bytes((byte,)) in raw for byte in (0x81, 0x8D, 0x8F, 0x90, 0x9D))


def _decoded(raw: bytes, encoding: str, path: Path) -> str:
    try:
        return raw.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise TapeError(
            f"is damaged text in {encoding} ({error.reason})", where=str(path)
        ) from None


def _no_text(begin: bytes, path: Path) -> TapeError:
    looks, instead = _looks_like(begin, path)
    return TapeError(
        f"is no text: it looks like {looks}, which is not read", where=str(path), remedy=instead
    )


def refuse_known_binary(begin: bytes, path: Path) -> None:
    """Refuse a file that is known by its beginning and that holds no scoring in text."""
    if begin.startswith(b"PK\x03\x04") or any(begin.startswith(mark) for mark, _, _ in _BEGINNINGS):
        raise _no_text(begin, path)


def _looks_like(begin: bytes, path: Path) -> tuple[str, str]:
    for mark, what, instead in _BEGINNINGS:
        if begin.startswith(mark):
            return what, f"{instead}."
    if begin.startswith(b"PK\x03\x04"):
        return _archive(path)
    ending = path.suffix.lower()
    for endings, program, instead in _ENDINGS:
        if ending in endings:
            return f"a file of {program}", f"Export {instead}."
    return "no format that is known here", "Export the stages as EDF+, CSV or text."


def _archive(path: Path) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()[:1000]
    except (OSError, zipfile.BadZipFile, ValueError):
        names = []
    if any(name.startswith("xl/") for name in names):
        return "an Excel workbook", "Save the sheet as CSV (UTF-8)."
    return "an archive", "Unpack it and name the file with the hypnogram."
