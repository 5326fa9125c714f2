"""Stages as LSL streams, so that what records or reacts over LSL needs no MQTT.

Each bed has one irregular stream of its stage events, as JSON, and, where verdicts between page
closes are configured, one of the five probabilities. Both are stamped on the LSL clock at the end
of what they judge: a page, or a window of 30 s.
"""

from __future__ import annotations

from typing import Any, Final

import structlog

from hypnocast.core.wire import payloads
from hypnocast.ports.lsl.beds import OWN_SOURCE
from hypnocast.ports.lsl.library import load_pylsl

STAGES: Final = ("W", "N1", "N2", "N3", "R")
"""The order of the channels of a stream of probabilities."""

_NAN: Final = float("nan")
_log = structlog.get_logger("lsl")


class StageOutlets:
    """The outlets of all beds of one daemon."""

    def __init__(self, site: str, node: str, *, rolling: bool) -> None:
        """Keep where this is, and whether there are verdicts between page closes."""
        self._pylsl = load_pylsl()
        self._site = site
        self._node = node
        self._rolling = rolling
        self._outlets: dict[tuple[str, str], Any] = {}
        self.sent = 0
        """Samples handed to liblsl."""
        self.failures = 0
        """Samples that liblsl refused."""

    def announce(self, bed: str) -> None:
        """Announce a bed's streams, so that a recorder finds them before the first page."""
        self._outlet(bed, "events")
        if self._rolling:
            self._outlet(bed, "probabilities")

    def event(self, bed: str, payload: bytes, at: float) -> None:
        """Send a stage event as it was stored, stamped at the local time its page ended."""
        self._push(bed, "events", [payload.decode()], at)

    def rolling(self, verdict: payloads.Rolling, at: float) -> None:
        """Send the probabilities of a window that ended at a local LSL time; NaN: none."""
        probabilities = verdict.probabilities
        values = [
            _NAN if probabilities is None else getattr(probabilities, stage) for stage in STAGES
        ]
        self._push(verdict.bed, "probabilities", values, at)

    def close(self) -> None:
        """Announce nothing any more."""
        self._outlets.clear()

    def _push(self, bed: str, kind: str, sample: list[Any], at: float) -> None:
        outlet = self._outlet(bed, kind)
        if outlet is None:
            return
        try:
            outlet.push_sample(sample, at)
        except (OSError, RuntimeError, ValueError) as error:
            self._failed(bed, error)
        else:
            self.sent += 1

    def _outlet(self, bed: str, kind: str) -> Any:
        """Return an outlet, made where there is none; None where it cannot be made."""
        if (bed, kind) not in self._outlets:
            try:
                self._outlets[bed, kind] = self._open(bed, kind)
            except (OSError, RuntimeError, ValueError) as error:
                self._failed(bed, error)
        return self._outlets.get((bed, kind))

    def _failed(self, bed: str, error: Exception) -> None:
        self.failures += 1
        if self.failures == 1:
            _log.error("stages cannot be sent over LSL", bed=bed, error=str(error))

    def _open(self, bed: str, kind: str) -> Any:
        pylsl = self._pylsl
        texts = kind == "events"
        info = pylsl.StreamInfo(
            f"Hypnocast {bed} {kind}",
            "Markers" if texts else "Probabilities",
            1 if texts else len(STAGES),
            pylsl.IRREGULAR_RATE,
            "string" if texts else "float32",
            f"{OWN_SOURCE}{self._site}/{bed}/{kind}",
        )
        description = info.desc()
        for key, value in (
            ("manufacturer", "Hypnocast"),
            ("node", self._node),
            ("bed", bed),
            ("schema", "hypnocast.stage/1" if texts else "hypnocast.rolling/1"),
            ("research_use_only", "true"),
        ):
            description.append_child_value(key, value)
        channels = description.append_child("channels")
        for label in ("event",) if texts else STAGES:
            channel = channels.append_child("channel")
            channel.append_child_value("label", label)
            channel.append_child_value("type", "JSON" if texts else "probability")
        return pylsl.StreamOutlet(info, max_buffered=900)
