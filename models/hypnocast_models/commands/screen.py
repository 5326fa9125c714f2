"""What the commands show while they work, and what they print."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from hypnocast.errors import CommandError

if TYPE_CHECKING:
    from rich.progress import Progress


def _fifty_or_sixty(hertz: int) -> int:
    if hertz not in (50, 60):
        raise CommandError(f"{hertz} Hz is no mains frequency", where="--mains", remedy="50 or 60.")
    return hertz


Mains = Annotated[int, typer.Option(help="Mains frequency, 50 or 60 Hz.", callback=_fifty_or_sixty)]
Least = Annotated[
    float | None,
    typer.Option(min=0.0, max=1.0, help="Least coverage, in place of the pack's; recorded."),
]


def check_gains(gains: Sequence[float] | None) -> None:
    """Refuse a gain that no amplifier has."""
    for gain in gains or ():
        if not 0 < gain < math.inf:
            raise CommandError(f"{gain:g} is no gain", where="--gain", remedy="Above 0, as 0.5.")


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Show progress bars on standard error, where it is a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield progress


@contextmanager
def stopped_cleanly() -> Iterator[None]:
    """Say that a training was ended by a signal, and end with the exit code that shells expect."""
    from hypnocast_models.tune.run_folder import Stopped

    try:
        yield
    except Stopped as stopped:
        print_line(f"{stopped} and kept it; the same command goes on from there")
        raise typer.Exit(128 + stopped.signal) from None


def print_line(line: str) -> None:
    """Print a line on standard output."""
    typer.echo(line)
