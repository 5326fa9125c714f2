"""``bench``: what Hypnocast costs on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hypnocast.commands.common import Json, print_json, print_line
from hypnocast.commands.output import writing

if TYPE_CHECKING:
    from hypnocast.bench.figures import Figure

Groups = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[GROUP]...",
        help="start, picture, verdict, path, night, ward, generate; by name or with --long: "
        "loop, crowd.",
    ),
]


def bench(
    groups: Groups = None,
    *,
    pack: Annotated[str | None, typer.Option(help="Another pack than the shipped one.")] = None,
    long: Annotated[bool, typer.Option("--long", help="The soak: half an hour and more.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File for conditions and raw samples, as JSON."),
    ] = None,
    yasa: Annotated[
        Path | None,
        typer.Option(help="Python of an environment with YASA, which then stages the night too."),
    ] = None,
    beds: Annotated[int | None, typer.Option(min=1, help="So many beds in ward and path.")] = None,
    minutes: Annotated[float | None, typer.Option(min=1.0, help="So long in ward.")] = None,
    json: Json = False,
) -> None:
    """Measure against the targets; one table, every raw sample kept."""
    import json as text
    import tempfile

    from hypnocast.bench.run import GROUPS, SHORT, Effort, run
    from hypnocast.config.tables import Config
    from hypnocast.errors import ConfigError
    from hypnocast.live.service.logs import set_up_logs
    from hypnocast.stagers.packs.catalogue import resolve_pack
    from hypnocast.stagers.packs.pack import load_pack

    set_up_logs(quiet=True)
    named = groups or (GROUPS if long else SHORT)
    wanted = tuple(group for group in GROUPS if group in named)
    unknown = set(groups or ()) - set(GROUPS)
    if unknown:
        raise ConfigError(
            f"there is no group {', '.join(sorted(unknown))}",
            where="bench",
            remedy=f"Groups are {', '.join(GROUPS)}.",
        )
    opened = load_pack(resolve_pack(pack or Config().pack.name))
    with tempfile.TemporaryDirectory(prefix="hypnocast-bench-") as folder:
        report = run(
            wanted,
            Effort(opened, Path(folder), long, yasa, beds, minutes),
            found=_nothing if json else _print_figure,
        )
    answer = report.to_json()
    if output is not None:
        from hypnocast.ports.durable_files import replace_file

        with writing(output):
            measured = text.dumps(answer, indent=1, ensure_ascii=False)
            replace_file(output, measured.encode(), mode=0o666)
    if json:
        print_json(answer)
        return
    for line in report.lines():
        print_line(line)


def _print_figure(figure: Figure) -> None:
    """Print on standard error what was found, for those who wait."""
    typer.echo(f"{figure.group}: {figure.name}", err=True)


def _nothing(_: Figure) -> None:
    """Print nothing."""
