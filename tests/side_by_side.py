"""Which tests may run beside each other, in how many processes ever.

Files go to processes whole. Those that live in real time are dealt out as one: they wait for
streams, deadlines and brokers, and two of them at once would be late by each other's fault.
"""

from __future__ import annotations

REAL_TIME = (
    "tests/app/test_run.py",
    "tests/ports/test_lsl",
    "tests/faults/test_vigil.py",
    "tests/faults/test_model_and_time.py",
    "tests/stagers/test_remote.py",
    "tests/bench/",
    "tests/app/test_judging.py",
    "tests/app/test_simulate_outlets.py",
    "tests/ports/test_vendor_outlet.py",
)
"""Beginnings of paths, longest run first."""

HEAVY = (
    "tests/faults/test_streams.py",
    "tests/models/test_families.py",
    "tests/faults/test_kills.py",
    "tests/models/test_export.py",
    "tests/test_craft.py",
    "tests/models/test_archive.py",
    "tests/app/test_replay.py",
    "tests/models/",
    "tests/core/test_render_matplotlib.py",
    "tests/faults/",
    "tests/app/test_demo.py",
    "tests/browser/",
    "tests/core/test_headbox",
)
"""The same of what takes long, and may be late by another's fault."""


def in_real_time(nodeid: str) -> bool:
    """Tell whether a test lives in real time."""
    return nodeid.startswith(REAL_TIME)


def scope(nodeid: str) -> str:
    """Return what a test must share a process with: its file, or all that lives in real time."""
    return "real time" if in_real_time(nodeid) else nodeid.partition("::")[0]


def place(nodeid: str) -> int:
    """Return the place of a test's file in the order of a run."""
    order = (*REAL_TIME, *HEAVY)
    return next((n for n, path in enumerate(order) if nodeid.startswith(path)), len(order))
