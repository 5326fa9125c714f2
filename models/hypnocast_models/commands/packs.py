"""Commands that make, edit and calibrate packs."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from hypnocast.commands.output import writing
from hypnocast.errors import CommandError
from hypnocast_models.commands.screen import Mains, print_line, progress_bars

packs = typer.Typer(no_args_is_help=True)

Out = Annotated[Path, typer.Argument(help="Folder of the new pack; an empty one.")]


@packs.command("calibrate")
def calibrate(
    pack: Annotated[str, typer.Argument(help="Name or folder of the pack.")],
    archive: Annotated[Path, typer.Argument(help="Scored nights of people it was not taught on.")],
    out: Out,
    *,
    version: Annotated[str, typer.Option(help="Of the new pack.")],
    kind: Annotated[str, typer.Option(help="The archive's reader, where it is not plain.")] = "",
    subject: Annotated[list[str] | None, typer.Option(help="Only these subjects.")] = None,
    mains: Mains = 50,
) -> None:
    """Fit temperature and forward filter on held-out nights; the model stays as it is."""
    from hypnocast.stagers.onnx.local import LocalStager
    from hypnocast.stagers.packs.catalogue import resolve_pack
    from hypnocast.stagers.packs.pack import load_pack
    from hypnocast_models.export.calibrating import fit_calibration, held_out, write_calibrated
    from hypnocast_models.export.packing import check_empty, check_version
    from hypnocast_models.readers.material import only_subjects, open_material

    check_empty(out)
    check_version(version)
    loaded = load_pack(resolve_pack(pack))
    nights = only_subjects(open_material(archive, loaded.recipe, kind), subject)
    stager = LocalStager(loaded, "auto")
    with progress_bars() as progress:
        bar = progress.add_task("staging", total=sum(len(night.stages) for night in nights))
        seen = held_out(loaded, nights, stager, mains, partial(progress.advance, bar))
    stager.close()
    fit = fit_calibration(loaded, seen)
    people = len({night.subject for night in nights})
    where = f"{archive.name}: {len(nights)} nights of {people} people"
    with writing(out, own=True):
        made = write_calibrated(loaded, fit, out, version, where)
    print_line(str(fit))
    print_line(f"{made.manifest.name} {made.manifest.version} {made.digest}")


@packs.command("edit")
def edit(
    pack: Annotated[str, typer.Argument(help="Name or folder of the pack.")],
    out: Out,
    *,
    change: Annotated[
        list[str], typer.Option("--set", help="key.of.pack_toml=value in TOML; repeat for more.")
    ],
) -> None:
    """Write a pack anew with other words: prompt, answers, licence, roles.

    `hypnocast schema pack` lists every key. Digests are computed anew; a `recipe` that ships
    brings its digest along.
    """
    import msgspec

    from hypnocast.stagers.packs.catalogue import resolve_pack
    from hypnocast.stagers.packs.pack import load_pack

    loaded = load_pack(resolve_pack(pack))
    facts: dict[str, Any] = msgspec.to_builtins(loaded.manifest)
    for one in change:
        _set(facts, one)
    _write_new(loaded.folder, facts, out, "--set")


@packs.command("make")
def make(
    files: Annotated[Path, typer.Argument(help="Folder of graphs, tokenizer, CARD.md.")],
    out: Out,
    *,
    draft: Annotated[Path, typer.Option(help="pack.toml without format, files and digests.")],
) -> None:
    """Make a pack of files that any exporter wrote; digests are reckoned, all of it is verified.

    `hypnocast schema pack` lists every key, docs/packs.md has a draft for each family.
    """
    import msgspec

    if not files.is_dir():
        raise CommandError("is no folder", where=str(files))
    try:
        facts = msgspec.toml.decode(draft.read_bytes())
    except OSError as error:
        raise CommandError(f"cannot be opened ({error.strerror})", where=str(draft)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CommandError(f"is no TOML: {error}", where=str(draft)) from error
    _write_new(files, facts, out, str(draft))


def _write_new(files: Path, facts: dict[str, Any], out: Path, where: str) -> None:
    """Write a pack of some files by what is said of it; what is wrong is refused by its key."""
    import msgspec

    from hypnocast.core.pictures.recipe import builtin, builtin_names
    from hypnocast.stagers.packs.files import MANIFEST
    from hypnocast_models.export.packing import check_empty, write_pack

    check_empty(out)
    for written_anew in ("format", "files"):
        facts.pop(written_anew, None)
    if facts.get("recipe") in builtin_names():
        facts["recipe_digest"] = builtin(facts["recipe"]).digest
    try:
        with writing(out, own=True):
            shutil.copytree(files, out, ignore=shutil.ignore_patterns(MANIFEST), dirs_exist_ok=True)
            made = write_pack(out, facts)
    except msgspec.ValidationError as error:
        raise CommandError(
            str(error), where=where, remedy="`hypnocast schema pack` lists every key."
        ) from error
    print_line(f"{made.manifest.name} {made.manifest.version} {made.digest}")


def _set(facts: dict[str, Any], change: str) -> None:
    """Set one key, given as ``model.prompt="…"``."""
    import msgspec

    key, equals, text = change.partition("=")
    *tables, last = key.strip().split(".")
    try:
        value = msgspec.toml.decode(f"value = {text}")["value"] if equals else None
    except msgspec.DecodeError:
        value = text  # a bare word: --set licence=MIT
    table: Any = facts
    for name in tables:
        table = table.get(name) if isinstance(table, dict) else None
    if not equals or not isinstance(table, dict):
        raise CommandError(
            f"{change!r} names no key of pack.toml",
            where="--set",
            remedy='Write --set model.prompt="…" or --set licence=MIT.',
        )
    table[last] = value
