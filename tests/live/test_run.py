"""One short night in earnest: ``run`` between plain pylsl outlets, mosquitto and plain paho.

All tests here share one run, for it lasts real minutes: three beds, a change of hands, a
``kill -9`` in the middle of a page, a restart, an end in good order, and its tapes replayed.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pylsl
import pytest
from jsonschema import Draft202012Validator

from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.types import PAGE_S, FloatArray, Page, Role
from hypnocast.nights.one_page import pages_of
from hypnocast.ports.recordings.files import open_recording
from support import psg_outlets
from support.brokers import running_mosquitto
from support.daemons import Daemon, command, daemon
from support.lsl_lab import sending
from support.mqtt_lab import Listener, kept_by_broker
from support.packs import make_tiny_pack

ROOT = Path(__file__).resolve().parents[2]
BEDS = ("two-boxes", "one-box", "no-units")
AVAILABLE = "hypnocast/lab/daemon/pc1/available"

pytestmark = pytest.mark.timeout(600)

CONFIG = """
[site]
id = "lab"
[daemon]
node = "pc1"
state_dir = "{state}"
[broker]
port = {port}
[pack]
name = "{pack}"
[session]
auto = true
[[bed]]
id = "two-boxes"
streams = [{{ source_id = "acme-1" }}, {{ name = "acme exg" }}]
[[bed]]
id = "one-box"
streams = [{{ source_id = "solo-1" }}]
[[bed]]
id = "no-units"
streams = [{{ source_id = "mute-1" }}]
[[bed]]
id = "empty"
streams = [{{ source_id = "nobody-there" }}]
"""


@dataclass
class InstalledNight:
    """What was seen of the run."""

    listener: Listener
    state: Path
    config: Path
    replies: list[Any] = field(default_factory=list)
    after_kill: dict[str, bytes] = field(default_factory=dict)
    before_kill: dict[str, bytes] = field(default_factory=dict)
    at_end: dict[str, bytes] = field(default_factory=dict)
    killed_at: float = 0.0
    back_at: float = 0.0
    code: int | None = None
    lsl: list[tuple[Any, float]] = field(default_factory=list)
    """Stage events as they came over LSL, with their stamps."""
    log: str = ""
    first_log: str = ""
    """Of the daemon that was killed; ``log`` is of the one that came after it."""

    def events(self, bed: str) -> list[Any]:
        """Return a bed's events, each once."""
        found = self.listener.json_of(f"hypnocast/lab/bed/{bed}/events")
        return list({event["id"]: event for event in found}.values())

    def session(self, bed: str, number: int) -> list[Any]:
        """Return the events of a bed's first, second … session."""
        events = self.events(bed)
        sessions = list(dict.fromkeys(event["session"] for event in events))
        return [event for event in events if sessions.index(event["session"]) == number]

    def newest(self, topic: str) -> Any:
        """Return what was published last on a topic."""
        found = self.listener.json_of(f"hypnocast/lab/{topic}")
        return found[-1] if found else None

    def replayed(self, bed: str, number: int) -> Any:
        """Replay a bed's first, second … tape."""
        tape = sorted((self.state / "tapes").rglob(f"{bed}_*.xdf"))[number]
        outcome = command("replay", str(tape), "--json", "-c", str(self.config))
        assert outcome.returncode == 0, outcome.stderr
        return json.loads(outcome.stdout)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InstalledNight]:
    folder = tmp_path_factory.mktemp("run")
    pack = make_tiny_pack(folder / "tiny")
    with sending("support.psg_outlets"), running_mosquitto(folder) as broker:
        config = folder / "run.toml"
        config.write_text(CONFIG.format(state=folder / "state", port=broker.port, pack=pack))
        listener = Listener(broker.port)
        try:
            night = InstalledNight(listener, folder / "state", config)
            _live(night, folder, broker.port)
            yield night
        finally:
            listener.close()


