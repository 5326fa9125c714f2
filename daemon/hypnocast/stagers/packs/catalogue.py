"""Where packs lie, and what is shown of each: ``hypnocast pack list|show|verify``.

Packs are looked for in the folders of ``HYPNOCAST_PACKS``, in the user's data folder, and in
the one that ships with Hypnocast, in this order; the first of a name counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from hypnocast.errors import PackError
from hypnocast.stagers.packs.files import MANIFEST
from hypnocast.stagers.packs.pack import load_pack, read_manifest, verify_pack

Origin = Literal["environment", "user", "shipped"]


@dataclass(frozen=True, slots=True)
class CataloguedPack:
    """A pack that was found, not yet verified."""

    name: str
    version: str
    family: str
    recipe: str
    folder: str
    origin: Origin
    fault: str | None = None
    """Why its ``pack.toml`` cannot be read; the other fields then mean little."""


def pack_folders(environment: Mapping[str, str] = os.environ) -> list[tuple[Origin, Path]]:
    """Return the folders in which packs are looked for, the most particular first."""
    named = environment.get("HYPNOCAST_PACKS", "")
    home = environment.get("XDG_DATA_HOME") or Path("~/.local/share").expanduser()
    return [
        *(("environment", Path(part)) for part in named.split(os.pathsep) if part),
        ("user", Path(home) / "hypnocast" / "packs"),
        ("shipped", Path(__file__).parents[2] / "packs"),
    ]


def find_packs(environment: Mapping[str, str] = os.environ) -> list[CataloguedPack]:
    """Find every pack there is; of several with one name the first counts and is listed first."""
    return [
        _describe(folder, origin)
        for origin, root in pack_folders(environment)
        for folder in _packs_in(root)
    ]


def resolve_pack(wanted: str | Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of a pack given by name, or by the path of its folder."""
    path = Path(wanted)
    if isinstance(wanted, Path) or len(path.parts) != 1:
        return path
    packs = find_packs(environment)
    for pack in packs:
        if pack.name == wanted:
            return Path(pack.folder)
    if (path / MANIFEST).is_file():
        return path
    there = ", ".join(sorted({pack.name for pack in packs})) or "none"
    raise PackError(
        f"there is no pack called {str(wanted)!r}",
        where="pack",
        remedy=f"There are: {there}. A path to a pack's folder will do as well.",
    )


def show_pack(path: str | Path) -> dict[str, Any]:
    """Load and verify a pack, and return its whole ``pack.toml`` as plain data."""
    pack = load_pack(path)
    sizes = {name: (pack.folder / name).stat().st_size for name in pack.manifest.files}
    facts: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(pack.manifest))
    return facts | {
        "folder": str(pack.folder),
        "digest": pack.digest,
        "bytes": sum(sizes.values()),
        "sizes": sizes,
    }


def check_pack(path: str | Path, key: str | None = None) -> dict[str, Any]:
    """Verify a pack, and return every fault as plain data; with a key, who signed it too."""
    faults = [str(fault) for fault in verify_pack(path)]
    signature = ""
    if key is not None and not faults:
        from hypnocast.stagers.packs.signing import check_signature

        try:
            signature = check_signature(load_pack(path), key)
        except PackError as error:
            faults = [str(error)]
    facts: dict[str, Any] = {"folder": str(Path(path).resolve()), "sound": not faults}
    if not faults:
        pack = load_pack(path)
        facts |= {"name": pack.manifest.name, "version": pack.manifest.version}
        facts |= {"digest": pack.digest, "files": len(pack.manifest.files)}
        facts |= {"signature": signature} if key is not None else {}
    return facts | {"faults": faults}


def _packs_in(root: Path) -> Iterator[Path]:
    if root.is_dir():
        yield from sorted(entry for entry in root.iterdir() if (entry / MANIFEST).is_file())


def _describe(folder: Path, origin: Origin) -> CataloguedPack:
    try:
        manifest = read_manifest(folder)
    except PackError as error:
        return CataloguedPack(folder.name, "", "", "", str(folder), origin, fault=str(error))
    return CataloguedPack(
        name=manifest.name,
        version=manifest.version,
        family=str(type(manifest.model).__struct_config__.tag),
        recipe=manifest.recipe,
        folder=str(folder),
        origin=origin,
    )
