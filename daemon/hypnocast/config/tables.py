"""What can be configured, table by table.

``docs/hypnocast.toml`` is the commented example; a test loads it. With no file at all the
defaults serve whatever polysomnography is found on the network, with a broker on localhost.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from hypnocast.core.night.rules import StageRule, pages_of
from hypnocast.core.wire.payloads import StageName, TopicWord
from hypnocast.ports.lsl.beds import Selector

Port = Annotated[int, Meta(ge=1, le=65535)]
Seconds = Annotated[float, Meta(gt=0.0, le=86400.0)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Days = Annotated[int, Meta(ge=1, le=3650)]


def is_loopback(host: str) -> bool:
    """Return whether a host is this one, by a name that nobody else can reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name: "127.evil.example" begins like this host and is another
        return False


class ConfigTable(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the configuration file."""


class SiteTable(ConfigTable, frozen=True, kw_only=True):
    """Where this is."""

    id: TopicWord = "lab"
    timezone: str = "UTC"
    """For files, whose times are local and zoneless. LSL needs none."""


class DaemonTable(ConfigTable, frozen=True, kw_only=True):
    """This daemon among others of the site."""

    node: TopicWord = "hypnocast"
    state_dir: str = ""
    """Journal and tapes; empty: systemd's StateDirectory, else the user's state folder."""


class BrokerTable(ConfigTable, frozen=True, kw_only=True):
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
        return is_loopback(self.host)

    @property
    def uses_tls(self) -> bool:
        """Whether to use TLS: by default wherever the data leave this host."""
        return self.tls if self.tls is not None else not self.loopback

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self.host, self.port or (8883 if self.uses_tls else 1883)


class BesidePackTable(ConfigTable, frozen=True, kw_only=True):
    """A model that judges the same pages for a second opinion."""

    name: str
    """A pack that ships, or the path of a pack folder."""
    digest: Annotated[str, Meta(pattern="^sha256:[0-9a-f]{64}$")] | None = None
    """Only the pack of this digest is loaded (``hypnocast pack show`` prints it)."""
    signed_by: Annotated[str, Meta(pattern=r"^RW[A-Za-z0-9+/]{54}$")] | None = None
    """Only a pack that was signed by this minisign key is loaded."""
    provider: Literal["auto", "cuda", "tensorrt", "cpu"] = "auto"
    threads: Annotated[int, Meta(ge=1, le=64)] | None = None
    """Default: one, and for a generative pack every core, four at most."""


class PackTable(ConfigTable, frozen=True, kw_only=True):
    """The model, and what runs it."""

    name: str = "hypnocast-small"
    """A pack that ships, or the path of a pack folder."""
    digest: Annotated[str, Meta(pattern="^sha256:[0-9a-f]{64}$")] | None = None
    """Only the pack of this digest is loaded (``hypnocast pack show`` prints it)."""
    signed_by: Annotated[str, Meta(pattern=r"^RW[A-Za-z0-9+/]{54}$")] | None = None
    """Only a pack that was signed by this minisign key is loaded."""
    provider: Literal["auto", "cuda", "tensorrt", "cpu"] = "auto"
    threads: Annotated[int, Meta(ge=1, le=64)] | None = None
    """Default: one, and for a generative pack every core, four at most."""
    review_below: Share | None = None
    """Pages less sure than this are marked for review; default: the pack's own."""
    explain: Literal["off", "channels", "patches"] = "off"
    remote: tuple[str, ...] = ()
    """Open Inference Protocol servers (``grpc://host:port``), tried in this order before the
    local model. A server on another host is asked over TLS: ``grpcs://host:port``."""
    remote_ca_file: str | None = None
    """Who signs the servers' certificates; default: whom gRPC trusts by itself."""
    remote_in_clear: bool = False
    """Send pictures to other hosts unencrypted, where ``remote`` begins with ``grpc://``."""
    beside: Annotated[tuple[BesidePackTable, ...], Meta(max_length=4)] = ()
    """Packs that judge the same pages when there is time, and never delay the one that speaks."""


class SignalTable(ConfigTable, frozen=True, kw_only=True):
    """How signals are read."""

    mains_hz: Literal[50, 60] = 50
    grace_s: Annotated[float, Meta(ge=0.0, le=25.0)] = 1.0
    """How long a page waits for samples that are late."""


class SessionTable(ConfigTable, frozen=True, kw_only=True):
    """When nights begin and end."""

    auto: bool | None = None
    """Begin a session as soon as a bed's needed channels flow. Default: only without a file."""
    timeout_s: Seconds = 5400.0
    """A session ends after this long without streams: people go to the bathroom."""


class LslTable(ConfigTable, frozen=True, kw_only=True):
    """Where liblsl looks for streams; what is not given here is as its own lsl_api.cfg has it."""

    peers: tuple[str, ...] = ()
    scope: Literal["machine", "link", "site", "organization", "global"] | None = None
    base_port: Port | None = None
    port_range: Annotated[int, Meta(ge=16, le=4096)] | None = None
    session_id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = None
    """Only streams of senders with the same session id are seen."""
    senders: tuple[str, ...] = ()
    """Addresses and networks from which streams are read; default: any."""
    pin: bool = False
    """In mid-session a stream from another host or address is read only once the lab accepts it."""
    publish: bool = True
    """Stages as LSL streams beside MQTT, for what records or reacts over LSL."""


class TapeTable(ConfigTable, frozen=True, kw_only=True):
    """The record of what came in, as it came."""

    enabled: bool = True
    folder: str = ""
    """Default: ``tapes`` in the state folder."""
    part_mb: Annotated[int, Meta(ge=1, le=65536)] = 2048
    keep_days: Days = 30
    keep_gb: Annotated[float, Meta(gt=0.0)] = 200.0


class JournalTable(ConfigTable, frozen=True, kw_only=True):
    """The durable record of sessions, verdicts and events."""

    keep_days: Days = 400


class PublishTable(ConfigTable, frozen=True, kw_only=True):
    """What else goes out over MQTT."""

    page: bool = False
    """The picture of every page, retained on ``page``."""
    hop_s: Annotated[float, Meta(ge=1.0, le=30.0)] | None = None
    """Verdicts on the last 30 s every so many seconds, on ``rolling``."""
    spectrum: bool = True
    """The night's power spectrum, page by page, retained on ``spectrum``."""
    traces: bool = False
    """The newest second of every channel, on ``traces``: for the ward page's moving signals."""
    home_assistant: bool = False
    evidence: bool = False


class MetricsTable(ConfigTable, frozen=True, kw_only=True):
    """Prometheus metrics."""

    port: Port | None = None
    host: str = "127.0.0.1"


class DashboardTable(ConfigTable, frozen=True, kw_only=True):
    """The ward page, inside the daemon."""

    enabled: bool = False
    host: str = "127.0.0.1"
    port: Port = 8080
    users_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


class BedTable(ConfigTable, frozen=True, kw_only=True):
    """One bed and its streams."""

    id: TopicWord
    streams: Annotated[tuple[Selector, ...], Meta(min_length=1)]
    roles: dict[str, str] = {}
    """Role → derivation by electrode names, where the labels do not show it: ``{"F4-M1" =
    "EEG 3-REF"}``."""
    units: dict[str, str] = {}
    """Channel label (or ``*``) → unit, where the stream gives none."""
    reference: str | None = None
    """What lone electrodes are measured against, where the labels do not show it."""


class RuleTable(ConfigTable, frozen=True, kw_only=True):
    """A rule of the lab's own: so many pages of a stage in a row make a notice."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    stage: StageName
    pages: Annotated[int, Meta(ge=1, le=960)] | None = None
    minutes: Annotated[float, Meta(gt=0.0, le=480.0)] | None = None
    """Instead of ``pages``; a begun page counts as a whole one."""
    confidence: Share = 0.0
    """Each of the pages is at least so sure."""
    bed: TopicWord | None = None
    """Default: every bed."""

    @property
    def rule(self) -> StageRule:
        """The rule, in pages."""
        pages = self.pages if self.minutes is None else pages_of(self.minutes)
        return StageRule(self.name, self.stage, pages or 1, self.confidence)


class Config(ConfigTable, frozen=True, kw_only=True):
    """The whole configuration."""

    site: SiteTable = SiteTable()
    daemon: DaemonTable = DaemonTable()
    broker: BrokerTable = BrokerTable()
    pack: PackTable = PackTable()
    signal: SignalTable = SignalTable()
    session: SessionTable = SessionTable()
    lsl: LslTable = LslTable()
    tape: TapeTable = TapeTable()
    journal: JournalTable = JournalTable()
    publish: PublishTable = PublishTable()
    metrics: MetricsTable = MetricsTable()
    dashboard: DashboardTable = DashboardTable()
    bed: tuple[BedTable, ...] = ()
    rule: Annotated[tuple[RuleTable, ...], Meta(max_length=32)] = ()

    @property
    def auto_session(self) -> bool:
        """Whether sessions begin by themselves."""
        return self.session.auto if self.session.auto is not None else not self.bed

    def rules_of(self, bed: str) -> tuple[StageRule, ...]:
        """Return the lab's own rules that hold at a bed."""
        return tuple(table.rule for table in self.rule if table.bed in (None, bed))

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


def changed_keys(old: Config, new: Config) -> tuple[str, ...]:
    """Name every key in which two configurations differ."""
    keys: list[str] = []
    for table in Config.__struct_fields__:
        before, after = getattr(old, table), getattr(new, table)
        if before == after:
            continue
        if not isinstance(before, ConfigTable) or not isinstance(after, ConfigTable):
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
