"""Every parser that meets the outside: good inputs of it, and how it is called."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import edfio
import numpy as np

from attacks.bad_messages import REFUSED, SHOWN, a_stage, a_status
from hypnocast.bridge.rda_messages import RdaDecoder
from hypnocast.bridge.zmax import ZmaxDecoder
from hypnocast.config.file import load_config
from hypnocast.core.montage.choice import choose_montage
from hypnocast.core.types import (
    ChannelInfo,
    Chunk,
    ClockReading,
    Mark,
    StreamHeader,
    StreamLost,
    StreamOpened,
)
from hypnocast.dashboard.view import card, fold
from hypnocast.dashboard.ward import Incoming, WardView
from hypnocast.ports.hypnograms.scored_files import read_scoring
from hypnocast.ports.mqtt.command_inbox import CommandInbox
from hypnocast.ports.recordings import xdf_encode as xdf
from hypnocast.ports.recordings.files import open_recording
from hypnocast.ports.recordings.tape import Tape
from hypnocast.ports.stream_xml import parse_header, write_header
from hypnocast.stagers.onnx.inspection import inspect_onnx
from hypnocast.stagers.packs.pack import verify_pack
from support.gear_bytes import rda, rda_block, rda_start, zmax_packet
from support.packs import make_tiny_pack

DOCS = Path(__file__).resolve().parents[2] / "docs"
MOST_ARRIVALS = 2000


@dataclass(frozen=True)
class FuzzTarget:
    """One parser."""

    name: str
    seeds: tuple[bytes, ...]
    read: Callable[[bytes], object]
    """Reads an input; may raise :class:`~hypnocast.errors.HypnocastError` and nothing else."""
    spoiled: tuple[bytes, ...] = ()
    """More to make bad inputs of; these need not be good themselves."""


def targets(folder: Path) -> list[FuzzTarget]:
    """Return all of them; ``folder`` is for files."""
    return [
        header_target(),
        command_target(),
        viewer_target(),
        _config(folder),
        _manifest(folder),
        _onnx(folder),
        _edf(folder),
        _xdf(folder),
        _tape(folder),
        _scored(folder),
        _rda(),
        FuzzTarget("ZMax", (zmax_packet(32768, 40000) * 4, b"DEBUG.x\n"), ZmaxDecoder().feed),
    ]


def _rda() -> FuzzTarget:
    """Return the reading of what a BrainVision Recorder sends, as one connection."""
    block = rda_block(1, np.ones((3, 2), dtype=np.float32), [(1, "Stimulus", "S  1")])
    begin = rda_start(("F4", "Cz"), 2000.0, (0.1, 0.5))
    seeds = (begin + block + rda(3), begin + rda_block(2, np.ones((3, 2), dtype=np.int16)))
    return FuzzTarget("BrainVision RDA", seeds, lambda data: list(RdaDecoder().feed(data)))


def viewer_target() -> FuzzTarget:
    """Return what viewers make of a message: a topic, a line's end, a payload."""
    calm = WardView()
    for leaf, payload in (("status", a_status("calm")), ("stage", a_stage("calm"))):
        calm = fold(calm, Incoming(f"bed/calm/{leaf}", payload, retained=True, at=time.time()))
    assert calm.refused == 0, calm.refusal
    shown = card(calm.beds["calm"], calm)

    def read(data: bytes) -> object:
        topic, _, payload = data.partition(b"\n")
        words = topic.decode("utf-8", "replace")
        ward = fold(calm, Incoming(words, payload, retained=True, at=2e9))
        for bed in ward.beds.values():
            card(bed, ward)
        if not words.startswith(("bed/calm/", "daemon/")):
            assert card(ward.beds["calm"], ward) == shown, "another bed's card changed"
        return ward

    found = [*REFUSED.values(), *SHOWN.values(), ("bed/b/status", a_status("b")),
            ("bed/b/stage", a_stage("b")), ("daemon/n/available", b"online")]  # fmt: skip
    seeds = tuple(
        topic.encode() + b"\n" + payload for topic, payload in found if len(payload) < 16_000
    )
    return FuzzTarget("messages to viewers", seeds, read)


def _scored(folder: Path) -> FuzzTarget:
    """Return the reading of a scored file, with a sample of every format."""
    path = folder / "scored"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return read_scoring(path)

    samples = Path(__file__).resolve().parents[1] / "ports" / "scored"
    seeds = [one.read_bytes() for one in sorted(samples.iterdir()) if one.suffix != ".md"]
    return FuzzTarget("scored file", tuple(seeds), read)


# --- texts --------------------------------------------------------------------------------------


def _header(labels: tuple[str, ...] = ("F4-M1", "C4", "M1", "Chin1-Chin2")) -> StreamHeader:
    channels = tuple(ChannelInfo(label, "uV", "EEG", 0.1) for label in labels)
    return StreamHeader("eeg", "eeg", "EEG", "amp-1", "uid-1", "host", 256.0, channels)


def header_target() -> FuzzTarget:
    """Return the reading of a stream's header, and what is made of it."""

    def read(data: bytes) -> object:
        described = parse_header(data.decode("utf-8", "replace"))
        return choose_montage([described.header]), write_header(described.header)

    seeds = (write_header(_header()), write_header(_header(("EEG F4-A1", "LOC", "EOG Left"))))
    return FuzzTarget("LSL metadata", tuple(seed.encode() for seed in seeds), read)


