"""The simulator: people who sleep through plausible nights, for demos, tests and load.

>>> for bed, arrival in SimulatedSource(2, seed=1, pages=20, faults=["dropout@100+10"]):
...     ...

Everything is a function of (seed, person, time). Real LSL outlets are in :mod:`.outlets`, which
is imported by whoever wants them, for it needs liblsl.
"""

from hypnocast.simulate.events import Event, EventKind
from hypnocast.simulate.faults import Fault, FaultKind, fault
from hypnocast.simulate.hypnogram import TrueHypnogram
from hypnocast.simulate.montages import (
    CLINICAL,
    EVERYTHING,
    MONTAGES,
    AmplifierMontage,
    Outlet,
    SimulatedLead,
    lead,
    montage,
)
from hypnocast.simulate.night import SimulatedNight
from hypnocast.simulate.person import Person, person
from hypnocast.simulate.source import SimulatedSource

__all__ = [
    "CLINICAL",
    "EVERYTHING",
    "MONTAGES",
    "AmplifierMontage",
    "Event",
    "EventKind",
    "Fault",
    "FaultKind",
    "Outlet",
    "Person",
    "SimulatedLead",
    "SimulatedNight",
    "SimulatedSource",
    "TrueHypnogram",
    "fault",
    "lead",
    "montage",
    "person",
]
