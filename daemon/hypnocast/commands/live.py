"""``run``, ``demo``, ``simulate``, ``dashboard``, ``watch``: what keeps running."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hypnocast.commands.common import ConfigFile, print_line
from hypnocast.commands.output import writing
from hypnocast.errors import ConfigError

if TYPE_CHECKING:
    from hypnocast.config.tables import Config
    from hypnocast.core.types import StreamHeader
    from hypnocast.core.wire.payloads import StageEvent, StageName
    from hypnocast.live.service.demo import DemoAddress

Beds = Annotated[int, typer.Option(min=1, max=512, help="How many beds.")]
OtherBroker = Annotated[
    str | None, typer.Option("--broker", help="HOST or HOST:PORT, instead of the configuration's.")
]
OtherSite = Annotated[str | None, typer.Option("--site", help="Another site's id.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same nights.")]


class DemoLines:
    """Prints one line for every page of the demo, and how often the pack was right at its end."""

    def __init__(self) -> None:
        """Begin with no page."""
        self._pages: Counter[str] = Counter()
        self._right: Counter[str] = Counter()

    def page(self, event: StageEvent, simulated: StageName) -> None:
        """Print a terminal event beside the stage that was simulated."""
        if event.stage is not None:
            for what in (event.bed, simulated):
                self._pages[what] += 1
                self._right[what] += event.stage == simulated
        pages, right = self._pages[event.bed], self._right[event.bed]
        print_line(f"{event_line(event)}  simulated {simulated:<3} {right} of {pages} alike")

    def end(self) -> None:
        """Print how often the pack called a stage what the simulator meant."""
        found = [
            f"{stage} {self._right[stage]} of {self._pages[stage]}"
            for stage in ("W", "N1", "N2", "N3", "R")
            if self._pages[stage]
        ]
        if found:
            print_line(
                f"The pack called simulated pages what they were meant to be: {', '.join(found)}."
            )


def event_line(event: StageEvent) -> str:
    """Return an event as one line for people."""
    what = event.stage or f"withheld: {event.reason}"
    sure = "" if event.confidence is None else f"{event.confidence:4.0%}"
    review = "  review" if event.review else ""
    return f"{event.start[11:19]}  {event.bed:<12} page {event.epoch:<5} {what:<24}{sure}{review}"


def run(config: ConfigFile = None) -> None:
    """Serve beds: streams in, stage events out, until stopped."""
    from hypnocast.config.file import load_config
    from hypnocast.live.service.logs import set_up_logs
    from hypnocast.live.service.serve import serve
    from hypnocast.ports.system import leave_computing

    set_up_logs()
    asyncio.run(serve(load_config(config), config))
    leave_computing("judge")


def demo(
    *,
    beds: Beds = 2,
    pages: Annotated[
        int, typer.Option(min=1, max=5000, help="Pages per bed; a whole night has 960.")
    ] = 60,
    speed: Annotated[float, typer.Option(min=0.1, max=10_000, help="Times real time.")] = 20.0,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Broker's port; 0: any free.")] = 0,
    dashboard_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Ward page's port; 0: any free.")
    ] = 0,
    seed: Seed = 1,
    pack: Annotated[str | None, typer.Option(help="Another pack than the shipped one.")] = None,
    headless: Annotated[
        bool, typer.Option("--headless", help="Print one line per event; no view, no ward page.")
    ] = False,
) -> None:
    """Show everything at once, with simulated beds, on this machine only."""
    from hypnocast.live.service.demo import DemoSettings, run_demo
    from hypnocast.live.service.logs import set_up_logs

    set_up_logs(quiet=True)

    def addresses(address: DemoAddress) -> tuple[str, ...]:
        host, number = address.broker.host, address.broker.port
        mqtt = f"MQTT   mosquitto_sub -h {host} -p {number} -v -t '{address.prefix}/#'"
        return (mqtt,) if address.dashboard is None else (mqtt, f"Ward   {address.dashboard}")

    settings = DemoSettings(
        beds=beds,
        pages=pages,
        speed=speed,
        port=port,
        dashboard_port=None if headless else dashboard_port,
        seed=seed,
        **({} if pack is None else {"pack": pack}),
    )
    lines = headless or not sys.stdout.isatty()
    printed = DemoLines()

    def started(address: DemoAddress) -> None:
        print_line(
            "SIMULATED beds: no person, no diagnosis. Ctrl-C ends the demo and leaves nothing."
        )
        for line in addresses(address):
            print_line(line)

    def view(address: DemoAddress) -> asyncio.Task[None]:
        from hypnocast.dashboard.terminal import WatchSettings, watch

        # What was printed before lies behind the view.
        settings = WatchSettings(address.broker, address.prefix, below=addresses(address))
        return asyncio.create_task(watch(settings))

    async def show() -> None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            # As Ctrl-C does: nothing may be left behind, whoever ends it.
            asyncio.get_running_loop().add_signal_handler(
                number, signal.raise_signal, signal.SIGINT
            )
        await run_demo(
            settings,
            on_page=printed.page if lines else None,
            started=started,
            view=None if lines else view,
        )
        printed.end()

    asyncio.run(show())


def simulate(
    *,
    beds: Beds = 1,
    hours: Annotated[float, typer.Option(min=0.01, max=24.0, help="Length of the night.")] = 8.0,
    montage: Annotated[
        str, typer.Option(help="bipolar, referential, split, fpz-cz, …")
    ] = "bipolar",
    fault: Annotated[
        list[str] | None, typer.Option(help="A fault, e.g. dropout@600+10; may be repeated.")
    ] = None,
    seed: Seed = 1,
) -> None:
    """Send simulated polysomnography over LSL in real time, one or more beds."""
    from hypnocast.simulate import SimulatedSource
    from hypnocast.simulate.outlets import run_outlets

    source = SimulatedSource(beds, seed=seed, hours=hours, montage=montage, faults=fault or ())
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())

    def opened(header: StreamHeader) -> None:
        rate = f"{header.rate:g} Hz" if header.rate else "markers"
        print_line(f"{header.name}  source_id={header.source_id}  {len(header.channels)} × {rate}")

    print_line("SIMULATED streams on the network; Ctrl-C ends them.")
    run_outlets(source, stop=stop, opened=opened)


def dashboard(
    config: ConfigFile = None,
    *,
    broker: OtherBroker = None,
    site: OtherSite = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the page; 0: any free.")
    ] = None,
    add_user: Annotated[
        str | None, typer.Option(help="Write this user's password to users_file and end.")
    ] = None,
) -> None:
    """Serve the ward page: a browser's view of what the broker has."""
    from hypnocast.config.file import load_config
    from hypnocast.dashboard.server import serve
    from hypnocast.dashboard.settings import DashboardSettings
    from hypnocast.live.service.build import broker_settings

    loaded = load_config(config)
    if add_user is not None:
        _add_user(loaded.dashboard.users_file, add_user)
        return
    loaded = _pointed(loaded, broker, site)
    settings = DashboardSettings.of(loaded, broker_settings(loaded.broker))
    if port is not None:
        settings = dataclasses.replace(settings, port=port)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(serve(settings, started=lambda address: print_line(f"Ward page: {address}")))


