"""Writing a pack: the manifest with the digest of every file, then verified as the daemon does."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec

from hypnocast.errors import CommandError
from hypnocast.ports.durable_files import replace_file
from hypnocast.stagers.packs.files import MANIFEST
from hypnocast.stagers.packs.manifest import Manifest, Name, Version
from hypnocast.stagers.packs.pack import Pack, load_pack


def file_digest(path: Path) -> str:
    """``sha256:`` and 64 hex digits over a file."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def check_empty(folder: Path) -> None:
    """Refuse to put a new pack among other files."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CommandError("holds other files", where=str(folder), remedy="Name an empty folder.")


def check_version(version: str) -> None:
    """Refuse a version that no pack may have, before hours of work."""
    _check("--version", version, Version)


def check_name(name: str) -> None:
    """Refuse a name that no pack may have, before hours of work."""
    _check("--name", name, Name)


def _check(option: str, value: str, form: Any) -> None:
    try:
        msgspec.convert(value, form)
    except msgspec.ValidationError as error:
        raise CommandError(f"{value!r}: {error}", where=option) from error


def write_pack(folder: Path, facts: dict[str, Any]) -> Pack:
    """Write ``pack.toml`` over the files that lie in ``folder``, and load the pack.

    ``facts`` is the manifest without ``format`` and ``files``; what is wrong in it is refused
    here, by the path of the key, before anything is written.
    """
    files = {
        path.relative_to(folder).as_posix(): file_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    whole = {"format": "hypnocast.pack/1", **facts, "files": files}
    manifest = msgspec.convert(whole, Manifest, strict=False)
    replace_file(folder / MANIFEST, manifest_toml(manifest).encode(), mode=0o666)
    return load_pack(folder)


def manifest_toml(manifest: Manifest) -> str:
    """Give ``pack.toml`` as a person would write it: defaults and absent keys left out."""
    lines: list[str] = []
    _table(_without_none(msgspec.to_builtins(manifest)), "", lines)
    return "\n".join(lines).strip() + "\n"


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_without_none(v) for v in value]
    return value


def _table(table: dict[str, Any], path: str, lines: list[str]) -> None:
    later = {k: v for k, v in table.items() if isinstance(v, dict) or _is_tables(v)}
    lines += [f"{_key(k)} = {_value(v)}" for k, v in table.items() if k not in later]
    for key, value in later.items():
        inner = f"{path}.{_key(key)}" if path else _key(key)
        for part in value if isinstance(value, list) else [value]:
            lines += ["", f"[[{inner}]]" if isinstance(value, list) else f"[{inner}]"]
            _table(part, inner, lines)


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() else json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, list):
        if value and isinstance(value[0], list):
            return "[\n" + "".join(f"  {_value(row)},\n" for row in value) + "]"
        return "[" + ", ".join(_value(v) for v in value) + "]"
    # JSON's strings, numbers and booleans are TOML's.
    return json.dumps(value, ensure_ascii=False)
