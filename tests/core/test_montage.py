"""Montage: labels in the wild, what is chosen from them, and what is reported about it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypnocast.core.montage.choice import Montage, choose_montage
from hypnocast.core.montage.electrodes import read_label
from hypnocast.core.types import ChannelInfo, Derivation, Role, StreamHeader
from hypnocast.errors import ConfigError

LABELS = {
    "F4-M1": ["F4-M1", "EEG F4-A1", "F4:M1", "F4/A1", "F4M1", "F4A1", "F4 M1", "f4-a1",
              "EEG_F4_M1", "F4 – M1", "EEG F4-M1 [uV]", "PSG F4-M1", "Ch3 F4-M1", "F4-M1 EEG"],
    "C4-M1": ["C4:A1", "EEG C4-A1 (µV)"],
    "C3-M2": ["C3-A2", "EEG C3-A2"],
    "F4": ["F4", "EEG F4", "EEG F4-REF", "F4-AVG", "POL F4"],
    "F4-LE": ["F4-LER", "EEG F4-CLE", "F4-LE", "F4-A1A2", "F4-A1+A2"],
    "Fpz-Cz": ["EEG Fpz-Cz", "FPZ-CZ"],
    "Pz-Oz": ["EEG Pz-Oz"],
    "EEG": ["EEG", "EEG(sec)", "EEG (sec)", "EEG sec"],
    "M1": ["M1", "A1", "EEG A1-REF"],
    "E1": ["E1", "LOC", "EOG Left", "EOG(L)", "EOG L", "Left EOG", "LEOG", "EOG LOC", "EOG1"],
    "E2": ["E2", "ROC", "EOG Right", "EOG-R", "R-EOG", "REOG", "EOG 2"],
    "E1-M2": ["E1-M2", "LOC-A2", "EOG E1:M2", "EOGl:A2", "EOG LOC-A2"],
    "E2-M1": ["ROC-A1", "EOG ROC-M1", "EOGr:A1"],
    "EOG": ["EOG horizontal"],
    "Chin1-Chin2": ["Chin1-Chin2", "Chin 1-Chin 2", "EMG Chin1-Chin2", "CHIN1:CHIN2"],
    "Chin": ["Chin", "EMG Chin", "Chin EMG", "EMG submental", "Submental", "EMG Subm"],
    "ChinL-ChinR": ["ChinL-ChinR", "Chin Left-Chin Right"],
    "EMG1-EMG2": ["EMG1-EMG2"],
    "ECG": ["ECG", "EKG", "ECG-REF"],
    "ECGII": ["ECG II", "EKG II"],
    "ECG1-ECG2": ["ECG1-ECG2", "EKG 1-EKG 2"],
}  # fmt: skip
STRANGERS = ["SpO2", "Flow", "Thorax", "Leg L", "LAT", "EMG Tib", "Pulse", "Mic", "EEG 3", "",
             "Position", "CH1", "Resp oro-nasal", "EMG Left Leg", "SaO2", "Marker"]  # fmt: skip


def stream(
    key: str, *labels: str, unit: str | None = "microvolts", rate: float = 256.0
) -> StreamHeader:
    channels = tuple(ChannelInfo(label, unit) for label in labels)
    return StreamHeader(key, key, "EEG", key, "uid", "host", rate, channels)


def names(montage: Montage) -> dict[str, str]:
    return {role.value: name for role, name in montage.channels.items()}


@pytest.mark.parametrize(
    ("label", "meaning"), [(label, m) for m, labels in LABELS.items() for label in labels]
)
def test_labels_in_the_wild_are_read(label: str, meaning: str) -> None:
    lead = read_label(label)
    assert lead is not None
    assert lead.name == meaning


@pytest.mark.parametrize("label", STRANGERS)
def test_a_label_that_is_not_understood_is_not_guessed_at(label: str) -> None:
    assert read_label(label) is None


@given(st.text(max_size=40))
def test_any_text_may_be_a_label(label: str) -> None:
    lead = read_label(label)
    assert lead is None or lead.electrode
    choose_montage([stream("s", label)])


def test_ready_made_derivations_are_used_as_they_are() -> None:
    chosen = choose_montage(
        [stream("psg", "F4-M1", "C4-M1", "O2-M1", "E1-M2", "E2-M2", "Chin1-Chin2", "ECG")]
    )
    assert list(names(chosen)) == [role.value for role in Role]
    assert all(d.kind == "recommended" and d.negative is None for d in chosen.derivations.values())
    assert not chosen.problems


def test_referential_electrodes_are_subtracted_in_volts() -> None:
    electrodes = ["F4", "C4", "O2", "A1", "M2", "LOC", "E2", "Chin1", "Chin2"]
    chosen = choose_montage([stream("eeg", *electrodes, unit="volts", rate=512)])
    assert names(chosen) == {
        "F4-M1": "F4-M1",
        "C4-M1": "C4-M1",
        "O2-M1": "O2-M1",
        "E1-M2": "E1-M2",
        "E2-M2": "E2-M2",
        "Chin": "Chin1-Chin2",
    }
    assert chosen.derivations[Role.E1] == Derivation(
        Role.E1, "E1-M2", "eeg", 5, 4, 1e6, "recommended", 512
    )
    assert chosen.why[Role.F4] == (
        "recommended derivation, the difference of two channels: F4 − A1 of eeg"
    )


def test_electrodes_of_two_streams_are_never_subtracted() -> None:
    chosen = choose_montage([stream("a", "F4"), stream("b", "M1")])
    assert chosen.derivations[Role.F4].kind == "assumed_reference"
    assert chosen.derivations[Role.F4].name == "F4 (reference assumed)"


@pytest.mark.parametrize(
    ("labels", "role", "name", "kind"),
    [
        (["F3-M2", "C3-A2", "O1-M2"], Role.F4, "F3-M2 (mirrored)", "mirrored"),
        (["F3-M2", "C3-A2", "O1-M2"], Role.C4, "C3-M2 (mirrored)", "mirrored"),
        (["F3-M2", "C3-A2", "O1-M2"], Role.O2, "O1-M2 (mirrored)", "mirrored"),
        (["F3-M2", "F4-M1"], Role.F4, "F4-M1", "recommended"),
        (["F4", "F3-M2"], Role.F4, "F3-M2 (mirrored)", "mirrored"),
        (["F4-LER", "F3"], Role.F4, "F4-LE", "substitute"),
        (["Fpz-Cz", "Pz-Oz"], Role.F4, "Fpz-Cz", "substitute"),
        (["Fpz-Cz", "Pz-Oz"], Role.O2, "Pz-Oz", "substitute"),
        (["F7-Fpz", "F8-Fpz"], Role.F4, "F8-Fpz", "substitute"),
        (["TP9-Fpz", "AF7-Fpz", "AF8-Fpz", "TP10-Fpz"], Role.F4, "AF8-TP9", "substitute"),
        (["F4", "TP9", "TP10"], Role.F4, "F4-TP9", "substitute"),
        (["C3", "TP9", "TP10"], Role.C4, "C3-TP10", "substitute"),
        (["LOC", "TP9", "TP10"], Role.E1, "E1-TP10", "substitute"),
        (["EEG(sec)"], Role.C4, "EEG", "substitute"),
        (["C4"], Role.C4, "C4 (reference assumed)", "assumed_reference"),
        (["E1-M1"], Role.E1, "E1-M1", "substitute"),
        (["ROC-A1"], Role.E2, "E2-M1", "substitute"),
        (["E1-E2"], Role.E1, "E1-E2", "substitute"),
        (["EOG Left"], Role.E1, "E1 (reference assumed)", "assumed_reference"),
        (["LOC", "ROC"], Role.E1, "E1 (reference assumed)", "assumed_reference"),
        (["LOC", "ROC"], Role.E2, "E2 (reference assumed)", "assumed_reference"),
        (["EMG"], Role.CHIN, "EMG", "substitute"),
        (["Chin2"], Role.CHIN, "Chin2 (reference assumed)", "assumed_reference"),
        (["EKG II"], Role.ECG, "ECGII", "recommended"),
    ],
)
def test_what_stands_in_is_named_as_what_it_is(
    labels: list[str], role: Role, name: str, kind: str
) -> None:
    derivation = choose_montage([stream("s", *labels)]).derivations[role]
    assert (derivation.name, derivation.kind) == (name, kind)


def test_a_reference_that_is_configured_is_not_assumed() -> None:
    derivations = choose_montage([stream("s", "F4", "C4")], reference="A1").derivations
    assert (derivations[Role.F4].name, derivations[Role.F4].kind) == ("F4-M1", "recommended")
    other = choose_montage([stream("s", "F4", "M1")], reference="Cz").derivations
    assert (other[Role.F4].name, other[Role.F4].negative) == ("F4-M1", 1)
    with pytest.raises(ConfigError, match="no electrode"):
        choose_montage([], reference="left thumb")


def test_the_configuration_has_the_last_word() -> None:
    streams = [stream("s", "F4-M1", "EEG 3-REF", "A", "B", "C4", "M1")]
    chosen = choose_montage(
        streams, overrides={"F4-M1": "eeg 3-ref", "Chin": "A-B", "C4-M1": "C4-A1"}
    )
    places = {role: (d.positive, d.negative) for role, d in chosen.derivations.items()}
    assert places[Role.F4] == (1, None)
    assert places[Role.CHIN] == (2, 3)
    assert places[Role.C4] == (4, 5)
    refused = choose_montage(streams, overrides={"F4-M1": "F8-M1"})
    assert Role.F4 not in refused.derivations
    assert "no stream has the configured 'F8-M1'" in refused.problems["F4-M1"]
    with pytest.raises(ConfigError, match="no role 'F4'"):
        choose_montage(streams, overrides={"F4": "F4-M1"})


def test_an_unknown_unit_is_named_and_can_be_configured() -> None:
    nameless = stream("s", "F4-M1", "C4-M1", unit=None)
    chosen = choose_montage([nameless])
    assert chosen.derivations[Role.F4].microvolts_per_unit is None
    assert "F4-M1 (none) of s" in chosen.problems["F4-M1"]
    found = choose_montage([nameless], units={"*": "mV", "c4-m1": "uV"})
    assert found.derivations[Role.F4].microvolts_per_unit == 1e3
    assert found.derivations[Role.C4].microvolts_per_unit == 1.0


def test_two_electrodes_in_different_units_are_not_subtracted_blindly() -> None:
    channels = (ChannelInfo("F4", "uV"), ChannelInfo("M1", "mV"))
    mixed = StreamHeader("s", "s", "EEG", "s", "uid", "host", 256.0, channels)
    chosen = choose_montage([mixed], overrides={"F4-M1": "F4-M1"})
    assert chosen.derivations[Role.F4].microvolts_per_unit is None
    assert "units differ" in chosen.problems["F4-M1"]


def test_raw_counts_with_a_scale_are_read() -> None:
    channels = (ChannelInfo("F4-M1", "uV", "EEG", 0.0244),)
    counts = StreamHeader("s", "s", "EEG", "s", "uid", "host", 256.0, channels, "int16")
    assert choose_montage([counts]).derivations[Role.F4].microvolts_per_unit == 0.0244


def test_what_is_known_beats_what_is_nearer_but_unknown() -> None:
    streams = [stream("a", "F4-M1", unit=None), stream("b", "F3-M2")]
    assert choose_montage(streams).derivations[Role.F4].name == "F3-M2 (mirrored)"


def test_streams_that_cannot_serve_are_named() -> None:
    irregular = stream("odd", "F4-M1", rate=0.0)
    slow = stream("slow", "Chin", rate=16.0)
    chosen = choose_montage([irregular, slow])
    assert not chosen.derivations
    assert "irregular" in chosen.problems["odd"]
    assert "16 Hz, too slow" in chosen.problems["Chin"]


@given(order=st.permutations(range(4)))
def test_the_order_of_streams_does_not_matter(order: list[int]) -> None:
    streams = [
        stream("a", "F4-M1", "E1-M2"),
        stream("b", "F4-M1", "Chin"),
        stream("c", "C3", "C4", "M2"),
        stream("d", "ECG", rate=128.0),
    ]
    chosen = choose_montage([streams[place] for place in order])
    assert chosen == choose_montage(streams)
    assert chosen.derivations[Role.F4].stream == "a"
    assert chosen.why[Role.F4].endswith("(also in b)")
