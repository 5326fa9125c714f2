"""From which addresses streams may come, where the configuration says so."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network


class Senders:
    """Addresses and networks; where none is named, everybody may send."""

    def __init__(self, places: Iterable[str] = ()) -> None:
        """Keep addresses such as ``10.0.0.7`` and networks such as ``10.0.0.0/24``."""
        self._networks = [ip_network(place, strict=False) for place in places]

    def know(self, address: str) -> bool:
        """Return whether a stream may come from an address."""
        if not self._networks:
            return True
        try:
            there = ip_address(address)
        except ValueError:
            return False
        return any(there in network for network in self._networks)


EVERYBODY = Senders()
