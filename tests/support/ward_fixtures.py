"""What tests of wards share: a tiny pack, and a broker for the tests of one file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.brokers import Mosquitto, running_mosquitto
from support.packs import make_tiny_pack


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pack."""
    return make_tiny_pack(tmp_path_factory.mktemp("pack") / "tiny")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """A broker that keeps nothing of another file's nights."""
    with running_mosquitto(tmp_path_factory.mktemp("broker")) as running:
        yield running