def command_target() -> FuzzTarget:
    """Return the reading of a command, up to where it would be obeyed."""
    replies: list[bytes] = []
    nothing: Any = None
    inbox = CommandInbox(nothing, nothing, lambda _, reply: replies.append(reply))

    def read(data: bytes) -> object:
        inbox._budgets.clear()
        inbox._read.clear()
        inbox.receive("bed1", data, retained=False)
        for queue in inbox._queues.values():
            while not queue.empty():
                queue.get_nowait()
        for reply in replies:
            assert json.loads(reply)["ok"] is False
        replies.clear()
        return replies

    at = "2026-03-02T22:00:00.000Z"
    commands: list[dict[str, object]] = [
        {"command": "start_session", "request": "r1", "subject": "s-17", "phase": "recording"},
        {"command": "end_session", "request": "r2", "session": "bed1-1"},
        {"command": "lights_off", "request": "r3", "session": "bed1-1", "at": at},
        {"command": "note", "request": "r4", "session": "bed1-1", "text": "coughs", "at": at},
        {"command": "accept_stream", "request": "r7", "session": "bed1-1"},
        {"command": "page", "request": "r8", "session": "bed1-1", "epoch": 3},
        {"command": "explain", "request": "r5", "session": "bed1-1", "epoch": 3},
        {"command": "catch_up", "request": "r6", "since": 12, "limit": 100},
    ]
    return FuzzTarget("MQTT command", tuple(json.dumps(one).encode() for one in commands), read)


def _config(folder: Path) -> FuzzTarget:
    path = folder / "hypnocast.toml"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return load_config(path)

    whole = (DOCS / "hypnocast.toml").read_bytes()
    small = (
        b'[broker]\nhost = "127.0.0.1"\nport = 1883\n[[bed]]\nid = "b"\nstreams = [{name = "x"}]\n'
    )
    return FuzzTarget("configuration", (whole, small, small), read)


def _manifest(folder: Path) -> FuzzTarget:
    pack = make_tiny_pack(folder / "manifest", family="contrastive")
    other = make_tiny_pack(folder / "generative")
    seeds = ((pack / "pack.toml").read_bytes(), (other / "pack.toml").read_bytes())

    def read(data: bytes) -> object:
        (pack / "pack.toml").write_bytes(data)
        return verify_pack(pack)

    return FuzzTarget("pack.toml", seeds, read)


def _onnx(folder: Path) -> FuzzTarget:
    pack = make_tiny_pack(folder / "graphs")
    path = folder / "model.onnx"
    seeds = tuple((pack / f"{name}.onnx").read_bytes() for name in ("embed_tokens",))
    decoder = (pack / "decoder_model_merged.onnx").read_bytes()

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return inspect_onnx(path, "model.onnx")

    # Most of a decoder are numbers; its graph lies in the first kilobytes.
    return FuzzTarget("ONNX", seeds, read, spoiled=(decoder[:20_000], decoder))


# --- recordings -----------------------------------------------------------------------------------


def _recording(path: Path) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        path.write_bytes(data)
        recording = open_recording(path)
        return sum(1 for _ in itertools.islice(recording.arrivals(), MOST_ARRIVALS))

    return read


def _edf(folder: Path) -> FuzzTarget:
    noise = np.random.default_rng(1)
    seeds: list[bytes] = []
    make: Any
    signal: Any
    for make, signal in ((edfio.Edf, edfio.EdfSignal), (edfio.Bdf, edfio.BdfSignal)):
        signals = [
            signal(noise.normal(0, 30, 300), 100, label=label, physical_dimension="uV")
            for label in ("F4-M1", "Chin")
        ]
        path = folder / "seed.edf"
        make(signals).write(path)
        seeds.append(path.read_bytes())
        make(signals, annotations=[edfio.EdfAnnotation(1.0, 1.0, "Lights off")]).write(path)
        seeds.append(path.read_bytes())
    return FuzzTarget("EDF", tuple(seeds), _recording(folder / "night.edf"))


def _xdf(folder: Path) -> FuzzTarget:
    header = write_header(_header())
    stamps = np.arange(50) / 256.0
    values = np.random.default_rng(2).normal(0, 30, (50, 4)).astype(np.float32)
    file_header = b"<info><version>1.0</version><datetime>2026-03-02T22:00:00</datetime></info>"
    whole = b"".join(
        (
            xdf.MAGIC,
            xdf.chunk(xdf.FILE_HEADER, file_header),
            xdf.chunk(xdf.STREAM_HEADER, header.encode(), 1),
            xdf.samples(1, values, stamps, interval=1 / 256.0),
            xdf.clock_offset(1, at=0.1, offset=0.5),
            xdf.boundary(),
            xdf.samples(1, values, stamps + 1.0, interval=1 / 256.0),
        )
    )
    return FuzzTarget("XDF", (whole,), _recording(folder / "night.xdf"))


def _tape(folder: Path) -> FuzzTarget:
    tape = Tape(folder, "seed", facts={"bed": "bed1", "lsl_time": "0.0", "utc_time": "1.8e9"})
    stamps = np.arange(50) / 256.0
    values = np.random.default_rng(3).normal(0, 30, (50, 4)).astype(np.float32)
    tape.write(StreamOpened(_header(), 0.0))
    tape.write(ClockReading("eeg", 0.0, 0.001))
    tape.write(Chunk("eeg", values, stamps, 0.2))
    markers = replace(_header(("",)), key="marks", name="marks", rate=0.0, format="string")
    tape.write(StreamOpened(markers, 0.25))
    tape.write(Mark("marks", 0.3, "lights off", 0.3))
    tape.note('{"decided": "anchor"}', 0.4)
    tape.write(Chunk("eeg", values, stamps + 0.2, 0.4))
    tape.write(StreamLost("eeg", 0.5))
    path = tape.path
    tape.close()
    return FuzzTarget("tape", (path.read_bytes(),), _recording(folder / "tape_001.xdf"))
