"""Simulated beds as LSL outlets until ended.

``python -m hypnocast.bench.outlets BEDS CFG [CHUNK_S]``; a chunk is sent every ``CHUNK_S``. Their
LSL session is that of the given configuration file, so that nobody else's daemon sees them.
"""

from __future__ import annotations

import re
import signal
import sys
import threading
from pathlib import Path

from hypnocast.ports.lsl.library import LslNetwork
from hypnocast.simulate import SimulatedSource
from hypnocast.simulate.outlets import run_outlets


def main(beds: int, settings: Path, chunk_s: float = 0.25) -> None:
    """Send until SIGTERM, a chunk every so many seconds."""
    text = settings.read_text(encoding="utf-8")
    named = re.search(r"^SessionID\s*=\s*(\S+)", text, re.MULTILINE)
    network = LslNetwork(
        scope="machine",
        port_range=4 * beds + 64,
        session_id=named[1] if named else None,
    )
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    source = SimulatedSource(beds, seed=1, hours=2.0, skip_pages=30, truth=False, chunk_s=chunk_s)
    run_outlets(source, stop=stop, network=network)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), *map(float, sys.argv[3:]))
