"""``pack list|show|verify|sign|key|to-triton``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hypnocast.commands.common import Json, print_json, print_line
from hypnocast.commands.output import writing

Wanted = Annotated[str, typer.Argument(metavar="PACK", help="A pack's name or folder.")]

packs = typer.Typer(
    help="Packs: the models, and all that is needed to run and to judge them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@packs.command("list")
def list_packs(*, json: Json = False) -> None:
    """List the packs there are."""
    import msgspec

    from hypnocast.stagers.packs.catalogue import find_packs

    found = find_packs()
    if json:
        print_json(msgspec.to_builtins(found))
        return
    for pack in found:
        print_line(
            f"{pack.name:<28} {pack.version:<10} {pack.family:<12} {pack.recipe:<18} {pack.folder}"
        )
        if pack.fault:
            print_line(f"  cannot be used: {pack.fault}")


@packs.command("show")
def show(pack: Wanted, *, json: Json = False) -> None:
    """Show a pack's own description, after verifying it."""
    from hypnocast.stagers.packs.catalogue import resolve_pack, show_pack

    facts = show_pack(resolve_pack(pack))
    if json:
        print_json(facts)
        return
    print_line(f"{facts['name']} {facts['version']}  {facts['digest']}")
    print_line(f"{facts['intended_use']}")
    family, size = facts["model"]["family"], facts["bytes"] / 1e6
    print_line(f"family {family}, recipe {facts['recipe']}, {size:.1f} MB")
    needed = " and ".join(" or ".join(group) for group in facts["montage"]["needed"])
    print_line(f"needs {needed}; coverage ≥ {facts['montage']['min_coverage']:.0%}")
    for metric in facts["metrics"]:
        span = "" if metric.get("low") is None else f" ({metric['low']:.3f} … {metric['high']:.3f})"
        print_line(f"  {metric['name']} {metric['value']:.3f}{span}  {metric['on']}")


@packs.command("verify")
def verify(
    pack: Wanted,
    *,
    key: Annotated[
        str | None, typer.Option(help="Who must have signed it: a public key, or its file.")
    ] = None,
    json: Json = False,
) -> None:
    """Verify a pack's every file; exit code 1 where there is a fault."""
    from hypnocast.stagers.packs.catalogue import check_pack, resolve_pack

    facts = check_pack(resolve_pack(pack), key)
    if json:
        print_json(facts)
    elif facts["sound"]:
        pack_name = f"{facts['name']} {facts['version']}"
        print_line(f"{pack_name} is sound: {facts['files']} files, {facts['digest']}")
        if key is not None:
            print_line(f"signed by {key}: {facts['signature']}")
    else:
        for fault in facts["faults"]:
            print_line(fault)
    if not facts["sound"]:
        raise typer.Exit(1)


@packs.command("key")
def make_key(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The secret key; FILE.pub beside.")],
) -> None:
    """Make a key to sign packs with; an empty password leaves it unencrypted."""
    from hypnocast.errors import ConfigError
    from hypnocast.ports.durable_files import private_file
    from hypnocast.stagers.packs.signing import make_keys

    public = file.with_name(f"{file.name}.pub")
    for place in (file, public):
        if place.exists():
            raise ConfigError("is there already", where=str(place), remedy="Name another file.")
    password = typer.prompt(
        "Password", default="", hide_input=True, confirmation_prompt=True, show_default=False
    )
    secret, shown, line = make_keys(password)
    with writing(file, public):
        private_file(file, secret)
        public.write_bytes(shown)
    print_line(f'signed_by = "{line}"')


@packs.command("sign")
def sign(
    pack: Wanted,
    key: Annotated[Path, typer.Argument(metavar="KEY", help="The secret key's file.")],
) -> None:
    """Sign a pack, after verifying it."""
    from hypnocast.errors import PackError
    from hypnocast.ports.durable_files import replace_file
    from hypnocast.stagers.packs.catalogue import resolve_pack
    from hypnocast.stagers.packs.files import SIGNATURE
    from hypnocast.stagers.packs.pack import load_pack
    from hypnocast.stagers.packs.signing import signature_of

    def password() -> str:
        return str(typer.prompt("Password of the key", hide_input=True))

    verified = load_pack(resolve_pack(pack))
    path = verified.folder / SIGNATURE
    try:
        replace_file(path, signature_of(verified, key, password))
        path.chmod(0o644)
    except OSError as error:
        raise PackError(
            f"cannot be written: {error.strerror}",
            where=str(path),
            remedy="Sign as who owns the pack.",
        ) from None
    print_line(str(path))


@packs.command("to-triton")
def to_triton(
    pack: Wanted,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The model repository.")],
) -> None:
    """Write a pack into a model repository of Triton Inference Server."""
    from hypnocast.stagers.packs.catalogue import resolve_pack
    from hypnocast.stagers.packs.pack import load_pack
    from hypnocast.stagers.remote.triton_repository import write_repository

    with writing(folder):
        model = write_repository(load_pack(resolve_pack(pack)), folder)
    print_line(f"{model}  serve it with: tritonserver --model-repository {folder}")
