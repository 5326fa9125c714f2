"""The dashboards are read by Grafana's own types, and every key in them is one that it knows."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from support.needs import need_module

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
BOARDS = ("grafana-night.json", "grafana-dashboard.json")
BY_IMPORT = {"__inputs"}
"""What only Grafana's import dialogue reads: which data source to ask for."""


def understood(board: dict[str, Any]) -> Any:
    """Read a dashboard by the SDK that is generated from Grafana's schemas; write it back."""
    need_module("grafana_foundation_sdk")
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard

    return json.loads(JSONEncoder().encode(Dashboard.from_json(board)))


def lost(given: Any, back: Any, path: str = "") -> list[str]:
    """Return the paths of what did not come back as it was given."""
    if isinstance(given, dict) and isinstance(back, dict):
        gone = [f"{path}/{key}" for key in given if key not in back]
        kept = [key for key in given if key in back]
        return gone + [one for key in kept for one in lost(given[key], back[key], f"{path}/{key}")]
    if isinstance(given, list) and isinstance(back, list) and len(given) == len(back):
        return [
            one
            for place, (a, b) in enumerate(zip(given, back, strict=True))
            for one in lost(a, b, f"{path}/{place}")
        ]
    return [] if given == back else [path]


def board_of(name: str) -> dict[str, Any]:
    board: dict[str, Any] = json.loads((EXAMPLES / name).read_text(encoding="utf-8"))
    return {key: value for key, value in board.items() if key not in BY_IMPORT}


@pytest.mark.parametrize("name", BOARDS)
def test_grafanas_own_types_know_every_key_of_a_dashboard(name: str) -> None:
    board = board_of(name)
    assert board["panels"]
    assert lost(board, understood(board)) == []


def test_a_page_without_a_stage_is_a_gap_in_the_hypnogram_and_no_longer_the_stage_before() -> None:
    """No point is written for it, and Grafana draws on unless points that far apart are parted."""
    need_module("grafana_foundation_sdk")
    from grafana_foundation_sdk.models.common import GraphFieldConfig

    for panel in board_of("grafana-night.json")["panels"][:2]:
        custom = panel["fieldConfig"]["defaults"]["custom"]
        read = GraphFieldConfig.from_json(custom)
        assert read.span_nulls is False
        assert set(custom) <= set(read.to_json())
        assert isinstance(read.insert_nulls, int)
        assert 30_000 < read.insert_nulls < 60_000


@pytest.mark.parametrize("name", BOARDS)
def test_a_key_that_grafana_does_not_know_would_be_found(name: str) -> None:
    board = copy.deepcopy(board_of(name))
    panel = board["panels"][0]
    panel["gridPosition"] = panel.pop("gridPos")
    panel["fieldConfig"]["defaults"]["minimum"] = 0
    found = lost(board, understood(board))
    assert sorted(found) == [
        "/panels/0/fieldConfig/defaults/minimum",
        "/panels/0/gridPosition",
    ]