def _pointed(config: Config, broker: str | None, site: str | None) -> Config:
    """Point a configuration at another broker or site, checked as if it were in the file."""
    import msgspec

    if broker is None and site is None:
        return config
    tables = msgspec.to_builtins(config)
    if broker is not None:
        host, colon, number = broker.partition(":")
        tables["broker"] |= {"host": host, "port": int(number) if number.isdecimal() else None}
        if colon and not number.isdecimal():
            raise ConfigError(f"{broker!r} is no broker", remedy="Write HOST or HOST:PORT.")
    if site is not None:
        tables["site"]["id"] = site
    try:
        return msgspec.convert(tables, type(config))
    except msgspec.ValidationError:
        raise ConfigError(
            "names no broker and site there can be",
            where="--broker, --site",
            remedy="Write HOST or HOST:PORT, and a site of 1 to 64 letters, digits, _ or -.",
        ) from None


def _add_user(users_file: str | None, user: str) -> None:
    from hypnocast.dashboard.auth import set_password

    if users_file is None:
        raise ConfigError(
            "no login file is named",
            where="[dashboard.users_file]",
            remedy="Name one in the configuration and give that with --config.",
        )
    password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    set_password(Path(users_file).expanduser(), user, password)
    print_line(f"{user} may log in ({users_file}); start the dashboard again.")


def retire(
    bed: Annotated[str, typer.Argument(help="The bed that nobody serves any more.")],
    config: ConfigFile = None,
    *,
    broker: OtherBroker = None,
    site: OtherSite = None,
) -> None:
    """Remove a bed from every screen: clear what the broker keeps of it. Its nights are kept."""
    from hypnocast.config.file import load_config
    from hypnocast.core.wire.topics import Topics
    from hypnocast.live.service.build import broker_settings
    from hypnocast.ports.mqtt.retire import retire as clear

    loaded = _pointed(load_config(config), broker, site)
    topics = Topics(loaded.site.id, loaded.broker.topic_root)
    for topic in asyncio.run(clear(broker_settings(loaded.broker), topics, bed)):
        print_line(f"cleared {topic}")


def watch(
    config: ConfigFile = None,
    *,
    broker: OtherBroker = None,
    site: OtherSite = None,
    once: Annotated[bool, typer.Option("--once", help="Print the ward once and end.")] = False,
) -> None:
    """Watch the ward in this terminal, from MQTT alone."""
    from hypnocast.config.file import load_config
    from hypnocast.dashboard.terminal import WatchSettings
    from hypnocast.dashboard.terminal import watch as look
    from hypnocast.live.service.build import broker_settings

    loaded = _pointed(load_config(config), broker, site)
    settings = WatchSettings(
        broker_settings(loaded.broker),
        loaded.prefix,
        once_after_s=2.0 if once else None,
        zone=loaded.site.timezone,
    )
    asyncio.run(look(settings))


def schema(
    folder: Annotated[Path | None, typer.Argument(help="Write the documents there.")] = None,
) -> None:
    """Print the AsyncAPI document, or write it and the JSON Schemas to a folder."""
    from hypnocast.core.wire.schema import documents
    from hypnocast.ports.durable_files import replace_file

    written = documents()
    if folder is None:
        print_line(written["asyncapi.json"].rstrip())
        return
    with writing(folder):
        for name, text in written.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, text.encode(), mode=0o666)
        print_line(str(path))
