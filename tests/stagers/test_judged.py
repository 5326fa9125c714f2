"""A pack says on which montages it was judged, and a bed's montage is held against them."""

from __future__ import annotations

import msgspec
import pytest

from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.wire.page_facts import JudgedMontages
from hypnocast.stagers.packs.catalogue import resolve_pack
from hypnocast.stagers.packs.judged import judged_montages
from hypnocast.stagers.packs.manifest import JudgedRecordings, Manifest
from hypnocast.stagers.packs.pack import read_manifest

PSG = ("F4-M1", "C4-M1", "O2-M1", "E1-M2", "E2-M2", "Chin")
WHOLE = {role: role for role in PSG}


@pytest.fixture
def shipped() -> Manifest:
    return read_manifest(resolve_pack("hypnocast-small"))


def test_the_shipped_pack_was_judged_on_one_derivation_as_its_figures_say(
    shipped: Manifest,
) -> None:
    judged = judged_montages(shipped)
    ((derivations, on),) = judged.recordings
    assert derivations == ("Fpz-Cz",)
    assert "5 s of each 30-s page, 16 healthy adults" in on
    inside = judged.of({"F4-M1": "Fpz-Cz"})
    assert inside is not None
    assert inside.inside
    assert inside.words is None


@pytest.mark.parametrize(
    "channels", [{"F4-M1": "AF8 (reference assumed)"}, {"F4-M1": "AF8-Fpz"}, WHOLE]
)
def test_a_headband_and_a_whole_polysomnogram_are_outside_it(
    shipped: Manifest, channels: dict[str, str]
) -> None:
    judged_here = judged_montages(shipped).of(channels)
    assert judged_here is not None
    assert judged_here.inside is False
    assert judged_here.montages == (("Fpz-Cz",),)
    assert judged_here.words is not None
    assert judged_here.words.startswith(
        "The pack was not judged on this montage, but on Fpz-Cz (sleep"
    )


def test_of_a_pack_that_is_shown_one_eeg_that_eeg_counts(shipped: Manifest) -> None:
    judged = judged_montages(shipped, builtin("spectral-448-one-eeg"))
    for channels, inside in (
        ({"F4-M1": "Fpz-Cz", "O2-M1": "Pz-Oz", "Chin": "EMG"}, True),
        (WHOLE, False),
    ):
        found = judged.of(channels)
        assert found is not None
        assert found.inside is inside
    assert judged.of({"Chin": "EMG"}) is None


def test_what_a_pack_says_itself_counts_more_than_its_figures(shipped: Manifest) -> None:
    said = JudgedRecordings(derivations=PSG, on="100 nights of a lab")
    judged = judged_montages(msgspec.structs.replace(shipped, judged=(said,)))
    assert judged.recordings == ((PSG, "100 nights of a lab"),)


@pytest.mark.parametrize(
    ("change", "inside"),
    [
        ({}, True),
        ({"F4-M1": "F3-M2 (mirrored)"}, True),
        ({"Chin": "Chin1-Chin2"}, True),
        ({"Chin": "EMG"}, True),
        ({"F4-M1": "F4-M2"}, False),
        ({"F4-M1": "F4 (reference assumed)"}, False),
        ({"C4-M1": "Cz-M1"}, False),
        ({"E1-M2": None}, False),
        ({"ECG": "ECG"}, False),
    ],
)
def test_a_montage_is_inside_with_the_same_derivations_or_their_mirror_images(
    change: dict[str, str | None], *, inside: bool
) -> None:
    channels = {role: used for role, used in {**WHOLE, **change}.items() if used is not None}
    judged_here = JudgedMontages(((PSG, "nights"),)).of(channels)
    assert judged_here is not None
    assert judged_here.inside is inside


def test_a_pack_that_says_nothing_is_said_to_say_nothing(shipped: Manifest) -> None:
    silent = judged_montages(msgspec.structs.replace(shipped, metrics=()))
    judged_here = silent.of(WHOLE)
    assert judged_here is not None
    assert judged_here.inside is None
    assert judged_here.words == "The pack does not say on which montage it was judged."
    assert silent.of({}) is None
