"""What `hypnocast streams` gets of the network."""

from __future__ import annotations

from hypnocast.ports.lsl.beds import BedStreams, Selector
from hypnocast.ports.lsl.discovery import FoundStream, discover
from hypnocast.ports.lsl.problems import ProblemKind
from support.lsl_lab import Stream, outlets, unique
from support.lsl_liar import Liar, Lie


def kinds(found: FoundStream) -> set[ProblemKind]:
    return {problem.kind for problem in found.problems}


def test_a_unit_that_the_configuration_gives_is_not_missed() -> None:
    silent = unique("silent")
    with outlets(Stream(silent, source_id=silent, labels=("F4-M1", "Fz"), unit=None)):
        values = {}
        for units in ((), ("f4-m1",), ("F4-M1", "Fz"), ("*",)):
            beds = (BedStreams("one", (Selector(source_id=silent),), units),)
            (found,) = [one for one in discover(beds, wait_s=2.0) if one.seen.name == silent]
            values[units] = [str(problem) for problem in found.problems]
    assert "no unit for F4-M1, Fz" in values[()][0]
    assert "no unit for Fz" in values[("f4-m1",)][0]
    assert values[("F4-M1", "Fz")] == values[("*",)] == []


def test_every_stream_is_shown_with_its_bed_and_what_is_wrong_with_it() -> None:
    ward, twin, silent = unique("ward"), unique("twin"), unique("hangs")
    with (
        Liar([Lie(silent)]),
        outlets(
            Stream(f"{ward} EEG", source_id="e", labels=("F4-M1", "Chin")),
            Stream(f"{ward} EMG", type="vendor", labels=("Chin1-Chin2", "E1-M2"), unit=None),
            Stream(f"{ward} markers", type="Markers", marker=True),
            Stream(unique("weather"), type="vendor", labels=("Wind", "Rain")),
            Stream(twin, source_id="t1"),
            Stream(twin, source_id="t2"),
        ),
    ):
        by_itself = discover(wait_s=2.0)
        beds = (BedStreams("left", (Selector(name=f"{ward} EEG"),)),)
        configured = discover(beds, wait_s=2.0)
    found = {one.seen.source_id or one.seen.name: one for one in by_itself}
    eeg, emg = found["e"], found[f"{ward} EMG"]
    assert eeg.header is not None
    assert [channel.label for channel in eeg.header.channels] == ["F4-M1", "Chin"]
    assert not eeg.problems
    assert eeg.bed is not None
    assert eeg.bed == emg.bed == found[f"{ward} markers"].bed
    assert kinds(emg) == {ProblemKind.NO_UNIT}
    assert next(one for one in by_itself if "weather" in one.seen.name).bed is None
    assert ProblemKind.AMBIGUOUS in kinds(found["t1"]) & kinds(found["t2"])
    assert kinds(found[silent]) == {ProblemKind.NO_ANSWER}
    taken = {one.seen.name: one.bed for one in configured}
    assert taken[f"{ward} EEG"] == "left"
    assert taken[twin] is None
    assert taken[f"{ward} markers"] is None
