"""Where every thread of this process is just now, for the log, when one of them hangs."""

from __future__ import annotations

import sys
import threading
import traceback
from pathlib import Path
from types import FrameType
from typing import Final

DEEPEST: Final = 14
"""How many frames of a thread are named, the innermost first."""


def thread_stacks() -> dict[str, str]:
    """Return each thread's name → how the kernel sees it, and the calls it is in.

    The kernel's letter distinguishes waiting for a processor or the interpreter (R, S) from waiting
    for a disk (D); the processor time, a thread that computes from one that gets no turn.
    """
    frames = sys._current_frames()  # noqa: SLF001 - documented, and there is no other
    stacks: dict[str, str] = {}
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if frame is not None:
            words = f"{_seen_by_kernel(thread.native_id)}; {_calls(frame)}"
            stacks[_free_name(thread.name, stacks)] = words
    return stacks


def _free_name(name: str, taken: dict[str, str]) -> str:
    number, free = 2, name
    while free in taken:
        number, free = number + 1, f"{name} {number}"
    return free


def _calls(frame: FrameType) -> str:
    calls = [
        f"{'/'.join(Path(call.filename).parts[-2:])}:{call.lineno} {call.name}"
        for call in reversed(traceback.extract_stack(frame))
        if "importlib" not in call.filename
    ]
    return " < ".join(calls[:DEEPEST])


def _seen_by_kernel(number: int | None) -> str:
    try:
        stat = Path(f"/proc/self/task/{number}/stat").read_text(encoding="ascii", errors="replace")
        fields = stat.rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
    except (OSError, ValueError, IndexError):
        return "state unknown"
    return f"state {fields[0]}, {ticks / 100:.1f} s of processor time"
