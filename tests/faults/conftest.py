"""What the fault tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.packs import make_tiny_pack


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pack whose opinions come quickly."""
    return make_tiny_pack(tmp_path_factory.mktemp("packs") / "tiny", family="contrastive")
