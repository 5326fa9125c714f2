"""The table of attempts: after the tests of this folder it says what held, area by area."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator
from pathlib import Path

import pytest

from support.packs import make_tiny_pack

_held: dict[str, list[bool]] = defaultdict(list)


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pack whose opinions come quickly."""
    return make_tiny_pack(tmp_path_factory.mktemp("packs") / "tiny", family="contrastive")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note what became of an attempt."""
    report = yield
    marker = item.get_closest_marker("attack")
    if marker is not None and (report.when == "call" or report.outcome == "failed"):
        report.user_properties.append(("attack", marker.args[0]))
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect the attempts, from every process that runs tests."""
    for name, area in report.user_properties:
        if name == "attack" and report.outcome in ("passed", "failed"):
            _held[str(area)].append(report.outcome == "passed")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Write the table."""
    if not _held:
        return
    terminalreporter.write_sep("=", "attempts by area")
    rows = [(area, len(held), held.count(False)) for area, held in sorted(_held.items())]
    rows.append(("all", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    for area, attempts, broken in rows:
        terminalreporter.write_line(f"{area:<28}{attempts:>5} attempts{broken:>5} broken")
