"""``nights``, ``report``, ``export``, ``why``, ``corrections``: the morning after."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hypnocast.commands.common import ConfigFile, Json, print_json, print_line
from hypnocast.commands.output import writing
from hypnocast.errors import CommandError

Wanted = Annotated[
    str,
    typer.Argument(
        metavar="NIGHT", help="A session's id, an unmistakable beginning of it, or `latest`."
    ),
]
Folder = Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")]


def nights(
    config: ConfigFile = None,
    *,
    bed: Annotated[str | None, typer.Option(help="Only this bed's nights.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 50,
    compare: Annotated[
        bool, typer.Option("--compare", help="Set packs beside against the pack that spoke.")
    ] = False,
    json: Json = False,
) -> None:
    """List the nights in the journal, the newest first."""
    from dataclasses import asdict
    from zoneinfo import ZoneInfo

    from hypnocast.config.file import load_config
    from hypnocast.nights.listing import as_text, list_nights

    loaded = load_config(config)
    if compare:
        from hypnocast.nights.comparing import compare_nights, compared_json, compared_lines

        compared = compare_nights(loaded, bed=bed, limit=limit)
        if json:
            print_json(compared_json(compared))
            return
        for row in compared_lines(compared):
            print_line(row)
        return
    lines = list_nights(loaded, bed=bed, limit=limit)
    if json:
        print_json([asdict(line) for line in lines])
        return
    for line in as_text(lines, ZoneInfo(loaded.site.timezone)):
        print_line(line)


def export(
    night: Wanted,
    config: ConfigFile = None,
    *,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            help="edf, csv, bids, nsrr, json, or a program's own: docs/scored-files.md.",
        ),
    ] = "edf",
    signals: Annotated[
        bool, typer.Option("--signals", help="With edf: the signals too, from the night's tape.")
    ] = False,
    tape: Annotated[
        Path | None, typer.Option(help="The recording, where it does not lie among the tapes.")
    ] = None,
    output: Folder = Path(),
) -> None:
    """Write a night as files for other people's software: stages, with --signals also signals."""
    from zoneinfo import ZoneInfo

    from hypnocast.config.file import load_config
    from hypnocast.errors import CommandError
    from hypnocast.nights.export import export_night
    from hypnocast.nights.night_signals import night_signals
    from hypnocast.nights.night_view import open_night

    if (signals or tape) and form != "edf":
        raise CommandError(f"{form} holds no signals", where="--signals", remedy="Use edf.")
    loaded = load_config(config)
    view = open_night(loaded, night)
    held = night_signals(loaded, view, tape) if signals or tape else []
    with writing(output):
        made = export_night(view, form, output, ZoneInfo(loaded.site.timezone), held)
    for path in made:
        print_line(str(path))


def report(
    night: Wanted,
    config: ConfigFile = None,
    *,
    form: Annotated[str, typer.Option("--format", "-f", help="html, pdf or png.")] = "html",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File; default: NIGHT.html.")
    ] = None,
) -> None:
    """Write a night's report: the course of the night, its statistics, what to look at again."""
    from zoneinfo import ZoneInfo

    from hypnocast.config.file import load_config
    from hypnocast.nights.export import file_stem
    from hypnocast.nights.kept_pictures import pictures_of
    from hypnocast.nights.night_view import open_night
    from hypnocast.nights.report import report as make_report
    from hypnocast.nights.second_section import worth_showing
    from hypnocast.nights.sheet import check_form, save

    check_form(form)
    loaded = load_config(config)
    view = open_night(loaded, night)
    path = output or Path(f"{file_stem(view)}.{form}")
    parted = {epoch for one in view.seconds for epoch in worth_showing(view, one)}
    pictures = pictures_of(loaded, view, parted)
    with writing(path):
        save(make_report(view, ZoneInfo(loaded.site.timezone), pictures), path, form)
    print_line(str(path))


