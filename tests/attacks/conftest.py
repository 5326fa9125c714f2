"""The table of attempts: after the tests of this folder it says what held, area by area.

In the long form a daemon with a bed that nobody attacks runs beside every file that attacks what
is live, and the table says what became of that bed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from attacks.calm_bed import OTHER_BED, AttackedDaemon, attacked_daemon
from support.brokers import Mosquitto, running_mosquitto
from support.packs import make_tiny_pack

_held: dict[str, list[bool]] = defaultdict(list)
_other_beds: set[str] = set()


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pack whose opinions come quickly."""
    return make_tiny_pack(tmp_path_factory.mktemp("packs") / "tiny", family="contrastive")


@pytest.fixture(scope="module")
def calm_bed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pack: Path
) -> Iterator[AttackedDaemon | None]:
    """Serve a bed that nobody attacks while a file attacks; at the file's end nothing befell it.

    In the long form only: it lasts until the page is decided in which the last attack happened.
    """
    if request.config.getoption("markexpr") == "not long":
        yield None
        return
    with attacked_daemon(tmp_path_factory.mktemp("attacked"), pack) as running:
        yield running
        running.wait_for_pages(len(running.events()) + 1)
        other = running.end()
    request.node.stash[OTHER_BED] = str(other)
    assert not other.harm, other.harm


@pytest.fixture
def attacked(calm_bed: AttackedDaemon | None) -> AttackedDaemon:
    """The daemon that a test of the long form attacks."""
    assert calm_bed is not None, "such a test belongs to the long form"
    return calm_bed


@pytest.fixture
def broker(calm_bed: AttackedDaemon | None, tmp_path: Path) -> Iterator[Mosquitto]:
    """The broker of the daemon that is attacked; where none runs, one for this test."""
    if calm_bed is not None:
        yield calm_bed.broker
        return
    with running_mosquitto(tmp_path) as running:
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note what became of an attempt, and of the other bed once the file is done."""
    report = yield
    marker = item.get_closest_marker("attack")
    if marker is not None and (report.when == "call" or report.outcome == "failed"):
        report.user_properties.append(("attack", marker.args[0]))
    module = item.getparent(pytest.Module)
    if module is not None and report.when == "teardown" and OTHER_BED in module.stash:
        report.user_properties.append(("other bed", f"{module.name}: {module.stash[OTHER_BED]}"))
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect the attempts, from every process that runs tests."""
    for name, value in report.user_properties:
        if name == "attack" and report.outcome in ("passed", "failed"):
            _held[str(value)].append(report.outcome == "passed")
        elif name == "other bed" and report.when == "teardown":
            _other_beds.add(str(value))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Write the table."""
    if not _held:
        return
    terminalreporter.write_sep("=", "attempts by area")
    rows = [(area, len(held), held.count(False)) for area, held in sorted(_held.items())]
    rows.append(("all", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    for area, attempts, broken in rows:
        terminalreporter.write_line(f"{area:<28}{attempts:>5} attempts{broken:>5} broken")
    for line in sorted(_other_beds):
        terminalreporter.write_line(line)
