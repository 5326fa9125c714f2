"""How to reach a broker, and how to prove who we are."""

from __future__ import annotations

import ssl
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hypnocast.errors import BrokerError


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """One broker. Files are read anew at each connection, so that secrets can be exchanged."""

    host: str = "127.0.0.1"
    port: int = 1883
    tls: bool = False
    ca_file: Path | None = None
    """Default: the authorities this host trusts."""
    cert_file: Path | None = None
    key_file: Path | None = None
    username_file: Path | None = None
    password_file: Path | None = None
    version: Literal["auto", "5", "3.1.1"] = "auto"
    keepalive_s: int = 15
    login_s: float = 5.0
    """A broker that does not answer a login or a subscription within this is given up."""
    client_word: str = ""
    """The part of the daemon's client id that nobody can guess; empty: another at each start."""
    answer_s: float = 10.0
    """A broker that acknowledges nothing for so long counts as gone."""

    @property
    def where(self) -> str:
        """Host and port, for people."""
        return f"{self.host}:{self.port}"


class _TidySocket(ssl.SSLSocket):
    """Closes itself where the handshake fails; paho would leave it to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - ssl's signature
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def tls_context(settings: BrokerSettings) -> ssl.SSLContext | None:
    """Return what verifies the broker's certificate and name, or None without TLS."""
    if not settings.tls:
        return None
    try:
        context = ssl.create_default_context(
            cafile=None if settings.ca_file is None else str(settings.ca_file)
        )
        if settings.cert_file is not None:
            context.load_cert_chain(settings.cert_file, settings.key_file)
    except (OSError, ssl.SSLError) as error:
        named = [f for f in (settings.ca_file, settings.cert_file, settings.key_file) if f]
        raise BrokerError(
            f"TLS certificate or key cannot be used: {error.strerror or error}",
            where=", ".join(map(str, named)) or settings.where,
            remedy="Name PEM files that this user may read.",
        ) from error
    context.sslsocket_class = _TidySocket
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def login(settings: BrokerSettings) -> tuple[str | None, str | None]:
    """Read user name and password from their files."""
    return _secret(settings.username_file), _secret(settings.password_file)


def _secret(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BrokerError(
            f"credential cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}",
            where=str(path),
            remedy="Write it there as one line of text, readable by this user.",
        ) from error
    if mode & (stat.S_IWGRP | stat.S_IRWXO):
        raise BrokerError(
            f"credential is open to others (mode {stat.S_IMODE(mode):o})",
            where=str(path),
            remedy=f"chmod 600 {path}",
        )
    if not text or "\n" in text:
        raise BrokerError(
            "credential is empty or has several lines",
            where=str(path),
            remedy="Write it there as one line of text.",
        )
    return text
