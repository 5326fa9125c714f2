"""Group *loop*: how soon an experiment can react, over LSL alone.

``hypnocast run`` in one process, an LSL outlet of one simulated bed in another, and a listener on
the stream of probabilities, as a closed loop would have it. The stamp of a verdict is the LSL time
of the newest sample that it judges, and all three share this host's clock: what lies between the
stamp and the verdict's arrival is everything, from the sample being taken to the verdict in hand.
The second of signal that the recipe filters with after the window is part of it.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hypnocast.bench.figures import Figure
from hypnocast.bench.ward import RUN, SERVICE, SITE, config_text, running
from hypnocast.bench.watched_ward import any_broker
from hypnocast.errors import HypnocastError
from hypnocast.ports.lsl.library import LslNetwork, load_pylsl
from hypnocast.stagers.packs.pack import Pack

HOPS_S: Final = (1.0, 5.0)
CHUNK_S: Final = 0.03125
"""How often the simulated amplifier sends: 8 samples at 256 Hz."""

_START_S = 120.0
"""By then the first verdict has come: it needs a stream, a session and 30 s of signal."""


def measure(pack: Pack, folder: Path, *, seconds: float) -> Iterator[Figure]:
    """Measure at each hop for some time after the first verdict."""
    session = f"bench-loop-{os.getpid()}"
    network = LslNetwork(peers=("127.0.0.1",), scope="machine", session_id=session)
    folder.mkdir()
    lsl = folder / "lsl_api.cfg"
    lsl.write_text(network.content(), encoding="utf-8")
    # For all three processes: liblsl reads it at its first use, here too.
    os.environ["LSLAPICFG"] = str(lsl)
    for hop_s in HOPS_S:
        part = folder / f"hop-{hop_s:g}"
        part.mkdir()
        latencies = asyncio.run(_over_lsl(pack, part, lsl, hop_s, seconds))
        yield Figure("loop", f"hop {hop_s:g} s: sample to rolling verdict", "s", latencies)


async def _over_lsl(
    pack: Pack, folder: Path, lsl: Path, hop_s: float, seconds: float
) -> list[float]:
    async with any_broker(folder) as broker:
        config = folder / "hypnocast.toml"
        bed = '[session]\nauto = true\n[[bed]]\nid = "loop"\nstreams = [{ type = "EEG" }]\n'
        text = f"{config_text(pack, folder, broker)}\n[publish]\nhop_s = {hop_s}\n{bed}"
        config.write_text(text, encoding="utf-8")
        run = [sys.executable, "-c", RUN, "run", "--config", str(config)]
        send = [sys.executable, "-m", "hypnocast.bench.outlets", "1", str(lsl), str(CHUNK_S)]
        with running(run, os.environ | SERVICE) as daemon, running(send, dict(os.environ)):
            return await asyncio.to_thread(_listen, daemon, hop_s, seconds)


def _listen(daemon: subprocess.Popen[bytes], hop_s: float, seconds: float) -> list[float]:
    """Return for each verdict how long after its newest sample it came."""
    pylsl = load_pylsl()
    deadline = time.monotonic() + _START_S
    found = pylsl.resolve_byprop("source_id", f"hypnocast/{SITE}/loop/probabilities", 1, _START_S)
    latencies: list[float] = []
    if found:
        inlet = pylsl.StreamInlet(found[0])
        while time.monotonic() < deadline and daemon.poll() is None:
            sample, window_end = inlet.pull_sample(hop_s)
            came = pylsl.local_clock()
            if sample is None:
                continue
            if not latencies:
                deadline = time.monotonic() + seconds
            latencies.append(came - window_end)
        inlet.close_stream()
    if not latencies:
        raise HypnocastError("no verdict came", where="bench loop", remedy="Is LSL blocked?")
    return latencies
