"""The table of attempts is whole, and beside each attack on something live is the other bed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("test_*.py"))
LIVE = frozenset(
    {
        "attacks.calm_bed",
        "browser.serving",
        "faults.stream_lab",
        "hypnocast.live.service.serve",
        "hypnocast.ports.lsl.source",
        "hypnocast.ports.mqtt.link",
        "support.brokers",
        "support.daemons",
        "support.lsl_lab",
        "support.lsl_liar",
        "support.mqtt_lab",
        "support.ward_lab",
    }
)
"""Whoever imports one of these attacks what runs: a network, a broker, a page, a daemon."""
COMPARED, NO_DAEMON = "compared", "no daemon there"


def _compares(text: str) -> bool:
    """Whether a file runs beside the other bed, or runs a night of its own with one."""
    return 'usefixtures("calm_bed")' in text or "attacked_daemon(" in text


def _areas(text: str) -> set[str]:
    return set(re.findall(r'^@pytest\.mark\.attack\("([^"]+)"\)', text, re.MULTILINE))


def _rows() -> dict[str, str]:
    """Return what the README says of the other bed, by area."""
    rows = re.findall(
        r"^\| (\S[^|]*) \| \d+ \| \d+ \| ([^|]*) \|$",
        (HERE / "README.md").read_text(),
        re.MULTILINE,
    )
    return {area: other for area, other in rows if area != "all"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_attacks_something_live_has_the_other_bed_beside_it(path: Path) -> None:
    text = path.read_text()
    imported = {
        node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)
    }
    assert _compares(text) or not imported & LIVE


def test_the_table_names_every_area_and_what_became_of_the_other_bed() -> None:
    areas: dict[str, bool] = {}
    for text in (path.read_text() for path in FILES):
        for area in _areas(text):
            areas[area] = areas.get(area, False) or _compares(text)
    rows = _rows()
    assert rows.keys() == areas.keys()
    assert set(rows.values()) == {COMPARED, NO_DAEMON}
    assert [area for area, other in rows.items() if other == COMPARED and not areas[area]] == []
