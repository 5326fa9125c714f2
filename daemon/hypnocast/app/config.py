"""The configuration: strict TOML, every fault named with its path.

``docs/hypnocast.toml`` is the commented example; a test loads it. With no file at all the
defaults serve whatever polysomnography is found on the network, with a broker on localhost.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, NoReturn
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta, Struct

from hypnocast.app.config_faults import fault
from hypnocast.core.electrodes import read_electrode
from hypnocast.core.types import Role
from hypnocast.core.wire import TopicWord
from hypnocast.errors import ConfigError

Port = Annotated[int, Meta(ge=1, le=65535)]
Seconds = Annotated[float, Meta(gt=0.0, le=86400.0)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Days = Annotated[int, Meta(ge=1, le=3650)]

Refuse = Callable[[str, str, str], NoReturn]

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Table(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the configuration file."""


class Site(Table, frozen=True, kw_only=True):
    """Where this is."""

    id: TopicWord = "lab"
    timezone: str = "UTC"
    """For files, whose times are local and zoneless. LSL needs none."""


class Daemon(Table, frozen=True, kw_only=True):
    """This daemon among others of the site."""

    node: TopicWord = "hypnocast"
    state_dir: str = ""
    """Journal and tapes; empty: systemd's StateDirectory, else the user's state folder."""


class Broker(Table, frozen=True, kw_only=True):
    """The MQTT broker."""

    host: Annotated[str, Meta(min_length=1, max_length=255)] = "127.0.0.1"
    port: Port | None = None
    """Default 8883 with TLS, 1883 without."""
    tls: bool | None = None
    """Default: on, unless the broker is on this host."""
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    username_file: str | None = None
    password_file: str | None = None
    version: Literal["auto", "5", "3.1.1"] = "auto"
    topic_root: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_/-]{1,64}$")] = "hypnocast"

    @property
    def loopback(self) -> bool:
        """Whether the broker is on this host."""
        return self.host in _LOOPBACK or self.host.startswith("127.")

    @property
    def uses_tls(self) -> bool:
        """Whether to speak TLS: by default wherever the words leave this host."""
        return self.tls if self.tls is not None else not self.loopback

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self.host, self.port or (8883 if self.uses_tls else 1883)


class Pack(Table, frozen=True, kw_only=True):
    """The model, and what runs it."""

    name: str = "hypnocast-small"
    """A pack that ships, or the path of a pack folder."""
    provider: Literal["auto", "cuda", "tensorrt", "cpu"] = "auto"
    threads: Annotated[int, Meta(ge=1, le=64)] = 1
    review_below: Share | None = None
    """Pages less sure than this are marked for review; default: the pack's own."""
    explain: Literal["off", "channels", "patches"] = "off"
    remote: tuple[str, ...] = ()
    """Open Inference Protocol servers (``grpc://host:port``), tried in this order before the
    local model."""


class Signal(Table, frozen=True, kw_only=True):
    """How signals are read."""

    mains_hz: Literal[50, 60] = 50
    grace_s: Annotated[float, Meta(ge=0.0, le=25.0)] = 1.0
    """How long a page waits for samples that are late."""


class Session(Table, frozen=True, kw_only=True):
    """When nights begin and end."""

    auto: bool | None = None
    """Begin a session as soon as a bed's needed channels flow. Default: only without a file."""
    timeout_s: Seconds = 5400.0
    """A session ends after this long without streams: people go to the bathroom."""


class Lsl(Table, frozen=True, kw_only=True):
    """Where liblsl looks for streams; what is not given here its own lsl_api.cfg says."""

    peers: tuple[str, ...] = ()
    scope: Literal["machine", "link", "site", "organization", "global"] | None = None
    base_port: Port | None = None
    port_range: Annotated[int, Meta(ge=16, le=4096)] | None = None


class Tape(Table, frozen=True, kw_only=True):
    """The record of what came in, as it came."""

    enabled: bool = True
    folder: str = ""
    """Default: ``tapes`` in the state folder."""
    part_mb: Annotated[int, Meta(ge=1, le=65536)] = 2048
    keep_days: Days = 30
    keep_gb: Annotated[float, Meta(gt=0.0)] = 200.0


class Journal(Table, frozen=True, kw_only=True):
    """The durable record of sessions, verdicts and events."""

    keep_days: Days = 400


class Publish(Table, frozen=True, kw_only=True):
    """What else goes out over MQTT."""

    page: bool = False
    """The picture of every page, retained on ``page``."""
    hop_s: Annotated[float, Meta(ge=1.0, le=30.0)] | None = None
    """Verdicts on the last 30 s every so many seconds, on ``rolling``."""
    home_assistant: bool = False
    evidence: bool = False


class Metrics(Table, frozen=True, kw_only=True):
    """Prometheus metrics."""

    port: Port | None = None
    host: str = "127.0.0.1"


