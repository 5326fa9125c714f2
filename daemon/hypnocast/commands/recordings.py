"""``replay`` and ``page``: what there is to do with tapes and recordings."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from hypnocast.commands.common import ConfigFile, Json, print_json, print_line
from hypnocast.commands.output import writing

Recorded = Annotated[
    Path, typer.Argument(metavar="FILE", help="A tape, XDF, EDF, EDF+ or BDF file.")
]


def replay(
    recording: Recorded,
    config: ConfigFile = None,
    *,
    bed: Annotated[str, typer.Option(help="Name of the bed; default: the file's.")] = "",
    journal: Annotated[Path | None, typer.Option(help="Keep the journal in this folder.")] = None,
    mqtt: Annotated[bool, typer.Option("--mqtt", help="Send to the configured broker.")] = False,
    decide_anew: Annotated[
        bool, typer.Option("--decide-anew", help="Do not obey the tape's decisions about time.")
    ] = False,
    json: Json = False,
) -> None:
    """Send a recorded night through the pipeline, as fast as it goes."""
    from hypnocast.config.file import load_config
    from hypnocast.live.service.logs import set_up_logs
    from hypnocast.nights.replay import ReplaySettings, replay_with_progress

    set_up_logs(quiet=True)
    settings = ReplaySettings(
        recording, bed=bed, journal=journal, to_broker=mqtt, obey=not decide_anew
    )
    with writing(journal, keep=True):
        outcome = asyncio.run(replay_with_progress(load_config(config), settings))
    if json:
        print_json(outcome.to_json())
        return
    for line in outcome.lines():
        print_line(line)


def page(
    recording: Recorded,
    epoch: Annotated[int, typer.Argument(min=0, help="Number of the page, from 0.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="PNG file; default: page-N.png.")
    ] = None,
    config: ConfigFile = None,
    *,
    bed: Annotated[
        str, typer.Option(help="By this bed's roles and units; default: the file's name.")
    ] = "",
    recipe: Annotated[
        str | None, typer.Option(help="A built-in recipe; default: that of the pack.")
    ] = None,
    labels: Annotated[
        bool, typer.Option("--labels", help="Time and µV scale, outside the picture.")
    ] = False,
) -> None:
    """Draw one page of a recording to a PNG, exactly as a model sees it."""
    from rich.console import Console

    from hypnocast.config.file import load_config
    from hypnocast.nights.one_page import draw_from_file

    target = output or Path(f"page-{epoch}.png")
    with Console(stderr=True).status("reading …") as status:

        def passed(number: int) -> None:
            status.update(f"page {number} of the way to {epoch}")

        drawn = draw_from_file(
            load_config(config), recording, epoch, recipe, bed=bed, passed=passed
        )
    with writing(target):
        drawn.save(target, labels=labels)
    print_line(f"{target}  {drawn.picture.digest}  {drawn.words()}")
