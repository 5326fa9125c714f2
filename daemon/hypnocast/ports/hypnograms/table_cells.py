"""The cells of a table of stages: columns, words, numbers, and the line of a fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from hypnocast.core.types import Stage
from hypnocast.errors import TapeError
from hypnocast.ports.hypnograms.stage_words import (
    MOMENTS,
    StageWord,
    digit,
    digit_scheme,
    is_digit,
    read_word,
)

USE = "Write W, N1, N2, N3, R, an R&K stage, or ? for none."


_SHOWN = 40
_RK_NUMBERS = MappingProxyType({"0": Stage.W, "5": Stage.R, "9": None, "-1": None})
"""What :func:`read_word` leaves out, for in annotations these are no stages."""

Words = Callable[[str], StageWord | None]
"""How a column's words are read; None for what scores nothing."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a table has what."""

    stage: int
    onset: int | None
    epoch: int | None
    duration: int | None
    end: int | None


@dataclass(frozen=True, slots=True)
class TableReader:
    """Names the line of a fault."""

    path: Path
    first_line: int

    def where(self, row: int) -> str:
        """Return the file and the line."""
        return f"{self.path}, line {self.first_line + row}"

    def fault(self, row: int, what: str, remedy: str = "") -> TapeError:
        """Return the fault of a row."""
        return TapeError(what, where=self.where(row), remedy=remedy)

    def cell(self, row: int, cells: Sequence[str], column: int) -> str:
        """Return a cell that has to be there."""
        if column >= len(cells):
            raise self.fault(row, "has no stage or no time")
        return cells[column].strip()

    def seconds(self, row: int, text: str, what: str) -> float:
        """Read a number; ``nan`` and ``inf`` are none."""
        try:
            value = float(text.replace(",", ".") if text.count(",") == 1 else text)
        except ValueError:
            value = float("nan")
        if not abs(value) < float("inf"):
            raise self.fault(row, f"{text!r} is no number for {what}")
        return value


def words_of(cells: Sequence[str], scheme: str | None, where: str) -> Words:
    """Return how a column's words are read."""
    scored = [one for one in cells if (w := read_word(one)) is None or w.stage is not None]
    bare = [one for one in scored if is_digit(one)]
    # A word among the digits (W 1 2 3 R) shows that they are the numbers of R&K's stages.
    numbers = bool(bare) and not any(
        read_word(one) is not None for one in scored if not is_digit(one)
    )
    if scheme is None and not numbers:
        return read_cell
    table = digit_scheme(bare, scheme, where)
    rk = "4" in table and "5" in table

    def read_number(text: str) -> StageWord | None:
        if not is_digit(text):
            return read_cell(text)
        return StageWord(table[digit(text)], rk) if digit(text) in table else None

    return read_number


def read_cell(text: str) -> StageWord | None:
    """Read a word among other words."""
    if text.strip() in _RK_NUMBERS:
        return StageWord(_RK_NUMBERS[text.strip()], rk=True)
    return read_word(text)


def not_a_stage(text: str) -> str:
    """Return whether a word scores nothing."""
    return f"{text.strip()[:_SHOWN]!r} is no sleep stage"


def cell_at(row: Sequence[str], column: int) -> str:
    """Return a cell, or nothing where the row is too short."""
    return row[column].strip() if column < len(row) else ""


def moment(text: str) -> str | None:
    """Return what a cell means for the lights; None where it does not concern them."""
    words = text.partition("@@")[0].strip().casefold().replace("_", " ")
    return words if words in MOMENTS else None
