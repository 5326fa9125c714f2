"""Packs: a model with everything needed to run and to judge it.

A pack may come from anywhere, so none of it is trusted: it is verified whole before one byte
of it is used, and what is refused is refused by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import msgspec

from hypnocast.core.pictures.recipe import Recipe, builtin
from hypnocast.errors import PackError, RecipeError
from hypnocast.stagers.packs.files import MANIFEST, FileStamp, find_faults, read_plain
from hypnocast.stagers.packs.manifest import Manifest, parse_manifest

MAX_MANIFEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack that was verified when it was loaded."""

    manifest: Manifest
    folder: Path
    digest: str
    """Over the bytes of ``pack.toml``, and through the digests in it over every file."""
    recipe: Recipe = field(repr=False)
    stamps: Mapping[str, FileStamp] = field(repr=False)
    """What each file was when it was verified."""

    def path(self, name: str) -> Path:
        """Return where a listed file of the pack lies."""
        assert name in self.manifest.files, name  # noqa: S101 - verified when loaded
        return self.folder / name

    def read(self, name: str) -> bytes:
        """Return the bytes of a listed file, verified as they are read."""
        content = read_plain(self.path(name))
        if f"sha256:{hashlib.sha256(content).hexdigest()}" != self.manifest.files[name]:
            raise _changed(self.path(name))
        return content

    def check_unchanged(self) -> None:
        """Refuse a pack of which a file was changed or replaced since it was verified."""
        for name, stamp in self.stamps.items():
            if FileStamp.of(self.path(name)) != stamp:
                raise _changed(self.path(name))


def _changed(path: Path) -> PackError:
    return PackError(
        "was changed after the pack was verified",
        where=str(path),
        remedy="Find out who writes there; get the pack again.",
    )


def read_manifest(path: str | Path) -> Manifest:
    """Read a pack's own description; nothing of it is verified."""
    folder = Path(path).resolve()
    return _parse(_read_manifest(folder), folder)


def load_pack(path: str | Path) -> Pack:
    """Load a pack and verify all of it; the first fault is raised as :class:`PackError`."""
    folder = Path(path).resolve()
    content = _read_manifest(folder)
    manifest = _parse(content, folder)
    stamps: dict[str, FileStamp] = {}
    for fault in find_faults(folder, manifest, stamps):
        raise fault
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return Pack(manifest, folder, digest, _recipe(folder, manifest), MappingProxyType(stamps))


def verify_pack(path: str | Path) -> tuple[PackError, ...]:
    """Verify a pack and return every fault; empty where it is as it should be."""
    folder = Path(path).resolve()
    try:
        manifest = _parse(_read_manifest(folder), folder)
        faults = tuple(find_faults(folder, manifest))
        if not faults:
            _recipe(folder, manifest)
    except PackError as error:
        return (error,)
    return faults


def _read_manifest(folder: Path) -> bytes:
    path = folder / MANIFEST
    if path.is_symlink() or not path.is_file():
        raise PackError(
            f"no pack: there is no {MANIFEST} in it",
            where=str(folder),
            remedy="Name the folder of a pack, or one of `hypnocast pack list`.",
        )
    if path.stat().st_size > MAX_MANIFEST:
        raise PackError(
            f"larger than {MAX_MANIFEST} bytes",
            where=str(path),
            remedy="Do not use this pack; ask who made it.",
        )
    return read_plain(path)


def _parse(content: bytes, folder: Path) -> Manifest:
    try:
        return parse_manifest(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        what, _, place = str(error).partition(" - at `")
        key = place.rstrip("`").removeprefix("$").removeprefix(".")
        where = f"{folder / MANIFEST}: {key}" if key else str(folder / MANIFEST)
        raise PackError(what, where=where, remedy="docs/packs.md lists every key.") from error


def _recipe(folder: Path, manifest: Manifest) -> Recipe:
    """Return the pack's recipe: a file of the pack, or a built-in, with the digest it names."""
    where = f"{folder / MANIFEST}: recipe"
    try:
        if manifest.recipe.endswith(".toml"):
            if manifest.recipe not in manifest.files:
                what = f"{manifest.recipe!r} is not listed in [files]"
                raise PackError(what, where=where, remedy="List the recipe file.")
            file = folder / manifest.recipe
            recipe = Recipe.parse(file.read_text(encoding="utf-8"), str(file))
        else:
            recipe = builtin(manifest.recipe)
    except (RecipeError, UnicodeDecodeError) as error:
        raise PackError(str(error), where=where, remedy="Name a recipe there is.") from error
    if recipe.digest != manifest.recipe_digest:
        raise PackError(
            f"{manifest.recipe} is {recipe.digest} here, not {manifest.recipe_digest}",
            where=f"{folder / MANIFEST}: recipe_digest",
            remedy="The model was trained on other pictures: use the Hypnocast it was made with.",
        )
    return recipe
