"""What gear sends is read as its makers' own formats say, however the network cuts it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypnocast.bridge.rda_messages import (
    KEEP_ALIVE,
    MAX_MESSAGE_BYTES,
    RdaBlock,
    RdaDecoder,
    RdaMarker,
    RdaMessage,
    RdaStart,
    RdaStop,
)
from hypnocast.bridge.sample_clock import RecordClock, SampleClock
from hypnocast.bridge.tcp import TcpAddress
from hypnocast.bridge.zmax import ZmaxDecoder
from hypnocast.errors import ConfigError, StreamError
from support.gear_bytes import RDA_GUID, rda, rda_block, rda_start, zmax_packet

COUNTS = np.arange(12, dtype=np.float32).reshape(4, 3) * 1.5
ACQUISITION = (
    rda_start(("F4", "Cz", "Müller"), 2000.0, (0.1, 0.5, 1.0))
    + rda(KEEP_ALIVE)
    + rda_block(7, COUNTS, [(2, "Stimulus", "S  1"), (3, "Comment", "")])
    + rda_block(8, np.array([[-32768, 0, 32767]], dtype=np.int16))
    + rda(77, b"from a later Recorder")
    + rda(3)
)


def _read(pieces: list[bytes]) -> list[RdaMessage]:
    decoder = RdaDecoder()
    return [message for piece in pieces for message in decoder.feed(piece)]


@given(st.lists(st.integers(0, len(ACQUISITION)), max_size=12))
def test_an_acquisition_is_read_however_it_is_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(ACQUISITION)]
    pieces = [ACQUISITION[a:b] for a, b in pairwise(edges)]
    start, floats, integers, stop = _read(pieces)
    assert start == RdaStart(("F4", "Cz", "Müller"), 500.0, (0.1, 0.5, 1.0))
    assert isinstance(floats, RdaBlock)
    assert isinstance(integers, RdaBlock)
    assert (floats.number, integers.number) == (7, 8)
    assert np.array_equal(floats.counts, COUNTS)
    assert integers.counts.tolist() == [[-32768, 0, 32767]]
    assert floats.markers == (RdaMarker(2, "Stimulus/S  1"), RdaMarker(3, "Comment"))
    assert isinstance(stop, RdaStop)


@pytest.mark.parametrize(
    ("sent", "what"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak"),
        (RDA_GUID + (MAX_MESSAGE_BYTES + 1).to_bytes(4, "little") + b"\1\0\0\0", "bytes"),
        (RDA_GUID + (3).to_bytes(4, "little") + b"\1\0\0\0", "3 bytes"),
        (rda_start(("F4",) * 3, 0.0, (1.0,) * 3), "interval"),
        (rda(1, b"\xff\xff\xff\xff" + bytes(60)), "channels"),
        (rda_start(("F4",), 2000.0, (float("nan"),)), "damaged"),
        (rda_start(("F4",), 2000.0, (1.0,)) + rda(4, b"\0" * 4 + b"\xff" * 8), "damaged"),
        (rda_start(("F4",), 2000.0, (1.0,)) + rda(4, b"\0" * 8 + b"\1\0\0\0"), "damaged"),
    ],
)
def test_what_is_no_rda_is_refused_before_anything_is_made_of_it(sent: bytes, what: str) -> None:
    with pytest.raises(StreamError, match=what):
        _read([sent])


TEXT = (
    b"HELLO, this is HDServer\r\nDEBUG.ignored\r\n"
    + zmax_packet(left=32768, right=32769)
    + b"D.08-80\r\nD." + b"ZZ-" * 39 + b"ZZ\r\n"
    + zmax_packet(left=0, right=65535)
)  # fmt: skip


@given(st.lists(st.integers(0, len(TEXT)), max_size=12))
def test_zmax_packets_are_read_left_before_right_in_microvolts(cuts: list[int]) -> None:
    decoder = ZmaxDecoder()
    edges = [0, *sorted(cuts), len(TEXT)]
    rows = [decoder.feed(TEXT[a:b]) for a, b in pairwise(edges)]
    microvolt = 3952 / 65536
    assert np.concatenate(rows).tolist() == pytest.approx(
        np.array([[0.0, microvolt], [-1976.0, 1976.0 - microvolt]])
    )


def test_endless_noise_is_no_zmax() -> None:
    with pytest.raises(StreamError, match="HDServer"):
        ZmaxDecoder().feed(b"\0" * 10_000)


@pytest.mark.parametrize("text", ["", ":51244", "host:", "host:port", "host:0", "host:70000"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no address"):
        TcpAddress.parse(text, 51244)


def test_an_address_may_do_without_a_port() -> None:
    assert str(TcpAddress.parse("recorder", 51244)) == "recorder:51244"
    assert str(TcpAddress.parse("recorder:1", 51244)) == "recorder:1"


# --- times for samples that come without --------------------------------------------------------


def _arrivals(rng: np.random.Generator, blocks: int) -> list[float]:
    """Blocks of 20 ms that a network holds up by up to 30 ms, and once by 1.5 s."""
    taken = np.arange(1, blocks + 1) * 0.02
    came = taken + rng.uniform(0.0, 0.03, blocks)
    held = slice(blocks // 2, blocks // 2 + 75)
    came[held] = np.maximum(came[held], came[held.stop])
    return [float(at) for at in np.maximum.accumulate(came)]


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_a_block_that_was_held_up_moves_no_sample(seed: int) -> None:
    clock = SampleClock(250.0)
    stamps, came = [], _arrivals(np.random.default_rng(seed), 600)
    for at in came:
        stamps.append(clock.stamps(5, at))
        assert stamps[-1][-1] <= at + 1e-9, "no sample is later than its arrival"
    times = np.concatenate(stamps)[250:]
    true = np.arange(1, times.size + 1) / 250.0 + 1.0
    assert np.abs(times - true).max() < 0.032
    assert np.abs(np.diff(times) - 1 / 250.0).max() < 0.012


def test_samples_that_were_lost_leave_a_gap_where_they_are_missing() -> None:
    clock = SampleClock(100.0)
    for at in np.arange(1, 101) * 0.1:
        before = clock.stamps(10, float(at))
    clock.skip(50)  # the sender counts its blocks
    assert clock.stamps(10, 10.6)[0] == pytest.approx(before[-1] + 0.51)
    for at in 13.6 + np.arange(40) * 0.1:  # three seconds gone, and nothing shows it
        after = clock.stamps(10, float(at))
    assert after[-1] == pytest.approx(17.5, abs=0.01)


def test_a_slow_crystal_is_followed_without_a_jump() -> None:
    clock = SampleClock(256.0 * 1.0001)  # nominal; the gear is slower by 100 ppm
    stamps = [clock.stamps(256, float(at)) for at in np.arange(1, 1001)]
    assert stamps[-1][-1] == pytest.approx(1000.0, abs=0.001)
    assert np.abs(np.diff(np.concatenate(stamps)) - 1 / 256.0).max() < 0.0005


@pytest.mark.parametrize("ppm", [-150.0, 0.0, 150.0])
def test_a_recorder_whose_clock_runs_off_is_followed_all_night(ppm: float) -> None:
    clock, rng = RecordClock(1.0), np.random.default_rng(3)
    ends = []
    for record in range(8 * 3600):
        on_disk = (record + 1) * (1.0 + 1e-6 * ppm) + rng.uniform(0.0, 0.1)
        assert clock.place(float(record), 1, on_disk) == 0.0, "nothing is sent later at one blow"
        assert clock.origin is not None
        ends.append(clock.origin + record + 1 - on_disk)
    assert min(ends) > 0.5, "no record is late for its page"
    assert max(ends) < 2.0
    assert np.abs(np.diff(ends)).max() < 0.1 + 0.0005, "no page notices"


def test_a_recorder_that_holds_much_back_is_followed_later_from_there_on() -> None:
    clock = RecordClock(1.0)
    assert clock.place(0.0, 10, 10.0) == 0.0
    later = clock.place(10.0, 10, 20.0)
    assert later == pytest.approx(9.0)
    assert clock.hold_back == pytest.approx(10.25)
    assert [clock.place(10.0 * n, 10, 10.0 * (n + 1)) for n in range(2, 100)] == [0.0] * 98