def why(
    night: Wanted,
    epoch: Annotated[int, typer.Argument(min=0, help="Number of the page, from 0.")],
    config: ConfigFile = None,
    *,
    explain: Annotated[
        str, typer.Option(help="off, channels or patches: how deep to explain.")
    ] = "patches",
    tape: Annotated[
        Path | None, typer.Option(help="The recording, where it does not lie among the tapes.")
    ] = None,
    form: Annotated[str, typer.Option("--format", "-f", help="html, pdf or png.")] = "html",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File; default: NIGHT-page-N.html.")
    ] = None,
    json: Json = False,
) -> None:
    """Explain why a page got its stage; exit code 1 if it cannot be drawn as the model saw it."""
    from zoneinfo import ZoneInfo

    from hypnocast.config.file import load_config
    from hypnocast.nights.export import file_stem
    from hypnocast.nights.night_view import open_night
    from hypnocast.nights.sheet import check_form, save
    from hypnocast.nights.why import answer, as_json, depth_called
    from hypnocast.nights.why_sheet import why_sheet

    check_form(form)
    loaded = load_config(config)
    view = open_night(loaded, night)
    found = answer(loaded, view, epoch, depth=depth_called(explain), tape=tape)
    if json:
        print_json(as_json(found))
    else:
        path = output or Path(f"{file_stem(view)}-page-{epoch}.{form}")
        with writing(path):
            save(why_sheet(found, ZoneInfo(loaded.site.timezone)), path, form)
        stage = found.event.stage or f"withheld: {found.event.reason}"
        words = stage if found.rests is None else found.rests.sentence
        same = {True: "drawn as the model saw it", False: "DIFFERS from what the model saw"}
        how = "" if found.same is None else f"; {same[found.same]}"
        if not found.same_recipe:
            how += ", for another recipe drew that night: configure its pack"
        print_line(f"{path}  {words}{how}")
    if found.same is False:
        raise typer.Exit(1)


def corrections(
    night: Wanted,
    config: ConfigFile = None,
    *,
    add: Annotated[Path | None, typer.Option(help="A scored file (docs/scored-files.md).")] = None,
    scorer: Annotated[str, typer.Option(help="Who scored; an id, no name.")] = "",
    offset: Annotated[
        int | None,
        typer.Option(help="The night's page that is the file's first; default: by its time."),
    ] = None,
    scheme: Annotated[
        str | None, typer.Option(help="Whose numbers bare digits are: nsrr, isruc or yasa.")
    ] = None,
    pages: Annotated[
        Path | None, typer.Option(help="Write the scorer's pages there, to fine-tune a pack on.")
    ] = None,
    second: Annotated[
        str, typer.Option(help="For --pages: a pack beside teaches, where it was --sure.")
    ] = "",
    sure: Annotated[
        float, typer.Option(min=0.2, max=1, help="Least probability of a second opinion.")
    ] = 0.9,
    tape: Annotated[
        Path | None, typer.Option(help="The recording, where it does not lie among the tapes.")
    ] = None,
    json: Json = False,
) -> None:
    """Lay scorers' stages beside the night: agreement, kappa, confusion; add a scored file."""
    from hypnocast.config.file import load_config
    from hypnocast.nights.corrections import add_scoring, as_text, comparisons
    from hypnocast.nights.night_view import open_night

    loaded = load_config(config)
    view = open_night(loaded, night)
    if add is not None:
        added = add_scoring(loaded, view, add, scorer=scorer, offset=offset, scheme=scheme)
        if not json:
            outside = f"; {added.outside} lie outside the night" if added.outside else ""
            print_line(
                f"{added.pages} pages of {scorer}, from page {added.offset_pages:g} on{outside}"
            )
            print_line(f"{add}: read as {added.format}")
            for note in added.notes:
                print_line(f"note: {note}")
        view = open_night(loaded, view.session.id)
    if pages is not None:
        from hypnocast.nights.training_pages import (
            scorer_teacher,
            second_teacher,
            write_training_pages,
        )

        if bool(scorer) == bool(second):
            raise CommandError(
                "needs to know whose stages", where="--pages", remedy="Give --scorer or --second."
            )
        teacher = scorer_teacher(view, scorer) if scorer else second_teacher(view, second, sure)
        with writing(pages):
            count = write_training_pages(loaded, view, pages, teacher, tape=tape)
        if not json:
            weak = ": weak labels" if teacher.weak else ""
            print_line(f"{pages}: {count} pages with the stages of {teacher.name}{weak}")
    if json:
        print_json(comparisons(view))
        return
    for line in as_text(view):
        print_line(line)
