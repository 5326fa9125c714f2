"""A night with faults at random leaves the daemon as big as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.endurance import endure
from support.brokers import running_mosquitto


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_eight_hours_of_faults_leave_memory_descriptors_and_threads_as_they_were(
    tmp_path: Path, pack: Path
) -> None:
    with running_mosquitto(tmp_path) as broker:
        endured = endure(tmp_path, broker.port, pack, hours=8.0, seed=20260307)
    assert all(finding.whole for finding in endured.findings.values()), endured.findings
    assert endured.growth(0.1, 1.0) < 0.05
    late = [size for size in endured.sizes if size.hours > 1.0]
    assert max(s.descriptors for s in late) - min(s.descriptors for s in late) <= 12
    assert max(s.threads for s in late) - min(s.threads for s in late) <= 4
