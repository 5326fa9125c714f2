"""The tape: what came in comes out again, byte for byte, also after a crash and from damage."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import pyxdf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypnocast.core.types import (
    Arrival,
    ChannelInfo,
    Chunk,
    ClockReading,
    Mark,
    StreamHeader,
    StreamLost,
    StreamOpened,
)
from hypnocast.errors import TapeError
from hypnocast.ports import durable_files
from hypnocast.ports.recordings.files import open_recording
from hypnocast.ports.recordings.tape import Tape
from hypnocast.ports.recordings.tape_reader import TapeDecision, read_tape, tape_facts
from hypnocast.ports.recordings.tape_recorder import TapeLimits, TapeRecorder
from hypnocast.ports.recordings.tape_retention import expired
from hypnocast.ports.recordings.xdf_decode import Damage
from support.lsl_lab import wait_until

RATE = 200.0


def header(key: str = "psg", uid: str = "1", **changes: object) -> StreamHeader:
    facts: dict[str, object] = {
        "key": key,
        "name": key,
        "type": "EEG",
        "source_id": key,
        "uid": uid,
        "host": "pc",
        "rate": RATE,
        "channels": (ChannelInfo("F4-M1", "µV"), ChannelInfo("C4", None, "EEG")),
    }
    return StreamHeader(**{**facts, **changes})  # type: ignore[arg-type]  # facts are mixed


MARKERS = header("marks", rate=0.0, channels=(ChannelInfo("text"),), format="string")


def night(seconds: int, uid: str = "1") -> list[Arrival]:
    """Arrivals as a source gives them: regular and jittered chunks, readings, marks, a loss."""
    noise = np.random.default_rng(3)
    arrivals: list[Arrival] = [
        StreamOpened(header(uid=uid), 100.0),
        ClockReading("psg", 100.1, -7.123456789),
        StreamOpened(MARKERS, 100.2),
    ]
    for second in range(seconds):
        begin = 107.0 + second
        stamps = np.add.accumulate(np.array([begin] + [1 / RATE] * 199))
        if second % 3 == 0:
            stamps = np.sort(begin + noise.random(200))
        values = noise.normal(0, 50, (200, 2)).astype(np.float32)
        arrivals.append(Chunk("psg", values, stamps, begin - 7 + 1.1))
        if second % 5 == 0:
            arrivals.append(ClockReading("psg", begin - 6.9, -7.123456789 + second * 1e-7))
            arrivals.append(Mark("marks", begin - 7, f"Müde {second}", begin - 6.95))
    arrivals.append(StreamLost("psg", 100.0 + seconds, "silent"))
    return arrivals


def assert_same(read: Sequence[object], written: Sequence[Arrival]) -> None:
    assert [type(one) for one in read] == [type(one) for one in written]
    for one, other in zip(read, written, strict=True):
        if isinstance(one, Chunk) and isinstance(other, Chunk):
            assert (one.stream, one.arrived) == (other.stream, other.arrived)
            assert one.samples.dtype == other.samples.dtype
            assert np.array_equal(one.samples, other.samples)
            assert one.stamps.tobytes() == other.stamps.tobytes()
        elif isinstance(one, StreamOpened) and isinstance(other, StreamOpened):
            assert one.at == other.at
            assert one.header.channels == other.header.channels
            assert (one.header.key, one.header.rate) == (other.header.key, other.header.rate)
        else:
            assert one == other


def record(folder: Path, arrivals: Sequence[Arrival], *, max_bytes: int = 10**9) -> Path:
    tape = Tape(folder, "bed", facts={"bed": "bed <1> & co"}, max_bytes=max_bytes)
    first = tape.path
    for arrival in arrivals:
        tape.write(arrival)
    tape.close()
    tape.close()
    return first


def test_a_tape_gives_back_what_was_written_in_order_and_to_the_last_bit(tmp_path: Path) -> None:
    arrivals = [*night(12), *night(3, uid="2"), *night(2, uid="2")]
    path = record(tmp_path, arrivals)
    assert_same(list(read_tape(path)), arrivals)
    assert tape_facts(path)["bed"] == "bed <1> & co"
    assert path.stat().st_mode & 0o077 == 0, "nobody else may read it"


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.lists(st.floats(allow_nan=False, width=64), min_size=1, max_size=9),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(["float32", "double64", "int64", "int32", "int16", "int8"]),
)
def test_any_stamps_in_any_format_survive(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[list[float]], kind: str
) -> None:
    dtype = {"double64": "float64"}.get(kind, kind)
    arrivals: list[Arrival] = [StreamOpened(header(format=kind), 1.0)]
    for stamps in chunks:
        values = (np.arange(2 * len(stamps)) % 120).reshape(-1, 2).astype(dtype)
        arrivals.append(Chunk("psg", values, np.array(stamps), 2.0))
    path = record(tmp_path_factory.mktemp("tape"), arrivals)
    assert_same(list(read_tape(path)), arrivals)


def test_pyxdf_reads_the_same_samples_clocks_and_marks(tmp_path: Path) -> None:
    arrivals = night(20)
    path = record(tmp_path, arrivals)
    streams, _ = pyxdf.load_xdf(path, dejitter_timestamps=False, synchronize_clocks=False)
    by_name = {stream["info"]["name"][0]: stream for stream in streams}
    chunks = [a for a in arrivals if isinstance(a, Chunk)]
    psg = by_name["psg"]
    assert np.array_equal(psg["time_series"], np.concatenate([c.samples for c in chunks]))
    assert np.array_equal(psg["time_stamps"], np.concatenate([c.stamps for c in chunks]))
    readings = [a for a in arrivals if isinstance(a, ClockReading)]
    assert psg["clock_values"] == [r.offset for r in readings]
    assert psg["footer"]["info"]["sample_count"] == ["4000"]
    assert by_name["marks"]["time_series"][1] == ["Müde 5"]
    synced, _ = pyxdf.load_xdf(path, select_streams=[{"name": "psg"}], dejitter_timestamps=False)
    assert abs(synced[0]["time_stamps"][0] + 7.123 - psg["time_stamps"][0]) < 0.01


def test_a_tape_that_grows_too_long_goes_on_in_parts_that_read_as_one_and_alone(
    tmp_path: Path,
) -> None:
    arrivals = night(40)
    first = record(tmp_path, arrivals, max_bytes=20_000)
    parts = sorted(tmp_path.iterdir())
    assert len(parts) > 3
    assert all(part.stat().st_size < 30_000 for part in parts)
    assert_same(list(read_tape(first)), arrivals)
    alone = list(read_tape(parts[2]))
    assert isinstance(alone[0], StreamOpened)
    kinds = [type(one) for one in alone]
    assert kinds.index(ClockReading) < kinds.index(Chunk)
    for part in parts:
        assert pyxdf.load_xdf(part)[0]


def test_a_part_of_which_a_power_cut_left_nothing_costs_no_other(tmp_path: Path) -> None:
    first = record(tmp_path, night(40), max_bytes=20_000)
    parts = sorted(tmp_path.iterdir())
    since_third, since_fourth = (_arrived(read_tape(part)) for part in parts[2:4])
    parts[2].write_bytes(b"")
    damage: list[Damage] = []
    left = _arrived(read_tape(first, on_damage=damage.append))
    assert [one.why for one in damage] == ["bed_003.xdf is no XDF file: it never reached the disk"]
    assert left == _arrived(night(40)) - (since_third - since_fourth)
    assert since_third - since_fourth


def _arrived(arrivals: Iterable[object]) -> set[float]:
    return {one.arrived for one in arrivals if isinstance(one, Chunk)}


def test_decisions_are_kept_verbatim_beside_the_arrivals(tmp_path: Path) -> None:
    tape = Tape(tmp_path, "bed")
    arrivals = night(2)
    for arrival in arrivals[:4]:
        tape.write(arrival)
    tape.note('{"type":"page","epoch":0}', 107.5)
    for arrival in arrivals[4:]:
        tape.write(arrival)
    tape.close()
    read = list(read_tape(tape.path))
    assert read[4] == TapeDecision('{"type":"page","epoch":0}', 107.5)
    assert_same([one for one in read if not isinstance(one, TapeDecision)], arrivals)
    recording = open_recording(tape.path)
    assert recording.format == "tape"
    assert recording.decisions == ('{"type":"page","epoch":0}',)
    assert_same(list(recording.arrivals(0.1)), arrivals)


def test_the_offsets_a_tape_holds_in_memory_are_bounded_and_all_of_them_are_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tape may run for weeks; a footer may be cut off."""
    monkeypatch.setattr("hypnocast.ports.recordings.tape.MOST_OFFSETS", 5)
    readings = [ClockReading("psg", 100.0 + second, -7.0 - second) for second in range(12)]
    path = record(tmp_path, [StreamOpened(header(), 99.0), *readings])
    assert [one for one in read_tape(path) if isinstance(one, ClockReading)] == readings
    streams, _ = pyxdf.load_xdf(str(path), synchronize_clocks=False, dejitter_timestamps=False)
    (psg,) = (one for one in streams if one["info"]["name"] == ["psg"])
    kept = psg["footer"]["info"]["clock_offsets"][0]["offset"]
    assert [float(one["value"][0]) for one in kept] == [one.offset for one in readings[-5:]]


