"""Adopting a public live stager: equal to its own code, or refused with what to do."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.types import Page, Role
from hypnocast.errors import CommandError, InstallError
from hypnocast.stagers.packs.pack import Pack, load_pack, verify_pack
from hypnocast_models.adopt.command import adopt_stager
from hypnocast_models.adopt.gssc import PARITY, RECIPE, adopt_gssc, parity
from hypnocast_models.data import open_recordings, simulated
from support.needs import need_data

PAGES = 30


def _pages(seed: int, pages: int) -> list[Page]:
    recipe = builtin(RECIPE)
    night = simulated.stretch(seed, pages)
    gains = np.ones(len(simulated.ROLES))
    return list(simulated.pages(night, recipe.context_s, recipe.tail_s, gains))


@pytest.fixture(scope="module")
def gssc() -> Path:
    """The Python of an environment that has GSSC: it is under the AGPL and no part of the tests."""
    python = os.environ.get("HYPNOCAST_GSSC", "")
    if not python:
        pytest.skip("GSSC is not there (HYPNOCAST_GSSC names the Python of its environment)")
    return Path(python)


@pytest.fixture(scope="module")
def pack(gssc: Path, tmp_path_factory: pytest.TempPathFactory) -> Pack:
    folder = tmp_path_factory.mktemp("adopted") / "gssc"
    return adopt_gssc(folder, gssc, _pages(0, 4), scaling="page")


@pytest.mark.timeout(300)
def test_an_adopted_pack_is_verified_as_any_other(pack: Pack) -> None:
    assert verify_pack(pack.folder) == ()
    assert load_pack(pack.folder).digest == pack.digest
    assert "AGPL" in pack.manifest.licence
    assert "Affero" in (pack.folder / "CARD.md").read_text(encoding="utf-8")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("eyes", [(), (Role.E1,), (Role.E1, Role.E2)], ids=["eeg", "one", "both"])
def test_votes_equal_gssc_s_own_real_time_code(
    pack: Pack, gssc: Path, eyes: tuple[Role, ...]
) -> None:
    found = parity(pack, gssc, _pages(1, PAGES), eyes)
    assert found.pages == PAGES
    assert found.probability < PARITY
    assert found.stages == 0


@pytest.mark.timeout(300)
def test_stages_of_real_eeg_equal_gssc_s_own_real_time_code(pack: Pack, gssc: Path) -> None:
    night = open_recordings(need_data("ucddb"))[0]
    recipe = pack.recipe
    pages = [night.page(row, recipe.context_s, recipe.tail_s, Role.C4, 1.0) for row in range(PAGES)]
    found = parity(pack, gssc, pages, ())
    assert (found.pages, found.stages) == (PAGES, 0)
    assert found.probability < PARITY


def test_without_gssc_the_error_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="pip install gssc onnx"):
        adopt_gssc(tmp_path / "out", Path(sys.executable), [], scaling="page")
    with pytest.raises(InstallError, match="--python"):
        adopt_gssc(tmp_path / "out", tmp_path / "no-python", [], scaling="page")


@pytest.mark.parametrize(("what", "scaling"), [("yasa", "page"), ("gssc", "loud")])
def test_what_cannot_be_adopted_is_named(tmp_path: Path, what: str, scaling: str) -> None:
    with pytest.raises(CommandError, match="there is no"):
        adopt_stager(
            what,
            tmp_path,
            python=Path(sys.executable),
            check=None,
            scaling=scaling,
            progress=lambda _: None,
        )
