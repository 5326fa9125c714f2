"""Where everything lies on the broker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

HOME_ASSISTANT_ROOT: Final = "homeassistant/"
HOME_ASSISTANT_STATUS: Final = "homeassistant/status"
"""Home Assistant says ``online`` here when it was born: announce yourself again."""


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one site."""

    site: str
    root: str = "hypnocast"

    @property
    def prefix(self) -> str:
        """Return what all topics of the site begin with."""
        return f"{self.root}/{self.site}"

    def available(self, node: str) -> str:
        """Return the topic of ``online`` or ``offline``: retained, the daemon's last will."""
        return f"{self.prefix}/daemon/{node}/available"

    def daemon(self, node: str) -> str:
        """Return the topic of how the daemon does: retained."""
        return f"{self.prefix}/daemon/{node}/state"

    def status(self, bed: str) -> str:
        """Return the topic of what goes on at a bed: retained."""
        return f"{self.prefix}/bed/{bed}/status"

    def stage(self, bed: str) -> str:
        """Return the topic of the newest event: retained."""
        return f"{self.prefix}/bed/{bed}/stage"

    def events(self, bed: str) -> str:
        """Return the topic of every event in its order."""
        return f"{self.prefix}/bed/{bed}/events"

    def night(self, bed: str) -> str:
        """Return the topic of the night so far: retained."""
        return f"{self.prefix}/bed/{bed}/night"

    def page(self, bed: str) -> str:
        """Return the topic of the newest picture: retained."""
        return f"{self.prefix}/bed/{bed}/page"

    def rolling(self, bed: str) -> str:
        """Return the topic of verdicts between page closes."""
        return f"{self.prefix}/bed/{bed}/rolling"

    def notice(self, bed: str) -> str:
        """Return the topic of notices: a rule of the lab's own was met."""
        return f"{self.prefix}/bed/{bed}/notice"

    def traces(self, bed: str) -> str:
        """Return the topic of the signals themselves, second by second."""
        return f"{self.prefix}/bed/{bed}/traces"

    def spectrum(self, bed: str) -> str:
        """Return the topic of the night's spectrogram so far: retained."""
        return f"{self.prefix}/bed/{bed}/spectrum"

    def explanation(self, bed: str) -> str:
        """Return the topic of what the newest explained page's stage rests on: retained."""
        return f"{self.prefix}/bed/{bed}/explanation"

    def beside(self, bed: str) -> str:
        """Return the topic of the opinions of packs beside: retained."""
        return f"{self.prefix}/bed/{bed}/beside"

    def discovery(self, bed: str) -> str:
        """Return where Home Assistant finds the document of a bed's device: retained."""
        return f"{HOME_ASSISTANT_ROOT}device/{self.device(bed)}/config"

    def device(self, bed: str) -> str:
        """Return what Home Assistant knows a bed's device by."""
        return f"hypnocast-{self.site}-{bed}"

    def command(self, bed: str) -> str:
        """Return the topic on which commands come in."""
        return f"{self.prefix}/bed/{bed}/command"

    def reply(self, bed: str) -> str:
        """Return the topic on which commands are answered."""
        return f"{self.prefix}/bed/{bed}/reply"
