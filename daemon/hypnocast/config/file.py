"""A configuration read from its file: strict TOML, every fault named with its path."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import NoReturn
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from hypnocast.config.faults import fault
from hypnocast.config.tables import BedTable, Config, DashboardTable, PackTable, is_loopback
from hypnocast.core.montage.electrodes import read_electrode
from hypnocast.core.types import Role
from hypnocast.errors import ConfigError

Refuse = Callable[[str, str, str], NoReturn]


def parse_config(text: str, where: str = "configuration") -> Config:
    """Read a configuration; :class:`ConfigError` names the file, the key and the remedy."""
    try:
        config = msgspec.toml.decode(text, type=Config)
    except msgspec.ValidationError as error:
        key, what, remedy = fault(error, text, Config)
        raise ConfigError(f"[{key}] {what}", where=where, remedy=remedy) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigError(
            f"not valid TOML: {error}", where=where, remedy="Correct the line it names."
        ) from None
    _check(config, where)
    return config


def load_config(path: Path | None) -> Config:
    """Read the configuration file, or give the defaults where there is none."""
    if path is None:
        return Config()
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            error.strerror or str(error), where=str(path), remedy="Name a file that can be read."
        ) from None
    except UnicodeDecodeError:
        raise ConfigError("not UTF-8 text", where=str(path), remedy="Save it as UTF-8.") from None
    if mode & stat.S_IWOTH:
        raise ConfigError(
            "everybody can write this file", where=str(path), remedy=f"Run: chmod o-w {path}"
        )
    return parse_config(text, str(path))


def _check(config: Config, where: str) -> None:
    """Check what types cannot express."""

    def refuse(key: str, what: str, remedy: str) -> NoReturn:
        raise ConfigError(f"[{key}] {what}", where=where, remedy=remedy)

    try:
        ZoneInfo(config.site.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        refuse(
            "site.timezone",
            f"unknown time zone {config.site.timezone[:64]!r}",
            "Use a name such as Europe/Berlin.",
        )
    broker = config.broker
    if (broker.cert_file is None) != (broker.key_file is None):
        refuse("broker", "cert_file and key_file go together", "Give both or neither.")
    if not broker.uses_tls and (broker.ca_file or broker.cert_file):
        refuse("broker.tls", "certificates are given but TLS is off", "Set tls = true.")
    if broker.password_file and not broker.username_file:
        refuse("broker.password_file", "a password without a user", "Give username_file as well.")
    if "@" in broker.host or "/" in broker.host:
        refuse(
            "broker.host",
            "is more than the name of a host",
            "Give the host alone; user and password belong into credential files.",
        )
    if broker.topic_root.startswith("/") or broker.topic_root.endswith("/"):
        refuse("broker.topic_root", "begins or ends with a slash", "Leave the slash out.")
    _check_dashboard(config.dashboard, refuse)
    for index, place in enumerate(config.lsl.senders):
        try:
            ip_network(place, strict=False)
        except ValueError:
            remedy = "Write an address or a network, such as 10.0.0.7 or 10.0.0.0/24."
            refuse(f"lsl.senders[{index}]", f"{place[:64]!r} is no address", remedy)
    _check_servers(config.pack, refuse)
    _check_beds(config.bed, refuse)
    _check_rules(config, refuse)


def _check_servers(pack: PackTable, refuse: Refuse) -> None:
    secure = False
    for index, server in enumerate(pack.remote):
        key = f"pack.remote[{index}]"
        address = re.fullmatch(r"(grpcs?)://([A-Za-z0-9._-]+):\d{1,5}", server)
        if address is None:
            refuse(key, f"{server!r} is not an address", "Write grpcs://host:port.")
        secure |= address[1] == "grpcs"
        if address[1] == "grpc" and not is_loopback(address[2]) and not pack.remote_in_clear:
            refuse(
                key,
                "would send a person's pictures in clear to another host",
                "Write grpcs://, or set remote_in_clear = true on a network of the lab's own.",
            )
    if pack.remote_ca_file is not None and not secure:
        refuse("pack.remote_ca_file", "no server is asked over TLS", "Write grpcs:// in remote.")


def _check_dashboard(dashboard: DashboardTable, refuse: Refuse) -> None:
    if (dashboard.cert_file is None) != (dashboard.key_file is None):
        refuse("dashboard", "cert_file and key_file go together", "Give both or neither.")
    secured = dashboard.users_file and dashboard.cert_file
    if dashboard.enabled and not is_loopback(dashboard.host) and not secured:
        refuse(
            "dashboard.host",
            "open to the network without TLS and a login",
            "Give users_file, cert_file and key_file, or listen on 127.0.0.1.",
        )


def _check_beds(beds: tuple[BedTable, ...], refuse: Refuse) -> None:
    seen: set[str] = set()
    roles = {role.value for role in Role}
    for index, bed in enumerate(beds):
        key = f"bed {bed.id}"
        if bed.id in seen:
            refuse(
                f"bed[{index}].id", f"bed {bed.id!r} is there twice", "Give every bed its own id."
            )
        seen.add(bed.id)
        for place, selector in enumerate(bed.streams):
            if not selector.chooses:
                refuse(
                    f"{key}.streams[{place}]",
                    "selects nothing",
                    "Give source_id, name, type, host or predicate.",
                )
        if bed.reference is not None and read_electrode(bed.reference) is None:
            remedy = "Name what lone electrodes are measured against, such as M1, Cz or LE."
            refuse(f"{key}.reference", f"{bed.reference[:64]!r} is no electrode", remedy)
        for role in bed.roles:
            if role not in roles:
                refuse(
                    f"{key}.roles.{role}", "is not a role", f"Roles are {', '.join(sorted(roles))}."
                )


def _check_rules(config: Config, refuse: Refuse) -> None:
    beds = {bed.id for bed in config.bed}
    seen: set[tuple[str, str | None]] = set()
    for index, rule in enumerate(config.rule):
        key = f"rule[{index}]"
        if (rule.pages is None) == (rule.minutes is None):
            refuse(key, "needs either pages or minutes", "Give one of the two.")
        if (rule.name, rule.bed) in seen:
            refuse(f"{key}.name", f"{rule.name!r} is there twice", "Give every rule its own name.")
        seen.add((rule.name, rule.bed))
        if beds and rule.bed is not None and rule.bed not in beds:
            refuse(f"{key}.bed", f"there is no bed {rule.bed!r}", "Name a bed, or leave it out.")
