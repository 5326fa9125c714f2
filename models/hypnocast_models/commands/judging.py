"""``evaluate``, ``rolling`` and ``yasa``: how well nights are staged that people have scored."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from hypnocast.commands.output import writing
from hypnocast.errors import CommandError
from hypnocast_models.commands.research import bar, warn_of_pack
from hypnocast_models.commands.screen import Least, Mains, check_gains, print_line, progress_bars

judging = typer.Typer(add_completion=False, rich_markup_mode=None)


@judging.command("evaluate")
def evaluate_pack(
    pack: Annotated[Path, typer.Argument(help="Folder of the pack.")],
    database: Annotated[
        Path,
        typer.Argument(help="An archive of scored nights that a reader knows, or pages of `draw`."),
    ],
    *,
    kind: Annotated[str, typer.Option(help="The archive's reader, where it is not plain.")] = "",
    hypnograms: Annotated[
        Path | None, typer.Option(help="Folder of files with the stages, named as the nights.")
    ] = None,
    subject: Annotated[list[str] | None, typer.Option(help="Only these subjects.")] = None,
    gain: Annotated[list[float] | None, typer.Option(help="Multiply all samples by this.")] = None,
    mains: Mains = 50,
    min_coverage: Least = None,
    out: Annotated[Path | None, typer.Option(help="Write the figures here as JSON.")] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Write a page with plots here, beside other scorers on the same nights."),
    ] = None,
    beside: Annotated[
        list[Path] | None, typer.Option(help="Packs for the report too: an adopted GSSC, say.")
    ] = None,
    yasa: Annotated[
        Path | None, typer.Option(help="Python of the environment that has YASA, if not this one.")
    ] = None,
) -> None:
    """Judge a pack on scored nights, on the stream that the daemon would emit."""
    import json

    from hypnocast.ports.durable_files import replace_file
    from hypnocast.stagers.packs.pack import load_pack
    from hypnocast_models.compare.evaluate import Evaluation, evaluate, summarise
    from hypnocast_models.readers.material import only_subjects, open_material
    from hypnocast_models.taught import warn_of_taught

    if report is None and (beside or yasa):
        raise CommandError("are for the report", where="--beside, --yasa", remedy="Add --report.")
    check_gains(gain)
    loaded, others = load_pack(pack), [load_pack(one) for one in beside or ()]
    all_nights = open_material(database, loaded.recipe, kind, hypnograms)
    nights = only_subjects(all_nights, subject)
    subjects = {night.subject for night in nights}
    warnings = [
        line for one in (loaded, *others) for line in warn_of_taught(one.manifest, subjects)
    ]
    for line in warnings:
        print(line, file=sys.stderr)
    made: dict[float, Evaluation] = {}
    pages = sum(len(night.stages) for night in nights)
    result: dict[str, Any] = {
        "pack": loaded.digest,
        "min_coverage": min_coverage,
        "warnings": warnings,
        "gains": {},
    }
    with writing(out, report):
        for path in (out, report):
            if path is not None:  # after hours of work is no time to find that there is no folder
                path.parent.mkdir(parents=True, exist_ok=True)
        with progress_bars() as progress:
            for each in gain or [1.0]:
                bar = progress.add_task(f"×{each:g}", total=pages)
                found = made[each] = evaluate(
                    loaded,
                    nights,
                    gain=each,
                    min_coverage=min_coverage,
                    mains_hz=mains,
                    advance=partial(progress.advance, bar),
                )
                result["gains"][f"{each:g}"] = {
                    "filtered": summarise(found.scored),
                    "unfiltered": summarise(found.unfiltered),
                }
        for name, figures in result["gains"].items():
            both = [f"{how} κ {figures[how]['kappa'][0]:.3f}" for how in ("filtered", "unfiltered")]
            print_line(
                f"×{name}: {', '.join(both)}, coverage {figures['filtered']['coverage']:.3f}"
            )
        if report is not None:
            from hypnocast_models.compare.evaluation_page import evaluation_page
            from hypnocast_models.compare.side_by_side import Others, set_side_by_side

            with progress_bars() as progress:
                bar = progress.add_task("packs beside", total=pages * len(others) * len(made))
                table = set_side_by_side(
                    loaded,
                    made,
                    nights,
                    Others(others, yasa, all_nights),
                    min_coverage=min_coverage,
                    mains_hz=mains,
                    advance=partial(progress.advance, bar),
                )
            result["beside"] = table.to_json()
            note = f"{database.name}: {len(nights)} nights; pack {loaded.digest}."
            heading = f"{loaded.manifest.name} on {database.name}"
            page = evaluation_page(heading, " ".join([note, *warnings]), table)
            replace_file(report, page.encode(), mode=0o666)
            print_line(f"{report} written")
        if out is not None:
            replace_file(out, (json.dumps(result, indent=1) + "\n").encode())


@judging.command("yasa")
def judge_yasa(
    database: Annotated[Path, typer.Argument(help="Folder of scored recordings (*.npz).")],
    *,
    subject: Annotated[list[str] | None, typer.Option(help="Only these subjects.")] = None,
    gain: Annotated[list[float] | None, typer.Option(help="Multiply all samples by this.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write its hypnograms here, for `compare`.")
    ] = None,
) -> None:
    """Show what YASA makes of the same nights; it sees each whole night at once."""
    from hypnocast.ports.durable_files import replace_file
    from hypnocast_models.compare import figures
    from hypnocast_models.data.recordings import database_files, open_recording
    from hypnocast_models.readers.material import only_subjects
    from hypnocast_models.scorers.yasa import stage_with_yasa, written

    files = {path.stem: open_recording(path) for path in database_files(database)}
    wanted = only_subjects(list(files.values()), subject)
    nights = [(name, night) for name, night in files.items() if night in wanted]
    gains = gain or [1.0]
    for each in gains:
        tables = []
        for name, night in nights:
            staged = stage_with_yasa(night, each)
            tables.append(figures.confusion(night.stages.astype("int64"), staged))
            if out is not None:
                folder = out if len(gains) == 1 else out / f"x{each:g}"
                with writing(folder):
                    folder.mkdir(parents=True, exist_ok=True)
                    replace_file(folder / f"{name}.csv", written(name, night, staged).encode())
        print_line(f"×{each:g}: YASA κ {figures.kappa(sum(tables[1:], tables[0])):.3f}")


@judging.command("rolling")
def judge_rolling(
    pack: Annotated[str, typer.Argument(help="Name or folder of the pack.")],
    folder: Annotated[Path, typer.Argument(help="Scored nights whose pages are whole.")],
    *,
    hop: Annotated[list[float] | None, typer.Option(help="Seconds; by itself 1, 5, 30.")] = None,
    kind: Annotated[str, typer.Option(help="The data set's reader.")] = "",
    subject: Annotated[list[str] | None, typer.Option(help="Only these subjects.")] = None,
    min_coverage: Least = None,
    mains: Mains = 50,
    out: Annotated[Path | None, typer.Option(help="Write the figures here as JSON.")] = None,
) -> None:
    """Judge verdicts between page closes: agreement, delay at changes, acting only when sure."""
    from hypnocast.ports.durable_files import replace_file
    from hypnocast.stagers.onnx.local import LocalStager
    from hypnocast.stagers.packs.catalogue import resolve_pack
    from hypnocast.stagers.packs.pack import load_pack
    from hypnocast_models.compare.rolling import roll_night, rolling_figures, rolling_lines
    from hypnocast_models.readers.datasets import find_nights, open_night
    from hypnocast_models.readers.material import only_subjects

    hops = sorted(hop or (1.0, 5.0, 30.0))
    for longer in hops[1:]:
        if longer % hops[0]:
            raise CommandError(f"{longer:g} is no multiple of {hops[0]:g}", where="--hop")
    loaded = load_pack(resolve_pack(pack))
    found = only_subjects(find_nights(folder, kind), subject)
    warn_of_pack(loaded.folder, found)
    nights = [open_night(one) for one in found]
    with writing(out):
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
        stager = LocalStager(loaded, "auto", threads=1)
        with bar("pages", sum(len(night.stages) for night in nights)) as advance:
            rolled = [
                roll_night(
                    night,
                    loaded,
                    stager,
                    hops[0],
                    min_coverage=min_coverage,
                    mains_hz=mains,
                    advance=advance,
                )
                for night in nights
            ]
        stager.close()
        judged = [rolling_figures([night.every(each) for night in rolled]) for each in hops]
        for one in judged:
            for line in rolling_lines(one):
                print_line(line)
        if out is not None:
            import msgspec

            whole = {
                "pack": loaded.digest,
                "nights": [night.name for night in nights],
                "hops": judged,
            }
            replace_file(out, msgspec.json.format(msgspec.json.encode(whole), indent=1))
