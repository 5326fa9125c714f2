"""The settings of the ward page."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from hypnocast.config.tables import Config, is_loopback
from hypnocast.errors import ConfigError
from hypnocast.ports.mqtt.settings import BrokerSettings

SESSION_S = 16 * 3600.0
"""A login lasts a night shift and its handing over."""


@dataclass(frozen=True, slots=True)
class DashboardSettings:
    """Where the broker is, where to listen, and who may look."""

    broker: BrokerSettings = field(default_factory=BrokerSettings)
    prefix: str = "hypnocast/lab"
    timezone: str = "UTC"
    """The clocks of the site: times are shown by them, whoever looks from wherever."""
    host: str = "127.0.0.1"
    port: int = 8080
    """0: any free port."""
    users_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    """Without logins: what opens the page. By default a new one at each start."""
    session_s: float = SESSION_S
    patience_s: float = 10.0
    """How long to wait for a daemon's reply, or for the rest of a request."""

    @classmethod
    def of(cls, config: Config, broker: BrokerSettings) -> DashboardSettings:
        """Read them from a configuration, and the way to the broker that was made of it."""
        table = config.dashboard
        return cls(
            broker=broker,
            prefix=config.prefix,
            timezone=config.site.timezone,
            host=table.host,
            port=table.port,
            users_file=table.users_file,
            cert_file=table.cert_file,
            key_file=table.key_file,
        )

    def __post_init__(self) -> None:
        """Refuse to open the ward to a network without TLS and a login."""
        if (self.cert_file is None) != (self.key_file is None):
            raise ConfigError(
                "a certificate without its key, or a key without its certificate",
                where="dashboard",
                remedy="Give cert_file and key_file together.",
            )
        if not self.loopback and not (self.users_file and self.cert_file):
            raise ConfigError(
                f"{self.host} is open to the network without TLS and a login",
                where="dashboard",
                remedy="Give users_file, cert_file and key_file, or listen on 127.0.0.1.",
            )

    @property
    def loopback(self) -> bool:
        """Whether only this host can reach the page."""
        return is_loopback(self.host)

    @property
    def secure(self) -> bool:
        """Whether the page is served over TLS."""
        return self.cert_file is not None
