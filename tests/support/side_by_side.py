"""Which tests may run beside each other, in how many processes ever.

Files go to processes whole. Those that live in real time wait for streams, deadlines and brokers
more than they work, and would be late by each other's fault: they make two rows, each dealt out
as one, whose tests follow each other in one process.
"""

from __future__ import annotations

REAL_TIME = (
    (
        "tests/live/test_run.py",
        "tests/ports/test_lsl",
        "tests/simulate/test_outlets.py",
        "tests/bridge/test_bridge_",
        "tests/ports/test_vendor_outlet.py",
        "tests/bench/",
    ),
    (
        "tests/faults/test_streams.py",
        "tests/attacks/test_siege.py",
        "tests/attacks/test_streams.py",
        "tests/faults/test_watchdog.py",
        "tests/faults/test_model_and_time.py",
        "tests/faults/test_service.py",
        "tests/stagers/test_remote.py",
        "tests/live/test_judging.py",
    ),
)
"""Beginnings of paths, row by row; the longest run first."""

HEAVY = (
    "tests/models/test_families.py",
    "tests/faults/test_kills.py",
    "tests/models/test_export.py",
    "tests/test_craft.py",
    "tests/models/test_archive.py",
    "tests/nights/test_replay.py",
    "tests/models/",
    "tests/core/test_render_matplotlib.py",
    "tests/faults/",
    "tests/live/test_perturbed_ward.py",
    "tests/live/test_demo.py",
    "tests/browser/",
    "tests/core/test_page_builder",
)
"""The same of what keeps a processor busy for long."""


def in_real_time(nodeid: str) -> bool:
    """Return whether a test lives in real time."""
    return any(nodeid.startswith(row) for row in REAL_TIME)


def scope(nodeid: str) -> str:
    """Return what a test must share a process with: its file, or its row."""
    for number, row in enumerate(REAL_TIME):
        if nodeid.startswith(row):
            return f"real time {number}"
    return nodeid.partition("::")[0]


def place(nodeid: str) -> int:
    """Return the place of a test's file in the order of a run."""
    order = (*(path for row in REAL_TIME for path in row), *HEAVY)
    return next((n for n, path in enumerate(order) if nodeid.startswith(path)), len(order))
