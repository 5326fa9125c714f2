"""``streams``, ``check`` and ``doctor``: what is there, what would be done, what is wrong."""

from __future__ import annotations

from typing import Annotated

import typer

from hypnocast.commands.common import ConfigFile, Json, print_json, print_line


def streams(
    config: ConfigFile = None,
    *,
    wait: Annotated[float, typer.Option(min=0.5, max=60.0, help="Seconds to listen.")] = 3.0,
    toml: Annotated[
        bool, typer.Option("--toml", help="Print a configuration for what was found.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what is on the network: rates, channels, units, the montage chosen and why."""
    from hypnocast.config.file import load_config
    from hypnocast.live.service.stream_config import as_toml
    from hypnocast.live.service.stream_survey import survey

    found = survey(load_config(config), wait_s=wait)
    if json:
        print_json(found.to_json())
        return
    for line in as_toml(found) if toml else found.lines():
        print_line(line)


def check(config: ConfigFile = None, *, json: Json = False) -> None:
    """Check what ``run`` would do with this configuration; exit code 1 if something is wrong."""
    from hypnocast.config.file import load_config
    from hypnocast.live.service.check import check_all

    findings = check_all(load_config(config))
    if json:
        print_json([finding.to_json() for finding in findings])
    else:
        for finding in findings:
            print_line(finding.line())
    if any(finding.bad for finding in findings):
        raise typer.Exit(1)


def doctor(config: ConfigFile = None, *, json: Json = False) -> None:
    """Print one page about this installation and the daemon that runs, to paste into a report."""
    from hypnocast.config.file import load_config
    from hypnocast.live.service.check import installation

    facts = installation(load_config(config))
    if json:
        print_json(facts)
        return
    width = max(map(len, facts))
    for key, value in facts.items():
        print_line(f"{key:<{width}}  {value}")