class Dashboard(Table, frozen=True, kw_only=True):
    """The ward page, inside the daemon."""

    enabled: bool = False
    host: str = "127.0.0.1"
    port: Port = 8080
    users_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


class StreamSelector(Table, frozen=True, kw_only=True):
    """Which stream; all that is given must hold."""

    source_id: str | None = None
    name: str | None = None
    type: str | None = None
    host: str | None = None
    predicate: str | None = None
    """XPath over the stream's header, as LSL has it."""
    labels: tuple[str, ...] = ()
    """Names for all channels, where the stream gives none or wrong ones."""
    rate: Annotated[float, Meta(gt=0.0, le=100_000.0)] | None = None
    """The nominal rate, where the stream gives none."""


class Bed(Table, frozen=True, kw_only=True):
    """One bed and its streams."""

    id: TopicWord
    streams: Annotated[tuple[StreamSelector, ...], Meta(min_length=1)]
    roles: dict[str, str] = {}
    """Role → derivation by electrode names, where the labels do not tell: ``{"F4-M1" =
    "EEG 3-REF"}``."""
    units: dict[str, str] = {}
    """Channel label (or ``*``) → unit, where the stream does not tell."""
    reference: str | None = None
    """What lone electrodes are measured against, where the labels do not tell."""


class Config(Table, frozen=True, kw_only=True):
    """The whole configuration."""

    site: Site = Site()
    daemon: Daemon = Daemon()
    broker: Broker = Broker()
    pack: Pack = Pack()
    signal: Signal = Signal()
    session: Session = Session()
    lsl: Lsl = Lsl()
    tape: Tape = Tape()
    journal: Journal = Journal()
    publish: Publish = Publish()
    metrics: Metrics = Metrics()
    dashboard: Dashboard = Dashboard()
    bed: tuple[Bed, ...] = ()

    @property
    def auto_session(self) -> bool:
        """Whether sessions begin by themselves."""
        return self.session.auto if self.session.auto is not None else not self.bed

    @property
    def prefix(self) -> str:
        """What every topic of this site begins with."""
        return f"{self.broker.topic_root}/{self.site.id}"

    @property
    def state_dir(self) -> Path:
        """Where journal and tapes lie."""
        if self.daemon.state_dir:
            return Path(self.daemon.state_dir).expanduser()
        given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
        if given:
            return Path(given)
        base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        return Path(base).expanduser() / "hypnocast"

    @property
    def tape_dir(self) -> Path:
        """Where tapes lie."""
        return Path(self.tape.folder).expanduser() if self.tape.folder else self.state_dir / "tapes"


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


def changed_keys(old: Config, new: Config) -> tuple[str, ...]:
    """Name every key in which two configurations differ."""
    keys: list[str] = []
    for table in Config.__struct_fields__:
        before, after = getattr(old, table), getattr(new, table)
        if before == after:
            continue
        if not isinstance(before, Table) or not isinstance(after, Table):
            keys.append(table)
            continue
        names = before.__struct_fields__
        keys += [f"{table}.{k}" for k in names if getattr(before, k) != getattr(after, k)]
    return tuple(keys)


def credential(name: str | None) -> Path | None:
    """Return the path of a credential file; a bare name lies among systemd's credentials."""
    if name is None:
        return None
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if folder and "/" not in name:
        return Path(folder) / name
    return Path(name).expanduser()


def _check(config: Config, where: str) -> None:
    """Check what types cannot say."""

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
    for index, server in enumerate(config.pack.remote):
        if not re.fullmatch(r"grpcs?://[A-Za-z0-9._-]+:\d{1,5}", server):
            refuse(
                f"pack.remote[{index}]", f"{server!r} is not an address", "Write grpc://host:port."
            )
    _check_beds(config.bed, refuse)


def _check_dashboard(board: Dashboard, refuse: Refuse) -> None:
    if (board.cert_file is None) != (board.key_file is None):
        refuse("dashboard", "cert_file and key_file go together", "Give both or neither.")
    if board.enabled and board.host not in _LOOPBACK and not (board.users_file and board.cert_file):
        refuse(
            "dashboard.host",
            "open to the network without TLS and a login",
            "Give users_file, cert_file and key_file, or listen on 127.0.0.1.",
        )


def _check_beds(beds: tuple[Bed, ...], refuse: Refuse) -> None:
    seen: set[str] = set()
    roles = {role.value for role in Role}
    for index, bed in enumerate(beds):
        key = f"bed[{index}]"
        if bed.id in seen:
            refuse(f"{key}.id", f"bed {bed.id!r} is there twice", "Give every bed its own id.")
        seen.add(bed.id)
        for place, selector in enumerate(bed.streams):
            chosen = (selector.source_id, selector.name, selector.type, selector.host)
            if not any((*chosen, selector.predicate)):
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
