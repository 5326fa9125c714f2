"""liblsl: loading it, and setting how it searches the network.

:mod:`pylsl` raises at import where its wheel came without a liblsl; everything in Hypnocast
that needs LSL therefore asks :func:`load_pylsl` for it and gets either the module or an
:class:`~hypnocast.errors.InstallError` with the remedy.
"""

from __future__ import annotations

import configparser
import importlib
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hypnocast.errors import ConfigError, InstallError

Scope = Literal["machine", "link", "site", "organization", "global"]

_SEARCH_OFTEN = {
    "ContinuousResolveInterval": 0.2,
    "MulticastMinRTT": 0.1,
    "UnicastMinRTT": 0.1,
}
"""Look for streams a few times a second. An outlet that restarts sends to nobody until it is
found: with liblsl's own pace that cost 0.8 to 1.1 s of samples, with this one 0 to 0.3 s."""

_QUIET = {"log": {"level": -1}}
"""Warnings, but not what it loaded from where: standard error is for what concerns people."""

_lock = threading.Lock()
_configured: list[str] = []


@dataclass(frozen=True, slots=True)
class LslNetwork:
    """How LSL searches the network; None leaves a value to liblsl's own configuration file."""

    peers: tuple[str, ...] = ()
    """Hosts asked directly, for networks that swallow multicast."""
    scope: Scope | None = None
    """How far multicast goes; ``machine`` stays on this computer."""
    base_port: int | None = None
    port_range: int | None = None
    """How many ports from ``base_port`` on; every outlet of a host uses two."""
    multicast_port: int | None = None
    ipv6: bool | None = None
    session_id: str | None = None
    """Only streams of senders with the same session id are seen; liblsl's own is ``default``."""

    def content(self, own: str = "") -> str:
        """Write it as liblsl's configuration file has it; empty where nothing was set.

        ``own`` is the text of the file that this host has: what it sets and this does not is kept.
        """
        ports = {
            "BasePort": self.base_port,
            "PortRange": self.port_range,
            "MulticastPort": self.multicast_port,
            "IPv6": None if self.ipv6 is None else ("allow" if self.ipv6 else "disable"),
        }
        sections: dict[str, dict[str, object]] = {
            "ports": {key: value for key, value in ports.items() if value is not None},
            "multicast": {"ResolveScope": self.scope} if self.scope else {},
            "lab": {
                **({"KnownPeers": "{" + ", ".join(self.peers) + "}"} if self.peers else {}),
                **({"SessionID": self.session_id} if self.session_id else {}),
            },
        }
        if not any(sections.values()):
            return ""
        sections["tuning"] = dict(_SEARCH_OFTEN)
        kept = _sections(own)
        names = dict.fromkeys((*sections, *kept))
        return _written({name: {**kept.get(name, {}), **sections.get(name, {})} for name in names})


def _written(sections: Mapping[str, Mapping[str, object]]) -> str:
    lines: list[str] = []
    for section, values in sections.items():
        if values:
            lines += [f"[{section}]", *(f"{key} = {value}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _sections(text: str) -> dict[str, dict[str, str]]:
    """Read a configuration file of liblsl's own."""
    reader = configparser.RawConfigParser(
        delimiters=("=",), comment_prefixes=(";", "#"), strict=False, default_section="\0"
    )
    reader.optionxform = str  # type: ignore[assignment, method-assign]  # keys keep their case
    try:
        reader.read_string(text)
    except configparser.Error as error:
        raise ConfigError(
            f"liblsl's own configuration file cannot be read: {' '.join(str(error).split())}",
            where="lsl",
            remedy="Correct the file, or leave all keys of [lsl] away so that liblsl reads it",
        ) from None
    return {name: dict(reader.items(name)) for name in reader.sections()}


def _own_file() -> Path | None:
    """Return the configuration file of liblsl's own that this host has, as liblsl looks for it."""
    named = os.environ.get("LSLAPICFG")
    places = ("lsl_api.cfg", "~/lsl_api/lsl_api.cfg", "/etc/lsl_api/lsl_api.cfg")
    found = (Path(place).expanduser() for place in (*([named] if named else []), *places))
    return next((path for path in found if path.is_file()), None)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(
            f"liblsl's own configuration file cannot be read: {error}", where="lsl"
        ) from None


def load_pylsl() -> Any:
    """Return :mod:`pylsl`; raise where there is none, with the remedy."""
    try:
        return importlib.import_module("pylsl")
    except (ImportError, OSError, RuntimeError) as error:
        raise InstallError(
            "Lab Streaming Layer's library liblsl cannot be loaded",
            where="pylsl",
            remedy=(
                "Set PYLSL_LIB to the path of a liblsl.so (version 1.16 or later); "
                "`pip install mne-lsl` brings one for x86-64 and aarch64 in its folder lib, and "
                "https://github.com/sccn/liblsl/releases has packages for Debian and Ubuntu"
            ),
        ) from error


def configure_lsl(network: LslNetwork) -> None:
    """Set how liblsl searches, before anything else uses it in this process.

    liblsl reads its configuration once, at its first use, and ignores what comes later. Where
    ``network`` sets nothing, liblsl's own file (``LSLAPICFG``, ``lsl_api.cfg``) stays in force;
    where it sets anything, that goes before the file, and the rest of the file is kept.
    Where there is neither, liblsl is set to search often and to log nothing.
    """
    own = _own_file()
    given = network.content("" if own is None else _text_of(own))
    if not given and own is not None:
        return
    content = given or _written({"tuning": _SEARCH_OFTEN})
    if "[log]" not in content:
        content += _written(_QUIET)
    for word in (*network.peers, network.session_id or "default"):
        if not word or set(word) & set("{},;#[]= \t\r\n"):
            raise ConfigError(f"{word!r} is neither a host nor a session's name", where="lsl")
    pylsl = load_pylsl()
    with _lock:
        if _configured:
            if _configured[0] != content:
                raise ConfigError(
                    "liblsl was already configured otherwise in this process",
                    where="lsl",
                    remedy="Set the network once, before the first stream is opened",
                )
            return
        try:
            pylsl.set_config_content(content)
        except NotImplementedError as error:
            if not given:
                return
            raise InstallError(
                "this liblsl is older than 1.17.7 and takes no settings from Hypnocast",
                where="lsl",
                remedy="Write them into a file and name it in LSLAPICFG, or update liblsl",
            ) from error
        _configured.append(content)
