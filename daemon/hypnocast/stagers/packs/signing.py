"""Signatures of packs, in minisign's format: who made a pack, where its digest says which it is.

What is signed is ``pack.toml``, and through the digests in it every file. ``minisign`` itself
makes and verifies the same: ``minisign -Sm pack.toml``, ``minisign -Vm pack.toml -P KEY``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from hypnocast.errors import ConfigError, InstallError, PackError
from hypnocast.stagers.packs.files import MANIFEST, SIGNATURE, read_plain
from hypnocast.stagers.packs.pack import Pack

MOST_BYTES = 4096
"""Of a signature or a key."""


def make_keys(password: str) -> tuple[bytes, bytes, str]:
    """Return a secret key, encrypted where there is a password, the public one, and its line."""
    pair = _library().KeyPair.generate()
    if password:
        pair.secret_key.encrypt(password)
    line = pair.public_key.to_base64().decode()
    return bytes(pair.secret_key) + b"\n", bytes(pair.public_key) + b"\n", line


def signature_of(pack: Pack, secret_key: Path, password: Callable[[], str]) -> bytes:
    """Sign a pack that was verified; ``password`` is asked where the key is encrypted."""
    minisign = _library()
    try:
        key = minisign.SecretKey.from_bytes(_small(secret_key))
        if key.is_encrypted():
            key.decrypt(password())
    except minisign.Error as error:
        raise ConfigError(
            f"no secret key of minisign's: {error}", where=str(secret_key), remedy="Try again."
        ) from None
    comment = f"{pack.manifest.name} {pack.manifest.version} {pack.digest}"
    signature = key.sign(_manifest(pack), trusted_comment=comment)
    key.wipe()
    return bytes(signature) + b"\n"


def check_signature(pack: Pack, key: str) -> str:
    """Check who signed a pack; return what the signature says of it.

    ``key`` is the public key, or the file that holds it.
    """
    minisign = _library()
    path = pack.folder / SIGNATURE
    if not path.is_file():
        raise PackError(
            "is not signed",
            where=str(pack.folder),
            remedy="Get it from who signs packs, or sign it yourself: hypnocast pack sign.",
        )
    try:
        public = _public_key(minisign, key)
    except minisign.Error as error:
        raise ConfigError(
            f"no public key of minisign's: {error}",
            where=key[:80],
            remedy="Give the line that begins with RW, or the file that holds it.",
        ) from None
    try:
        signature = minisign.Signature.from_bytes(_small(path))
        public.verify(_manifest(pack), signature)
    except minisign.Error as error:
        raise PackError(
            f"was not signed by {key[:80]}: {error}",
            where=str(path),
            remedy="Do not use this pack; ask who made it.",
        ) from None
    return str(signature.trusted_comment)


def _public_key(minisign: Any, key: str) -> Any:
    if Path(key).is_file():
        return minisign.PublicKey.from_bytes(_small(Path(key)))
    return minisign.PublicKey.from_base64(key)


def _manifest(pack: Pack) -> bytes:
    """Return the very bytes that were verified when the pack was loaded."""
    content = read_plain(pack.folder / MANIFEST)
    if f"sha256:{hashlib.sha256(content).hexdigest()}" != pack.digest:
        raise PackError(
            "was changed after the pack was verified",
            where=str(pack.folder / MANIFEST),
            remedy="Find out who writes there; get the pack again.",
        )
    return content


def _small(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES)
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}", where=str(path), remedy="Name a file that can be."
        ) from None


def _library() -> Any:
    try:
        return import_module("minisign")
    except ImportError as error:
        raise InstallError(
            f"signatures need py-minisign: {error}",
            where="pack",
            remedy="Install hypnocast[sign].",
        ) from error
