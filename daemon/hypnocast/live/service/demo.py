"""The demo: simulated beds, a broker, the daemon and its views, in one process on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hypnocast.config.tables import Config, PackTable
from hypnocast.core.timing.utc import UtcAnchor
from hypnocast.core.types import Arrival
from hypnocast.core.wire.topics import Topics
from hypnocast.dashboard.settings import DashboardSettings
from hypnocast.live.bed.sources import RecordedSource
from hypnocast.live.explaining.past_pages import PastPages, depth_of
from hypnocast.live.explaining.picture_store import PAGES, PictureStore
from hypnocast.live.service.build import JOURNAL, boot_id, make_parts, open_pack, pipeline_maker
from hypnocast.live.service.demo_truth import DemoTruth, OnPage
from hypnocast.live.service.ward import Ward, WardParts
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.mqtt.embedded_broker import embedded_broker
from hypnocast.ports.mqtt.settings import BrokerSettings
from hypnocast.simulate import SimulatedSource

SITE = "demo"
AWAKE_PAGES = 30
"""The quarter of an hour before people fall asleep is left out."""


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What the demo is to show."""

    beds: int = 2
    pages: int = 60
    """How many pages every bed has."""
    speed: float = 20.0
    port: int = 0
    """The broker's port; 0: any that is free."""
    dashboard_port: int | None = 0
    """The ward page's port; None: no ward page."""
    seed: int = 1
    pack: str = Config().pack.name


@dataclass(frozen=True, slots=True)
class DemoAddress:
    """Where to look at the demo."""

    broker: BrokerSettings
    prefix: str
    dashboard: str | None


def paced(
    arrivals: Iterator[tuple[str, Arrival]],
    speed: float,
) -> Iterator[tuple[str, Arrival]]:
    """Hand arrivals over no faster than ``speed`` times their own time."""
    began: tuple[float, float] | None = None
    for bed, arrival in arrivals:
        at = _time_of(arrival)
        if at is not None:
            now = time.monotonic()
            began = began or (now, at)
            ahead = (at - began[1]) / speed - (now - began[0])
            if ahead > 0.0:
                time.sleep(ahead)
        yield bed, arrival


async def run_demo(
    settings: DemoSettings,
    *,
    on_page: OnPage | None = None,
    started: Callable[[DemoAddress], None],
    view: Callable[[DemoAddress], asyncio.Task[None]] | None = None,
) -> None:
    """Run until every bed has its pages, or cancelled.

    ``on_page`` gets every terminal event with the simulator's stage of its page.
    """
    config = Config(pack=PackTable(name=settings.pack))
    pack = open_pack(config)
    sim = SimulatedSource(
        settings.beds,
        seed=settings.seed,
        pages=settings.pages,
        skip_pages=AWAKE_PAGES,
        truth=False,
    )
    clock = UtcAnchor(sim.clock_start, time.time())
    source = RecordedSource(paced(iter(sim), settings.speed), clock, "simulated")
    truth = DemoTruth(sim, clock, on_page)
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hypnocast-demo-"))
        broker = await stack.enter_async_context(embedded_broker(settings.port))
        journal = await stack.enter_async_context(Journal.open(Path(folder) / JOURNAL))
        parts = make_parts(config, pack, journal, live=False, on_step=lambda _: None)
        picture_store = PictureStore(Path(folder) / PAGES, pack.recipe.digest)
        stack.callback(picture_store.close)
        topics = Topics(SITE)
        ward = Ward(
            WardParts(
                source=source,
                pack=pack,
                parts=parts,
                topics=topics,
                node="demo",
                broker=broker,
                make_pipeline=pipeline_maker(
                    config, pack, source, site=SITE, boot_id=boot_id(), auto=True
                ),
                show_pages=True,
                watchers=(truth,),
                past=PastPages(picture_store, parts.judge, journal, pack, depth=depth_of(config)),
            )
        )
        truth.shown = ward.publishers.__getitem__
        address = DemoAddress(broker, topics.prefix, None)
        serving = asyncio.create_task(ward.run(), name="ward")
        try:
            address = await _open_dashboard(settings, address, stack)
            started(address)
            if view is not None:
                stack.push_async_callback(_cancel, view(address))
            await asyncio.shield(serving)
        finally:
            ward.stop()
            await asyncio.gather(serving, return_exceptions=True)


async def _open_dashboard(
    settings: DemoSettings, address: DemoAddress, stack: contextlib.AsyncExitStack
) -> DemoAddress:
    """Serve the ward page beside the demo, and print where."""
    if settings.dashboard_port is None:
        return address
    from hypnocast.dashboard.server import serve

    where: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    dashboard = DashboardSettings(
        broker=address.broker, prefix=address.prefix, port=settings.dashboard_port
    )
    task = asyncio.create_task(serve(dashboard, started=where.set_result), name="dashboard")
    stack.push_async_callback(_cancel, task)
    task.add_done_callback(lambda ended: where.done() or where.cancel(str(ended)))
    return DemoAddress(address.broker, address.prefix, await where)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _time_of(arrival: Arrival) -> float | None:
    return getattr(arrival, "arrived", None) or getattr(arrival, "at", None)
