"""``bridge``: gear that has no LSL of its own, published as LSL streams."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hypnocast.commands.common import ConfigFile, print_line
from hypnocast.errors import ConfigError

if TYPE_CHECKING:
    from hypnocast.bridge.gear import Gear

bridge = typer.Typer(
    help="Publish gear that has no LSL of its own as LSL streams.", no_args_is_help=True
)

StreamName = Annotated[
    str, typer.Option("--name", help="The stream's name; give each bed another.")
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--label", metavar="OLD=NEW", help="Rename a channel, e.g. 3=C4-M1; may be repeated."
    ),
]
Server = Annotated[str, typer.Argument(metavar="HOST[:PORT]", help="Where the server is.")]


@bridge.command("brainflow")
def brainflow(
    *,
    board: Annotated[
        str, typer.Option(help="cyton, daisy, ganglion, muse-2, muse-s, brainbit, synthetic, …")
    ],
    serial_port: Annotated[str, typer.Option(help="Of the dongle, e.g. /dev/ttyUSB0.")] = "",
    mac_address: Annotated[str, typer.Option(help="Of a Bluetooth board.")] = "",
    serial_number: Annotated[str, typer.Option(help="Of the board, where several are on.")] = "",
    label: Labels = None,
    name: StreamName = "",
    config: ConfigFile = None,
) -> None:
    """Publish an OpenBCI, Muse or BrainBit board by BrainFlow."""
    from hypnocast.bridge.brainflow_boards import BoardPlace, BrainFlowBoard

    place = BoardPlace(serial_port, mac_address, serial_number)
    _run(BrainFlowBoard(board, place, name or board, _names(label)), config)


@bridge.command("rda")
def rda(
    server: Server, *, label: Labels = None, name: StreamName = "brainvision",
    config: ConfigFile = None,
) -> None:  # fmt: skip
    """Publish BrainVision Recorder by its Remote Data Access; port 51244 where none is given."""
    from hypnocast.bridge.rda import PORT, RdaRecorder
    from hypnocast.bridge.tcp import TcpAddress

    _run(RdaRecorder(TcpAddress.parse(server, PORT), name, _names(label)), config)


@bridge.command("zmax")
def zmax(
    server: Server = "127.0.0.1", *, label: Labels = None, name: StreamName = "zmax",
    config: ConfigFile = None,
) -> None:  # fmt: skip
    """Publish a ZMax headband by Hypnodyne's HDServer; port 8000 where none is given."""
    from hypnocast.bridge.tcp import TcpAddress
    from hypnocast.bridge.zmax import PORT, ZmaxHeadband

    _run(ZmaxHeadband(TcpAddress.parse(server, PORT), name, _names(label)), config)


@bridge.command("file")
def file(
    recording: Annotated[
        Path, typer.Argument(metavar="FILE", help="EDF or BDF that grows; or a finished recording.")
    ],
    *,
    play: Annotated[
        bool,
        typer.Option("--play", help="From the beginning, in real time; XDF and tapes always are."),
    ] = False,
    delay: Annotated[
        float | None,
        typer.Option(min=0.0, max=600.0, help="Seconds to hold back what a recorder writes."),
    ] = None,
    label: Labels = None,
    name: StreamName = "",
    config: ConfigFile = None,
) -> None:
    """Publish an EDF or BDF file while a recorder writes it, or play a recording."""
    from hypnocast.bridge.growing_file import GrowingFile
    from hypnocast.bridge.played_file import PlayedFile, begins_as_xdf

    gear: Gear
    if play or recording.suffix.lower() in (".xdf", ".xdfz") or begins_as_xdf(recording):
        gear = PlayedFile(recording, name, _names(label))
    else:
        gear = GrowingFile(recording, name or recording.stem, _names(label), delay_s=delay)
    _run(gear, config)


def _names(label: Sequence[str] | None) -> dict[str, str]:
    """Read ``OLD=NEW``."""
    names = {}
    for each in label or ():
        old, equals, new = each.partition("=")
        if not (old.strip() and equals and new.strip()):
            raise ConfigError(f"{each!r} renames nothing", where="--label", remedy="Write OLD=NEW.")
        names[old.strip()] = new.strip()
    return names


def _run(gear: Gear, config: Path | None) -> None:
    """Publish until Ctrl-C or SIGTERM, with the ``[lsl]`` of the configuration."""
    from hypnocast.bridge.gear import run_bridge
    from hypnocast.config.file import load_config
    from hypnocast.live.service.lsl_settings import network_of

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    run_bridge(gear, stop=stop, say=print_line, network=network_of(load_config(config)))
