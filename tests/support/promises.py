"""Writes ``docs/promises.md``: what is promised, and which tests prove it.

``python tests/support/promises.py`` writes the page; a test fails where it is not up to date. The
marks are read from the tests' source, so nothing has to be imported or run.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "promises.md"

PROMISES = {
    1: "**One terminal event per page.** From session start to end, every epoch index gets exactly "
    "one terminal event: `final` or `withheld`. Never zero, never two. On clean signal at least "
    "99 % of pages are `final`.",
    2: "**Journal first.** An event is durable on disk before it is sent, and leaves the outbox "
    "only when the broker has acknowledged it. Nothing is lost; a repeat carries the same id.",
    3: "**No guess on bad data.** Too little coverage, a detached or implausibly scaled EEG, an "
    "unknown unit: `withheld` with the reason.",
    4: "**Drawn once, one code path.** A page is conditioned and drawn once; training, replay and "
    "live use the same code. How the samples were chunked cannot change a pixel.",
    5: "**The tape.** What came in is recorded as it came, in XDF. Replaying a tape gives "
    "byte-identical pictures, and the same stages.",
    6: "**Provisional, then terminal.** If the pack looks at the next page, a provisional verdict "
    "comes first, the terminal one when the next picture exists or cannot. Nothing later changes "
    "a terminal verdict.",
    7: "**Bounded and unblocked.** A slow broker, a stuck GPU or a dead dashboard never stops "
    "samples from being read. Queues are bounded; a page without an opinion 25 s after its close "
    "is `withheld: too_late`.",
    8: "**Everything is traceable.** Each event names its pack, recipe and picture digests, "
    "quality, channels used, latency, and whether it is live, replayed or simulated.",
}


@dataclass(frozen=True)
class PromiseProof:
    """One test that proves a promise."""

    promise: int
    file: str
    test: str


def proofs() -> list[PromiseProof]:
    """Find every ``@pytest.mark.promise(n)`` there is."""
    found = [
        proof for path in sorted(TESTS.rglob("test_*.py")) for proof in _in(path, path.read_text())
    ]
    return sorted(found, key=lambda proof: (proof.promise, proof.file))


def _in(path: Path, text: str) -> Iterator[PromiseProof]:
    file = path.relative_to(TESTS.parent).as_posix()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for mark in node.decorator_list:
                number = _promise(mark)
                if number is not None:
                    yield PromiseProof(number, file, node.name)


def _promise(mark: ast.expr) -> int | None:
    if not isinstance(mark, ast.Call) or ast.unparse(mark.func) != "pytest.mark.promise":
        return None
    number = ast.literal_eval(mark.args[0])
    assert number in PROMISES, number
    return int(number)


def page() -> str:
    """Return the page."""
    lines = [
        "# What is promised, and what proves it",
        "",
        "Made from the marks of the tests by `python tests/support/promises.py`; a test keeps it",
        "up to date. What was measured under faults is in [faults.md](faults.md).",
        "",
    ]
    all_proofs = proofs()
    for number, words in PROMISES.items():
        lines += [f"## {number}", "", words, ""]
        mine = [proof for proof in all_proofs if proof.promise == number]
        lines += ["| test | file |", "|---|---|"] if mine else ["No test is marked with it."]
        lines += [
            f"| {proof.test.removeprefix('test_').replace('_', ' ')} | `{proof.file}` |"
            for proof in mine
        ]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}: {len(proofs())} proofs\n")