_WRITER = """
import sys, numpy as np
from pathlib import Path
from hypnocast.core.types import *
from hypnocast.ports.recordings.tape_recorder import TapeRecorder, TapeLimits
tapes = TapeRecorder(Path(sys.argv[1]), limits=TapeLimits(sync_every_s=0.05))
head = StreamHeader("k", "k", "EEG", "k", "u", "", 100.0, (ChannelInfo("F4-M1", "uV"),))
tapes.write("bed", StreamOpened(head, 0.0))
for n in range(10**9):
    values = np.arange(n * 10, n * 10 + 10, dtype=np.float32)[:, None]
    tapes.write("bed", Chunk("k", values, np.arange(10) / 100 + n / 10, n / 10))
"""


def test_kill_9_in_the_middle_of_writing_leaves_a_tape_that_all_can_read(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.DEVNULL, env=env
    ) as writer:
        wait_until(lambda: any(p.stat().st_size > 2_000_000 for p in tmp_path.iterdir()), "data")
        writer.kill()
    (path,) = tmp_path.iterdir()
    chunks = [one for one in read_tape(path) if isinstance(one, Chunk)]
    counts = np.concatenate([chunk.samples[:, 0] for chunk in chunks])
    assert len(counts) >= 20_000
    assert np.array_equal(counts, np.arange(len(counts)))
    streams, _ = pyxdf.load_xdf(path)
    other = next(s for s in streams if s["info"]["name"] == ["k"])
    assert len(other["time_stamps"]) >= 20_000


