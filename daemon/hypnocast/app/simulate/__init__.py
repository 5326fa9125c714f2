"""The simulator: people who sleep through plausible nights, for demos, tests and load.

>>> for bed, arrival in SimulatedSource(2, seed=1, pages=20, faults=["dropout@100+10"]):
...     ...

Everything is a function of (seed, person, time). Real LSL outlets are in :mod:`.outlets`, which
is imported by whoever wants them, for it needs liblsl.
"""

from .events import Event, EventKind
from .faults import Fault, FaultKind, fault
from .hypnogram import Hypnogram
from .montages import CLINICAL, EVERYTHING, MONTAGES, Lead, Montage, Outlet, lead, montage
from .night import Night
from .person import Person, person
from .source import SimulatedSource

__all__ = [
    "CLINICAL",
    "EVERYTHING",
    "MONTAGES",
    "Event",
    "EventKind",
    "Fault",
    "FaultKind",
    "Hypnogram",
    "Lead",
    "Montage",
    "Night",
    "Outlet",
    "Person",
    "SimulatedSource",
    "fault",
    "lead",
    "montage",
    "person",
]