def _live(night: InstalledNight, folder: Path, port: int) -> None:
    """Run the daemon twice, with a ``kill -9`` in the middle of page 1."""
    run = ("run", "-c", str(night.config))
    with daemon(folder / "first", *run) as first:
        _recording(night, first)
        _change_hands(night, first)
        first.wait_for(lambda: len(night.events("two-boxes")) == 1, "page 0", 100.0)
        first.wait_for(lambda: len(night.session("one-box", 1)) == 1, "page 0", 100.0)
        night.before_kill = kept_by_broker(port)
        begun = time.monotonic()
        first.wait_for(lambda: time.monotonic() - begun > 16.0, "the middle of page 1")
        night.first_log = first.complained
        first.kill()
        night.killed_at = time.time()
    deadline = time.monotonic() + 10.0
    while kept_by_broker(port)[AVAILABLE] != b"offline":
        assert time.monotonic() < deadline, "the last will did not speak"
    night.after_kill = kept_by_broker(port)
    with daemon(folder / "second", *run) as second, _stages_over_lsl(second) as stages:
        second.wait_for(lambda: b"online" in kept_by_broker(port)[AVAILABLE], "it is back", 140.0)
        night.back_at = time.time()
        # A slow machine may need more than the rest of page 1 for the second start.
        second.wait_for(lambda: _goes_on(night.events("two-boxes")), "a page after it", 140.0)
        second.wait_for(lambda: _goes_on(night.session("one-box", 1)), "a page after it", 140.0)
        night.lsl = stages()
        night.code = second.end(signal.SIGTERM)
        night.log = second.complained
    night.at_end = kept_by_broker(port)


def _goes_on(events: Sequence[Any]) -> bool:
    """Return whether a page was staged after those that the daemon was down for."""
    return len(events) > 2 and events[-1]["reason"] is None


@contextmanager
def _stages_over_lsl(running: Daemon) -> Iterator[Callable[[], list[tuple[Any, float]]]]:
    """Listen to a bed's stages as any program on LSL would."""
    found: list[pylsl.StreamInfo] = []

    def there() -> bool:
        source = "hypnocast/lab/two-boxes/events"
        found.extend(pylsl.resolve_byprop("source_id", source, 1, 1.0))
        return bool(found)

    running.wait_for(there, "the stream of stages")
    inlet = pylsl.StreamInlet(found[0])
    inlet.open_stream(10.0)

    def come() -> list[tuple[Any, float]]:
        texts, stamps = inlet.pull_chunk(timeout=5.0, max_samples=16)
        return [(json.loads(text[0]), at) for text, at in zip(texts, stamps, strict=True)]

    try:
        yield come
    finally:
        inlet.close_stream()


def _recording(night: InstalledNight, running: Daemon) -> None:
    """Wait until all three beds record."""
    for bed in BEDS:
        running.wait_for(
            lambda bed=bed: (night.newest(f"bed/{bed}/status") or {}).get("since"),  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            f"a session at {bed}",
        )


def _change_hands(night: InstalledNight, running: Daemon) -> None:
    """Begin the next person's night, twice with one request, and end the last one again."""
    last = night.newest("bed/one-box/status")["session"]
    topic = "hypnocast/lab/bed/one-box"
    begin = {"command": "start_session", "request": "r1", "subject": "S-02"}
    end = {"command": "end_session", "request": "r2", "session": last}
    for found in (begin, begin, end, end | {"request": "r3", "session": "never-was"}):
        night.listener.publish(f"{topic}/command", found)
    running.wait_for(lambda: len(night.listener.json_of(f"{topic}/reply")) == 4, "the replies")
    night.replies = night.listener.json_of(f"{topic}/reply")


def _amplitude(samples: FloatArray, rate: float, hz: float) -> float:
    """Return the amplitude of a sine in a page."""
    time_s = np.arange(samples.size) / rate
    wave = np.exp(-2j * np.pi * hz * time_s)
    return float(2.0 * abs(np.mean(samples * wave)))


def _first_page(night: InstalledNight, bed: str) -> Page:
    tape = min((night.state / "tapes").rglob(f"{bed}_*.xdf"))
    recipe = builtin("spectral-448")
    return next(iter(pages_of(open_recording(tape, timezone="UTC"), recipe)))


def test_plain_outlets_become_the_right_montage(night: InstalledNight) -> None:
    (first, *_) = night.events("two-boxes")
    assert first["status"] == "final"
    assert first["channels"] == {
        "F4-M1": "F4-M1", "C4-M1": "C4-M1", "O2-M1": "O2-M1",
        "E1-M2": "E1-M2", "E2-M2": "E2-M2", "Chin": "Chin1-Chin2",
    }  # fmt: skip
    assert {report["coverage"] for report in first["quality"].values()} == {1.0}
    assert first["source"] == "live"