def _when(one: Arrival | TapeDecision) -> tuple[str, str, str]:
    at = one.arrived if isinstance(one, Chunk | Mark) else one.at
    return type(one).__name__, one.text if isinstance(one, TapeDecision) else "", repr(at)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_damage_costs_what_it_hits_and_never_the_reader(
    tmp_path: Path, data: st.DataObject
) -> None:
    whole = tmp_path / "bed_001.xdf"
    if not whole.exists():
        record(tmp_path, night(30))
    raw = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(0, 5))):
        at = data.draw(st.integers(4, len(raw) - 1))
        junk = data.draw(st.binary(min_size=1, max_size=40))
        raw[at : at + len(junk)] = junk
    broken = tmp_path / "broken.xdf"
    broken.write_bytes(bytes(raw[: data.draw(st.integers(4, len(raw)))]))
    damage: list[Damage] = []
    read = list(read_tape(broken, on_damage=damage.append))
    assert len(read) <= len(night(30)) + 40
    again: list[Damage] = []
    glanced = list(read_tape(broken, on_damage=again.append, signals=False))
    assert again == damage, "who looks at no values gets the same damage"
    assert [_when(one) for one in glanced] == [_when(one) for one in read]


def test_after_damage_reading_goes_on_at_the_next_chunk_or_boundary(tmp_path: Path) -> None:
    arrivals = night(60)
    path = record(tmp_path, arrivals)
    raw = bytearray(path.read_bytes())
    middle = len(raw) // 2
    raw[middle : middle + 300] = b"\xff" * 300
    path.write_bytes(bytes(raw))
    damage: list[Damage] = []
    read = [one for one in read_tape(path, on_damage=damage.append) if isinstance(one, Chunk)]
    assert damage
    assert 60 - len(read) <= 11, "a boundary is written every ten seconds"
    assert read[-1].arrived == [a for a in arrivals if isinstance(a, Chunk)][-1].arrived


