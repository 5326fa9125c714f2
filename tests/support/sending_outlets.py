"""What amplifiers in plain pylsl have in common: how they describe themselves, and when they send.

Nothing here is Hypnocast's. A module of outlets runs in a process of its own
(:func:`support.lsl_lab.sending`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pylsl
from numpy.typing import NDArray

from support.orphans import die_with_parent


@dataclass(frozen=True)
class SendingOutlet:
    """One outlet, and what it sends."""

    info: pylsl.StreamInfo
    values: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    """The samples (sample × channel) at these seconds since the start."""


def describe_channels(info: pylsl.StreamInfo, labels: Sequence[str], unit: str | None) -> None:
    """Name channels and unit as LSL's documentation recommends; ``None``: without the unit."""
    channels = info.desc().append_child("channels")
    for label in labels:
        channel = channels.append_child("channel")
        channel.append_child_value("label", label)
        if unit is not None:
            channel.append_child_value("unit", unit)


def send_until_killed(sending: Sequence[SendingOutlet]) -> None:
    """Open the outlets, say ``up``, and send what is due, a sixteenth of a second at least."""
    die_with_parent()
    outlets = [pylsl.StreamOutlet(one.info) for one in sending]
    began = pylsl.local_clock()
    sent = [0] * len(sending)
    sys.stdout.write("up\n")
    sys.stdout.flush()
    while True:
        passed = pylsl.local_clock() - began
        for index, (one, outlet) in enumerate(zip(sending, outlets, strict=True)):
            rate = one.info.nominal_srate()
            due = int(passed * rate) - sent[index]
            if due < rate // 16:
                continue
            values = one.values((sent[index] + np.arange(due)) / rate)
            kind = np.float64 if one.info.channel_format() == pylsl.cf_double64 else np.float32
            sent[index] += due
            outlet.push_chunk(
                np.ascontiguousarray(values, dtype=kind), began + (sent[index] - 1) / rate
            )
        time.sleep(0.02)