def test_their_scale_is_right_within_one_percent(night: InstalledNight) -> None:
    page, waves = _first_page(night, "two-boxes"), psg_outlets.WAVES["two-boxes"]
    expected = {
        Role.F4: ("F4", "M1"), Role.C4: ("C4", "M1"), Role.O2: ("O2", "M1"),
        Role.E1: ("E1-M2",), Role.E2: ("E2-M2",), Role.CHIN: ("Chin1-Chin2",),
    }  # fmt: skip
    for role, labels in expected.items():
        signal_ = page.signals[role]
        first = round(page.context_s * signal_.rate)
        samples = signal_.samples[first : first + round(PAGE_S * signal_.rate)]
        for label in labels:
            microvolts, hz = waves[label]
            assert _amplitude(samples, signal_.rate, hz) == pytest.approx(microvolts, rel=0.01)


@pytest.mark.promise(3)
def test_a_bed_without_units_is_withheld_with_its_reason_while_the_others_run(
    night: InstalledNight,
) -> None:
    values = night.events("no-units")
    assert [event["epoch"] for event in values] == list(range(max(3, len(values))))
    assert values[0]["reason"] == "unknown_unit"
    # A slow machine may need the rest of page 1 for the second start.
    assert {event["reason"] for event in values} <= {"unknown_unit", "daemon_down"}
    status = json.loads(night.before_kill["hypnocast/lab/bed/no-units/status"])
    assert any("unit" in problem for problem in status["problems"])
    assert ["unit" in stream["problem"] for stream in status["streams"]] == [True]
    for bed in ("two-boxes", "one-box"):
        status = json.loads(night.before_kill[f"hypnocast/lab/bed/{bed}/status"])
        assert (status["state"], status["problems"]) == ("live", [])


def test_a_bed_whose_stream_is_not_there_is_shown_waiting_and_why(night: InstalledNight) -> None:
    status = json.loads(night.before_kill["hypnocast/lab/bed/empty/status"])
    assert status["state"] == "waiting"
    assert any("nobody-there" in problem for problem in status["problems"])


def test_a_killed_daemon_is_published_offline(night: InstalledNight) -> None:
    assert night.before_kill[AVAILABLE] == b"online"
    assert night.after_kill[AVAILABLE] == b"offline"
    assert night.at_end[AVAILABLE] == b"offline"


@pytest.mark.promise(1)
@pytest.mark.promise(2)
@pytest.mark.parametrize(("bed", "number"), [("two-boxes", 0), ("one-box", 1), ("no-units", 0)])
def test_kill_9_in_a_page_costs_that_page_and_nothing_else(
    night: InstalledNight, bed: str, number: int
) -> None:
    events = night.session(bed, number)
    assert [event["epoch"] for event in events] == list(range(max(3, len(events))))
    if bed != "no-units":
        reasons = [event["reason"] for event in events]
        down = reasons.count("daemon_down")
        assert reasons[: down + 2] == [None, *["daemon_down"] * max(1, down), None]
        assert datetime.fromisoformat(events[down]["start"]).timestamp() < night.back_at + 10.0
    found = night.listener.json_of(f"hypnocast/lab/bed/{bed}/events")
    assert [event["sequence"] for event in night.events(bed)] == list(
        range(1, len(night.events(bed)) + 1)
    )
    assert len({event["id"] for event in found}) == len({event["sequence"] for event in found})


def test_events_are_valid_by_an_independent_validator(night: InstalledNight) -> None:
    for name, messages in {
        "event": [event for bed in BEDS for event in night.events(bed)],
        "status": [json.loads(night.before_kill[f"hypnocast/lab/bed/{b}/status"]) for b in BEDS],
        "night": [json.loads(night.before_kill[f"hypnocast/lab/bed/{b}/night"]) for b in BEDS],
        "reply": night.replies,
    }.items():
        schema = json.loads((ROOT / "docs" / "schemas" / f"{name}.json").read_text())
        for message in messages:
            Draft202012Validator(schema).validate(message)


def test_the_next_persons_night_cannot_be_ended_by_an_old_command(night: InstalledNight) -> None:
    first, second = night.session("one-box", 0), night.session("one-box", 1)
    assert [(event["epoch"], event["reason"]) for event in first] == [(0, "session_end")]
    assert second[0]["subject"] == "S-02"
    begun, again, ended, unknown = night.replies
    assert begun["ok"]
    assert again == begun
    assert ended["ok"]
    assert not unknown["ok"]
    assert "there never was a session never-was" in unknown["error"]
    status = json.loads(night.before_kill["hypnocast/lab/bed/one-box/status"])
    assert status["session"] == second[0]["session"] == begun["session"]


