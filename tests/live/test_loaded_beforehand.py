"""Nothing is loaded on the thread that draws: beside busy threads that lasted up to a minute."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from pathlib import Path

from hypnocast.ports.thread_stacks import thread_stacks
from hypnocast.simulate.source import SimulatedSource
from support.packs import make_tiny_pack

DRAW = """
import pickle, sys
from pathlib import Path
from hypnocast.config.tables import Config, PackTable, PublishTable
from hypnocast.core.timing.utc import UtcAnchor
from hypnocast.live.bed.bed_updates import ClosedPage
from hypnocast.live.bed.sources import RecordedSource
from hypnocast.core.pictures.compressed import png
from hypnocast.live.service.build import open_pack, pipeline_maker

pack, arrivals = sys.argv[1:]
config = Config(pack=PackTable(name=pack), publish=PublishTable(evidence=True))
arrivals = pickle.loads(Path(arrivals).read_bytes())
source = RecordedSource(arrivals, UtcAnchor(1000.0, 1.8e9), "simulated")
make = pipeline_maker(config, open_pack(config), source, boot_id="boot", auto=True)
loaded = set(sys.modules)
pages = []
pipeline = make("bed", lambda item: pages.append(item) if isinstance(item, ClosedPage) else None)
for _, arrival in arrivals:
    pipeline.add(arrival)
    pipeline.step(None)
pictures = [page.outcome.rgb for page in pages if hasattr(page.outcome, "rgb")]
png(pictures[0])
print(sorted(set(sys.modules) - loaded))
"""


def test_all_that_drawing_needs_is_loaded_before_its_thread_begins(tmp_path: Path) -> None:
    pack = make_tiny_pack(tmp_path / "tiny")
    arrivals = tmp_path / "arrivals"
    arrivals.write_bytes(pickle.dumps(list(SimulatedSource(1, pages=2, truth=False))))
    drawn = subprocess.run(
        [sys.executable, "-c", DRAW, str(pack), str(arrivals)],
        capture_output=True, text=True, check=False, timeout=120.0,
    )  # fmt: skip
    assert drawn.returncode == 0, drawn.stderr
    assert drawn.stdout == "[]\n"


def test_where_a_thread_stands_is_logged_with_the_calls_it_is_in() -> None:
    held, go = threading.Event(), threading.Event()

    def stand_here() -> None:
        held.set()
        go.wait(20.0)

    thread = threading.Thread(target=stand_here, name="drawing")
    thread.start()
    assert held.wait(20.0)
    stacks = thread_stacks()
    go.set()
    thread.join()
    assert "stand_here" in stacks["drawing"]
    assert "threading.py" in stacks["drawing"]
    assert "s of processor time" in stacks["drawing"]
    assert "test_where_a_thread_stands" in stacks["MainThread"]
