"""Boards that BrainFlow drives, as ``hypnocast bridge brainflow`` publishes them.

https://brainflow.readthedocs.io: one library for OpenBCI, Muse, BrainBit and others. It gives EEG
in µV; its data sheet of a board (``get_board_descr``) has the rate and, where the maker has any,
names of channels.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from hypnocast.bridge.gear import BridgeRun, renamed, signal_header
from hypnocast.bridge.sample_clock import SampleClock
from hypnocast.core.types import Arrival, Chunk, StreamHeader, StreamOpened
from hypnocast.errors import ConfigError, InstallError, StreamError
from hypnocast.ports.lsl.library import load_pylsl

_POLL_S = 0.05
_SILENT_S = 5.0
_BUFFER_SAMPLES = 45_000


@dataclass(frozen=True, slots=True)
class BoardModel:
    """A board by the name that the command line has for it."""

    brainflow_id: str
    """The name of its number in BrainFlow."""
    reference: str = ""
    """What all channels are measured against, where the hardware leaves no choice."""


BOARDS: Final[Mapping[str, BoardModel]] = MappingProxyType(
    {
        "cyton": BoardModel("CYTON_BOARD"),
        "daisy": BoardModel("CYTON_DAISY_BOARD"),
        "ganglion": BoardModel("GANGLION_BOARD"),
        "ganglion-native": BoardModel("GANGLION_NATIVE_BOARD"),
        "muse-2": BoardModel("MUSE_2_BOARD", "Fpz"),
        "muse-s": BoardModel("MUSE_S_BOARD", "Fpz"),
        "brainbit": BoardModel("BRAINBIT_BOARD"),
        "synthetic": BoardModel("SYNTHETIC_BOARD"),
    }
)


@dataclass(frozen=True, slots=True)
class BoardPlace:
    """How BrainFlow finds a board; empty: by itself, where it can."""

    serial_port: str = ""
    mac_address: str = ""
    serial_number: str = ""


class BrainFlowBoard:
    """A board that BrainFlow drives."""

    def __init__(
        self, board: str, place: BoardPlace, stream_name: str, names: Mapping[str, str]
    ) -> None:
        """Take the board's name, where it is, its stream's name and other names for channels."""
        model = BOARDS.get(board)
        if model is None:
            raise ConfigError(
                f"{board!r} is no board",
                where="--board",
                remedy=f"There are {', '.join(BOARDS)}.",
            )
        self._library = _load_brainflow()
        self._board = board
        self._place = place
        self._number = self._library.BoardIds[model.brainflow_id].value
        sheet: dict[str, Any] = self._library.BoardShim.get_board_descr(self._number)
        self._rows: list[int] = sheet["eeg_channels"]
        rate = float(sheet["sampling_rate"])
        given = str(sheet.get("eeg_names", "")).split(",")
        labels = given if len(given) == len(self._rows) else [f"EEG {n}" for n in self._rows]
        if model.reference:
            labels = [f"{label}-{model.reference}" for label in labels]
        self._header: StreamHeader = signal_header(
            f"brainflow-{board}", stream_name, rate, renamed(labels, names)
        )
        self._local_clock = load_pylsl().local_clock

    @property
    def name(self) -> str:
        """What people know it by."""
        where = self._place.serial_port or self._place.mac_address or self._place.serial_number
        return f"BrainFlow {self._board}{f' at {where}' if where else ''}"

    def arrivals(self, run: BridgeRun) -> Iterator[Arrival]:
        """Connect, start the board, and give what it sends."""
        library = self._library
        library.BoardShim.disable_board_logger()
        wanted = library.BrainFlowInputParams()
        wanted.serial_port = self._place.serial_port
        wanted.mac_address = self._place.mac_address
        wanted.serial_number = self._place.serial_number
        shim = library.BoardShim(self._number, wanted)
        try:
            shim.prepare_session()
            shim.start_stream(_BUFFER_SAMPLES)
            yield from self._samples(shim, run.stop)
        except library.BrainFlowError as error:
            raise StreamError(f"BrainFlow says {error}", where=self.name) from error
        finally:
            if shim.is_prepared():
                shim.release_session()

    def _samples(self, shim: Any, stop: threading.Event) -> Iterator[Arrival]:
        clock = SampleClock(self._header.rate)
        last: float = self._local_clock()
        yield StreamOpened(self._header, last)
        while not stop.wait(_POLL_S):
            rows = shim.get_board_data()
            now: float = self._local_clock()
            count = rows.shape[1]
            if count:
                samples = np.ascontiguousarray(rows[self._rows].T, dtype=np.float32)
                yield Chunk(self._header.key, samples, clock.stamps(count, now), now)
                last = now
            elif now - last > _SILENT_S:
                raise StreamError(f"has sent nothing for {_SILENT_S:g} s", where=self.name)


def _load_brainflow() -> Any:
    """Return BrainFlow's board module, or say how to get it."""
    try:
        return importlib.import_module("brainflow.board_shim")
    except (ImportError, OSError) as error:
        raise InstallError(
            "BrainFlow cannot be loaded",
            where="brainflow",
            remedy="Install it with: pip install 'hypnocast[brainflow]'",
        ) from error
