"""`streams --toml`: what foreign gear is, becomes a configuration that `run` accepts."""

from __future__ import annotations

from hypnocast.config.file import parse_config
from hypnocast.config.tables import Config
from hypnocast.core.types import Role
from hypnocast.live.service.stream_config import as_toml
from hypnocast.live.service.stream_survey import survey
from support.lsl_lab import Stream, outlets, unique


def test_gear_that_says_little_of_itself_becomes_a_configuration_that_finds_it_again() -> None:
    clinic = unique("clinic")
    with outlets(
        Stream(f"{clinic} EEG", source_id=f"{clinic}-1", labels=("F4-M1", "E1-M2")),
        Stream("Muse-12AB", source_id="muse", labels=("TP9", "AF7"), unit=None),
        Stream("obci_eeg1", source_id="obci", labels=("", ""), unit=None),
    ):
        found = survey(Config(), wait_s=2.0)
        text = "\n".join(as_toml(found))
        config = parse_config(text)
        again = survey(config, wait_s=2.0)
    assert "no longer found by themselves" in text
    beds = {bed.id: bed for bed in config.bed}
    muse = next(bed for bed in beds.values() if "muse" in bed.id)
    obci = next(bed for bed in beds.values() if "obci" in bed.id)
    assert muse.units == {"TP9": "µV", "AF7": "µV"}
    assert obci.units == {"*": "µV"}
    assert obci.streams[0].labels == ("channel 1", "channel 2")
    assert "fill in what each electrode is" in text
    psg = next(bed for bed in beds if clinic in bed)
    assert set(again.montages[psg].derivations) == {Role.F4, Role.E1}
    fields = {one.seen.name: [str(each) for each in one.problems] for one in again.found}
    assert fields["Muse-12AB"] == fields["obci_eeg1"] == []


def test_what_no_label_no_unit_and_no_rate_says_is_left_to_be_filled_in() -> None:
    box, odd, cap = unique("box"), unique("odd"), unique("cap")
    with outlets(
        Stream(box, source_id=box, labels=("Ch1", "Ch2"), unit="counts"),
        Stream(odd, source_id=odd, labels=("C4",), declared_rate=0.0),
        Stream(cap, source_id=cap, labels=("F4", "HEOG", "TP9", "TP10")),
    ):
        found = survey(Config(), wait_s=2.0)
        text = "\n".join(as_toml(found))
        lines = list(found.lines())
    parse_config(text)
    assert '# roles = { "F4-M1" = "Ch1" }' in text
    assert '# units = { "Ch1" = "µV", "Ch2" = "µV" }' in text
    assert text.count("# rate = 256") == 1
    for filled in (
        text.replace('# roles = { "F4-M1" = "Ch1" }', 'roles = { "F4-M1" = "Ch1" }'),
        text.replace("# rate = 256", "rate = 256"),
    ):
        parse_config(filled)
    (bed,) = [bed for bed in found.montages if cap in bed]
    assert found.montages[bed].channels == {Role.F4: "F4-TP9"}
    (fault,) = [line for line in lines if odd in line and "declares no sampling rate" in line]
    assert f"bed {next(one.bed for one in found.found if one.seen.name == odd)}, " in fault
    assert not any("bed ," in line for line in lines)
    assert any("E1-M2, E2-M2, Chin, ECG: no channel fits" in line for line in lines)


def test_a_quiet_network_gives_a_configuration_that_says_so() -> None:
    text = "\n".join(as_toml(survey(Config(), wait_s=0.5)))
    parse_config(text)
    assert "No stream of a bed was found" in text