def test_it_ends_in_good_order(night: InstalledNight) -> None:
    assert night.code == 0
    assert "Traceback" not in night.log


def test_the_log_names_sessions_the_first_stage_and_what_is_wrong_once_each(
    night: InstalledNight,
) -> None:
    lines = [json.loads(line) for line in night.first_log.splitlines() if line.startswith("{")]
    bed = [line for line in lines if line.get("bed") == "one-box"]
    assert [line["event"] for line in bed].count("first stage") == 1
    assert any(line["event"] == "session" and line["phase"] == "recording" for line in bed)
    units = [line for line in lines if line.get("bed") == "no-units"]
    withheld = [line["reason"] for line in units if line["event"] == "first page withheld"]
    assert withheld.count("unknown_unit") == 1
    problems = [line["what"] for line in units if line["event"] == "problem"]
    assert problems
    assert len(problems) == len(set(problems))


@pytest.mark.promise(5)
def test_its_tapes_give_the_same_pictures_and_stages_as_often_as_they_are_replayed(
    night: InstalledNight,
) -> None:
    parts = [("two-boxes", 0), ("two-boxes", 0), ("two-boxes", 1), ("one-box", 0), ("one-box", 1)]
    with ThreadPoolExecutor(2) as two:
        replays = list(two.map(lambda part: night.replayed(*part), parts))
    assert replays[0] | {"took_s": 0} == replays[1] | {"took_s": 0}
    live = {
        (bed, number): [event for event in night.events(bed) if event["reason"] != "daemon_down"]
        for bed, number in parts
    }
    for (bed, number), replayed in zip(parts, replays, strict=True):
        tape_began = [_ends_before(event, night.killed_at) for event in live[bed, number]]
        expected = [
            event
            for event, early in zip(live[bed, number], tape_began, strict=True)
            if early == (number == 0)
        ]
        assert expected
        _same(expected, replayed)


def _same(live: list[Any], replayed: Any) -> None:
    """Compare what was live with its replay, session by session and page by page."""
    nights = list(dict.fromkeys(event["session"] for event in live))
    again = list(dict.fromkeys(replayed["sessions"]))
    keys = ("sessions", "epochs", "pictures", "stages", "probabilities", "reasons")
    columns = (replayed[key] for key in keys)
    pages = {
        (again.index(night), epoch): rest for night, epoch, *rest in zip(*columns, strict=True)
    }
    for event in live:
        picture, stage, again_p, reason = pages[nights.index(event["session"]), event["epoch"]]
        assert (picture, reason) == (event["digests"]["picture"], event["reason"])
        best, second, *_ = sorted((event["probabilities"] or {"": 0, " ": 0}).values())[::-1]
        if best - second > 1e-3:
            assert stage == event["stage"]
        # Also on a tape that begins in the middle of a night: what was said before is on it.
        assert again_p == (
            event["probabilities"] and pytest.approx(event["probabilities"], abs=1e-3)
        )


def _ends_before(event: Any, utc: float) -> bool:
    return datetime.fromisoformat(event["end"]).timestamp() <= utc


def test_stages_come_over_lsl_as_over_mqtt_stamped_where_their_pages_end(
    night: InstalledNight,
) -> None:
    over_mqtt = {event["id"]: event for event in night.events("two-boxes")}
    newest = [event["epoch"] for event in night.events("two-boxes") if event["reason"] is None][-1]
    assert newest in {event["epoch"] for event, _ in night.lsl}
    assert all(over_mqtt[event["id"]] == event for event, _ in night.lsl)
    grid = [at - 30.0 * (event["epoch"] + 1) for event, at in night.lsl]
    assert max(grid) - min(grid) < 1e-3
    utc = [datetime.fromisoformat(event["end"]).timestamp() for event, _ in night.lsl]
    offset = time.time() - pylsl.local_clock()
    assert all(abs(at + offset - end) < 1.0 for (_, at), end in zip(night.lsl, utc, strict=True))


def test_what_hypnocast_sends_over_lsl_is_no_input_of_its_own(night: InstalledNight) -> None:
    outcome = command("streams", "--json", "--wait", "2", "-c", str(night.config))
    names = [stream["name"] for stream in json.loads(outcome.stdout)["streams"]]
    assert names
    assert not any(name.startswith("Hypnocast") for name in names)
    status = night.newest("bed/two-boxes/status")
    assert not any("ypnocast" in stream["name"] for stream in status["streams"])
