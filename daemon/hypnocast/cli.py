"""The command line. Each command loads only what it needs, so that ``--help`` is quick.

Exit codes: 0 good, 1 it ran and found a fault, 2 misuse. An error is one line on standard error
that says what is wrong, where, and what to do.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from hypnocast import __version__
from hypnocast.commands import bench, checks, live, nights, recordings
from hypnocast.commands.bridge import bridge
from hypnocast.commands.common import run_app
from hypnocast.commands.packs import packs

app = typer.Typer(
    name="hypnocast",
    help="Live sleep staging with a vision-language model: LSL in, MQTT out. "
    "Research software: no diagnosis, no alarm function.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _root(
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    if version:
        typer.echo(f"hypnocast {__version__}")
        raise typer.Exit


for _command in (
    live.demo,
    live.run,
    checks.check,
    checks.streams,
    live.simulate,
    recordings.replay,
    recordings.page,
    live.watch,
    live.retire,
    live.dashboard,
    nights.nights,
    nights.report,
    nights.why,
    nights.export,
    nights.corrections,
    live.schema,
    checks.doctor,
    bench.bench,
):
    app.command()(_command)
app.add_typer(packs, name="pack")
app.add_typer(bridge, name="bridge")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit code.

    What a script starts in the background inherits an interrupt that is ignored, and could then
    not be ended by any signal that is passed on as one.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return run_app(app, "hypnocast", arguments)
