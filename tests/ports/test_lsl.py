"""Reading plain outlets, written without Hypnocast, through everything that happens to them."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import pyxdf
from structlog.testing import capture_logs

from hypnocast.core.types import Chunk, ClockReading, Mark, StreamLost, StreamOpened
from hypnocast.errors import ConfigError
from hypnocast.ports.lsl.beds import BedStreams, Selector
from hypnocast.ports.lsl.problems import ProblemKind
from hypnocast.ports.lsl.source import LslSource
from hypnocast.ports.lsl.stream_slot import LslTimings
from hypnocast.ports.recordings.tape_reader import read_tape
from hypnocast.ports.recordings.tape_recorder import TapeRecorder
from support.lsl_lab import Collector, Outlets, Stream, gaps, outlets, unique, wait_until
from support.lsl_liar import Liar, Lie

QUICK = LslTimings(resolve_every_s=0.2, clock_every_s=1.0, silent_after_s=1.0)


def by_name(bed: str, *names: str) -> BedStreams:
    return BedStreams(bed, tuple(Selector(name=name) for name in names))


def kinds_of_problems(source: LslSource, bed: str) -> set[ProblemKind]:
    return {problem.kind for problem in source.problems() if problem.bed == bed}


def opened_names(sink: Collector, source: LslSource) -> set[str]:
    beds = {health.bed for health in source.health()}
    return {a.header.name for bed in beds for a in sink.of(bed) if isinstance(a, StreamOpened)}


def test_streams_of_one_bed_at_different_rates_are_read_whole_and_taped(tmp_path: Path) -> None:
    eeg, emg, marks = unique("eeg"), unique("emg"), unique("marks")
    sink = Collector()
    recorder = TapeRecorder(tmp_path)

    def record(bed: str, arrival: object) -> None:
        recorder.write(bed, arrival)  # type: ignore[arg-type]  # a sink takes arrivals only
        sink(bed, arrival)  # type: ignore[arg-type]  # likewise

    source = LslSource([by_name("b", eeg, emg, marks)], timing=QUICK)
    volts = Stream(eeg, rate=512.0, unit="V", source_id=eeg, labels=("Count", "F4", "M1"))
    with (
        outlets(volts, Stream(emg, type="EMG", source_id=emg, format="int16")),
        outlets(Stream(marks, type="Markers", source_id=marks, marker=True)) as marker,
        source.reading(record),
    ):
        wait_until(lambda: sink.kinds("b").count("StreamOpened") == 3, "three streams open")
        marker.mark("lights off")
        marker.mark("grüße")
        wait_until(lambda: sink.kinds("b").count("Mark") == 2, "two marks")
        wait_until(lambda: len(sink.counts("b", eeg)) > 1500, "three seconds of EEG")
        path = recorder.path("b")
    recorder.close()

    headers = {a.header.key: a.header for a in sink.of("b") if isinstance(a, StreamOpened)}
    assert headers[eeg].rate == 512.0
    assert [c.label for c in headers[eeg].channels] == ["Count", "F4", "M1"]
    assert {c.unit for c in headers[eeg].channels} == {"V"}
    assert headers[emg].format == "int16"
    for key, rate in ((eeg, 512.0), (emg, 256.0)):
        assert gaps(sink.counts("b", key)) == 0
        chunks = [a for a in sink.of("b") if isinstance(a, Chunk) and a.stream == key]
        # A chunk that is kept for a while must not keep the room that it was read into.
        assert all(chunk.samples.base is None and chunk.stamps.base is None for chunk in chunks)
        stamps = np.concatenate([chunk.stamps for chunk in chunks])
        assert np.allclose(np.diff(stamps), 1 / rate, atol=1e-9)
        first = next(i for i, a in enumerate(sink.of("b")) if isinstance(a, Chunk))
        placed = [a for a in sink.of("b")[:first] if isinstance(a, ClockReading)]
        assert placed, "a reading comes before the first samples"
    assert [a.text for a in sink.of("b") if isinstance(a, Mark)] == ["lights off", "grüße"]
    assert not source.problems()

    assert path is not None
    replayed = list(read_tape(path))
    live = sink.of("b")
    assert [type(a) for a in replayed] == [type(a) for a in live]
    for one, other in zip(replayed, live, strict=True):
        if isinstance(one, Chunk) and isinstance(other, Chunk):
            assert (one.stream, one.arrived) == (other.stream, other.arrived)
            assert one.samples.dtype == other.samples.dtype
            assert np.array_equal(one.samples, other.samples)
            assert np.array_equal(one.stamps, other.stamps)
        else:
            assert one == other
    streams, _ = pyxdf.load_xdf(path, dejitter_timestamps=False, synchronize_clocks=False)
    read = {stream["info"]["name"][0]: stream for stream in streams}
    assert read[eeg]["time_series"][:, 0].astype(int).tolist() == sink.counts("b", eeg).tolist()
    assert [row[0] for row in read[marks]["time_series"]] == ["lights off", "grüße"]


@pytest.mark.parametrize("same_id", [True, False], ids=["same source_id", "another source_id"])
def test_an_outlet_that_restarts_is_lost_once_and_opened_anew(*, same_id: bool) -> None:
    name = unique("psg")
    sink = Collector()
    with LslSource([by_name("b", name)], timing=QUICK).reading(sink) as source:
        with outlets(Stream(name, source_id="one")):
            wait_until(lambda: len(sink.counts("b")) > 200, "samples before")
        again = Stream(name, source_id="one" if same_id else "two", start=1_000_000)
        with outlets(again):
            wait_until(lambda: (sink.counts("b") >= 1_000_000).sum() > 200, "samples after")
            assert not source.problems()
    counts = sink.counts("b")
    before, after = counts[counts < 1_000_000], counts[counts >= 1_000_000]
    assert gaps(before) == 0
    assert gaps(after) == 0
    kinds = [kind for kind in sink.kinds("b") if kind != "ClockReading"]
    assert kinds[:2] == ["StreamOpened", "Chunk"]
    assert kinds.count("StreamOpened") == 2
    lost = kinds.index("StreamLost")
    assert kinds[lost + 1] == "StreamOpened"
    opened = [a.header for a in sink.of("b") if isinstance(a, StreamOpened)]
    assert opened[0].key == opened[1].key == "one"
    assert opened[0].uid != opened[1].uid
    assert after[0] - 1_000_000 < 1.5 * 256, "most of what the new outlet sent is there"


def test_a_stopped_outlet_is_silent_and_comes_back_without_loss() -> None:
    name = unique("psg")
    sink = Collector()
    with (
        outlets(Stream(name)) as running,
        LslSource([by_name("b", name)], timing=QUICK).reading(sink) as source,
    ):
        wait_until(lambda: len(sink.counts("b")) > 100, "samples")
        running.stop()
        wait_until(lambda: "StreamLost" in sink.kinds("b"), "silence is seen")
        assert ProblemKind.SILENT in kinds_of_problems(source, "b")
        before = len(sink.counts("b"))
        running.go_on()
        wait_until(lambda: len(sink.counts("b")) > before + 300, "samples again")
        assert ProblemKind.SILENT not in kinds_of_problems(source, "b")
    assert gaps(sink.counts("b")) == 0
    kinds = [kind for kind in sink.kinds("b") if kind != "ClockReading"]
    assert kinds == ["StreamOpened", "Chunk", "StreamLost", "StreamOpened", "Chunk"]


def test_ambiguous_streams_are_reported_and_none_is_picked() -> None:
    name = unique("twin")
    sink = Collector()
    with (
        Outlets(Stream(name, source_id="left")) as left,
        Outlets(Stream(name, source_id="right")),
        LslSource([by_name("b", name)], timing=QUICK).reading(sink) as source,
    ):
        wait_until(lambda: ProblemKind.AMBIGUOUS in kinds_of_problems(source, "b"), "ambiguity")
        text = " ".join(str(problem) for problem in source.problems())
        assert "'left'" in text
        assert "'right'" in text
        assert not sink.of("b")
        left.kill()
        wait_until(lambda: len(sink.counts("b")) > 100, "the one that is left")
        assert not kinds_of_problems(source, "b")
        with outlets(Stream(name, source_id="third", start=1_000_000)):
            wait_until(lambda: ProblemKind.AMBIGUOUS in kinds_of_problems(source, "b"), "a rival")
            before = len(sink.counts("b"))
            wait_until(lambda: len(sink.counts("b")) > before + 200, "reading goes on")
    assert sink.counts("b").max() < 1_000_000
    assert gaps(sink.counts("b")) == 0


def test_a_stream_that_two_beds_select_is_read_for_neither() -> None:
    name = unique("shared")
    other = unique("own")
    sink = Collector()
    beds = [by_name("a", name), by_name("b", name), by_name("c", other)]
    with (
        outlets(Stream(name), Stream(other)),
        LslSource(beds, timing=QUICK).reading(sink) as source,
    ):
        wait_until(lambda: len(sink.counts("c")) > 100, "the third bed")
        for bed in ("a", "b"):
            assert ProblemKind.CLAIMED_TWICE in kinds_of_problems(source, bed)
            assert not sink.of(bed)


def test_a_polysomnogram_that_no_bed_takes_is_logged_once() -> None:
    mine, other = unique("mine"), unique("other")
    sink = Collector()
    with (
        outlets(Stream(mine), Stream(other), Stream(unique("weather"), type="vendor")),
        capture_logs() as logged,
        LslSource([by_name("b", mine)], timing=QUICK).reading(sink),
    ):
        wait_until(lambda: any("no bed takes" in line["event"] for line in logged), "the log")
        wait_until(lambda: len(sink.counts("b")) > 500, "many more looks at the network")
    assert [line["stream"] for line in logged if "no bed takes" in line["event"]] == [other]


def test_metadata_that_lies_has_a_named_outcome_and_harms_no_other_stream() -> None:
    cases = {
        ProblemKind.NO_LABELS: Stream(unique("mute"), labels=("x", "y"), described=()),
        ProblemKind.LABELS_DISAGREE: Stream(unique("liar"), described=("F4-M1",)),
        ProblemKind.NO_UNIT: Stream(unique("unitless"), unit=None),
        ProblemKind.NO_RATE: Stream(unique("rateless"), declared_rate=0.0),
        ProblemKind.STAMPS_STUCK: Stream(unique("stuck"), clock="stuck"),
        ProblemKind.FOREIGN_CLOCK: Stream(unique("unix"), clock="unix"),
    }
    good = Stream(unique("good"))
    sink = Collector()
    beds = [by_name(kind.value, stream.name) for kind, stream in cases.items()]
    beds += [by_name("good", good.name), by_name("nobody", unique("nobody"))]
    with (
        outlets(good, *cases.values()),
        LslSource(beds, timing=QUICK).reading(sink) as source,
    ):
        for kind in cases:
            wait_until(lambda k=kind: k in kinds_of_problems(source, k.value), kind.value)  # type: ignore[misc]  # the default binds the loop's value
        wait_until(lambda: len(sink.counts("good")) > 600, "the good stream")
        wait_until(lambda: sink.kinds("foreign_clock").count("ClockReading") > 1, "placed")
        wait_until(
            lambda: ProblemKind.NOT_FOUND in kinds_of_problems(source, "nobody"), "not found"
        )
        assert not kinds_of_problems(source, "good")
    assert gaps(sink.counts("good")) == 0
    assert len(sink.counts(ProblemKind.NO_RATE)) == 0
    assert isinstance(sink.of(ProblemKind.STAMPS_STUCK)[-1], StreamLost)
    for kind in (ProblemKind.NO_LABELS, ProblemKind.LABELS_DISAGREE):
        opened = next(a for a in sink.of(kind) if isinstance(a, StreamOpened))
        assert {channel.label for channel in opened.header.channels} == {""}
    foreign = sink.of(ProblemKind.FOREIGN_CLOCK)
    reading = [a for a in foreign if isinstance(a, ClockReading)][-1]
    chunk = [a for a in foreign if isinstance(a, Chunk)][-1]
    assert chunk.stamps[-1] > 1e9, "raw stamps stay as they came"
    assert abs(chunk.stamps[-1] + reading.offset - chunk.arrived) < 0.2


def test_the_config_knows_better_than_a_stream_without_labels_or_rate() -> None:
    mute = Stream(unique("mute"), described=(), declared_rate=0.0)
    sink = Collector()
    better = Selector(name=mute.name, labels=("Fpz-Cz", "Chin"), rate=256.0)
    wrong = Selector(name=mute.name, labels=("only one",), rate=256.0)
    with outlets(mute):
        with LslSource([BedStreams("b", (better,))], timing=QUICK).reading(sink) as source:
            wait_until(lambda: len(sink.counts("b")) > 100, "samples")
            assert kinds_of_problems(source, "b") == {ProblemKind.NO_UNIT}
        with LslSource([BedStreams("w", (wrong,))], timing=QUICK).reading(sink) as source:
            wait_until(
                lambda: ProblemKind.BAD_METADATA in kinds_of_problems(source, "w"), "refusal"
            )
    header = next(a.header for a in sink.of("b") if isinstance(a, StreamOpened))
    assert [c.label for c in header.channels] == ["Fpz-Cz", "Chin"]
    assert header.rate == 256.0


def test_a_sink_that_is_stuck_or_raises_loses_no_sample_of_the_stream() -> None:
    name = unique("psg")
    sink = Collector()
    release = threading.Event()
    calls = 0

    def clumsy(bed: str, arrival: object) -> None:
        nonlocal calls
        calls += 1
        sink(bed, arrival)  # type: ignore[arg-type]  # a sink takes arrivals only
        if calls == 10:
            assert release.wait(20)
        if calls == 20:
            raise RuntimeError("downstream has a fault")

    with (
        outlets(Stream(name)) as running,
        LslSource([by_name("b", name)], timing=QUICK).reading(clumsy) as source,
    ):
        wait_until(lambda: calls == 10, "the sink is stuck")
        stuck_at = sink.counts("b")[-1]
        assert running.process.poll() is None
        wait_until(lambda: source.health()[0].state == "open", "the stream stays open")
        threading.Timer(1.5, release.set).start()
        wait_until(lambda: len(sink.counts("b")) > stuck_at + 800, "all is caught up")
        assert source.sink_errors == 1
    assert gaps(sink.counts("b")) == 0


def test_streams_are_found_by_predicate_and_by_themselves() -> None:
    prefix = unique("ward")
    sink = Collector()
    predicate = f"name='{prefix} EEG' and count(desc/channels/channel)=2"
    bed = BedStreams("p", (Selector(predicate=predicate),))
    auto = Collector()
    with (
        outlets(
            Stream(f"{prefix} EEG", source_id="e"),
            Stream(f"{prefix} EMG", type="EMG", source_id="m"),
            Stream(f"{prefix} raw", type="vendor", labels=("F4-M1", "C4-M1", "E1-M2")),
            Stream(f"{prefix} weather", type="vendor", labels=("Temperature", "Wind")),
            Stream(f"{prefix} markers", type="Markers", marker=True),
        ),
        LslSource([bed], timing=QUICK).reading(sink),
        LslSource(None, timing=QUICK).reading(auto) as source,
    ):
        wait_until(lambda: len(sink.counts("p")) > 50, "by predicate")
        expected = {f"{prefix} {word}" for word in ("EEG", "EMG", "raw", "markers")}
        wait_until(lambda: opened_names(auto, source) >= expected, "four streams by themselves")
        assert opened_names(auto, source) == expected
    grouped = {h.bed for h in source.health() if h.stream in {"e", "m", f"{prefix} markers"}}
    assert len(grouped) == 1
    assert next(iter(grouped)).endswith(prefix)


def test_a_selector_that_selects_everything_is_refused() -> None:
    with pytest.raises(ConfigError, match="says nothing"):
        BedStreams("bed1", (Selector(),))


def test_a_peer_that_announces_a_stream_and_then_hangs_holds_nobody_up() -> None:
    good, silent = Stream(unique("good")), unique("hangs")
    sink = Collector()
    with (
        Liar([Lie(silent)]) as peer,
        outlets(good),
        LslSource([by_name("h", silent), by_name("g", good.name)], timing=QUICK).reading(
            sink
        ) as source,
    ):
        wait_until(lambda: bool(peer.connections), "the peer is asked for its header")
        before = len(sink.counts("g"))
        wait_until(lambda: len(sink.counts("g")) > before + 400, "the other bed is read")
        wait_until(
            lambda: ProblemKind.NO_ANSWER in kinds_of_problems(source, "h"), "it is a problem"
        )
    assert gaps(sink.counts("g")) == 0
    assert not sink.of("h")
