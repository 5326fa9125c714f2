"""Draws the pictures of a night's report and of an answer to ``why``, for the documentation.

The night is simulated, taped and judged by the pack that ships, as the daemon does it.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from zoneinfo import ZoneInfo

from hypnocast.config.tables import Config
from hypnocast.nights.night_view import open_night
from hypnocast.nights.report import report
from hypnocast.nights.sheet import save
from hypnocast.nights.why import answer
from hypnocast.nights.why_sheet import why_sheet
from hypnocast.simulate import SimulatedSource
from hypnocast.stagers.packs.catalogue import resolve_pack
from support.brokers import free_port
from support.taped_nights import tape_nights

PAGES = 900
FAULTS = ("bed-01/detached:E1-M2@9000+1200", "bed-01/dropout@17000+300")
ZONE = ZoneInfo("Europe/Berlin")


def draw_reports(folder: Path) -> None:
    """Draw ``report.png`` and ``why.png`` into a folder."""
    sim = SimulatedSource(1, seed=11, pages=PAGES, faults=FAULTS)
    with tempfile.TemporaryDirectory() as scratch:
        pack = resolve_pack(Config().pack.name)
        taped = asyncio.run(tape_nights(Path(scratch), pack, sim, port=free_port()))
        view = open_night(taped.config, "latest")
        save(report(view, ZONE), folder / "report.png", "png")
        dreams = [k for k, stage in enumerate(view.stages) if stage == "R"]
        epoch = dreams[len(dreams) // 2] if dreams else view.night.epochs // 2
        save(why_sheet(answer(taped.config, view, epoch), ZONE), folder / "why.png", "png")
