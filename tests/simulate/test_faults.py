"""Faults on demand do what their names promise, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypnocast.core.types import (
    Arrival,
    Chunk,
    ClockReading,
    FloatArray,
    Stage,
    StreamHeader,
    StreamLost,
    StreamOpened,
)
from hypnocast.errors import ConfigError
from hypnocast.simulate import Fault, FaultKind, SimulatedSource, fault

STAGES = (Stage.N2, Stage.W, Stage.N3)
RATE = 256
START = 1000.0
BED = "bed-01"
EVERYTHING = 90 * RATE


class Reception:
    """What came of one stream."""

    def __init__(self, arrivals: Iterable[tuple[str, Arrival]], suffix: str = "psg") -> None:
        mine = [each for bed, each in arrivals if bed == BED]
        opened = [each for each in mine if isinstance(each, StreamOpened)]
        self.headers: list[StreamHeader] = [
            each.header for each in opened if each.header.name == f"{BED}-{suffix}"
        ]
        key = self.headers[0].key
        self.chunks = [each for each in mine if isinstance(each, Chunk) and each.stream == key]
        self.readings = [
            each for each in mine if isinstance(each, ClockReading) and each.stream == key
        ]
        self.lost = [each for each in mine if isinstance(each, StreamLost) and each.stream == key]
        self.samples = np.concatenate([chunk.samples for chunk in self.chunks])
        self.stamps: FloatArray = np.concatenate([chunk.stamps for chunk in self.chunks])
        self.times = np.rint((self.stamps - START) * RATE).astype(int)

    def local_stamps(self) -> FloatArray:
        """Timestamps on the local clock, by the reading before each."""
        at = np.array([reading.at for reading in self.readings])
        offset = np.array([reading.offset for reading in self.readings])
        sent = at - offset
        which = np.maximum(np.searchsorted(sent, self.stamps, side="right") - 1, 0)
        local: FloatArray = self.stamps + offset[which]
        return local


def receive(*faults: str, chunk_s: float = 0.25, montage: str = "bipolar") -> Reception:
    suffix = "eeg" if montage == "split" else "psg"
    source = SimulatedSource(
        [BED, "bed-02"], seed=4, stages=STAGES, faults=faults, chunk_s=chunk_s, montage=montage
    )
    return Reception(source, suffix)


@pytest.fixture(scope="module")
def sound() -> Reception:
    return receive()


def test_without_faults_every_sample_comes_once_at_its_time(sound: Reception) -> None:
    assert np.array_equal(sound.times, np.arange(EVERYTHING))
    assert np.allclose(sound.stamps, START + np.arange(EVERYTHING) / RATE, atol=1e-9)
    assert [reading.at - START for reading in sound.readings] == list(range(0, 90, 5))
    assert all(reading.offset == 0.0 for reading in sound.readings)
    assert [lost.at for lost in sound.lost] == [START + 90.0]


ALL_KINDS: Sequence[str] = (
    "dropout@10+5.3",
    "silent@20+4",
    "late@30.1+7",
    "flood@40+1.01",
    "restart:new@50+2.5",
    "detached:M1@5+3",
    "flat:F4-M1@6+3",
    "hum:E1@7+3",
    "clipped:Chin@8+3",
    "nan@60+0.5",
    "drift:200ppm",
    "step:+3600@70",
    "clock:unix",
    "jitter:5ms",
)


def test_faults_do_not_depend_on_how_time_is_cut() -> None:
    coarse, fine = (receive(*ALL_KINDS, chunk_s=length) for length in (10.0, 0.03))
    assert coarse.stamps.tobytes() == fine.stamps.tobytes()
    assert coarse.samples.tobytes() == fine.samples.tobytes()
    assert [(r.at, r.offset) for r in coarse.readings] == [(r.at, r.offset) for r in fine.readings]
    assert coarse.headers == fine.headers
    assert coarse.lost == fine.lost


def test_a_fault_of_one_bed_or_stream_leaves_the_others_alone(sound: Reception) -> None:
    elsewhere = receive("bed-02/dropout@10+20", "bed-02/unit:absent")
    assert np.array_equal(elsewhere.samples, sound.samples)
    assert elsewhere.headers == sound.headers
    split = receive("bed-01/ecg/nan@0+90", "bed-01/eog/unit:absent", montage="split")
    assert np.isfinite(split.samples).all()
    assert {channel.unit for channel in split.headers[0].channels} == {"volts"}


@pytest.mark.parametrize("kind", ["dropout", "silent"])
def test_lost_samples_are_gone_and_the_rest_has_not_moved(kind: str, sound: Reception) -> None:
    received = receive(f"{kind}@33+10")
    kept = np.r_[0 : 33 * RATE, 43 * RATE : EVERYTHING]
    assert np.array_equal(received.times, kept)
    assert np.array_equal(received.samples, sound.samples[kept])
    away = [r for r in received.readings if 33 <= r.at - START < 43]
    assert (len(away) == 2) == (kind == "dropout"), "only a silent sender's clock is silent too"
    assert len(received.lost) == 1


def test_without_a_duration_it_lasts_to_the_end() -> None:
    received = receive("silent@33")
    assert received.times[-1] == 33 * RATE - 1
    assert received.lost == []


def test_late_samples_come_at_once_in_the_end(sound: Reception) -> None:
    received = receive("late@20+15")
    assert np.array_equal(np.sort(received.times), sound.times)
    together = next(chunk for chunk in received.chunks if len(chunk.samples) == 15 * RATE)
    assert together.arrived == START + 35.0
    order = np.argsort(received.times, kind="stable")
    assert np.array_equal(received.samples[order], sound.samples)


def test_a_flood_is_twenty_times_as_much() -> None:
    received = receive("flood@20+2")
    assert len(received.samples) == EVERYTHING + 19 * 2 * RATE
    assert (np.diff(received.stamps) > 0).all()


@pytest.mark.parametrize(("which", "same"), [("same", True), ("new", False)])
def test_a_restart_closes_and_opens_again(which: str, same: bool, sound: Reception) -> None:
    received = receive(f"restart:{which}@40+5")
    first, second = received.headers
    assert (first.uid == second.uid) == same
    assert first.source_id == second.source_id
    assert received.lost[0].at == START + 40.0
    kept = np.r_[0 : 40 * RATE, 45 * RATE : EVERYTHING]
    assert np.array_equal(received.samples, sound.samples[kept])


def test_two_restarts_give_three_uids() -> None:
    headers = receive("restart:new@20+5", "restart:new@40+5").headers
    assert len({header.uid for header in headers}) == 3


def _changed(received: Reception, sound: Reception, first: int, last: int) -> list[int]:
    """Columns that changed within a window; outside of it nothing may have."""
    differ = received.samples != sound.samples
    outside = np.ones(EVERYTHING, dtype=bool)
    outside[first * RATE : last * RATE] = False
    assert not differ[outside].any()
    return np.flatnonzero(differ[~outside].mean(axis=0) > 0.1).tolist()


@pytest.mark.parametrize(
    ("what", "columns"), [("F4-M1", [0]), ("M1", [0, 1, 2]), ("E2", [4]), ("Chin1", [5])]
)
def test_a_detached_electrode_spoils_all_leads_on_it(
    what: str, columns: list[int], sound: Reception
) -> None:
    received = receive(f"detached:{what}@10+20")
    assert _changed(received, sound, 10, 30) == columns
    spoilt = received.samples[10 * RATE : 30 * RATE, columns[0]].astype(np.float64)
    f = np.abs(np.fft.rfft(spoilt * np.hanning(spoilt.size)))
    assert f[20 * 50] > 20 * np.median(f), "mains hum"
    assert np.ptp(spoilt) > 200.0


def test_flat_hum_clipped_and_nan(sound: Reception) -> None:
    flat = receive("flat:C4-M1@10+5")
    assert _changed(flat, sound, 10, 15) == [1]
    assert not flat.samples[10 * RATE : 15 * RATE, 1].any()
    hum = receive("hum:C4@10+5")
    assert _changed(hum, sound, 10, 15) == [1]
    assert np.ptp(hum.samples[:, 1] - sound.samples[:, 1]) == pytest.approx(120.0, rel=0.05)
    clipped = receive("clipped:F4@60+20")
    assert _changed(clipped, sound, 60, 80) == [0]
    part = clipped.samples[60 * RATE : 80 * RATE, 0]
    assert np.abs(part).max() == 25.0
    assert np.mean(np.abs(part) == 25.0) > 0.1
    gone = receive("nan@10+5")
    assert np.isnan(gone.samples).all(axis=1).sum() == 5 * RATE


def test_metadata_may_lie_while_the_numbers_stay(sound: Reception) -> None:
    received = receive("unit:absent", "rate:500")
    assert {channel.unit for channel in received.headers[0].channels} == {None}
    assert received.headers[0].rate == 500.0
    assert np.array_equal(received.samples, sound.samples)
    assert {channel.unit for channel in receive("unit:mV").headers[0].channels} == {"mV"}
    assert receive("rate:0").headers[0].rate == 0.0


def test_a_missing_lead_is_not_in_the_stream(sound: Reception) -> None:
    received = receive("missing:E1-M2")
    assert [c.label for c in received.headers[0].channels] == [
        c.label for c in sound.headers[0].channels if c.label != "E1-M2"
    ]
    assert np.array_equal(received.samples, np.delete(sound.samples, 3, axis=1))


def test_another_montage_is_a_fault_too() -> None:
    header = receive("montage:referential").headers[0]
    assert header.rate == 512.0
    assert {channel.unit for channel in header.channels} == {"volts"}


@pytest.mark.parametrize("ppm", [200, -200])
def test_a_drifting_clock_is_undone_by_its_readings(ppm: int) -> None:
    received = receive(f"drift:{ppm}ppm")
    true = START + np.arange(EVERYTHING) / RATE
    off = received.stamps - true
    assert off[-1] == pytest.approx(ppm * 1e-6 * 90.0, rel=1e-3)
    assert np.abs(received.local_stamps() - true).max() < 5.0 * abs(ppm) * 1e-6 + 1e-9


def test_a_clock_step_and_a_foreign_clock_are_undone_by_the_readings() -> None:
    true = START + np.arange(EVERYTHING) / RATE
    stepped = receive("step:+3600@35")
    assert stepped.stamps[-1] - true[-1] == pytest.approx(3600.0)
    assert np.abs(stepped.local_stamps() - true).max() < 1e-6
    unix = receive("clock:unix")
    assert unix.stamps[0] == pytest.approx(1.7e9 + START)
    assert np.abs(unix.local_stamps() - true).max() < 1e-6


def test_jitter_has_its_size_and_moves_no_sample(sound: Reception) -> None:
    received = receive("jitter:5ms")
    off = received.stamps - sound.stamps
    assert np.std(off) == pytest.approx(5e-3, rel=0.05)
    assert abs(np.mean(off)) < 1e-4
    assert np.array_equal(received.samples, sound.samples)


# --- how faults are written --------------------------------------------------------------------

ARGUMENTS = {
    FaultKind.RESTART: st.sampled_from(["same", "new"]),
    FaultKind.DETACHED: st.sampled_from(["F4-M1", "M1"]),
    FaultKind.FLAT: st.just("Chin"),
    FaultKind.HUM: st.just("E1"),
    FaultKind.CLIPPED: st.just("C4"),
    FaultKind.MISSING: st.just("O2-M1"),
    FaultKind.UNIT: st.sampled_from(["absent", "mV", "uV"]),
    FaultKind.MONTAGE: st.just("split"),
    FaultKind.RATE: st.sampled_from(["0", "500"]),
    FaultKind.DRIFT: st.sampled_from(["200ppm", "-50ppm"]),
    FaultKind.STEP: st.sampled_from(["+3600", "-2.5s"]),
    FaultKind.CLOCK: st.sampled_from(["unix", "-17s"]),
    FaultKind.JITTER: st.sampled_from(["5ms", "0.01"]),
}
TIMELESS = {
    FaultKind.MISSING,
    FaultKind.UNIT,
    FaultKind.RATE,
    FaultKind.MONTAGE,
    FaultKind.DRIFT,
    FaultKind.CLOCK,
    FaultKind.JITTER,
}


@st.composite
def faults(draw: st.DrawFn) -> Fault:
    kind = draw(st.sampled_from(FaultKind))
    start, end = 0.0, math.inf
    if kind not in TIMELESS:
        start = float(draw(st.integers(0, 5000)))
        if kind is not FaultKind.STEP:
            end = start + draw(st.integers(1, 500))
    bed = draw(st.none() | st.just("bed-02"))
    stream = draw(st.none() | st.just("eeg")) if bed else None
    return Fault(kind, draw(ARGUMENTS.get(kind, st.just(""))), start, end, bed, stream)


@given(faults())
def test_a_fault_reads_as_it_is_written(each: Fault) -> None:
    assert fault(str(each)) == each


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "explode@3",
        "dropout@",
        "dropout:F4@3",
        "detached@3+4",
        "restart:perhaps@3+4",
        "restart:new@3",
        "late@3",
        "drift:fast",
        "drift:200ppm@3",
        "jitter:5ms@10+5",
        "step:tomorrow@3",
        "step:+3@4+5",
        "rate:-5",
        "rate:many",
        "unit:absent@600",
        "a/b/c/dropout@3",
    ],
)
def test_what_is_no_fault_is_refused_in_one_line(wrong: str) -> None:
    with pytest.raises(ConfigError) as error:
        fault(wrong)
    assert f"fault {wrong}" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_fault_of_an_unknown_bed_stream_or_lead_is_refused() -> None:
    for wrong in ("bed-77/nan@1+1", "bed-01/spo2/nan@1+1", "detached:Pz@1+1", "missing:Pz"):
        with pytest.raises(ConfigError, match=wrong.split("@")[0]):
            SimulatedSource([BED], seed=1, pages=1, faults=[wrong])