def test_a_hostile_length_allocates_nothing_and_no_tape_is_a_clear_error(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.xdf"
    bomb.write_bytes(b"XDF:" + b"\x08" + (2**62).to_bytes(8, "little") + b"\x03\x00")
    damage: list[Damage] = []
    assert not list(read_tape(bomb, on_damage=damage.append))
    assert "bytes" in damage[0].why
    bomb.write_bytes(b"RIFF")
    with pytest.raises(TapeError, match="no XDF"):
        list(read_tape(bomb))


def test_a_new_tape_begins_with_the_given_arrivals_and_misses_none_that_came_meanwhile(
    tmp_path: Path,
) -> None:
    tapes = TapeRecorder(tmp_path, clock=lambda: 100.0)
    arrivals = night(4)
    for arrival in arrivals:
        tapes.write("bed", arrival)
    before = tapes.path("bed")
    # Whoever changes the tape has not come to the last two yet.
    assert tapes.change("bed", arrivals[:-2])
    later = Chunk("psg", np.zeros((3, 2), np.float32), np.array([1.0, 2.0, 3.0]), 200.0)
    tapes.write("bed", later)
    path = tapes.path("bed")
    tapes.close()
    assert before is not None
    assert path is not None
    assert_same(list(read_tape(before)), arrivals)
    assert_same(list(read_tape(path)), [*arrivals, later])
    assert float(tape_facts(path)["lsl_time"]) == 100.0
    assert tapes.statistics().arrivals_lost == 0


def test_a_tape_goes_on_where_what_came_meanwhile_is_not_known(tmp_path: Path) -> None:
    tapes = TapeRecorder(tmp_path)
    arrivals = night(4)
    assert not tapes.change("bed", arrivals)
    for arrival in arrivals:
        tapes.write("bed", arrival)
    another = Chunk("psg", np.zeros((1, 2), np.float32), np.array([1.0]), 2.0)
    assert not tapes.change("bed", [*arrivals, another])
    path = tapes.path("bed")
    tapes.close()
    assert path is not None
    assert_same(list(read_tape(path)), arrivals)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_disk_that_refuses_never_stops_the_reader_and_is_reported(tmp_path: Path) -> None:
    (tmp_path / "tapes").write_text("a file where the folder should be")
    now = [1000.0]
    tapes = TapeRecorder(tmp_path / "tapes", steady=lambda: now[0])
    arrivals = night(2)
    for arrival in arrivals[:3]:
        tapes.write("bed", arrival)
    assert tapes.statistics().arrivals_lost == 3
    assert "cannot be written" in tapes.statistics().last_error
    (tmp_path / "tapes").unlink()
    now[0] += 60.0
    for arrival in arrivals[3:]:
        tapes.write("bed", arrival)
    path = tapes.path("bed")
    tapes.close()
    assert path is not None
    assert_same(list(read_tape(path))[-len(arrivals[3:]) :], arrivals[3:])


def test_a_hole_that_a_power_cut_left_is_never_read_as_signal(tmp_path: Path) -> None:
    """Pages that never reached the disk read as zeros: once a flat line of up to 0.65 s."""
    arrivals = night(12)
    path = record(tmp_path, arrivals)
    raw = path.read_bytes()
    sent = {one.arrived: one for one in arrivals if isinstance(one, Chunk)}
    for at in range(0, len(raw) - 4096, 512):
        path.write_bytes(raw[:at] + bytes(512) + raw[at + 512 :])
        damage: list[Damage] = []
        if at == 0:
            continue  # without a head it is no XDF file
        for one in read_tape(path, on_damage=damage.append):
            if isinstance(one, Chunk):
                assert np.array_equal(one.samples, sent[one.arrived].samples), at
                assert np.array_equal(one.stamps, sent[one.arrived].stamps), at
        assert damage, at


@pytest.mark.promise(7)
def test_a_slow_sync_of_a_part_that_is_over_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, asked = threading.Event(), threading.Event()
    sync = os.fsync

    def slow(number: int) -> None:
        asked.set()
        assert go.wait(30.0)
        sync(number)

    monkeypatch.setattr(os, "fsync", slow)
    limits = TapeLimits(part_bytes=20_000, sync_every_s=0.02)
    recorder = TapeRecorder(tmp_path, limits=limits)
    arrivals = night(40)

    def write_all() -> None:
        for arrival in arrivals:
            recorder.write("bed", arrival)

    # In a thread of its own: where the disk holds it up, the test must still end.
    writer = threading.Thread(target=write_all)
    writer.start()
    writer.join(10.0)
    held_up = writer.is_alive()
    assert asked.wait(10.0)
    bed_tape = recorder._bed_tapes["bed"]
    safe, parts = bed_tape.safe, len(list(tmp_path.glob("*.xdf")))
    go.set()
    writer.join()
    assert not held_up
    assert parts > 2
    assert safe is None, "no sync has come back yet"
    wait_until(lambda: bed_tape.safe is arrivals[-1], "all is safe")
    assert not bed_tape.ended
    recorder.close()
    assert recorder.statistics().given_up == 0
    first = min(tmp_path.glob("*.xdf"))
    assert_same(list(read_tape(first)), arrivals)


@pytest.mark.promise(5)
def test_a_part_that_is_over_and_cannot_be_synced_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync
    not_safe: list[Arrival] = []

    def refuses_once(number: int) -> None:
        path = Path(f"/proc/self/fd/{number}").readlink()
        over = (
            path.name.endswith("_001.xdf")
            and path.with_name(path.name.replace("_001", "_002")).exists()
        )
        if over and not not_safe:
            safe = bed_tape.safe
            at = next((n + 1 for n, one in enumerate(arrivals) if one is safe), 0)
            not_safe.extend(arrivals[at:])
            raise OSError(errno.EIO, "Input/output error")
        sync(number)

    recorder = TapeRecorder(tmp_path, limits=TapeLimits(part_bytes=20_000, sync_every_s=0.02))
    arrivals = night(40)
    recorder.write("bed", arrivals[0])
    bed_tape = recorder._bed_tapes["bed"]
    monkeypatch.setattr(os, "fsync", refuses_once)
    for arrival in arrivals[1:]:
        recorder.write("bed", arrival)
    wait_until(lambda: bed_tape.safe is arrivals[-1], "all is safe")
    assert recorder.statistics().given_up == 1
    last = recorder.path("bed")
    recorder.close()
    assert last is not None
    first = last.with_name(f"{last.stem.rpartition('_')[0]}_001.xdf")
    assert len(not_safe) > 1
    assert_same(list(read_tape(first))[-len(not_safe) :], not_safe)


class UnwillingDisk:
    """Refuses chosen syncs of files, as a disk with a bad patch does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refuse = 0
        self.refused = 0
        self._sync = os.fsync
        monkeypatch.setattr(os, "fsync", self._fsync)

    def _fsync(self, number: int) -> None:
        if self.refuse:
            self.refuse -= 1
            self.refused += 1
            raise OSError(errno.EIO, "Input/output error")
        self._sync(number)


@pytest.mark.promise(5)
@pytest.mark.parametrize("refused", [1, 2])
def test_a_tape_whose_sync_failed_is_given_up_and_what_is_not_safe_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    """Linux treats the pages as written after a failed sync: they may never reach the disk."""
    disk = UnwillingDisk(monkeypatch)
    recorder = TapeRecorder(tmp_path, limits=TapeLimits(sync_every_s=0.02))
    arrivals = night(30)
    for arrival in arrivals[:20]:
        recorder.write("bed", arrival)
    bed_tape = recorder._bed_tapes["bed"]
    wait_until(lambda: bed_tape.safe is arrivals[19], "a good sync")
    first = recorder.path("bed")
    with recorder._lock:
        disk.refuse = refused
    recorder.write("bed", arrivals[20])
    wait_until(lambda: recorder.path("bed") != first, "another tape")
    assert recorder.statistics().given_up >= 1
    assert "cannot be synced" in recorder.statistics().last_error
    for arrival in arrivals[21:]:
        recorder.write("bed", arrival)
    wait_until(lambda: bed_tape.safe is arrivals[-1], "all is safe")
    assert "cannot be synced" not in recorder.statistics().problem
    last = recorder.path("bed")
    recorder.close()
    assert last is not None
    read = list(read_tape(last))
    # What was written after the last good sync is on the new tape, and all that came since.
    assert_same(read[-len(arrivals[20:]) :], arrivals[20:])
    assert recorder.statistics().arrivals_lost == 0


def test_a_disk_that_is_slow_to_sync_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable_files, "SLOW_SYNC_S", 0.0)  # any disk is
    recorder = TapeRecorder(tmp_path, limits=TapeLimits(sync_every_s=0.02))
    for arrival in night(30):
        recorder.write("bed", arrival)
    wait_until(lambda: "a tape took 0." in recorder.statistics().problem, "it is named")
    recorder.close()


def test_a_slow_disk_is_named_beside_a_tape_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable_files, "SLOW_SYNC_S", 0.0)  # any disk is
    recorder = TapeRecorder(tmp_path / "tapes", limits=TapeLimits(sync_every_s=0.02))
    for arrival in night(30):
        recorder.write("one", arrival)
    wait_until(lambda: "a tape took 0." in recorder.statistics().problem, "it is named")
    (tmp_path / "tapes").rename(tmp_path / "elsewhere")
    (tmp_path / "tapes").write_text("a file where the folder should be")
    for arrival in night(2):
        recorder.write("other", arrival)
    cannot, slow = recorder.statistics().problem.split("; ")
    assert "cannot" in cannot
    assert "to sync: is the disk slow?" in slow
    (tmp_path / "tapes").unlink()
    recorder.close()


def refuse_new_files(patched: pytest.MonkeyPatch, why: int) -> None:
    """Let a disk refuse every new file."""
    opens = os.open

    def refusing(path: str, flags: int, *more: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(why, os.strerror(why))
        return opens(path, flags, *more)

    patched.setattr(os, "open", refusing)


def test_a_disk_is_watched_while_no_tape_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tape that was refused is tried again much later; what else is wrong is named meanwhile."""
    disk, go = UnwillingDisk(monkeypatch), threading.Event()
    recorder = TapeRecorder(tmp_path, limits=TapeLimits(sync_every_s=0.02))

    with monkeypatch.context() as patched:
        refuse_new_files(patched, errno.ENOSPC)
        recorder.write("bed", night(1)[0])
        assert "No space left" in recorder.statistics().problem
        wait_until(lambda: "or synced (No space" in recorder.statistics().problem, "full")
    with recorder._lock:
        disk.refuse = 1_000_000
    wait_until(lambda: "or synced (Input/output" in recorder.statistics().problem, "EIO")
    disk.refuse = 0
    wait_until(lambda: "synced" not in recorder.statistics().problem, "it syncs again")
    monkeypatch.setattr(durable_files, "SLOW_SYNC_S", 0.1)
    monkeypatch.setattr(os, "fsync", lambda _: go.wait(30.0))
    # Named while it goes on: it may never come back.
    wait_until(lambda: "a tape takes more than" in recorder.statistics().problem, "slow")
    go.set()
    recorder.close()


def test_a_disk_that_takes_no_write_is_named_as_slow_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be written that could be synced, so what is there already is."""
    recorder = TapeRecorder(tmp_path, limits=TapeLimits(sync_every_s=0.02))

    with monkeypatch.context() as patched:
        refuse_new_files(patched, errno.EROFS)
        patched.setattr(durable_files, "SLOW_SYNC_S", 0.1)
        patched.setattr(os, "fsync", lambda _: time.sleep(0.15))
        recorder.write("bed", night(1)[0])
        wait_until(lambda: "to sync: is the disk slow?" in recorder.statistics().problem, "slow")
        wait_until(lambda: "or synced (Read-only" in recorder.statistics().problem, "read-only")
    recorder.close()


def test_a_disk_that_neither_syncs_nor_takes_a_write_is_named_for_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing sync once hid that the disk had become read-only as well."""
    disk = UnwillingDisk(monkeypatch)
    recorder = TapeRecorder(tmp_path, limits=TapeLimits(sync_every_s=0.02))

    with monkeypatch.context() as patched:
        refuse_new_files(patched, errno.EROFS)
        recorder.write("bed", night(1)[0])
        disk.refuse = 1_000_000
        both = "or synced (Input/output error, Read-only file system)"
        wait_until(lambda: both in recorder.statistics().problem, "both are named")
        disk.refuse = 0
        wait_until(lambda: "or synced (Read-only" in recorder.statistics().problem, "one is left")
    wait_until(lambda: "or synced" not in recorder.statistics().problem, "none is left")
    recorder.close()


def test_a_clock_that_is_set_back_does_not_put_off_the_next_tape(tmp_path: Path) -> None:
    """A tape that a full disk had refused was once tried again two hours later."""
    host, steady = [1e9], [0.0]
    recorder = TapeRecorder(tmp_path / "tapes", now=lambda: host[0], steady=lambda: steady[0])
    (tmp_path / "tapes").write_text("a file where the folder should be")
    recorder.write("bed", night(1)[0])
    (tmp_path / "tapes").unlink()
    host[0] -= 7200.0
    steady[0] += 31.0
    recorder.write("bed", night(1)[1])
    assert recorder.path("bed") is not None
    assert recorder.statistics().arrivals_lost == 0
    recorder.close()


def test_what_no_tape_could_hold_is_written_once_the_disk_is_back(tmp_path: Path) -> None:
    now = [1000.0]
    recorder = TapeRecorder(tmp_path / "tapes", steady=lambda: now[0])
    arrivals = night(8)
    (tmp_path / "tapes").write_text("a file where the folder should be")
    for arrival in arrivals[:-1]:
        recorder.write("bed", arrival)
    assert recorder.statistics().arrivals_lost == len(arrivals) - 1
    assert recorder.statistics().problem
    (tmp_path / "tapes").unlink()
    now[0] += 60.0
    recorder.write("bed", arrivals[-1])
    path = recorder.path("bed")
    assert recorder.statistics().arrivals_lost == 0
    assert "cannot" not in recorder.statistics().problem
    recorder.close()
    assert path is not None
    assert_same(list(read_tape(path)), arrivals)


def test_old_tapes_and_the_oldest_beyond_the_limit_go(tmp_path: Path) -> None:
    paths = [tmp_path / f"bed_{number:03d}.xdf" for number in range(1, 5)]
    for age, path in zip((40, 3, 2, 1), paths, strict=True):
        path.write_bytes(b"x" * 100)
        os.utime(path, (1e9 - age * 86_400,) * 2)
    (tmp_path / "diary.txt").write_text("not a tape")
    gone = expired(tmp_path, now=1e9, keep_days=30, keep_bytes=250)
    assert gone == paths[:2]
    with pytest.raises(TapeError, match="cannot be opened"):
        list(read_tape(tmp_path / "absent_001.xdf"))


def test_retention_runs_but_spares_the_running_tape(tmp_path: Path) -> None:
    old = tmp_path / "old_001.xdf"
    old.write_bytes(b"XDF:")
    os.utime(old, (1.0, 1.0))
    tapes = TapeRecorder(tmp_path, limits=TapeLimits(keep_bytes=0, sync_every_s=0.01))
    tapes.write("bed", StreamOpened(header(), 1.0))
    tapes._retain()
    path = tapes.path("bed")
    tapes.close()
    assert path is not None
    assert path.exists()
    assert not old.exists()


def test_without_a_descriptor_to_spare_tapes_go_on_being_kept_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exhausted descriptors once ended the thread that syncs tapes and forgets old ones."""
    spare = threading.Event()
    synced = threading.Event()
    asked = threading.Event()
    dup = os.dup

    def scarce(number: int) -> int:
        asked.set()
        if not spare.is_set():
            raise OSError(errno.EMFILE, "Too many open files")
        synced.set()
        return dup(number)

    monkeypatch.setattr(os, "dup", scarce)
    tapes = TapeRecorder(tmp_path, limits=TapeLimits(sync_every_s=0.01))
    for arrival in night(2):
        tapes.write("bed1", arrival)
    assert asked.wait(10.0)
    spare.set()
    assert synced.wait(10.0)
    assert "Too many open files" in tapes.statistics().last_error
    tapes.close()
