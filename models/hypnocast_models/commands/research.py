"""The researcher's commands: data sets, comparison, archives, experiments.

They hold the options and the printing; the work is imported when a command is called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hypnocast.commands.common import Json, print_json, print_line
from hypnocast.commands.output import writing
from hypnocast.errors import CommandError
from hypnocast_models.commands.screen import Least, Mains, stopped_cleanly

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hypnocast_models.compare.hypnogram import ScoredHypnogram
    from hypnocast_models.readers.datasets import FoundRecording
    from hypnocast_models.staging.archive import Outcome

research = typer.Typer(add_completion=False, rich_markup_mode=None)


def _print_notes(nights: Iterable[ScoredHypnogram]) -> None:
    for night in nights:
        for note in night.notes:
            typer.echo(f"note: {night.scorer}, {night.night}: {note}", err=True)


@research.command()
def compare(
    reference: Annotated[str, typer.Argument(help="File, folder, or journal.sqlite[#session].")],
    others: Annotated[list[str], typer.Argument(help="One scorer or more, likewise.")],
    *,
    experts: Annotated[
        int, typer.Option(min=1, help="So many of the first are experts; their consensus counts.")
    ] = 1,
    timezone: Annotated[str, typer.Option(help="Where the clocks of EDF files hung.")] = "UTC",
    scheme: Annotated[
        str | None, typer.Option(help="Whose numbers bare digits are: nsrr, isruc or yasa.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a report with plots here, figures as CSV beside it.")
    ] = None,
    json: Json = False,
) -> None:
    """Compare scorers: κ, F1, borders, statistics, with intervals over subjects."""
    from datetime import datetime

    from hypnocast.ports.recordings.recording import file_start
    from hypnocast_models.compare.comparison import agree_on, differences, number
    from hypnocast_models.compare.comparison import compare as compare_nights
    from hypnocast_models.compare.hypnogram import read_scorer
    from hypnocast_models.staging.archive import taught_of

    file_start(datetime(2000, 1, 1), timezone)  # noqa: DTZ001 - refuses a zone that there is not
    sources = (reference, *others)
    scorers = [read_scorer(source, timezone=timezone, scheme=scheme) for source in sources]
    _print_notes(night for scorer in scorers for night in scorer.values())
    if experts >= len(scorers):
        raise CommandError("leaves no scorer to compare with them", where=f"--experts {experts}")
    truth = scorers[0] if experts == 1 else agree_on(scorers[:experts])
    judged = scorers[experts:]
    for source in others:
        for line in taught_of(Path(source)):
            print(line, file=sys.stderr)
    found = [compare_nights(truth, scorer) for scorer in judged]
    paired = {
        f"{a.other} minus {b.other}": differences(truth, judged[i], judged[j])
        for i, a in enumerate(found)
        for j, b in enumerate(found)
        if i < j
    }
    if html is not None:
        from hypnocast_models.compare.page import write_page

        with writing(html):
            write_page(html, found, paired)
    if json:
        gaps = {
            name: {k: [number(one) for one in (v.value, v.low, v.high)] for k, v in figures.items()}
            for name, figures in paired.items()
        }
        print_json({"comparisons": [one.to_json() for one in found], "differences": gaps})
        return
    for one in found:
        for line in one.lines():
            print_line(line)
    for name, figures in paired.items():
        print_line(name)
        for figure, interval in figures.items():
            print_line(f"  {figure:<18} {interval}")


@research.command()
def datasets(
    folder: Annotated[Path, typer.Argument(help="A local copy of a data set.")],
    *,
    kind: Annotated[str, typer.Option(help="Its reader, where the files do not show it.")] = "",
    json: Json = False,
) -> None:
    """Check a local copy: subjects, hours, channels, stages, oddities, broken files."""
    from hypnocast_models.readers.datasets import find_nights
    from hypnocast_models.readers.survey import survey

    found = find_nights(folder, kind)
    with bar("nights", len(found)) as advance:
        surveyed = survey(found, advance)
    if json:
        print_json(surveyed.to_json())
    else:
        for line in surveyed.lines():
            print_line(line)
    if surveyed.broken:
        raise typer.Exit(1)


@contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how far long work has come, on standard error, where it is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.advance(task, done)


Scheduler = Annotated[str, typer.Option(help="Address of a dask scheduler; else this machine.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes on this machine.")]


@research.command("stage")
def stage_archive(
    folder: Annotated[Path, typer.Argument(help="A local copy of a data set.")],
    out: Annotated[Path, typer.Option(help="One CSV a night goes here.")],
    *,
    pack: Annotated[str, typer.Option(help="Name or folder of the pack.")] = "hypnocast-small",
    kind: Annotated[str, typer.Option(help="The data set's reader.")] = "",
    min_coverage: Least = None,
    mains: Mains = 50,
    scheduler: Scheduler = "",
    workers: Workers = None,
    retries: Annotated[int, typer.Option(min=0, help="Per night.")] = 2,
) -> None:
    """Stage every night of an archive; goes on where it stopped."""
    from hypnocast.stagers.packs.catalogue import resolve_pack
    from hypnocast_models.readers.datasets import find_nights
    from hypnocast_models.staging.archive import run_archive, staging_plan

    nights = find_nights(folder, kind)
    plan = staging_plan(resolve_pack(pack), out, min_coverage, mains)
    warn_of_pack(Path(plan.pack), nights)
    with writing(out, keep=True), bar("nights", len(nights)) as advance:
        outcome = run_archive(
            plan, nights, scheduler=scheduler, workers=workers, retries=retries, advance=advance
        )
    _report(outcome)


@research.command("draw")
def draw_archive(
    folder: Annotated[Path, typer.Argument(help="A local copy of a data set.")],
    out: Annotated[Path, typer.Option(help="One .npz of pictures and stages a night goes here.")],
    *,
    recipe: Annotated[str, typer.Option(help="A built-in recipe.")] = "spectral-448",
    kind: Annotated[str, typer.Option(help="The data set's reader.")] = "",
    second: Annotated[
        str, typer.Option(help="A pack whose stages are kept as weak labels, not the experts'.")
    ] = "",
    sure: Annotated[
        float, typer.Option(min=0.2, max=1.0, help="Keep its stages where it is at least so sure.")
    ] = 0.9,
    min_coverage: Least = None,
    mains: Mains = 50,
    scheduler: Scheduler = "",
    workers: Workers = None,
    retries: Annotated[int, typer.Option(min=0, help="Per night.")] = 2,
) -> None:
    """Draw every page of an archive; goes on where it stopped."""
    from hypnocast.stagers.packs.catalogue import resolve_pack
    from hypnocast_models.readers.datasets import find_nights
    from hypnocast_models.staging.archive import (
        drawing_plan,
        run_archive,
        staging_plan,
        weak_plan,
    )

    nights = find_nights(folder, kind)
    if second:
        staging = staging_plan(resolve_pack(second), out, min_coverage, mains)
        plan = weak_plan(staging, recipe, sure)
        warn_of_pack(Path(plan.pack), nights)
    else:
        plan = drawing_plan(recipe, out, mains)
    with writing(out, keep=True), bar("nights", len(nights)) as advance:
        outcome = run_archive(
            plan, nights, scheduler=scheduler, workers=workers, retries=retries, advance=advance
        )
    _report(outcome)


def warn_of_pack(pack: Path, nights: Sequence[FoundRecording]) -> None:
    """Name on standard error the people of these nights whom a pack was taught on."""
    from hypnocast.stagers.packs.pack import load_pack
    from hypnocast_models.taught import warn_of_taught

    for line in warn_of_taught(load_pack(pack).manifest, {night.subject for night in nights}):
        print(line, file=sys.stderr)


def _report(outcome: Outcome) -> None:
    print_line(
        f"{len(outcome.done)} nights done, {len(outcome.before)} were done before, "
        f"{len(outcome.failed)} failed"
    )
    for night, why in outcome.failed.items():
        print_line(f"  {night}: {why}")
    if outcome.failed:
        raise typer.Exit(1)


@research.command()
def experiment(
    plan: Annotated[Path, typer.Argument(help="The experiment's TOML file.")],
    data: Annotated[Path, typer.Argument(envvar="HYPNOCAST_DATA", help="Folder of the data sets.")],
    *,
    out: Annotated[Path, typer.Option(help="Results are kept here, to go on from.")],
    report: Annotated[Path, typer.Option(help="The report goes here.")],
    packs: Annotated[Path, typer.Option(help="Where the plan's packs and weights lie.")] = Path(),
    workers: Annotated[int, typer.Option(min=1, help="Processes side by side.")] = 1,
) -> None:
    """Run an experiment and write its report; goes on where it stopped."""
    from hypnocast_models.experiments.plan import read_experiment
    from hypnocast_models.experiments.report import write_report
    from hypnocast_models.experiments.run import run_experiment, steps, taught_arms

    wanted = read_experiment(plan)
    for line in taught_arms(wanted, data, packs):
        print(line, file=sys.stderr)
    pieces = bar("pieces", steps(wanted, data, packs))
    with writing(out, keep=True), pieces as advance, stopped_cleanly():
        results = run_experiment(wanted, data, out, advance, packs=packs, workers=workers)
    with writing(report):
        names = write_report(wanted, results, report)
    for name in names:
        print_line(str(report / name))
