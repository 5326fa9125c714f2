"""Words of an old private vocabulary, and every place where one stays, with its reason.

``python tests/support/vocabulary.py`` lists what is left; ``tests/test_craft.py`` fails where a
word is left without a reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT = Path(__file__).resolve().parents[2]

INSTEAD: Final = {
    "vigil": "watchdog", "headbox": "page builder", "easel": "page drawing",
    "tracer": "signal thread", "tracing": "drawing", "traced": "drawn", "gallery": "picture store",
    "commentary": "explanations", "dictation": "constrained generation", "discretion": "grammar",
    "reel": "tape", "deck": "tape recorder", "desk": "command handler", "board": "publisher",
    "shelf": "drawn nights", "shelved": "kept", "ladder": "fallback", "rung": "stager",
    "lane": "aligned stream, role, queue", "joining": "stream intake", "lately": "recently",
    "hearing": "receiving", "seeing": "signal health", "hear": "receive", "hears": "receives",
    "heard": "received, seen", "tell": "report, return, show, log", "tells": "reports, shows",
    "telling": "reporting", "told": "reported, published, shown, logged",
}  # fmt: skip
"""Word → what says more."""


class Stay(NamedTuple):
    """Where a word stays, and why."""

    words: str
    """Which words: an expression."""
    place: str
    """What the path begins with."""
    text: str
    """What the line holds."""
    why: str


STAYS: Final = (
    Stay("tell", "", r"\.tell\(\)", "Python's name for the position in a file"),
    Stay("traced", "", "get_traced_memory", "Python's name in tracemalloc"),
    *(
        Stay("trac", place, "", "PyTorch traces a model")
        for place in (
            "models/hypnocast_models/commands/exporting.py",
            "models/hypnocast_models/export",
            "models/hypnocast_models/tune/deliver.py",
            "docs/training.md",
            "tests/conftest.py",
            "tests/models/test_export.py",
            "tests/models/test_families.py",
        )
    ),
    Stay("board", "", "", "a board of OpenBCI, Muse or BrainBit, as its maker calls it"),
    Stay(
        "tells", "models/hypnocast_models/export", "tells a decoder", "an input that tells a number"
    ),
    Stay("tell", "SECURITY.md", "tell anybody", "somebody tells somebody"),
    Stay("headbox", "tests/", "", "a device of labs, and a name of one"),
    Stay("", "CHANGELOG.md", "", "what was released is not rewritten"),
    Stay("", "tests/support/vocabulary.py", "", "the list itself"),
)


class Left(NamedTuple):
    """A word that is left."""

    place: str
    word: str
    line: str
    why: str
    """Empty where there is no reason."""


def left() -> Iterator[Left]:
    """Give every place of an old word in code, docs and tests."""
    words = re.compile(rf"(?i)(?<![a-z])(?:{'|'.join(INSTEAD)})s?(?![a-z])")
    for path in _texts():
        name = str(path.relative_to(ROOT))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for word in words.findall(line):
                why = next(
                    (
                        stay.why
                        for stay in STAYS
                        if re.match(stay.words, word, re.IGNORECASE)
                        and name.startswith(stay.place)
                        and re.search(stay.text, line)
                    ),
                    "",
                )
                yield Left(f"{name}:{number}", word, line.strip(), why)


def _texts() -> Iterator[Path]:
    yield from ROOT.glob("*.md")
    for folder in ("daemon", "models", "tests", "docs"):
        for path in sorted((ROOT / folder).rglob("*")):
            inside = path.relative_to(ROOT).parts
            if path.suffix in {".py", ".md", ".js", ".css", ".html"} and "vendor" not in inside:
                yield path


if __name__ == "__main__":
    for one in left():
        print(f"{one.place}  {one.word}: {one.why or 'NO REASON: ' + one.line[:80]}")
