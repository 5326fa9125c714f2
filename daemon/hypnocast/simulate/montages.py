"""What leads a simulated amplifier sends, in which units, at which rates, in how many outlets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hypnocast.errors import ConfigError

_KINDS = {"E1": "EOG", "E2": "EOG", "Ch": "EMG", "EC": "ECG"}


@dataclass(frozen=True, slots=True)
class SimulatedLead:
    """One channel: an electrode, or the difference of two."""

    label: str
    positive: str
    negative: str | None = None

    @property
    def kind(self) -> str:
        """``EEG``, ``EOG``, ``EMG`` or ``ECG``, as LSL metadata has it."""
        return _KINDS.get(self.positive[:2], "EEG")

    def uses(self, name: str) -> bool:
        """Whether a lead has this label, or hangs on this electrode."""
        return name in (self.label, self.positive, self.negative)


@dataclass(frozen=True, slots=True)
class Outlet:
    """One stream of an amplifier."""

    suffix: str
    type: str
    rate: int
    leads: tuple[SimulatedLead, ...]
    unit: str | None = "microvolts"
    """What the metadata give, rightly or not; None where they give nothing."""
    per_microvolt: float = 1.0
    """What a microvolt is in the numbers sent."""


@dataclass(frozen=True, slots=True)
class AmplifierMontage:
    """All streams of one bed's amplifier."""

    name: str
    about: str
    outlets: tuple[Outlet, ...]


def lead(label: str) -> SimulatedLead:
    """Make a lead of a label: ``F4``, ``F4-M1``."""
    positive, _, negative = label.partition("-")
    return SimulatedLead(label, positive, negative or None)


def _leads(*labels: str) -> tuple[SimulatedLead, ...]:
    return tuple(lead(label) for label in labels)


CLINICAL = (
    *_leads("F4-M1", "C4-M1", "O2-M1", "E1-M2", "E2-M2"),
    SimulatedLead("Chin", "Chin1", "Chin2"),
)
"""The six leads of a clinical page."""
EVERYTHING = (*CLINICAL, *_leads("F3-M2", "C3-M2", "O1-M2", "ECG"))
_ELECTRODES = _leads("F3", "F4", "C3", "C4", "O1", "O2", "M1", "M2")
_FACE = _leads("E1", "E2", "Chin1", "Chin2", "ECG")


def _one(name: str, about: str, outlet: Outlet) -> AmplifierMontage:
    return AmplifierMontage(name, about, (outlet,))


MONTAGES: Mapping[str, AmplifierMontage] = MappingProxyType(
    {
        montage.name: montage
        for montage in (
            _one(
                "bipolar",
                "six ready-made derivations in microvolts at 256 Hz",
                Outlet("psg", "EEG", 256, CLINICAL),
            ),
            _one(
                "full",
                "the six derivations, their back-ups and the ECG in microvolts at 256 Hz",
                Outlet("psg", "EEG", 256, EVERYTHING),
            ),
            _one(
                "referential",
                "every electrode against the amplifier's own reference, in volts at 512 Hz",
                Outlet("psg", "EEG", 512, _ELECTRODES + _FACE, "volts", 1e-6),
            ),
            AmplifierMontage(
                "split",
                "EEG referential in volts at 512 Hz; EOG and EMG bipolar in microvolts at 256 Hz; "
                "ECG in millivolts at 128 Hz",
                (
                    Outlet("eeg", "EEG", 512, _ELECTRODES, "volts", 1e-6),
                    Outlet("eog", "EOG", 256, CLINICAL[3:]),
                    Outlet("ecg", "ECG", 128, _leads("ECG"), "millivolts", 1e-3),
                ),
            ),
            _one(
                "eeg-only",
                "three EEG derivations in microvolts at 256 Hz",
                Outlet("psg", "EEG", 256, CLINICAL[:3]),
            ),
            _one(
                "mirrored",
                "the left-sided derivations only, in microvolts at 256 Hz",
                Outlet("psg", "EEG", 256, _leads("F3-M2", "C3-M2", "O1-M2") + CLINICAL[3:]),
            ),
            _one(
                "fpz-cz",
                "one EEG of Sleep-EDF's kind, Fpz-Cz in microvolts at 100 Hz",
                Outlet("psg", "EEG", 100, _leads("Fpz-Cz")),
            ),
            _one(
                "no-units",
                "six derivations at 256 Hz whose metadata name no unit",
                Outlet("psg", "EEG", 256, CLINICAL, None),
            ),
            _one(
                "wrong-units",
                "six derivations in microvolts at 256 Hz whose metadata say volts",
                Outlet("psg", "EEG", 256, CLINICAL, "volts", 1.0),
            ),
        )
    }
)


def montage(name: str) -> AmplifierMontage:
    """Return a montage by its name."""
    try:
        return MONTAGES[name]
    except KeyError:
        raise ConfigError(
            f"no simulated montage is called {name!r}",
            remedy=f"Choose one of: {', '.join(MONTAGES)}.",
        ) from None
