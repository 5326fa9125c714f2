"""Units: every spelling of a voltage, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypnocast.core.montage.units import microvolts_per

SPELLINGS = {
    1e6: ["V", "v", "volt", "Volts", "VOLTS", " V ", "[V]"],
    1e3: ["mV", "MV", "mv", "millivolt", "millivolts", "milli-volts", "Milli Volts", "(mV)"],
    1.0: [
        "uV", "UV", "uv", "µV", "\u00b5V", "\u03bcV", "\u03bcv", "ΜV", "microvolt", "microvolts",
        "MicroVolts", "micro-volts",
        "micro volts", "uVolts", "muV", "mcV", "[µV]", "1 uV", "1e-6 V",
    ],
    1e-3: ["nV", "NV", "nanovolt", "nanovolts", "Nano-Volts"],
    0.1: ["0.1 uV", "0.1uV/count", "0.1 µV / LSB", "1e-4 mV/bit", "100 nV per count"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("unit", "worth"), [(unit, worth) for worth, units in SPELLINGS.items() for unit in units]
)
def test_every_spelling_of_a_voltage_is_read(unit: str, worth: float) -> None:
    assert microvolts_per(unit) == pytest.approx(worth, rel=1e-12)


@pytest.mark.parametrize(
    "unit",
    [
        None, "", " ", "counts", "raw", "a.u.", "au", "%", "mmHg", "bpm", "degC", "ohm", "kohm",
        "kV", "vV", "xV", "n/a", "unknown", "normalized", "0 uV", "-", "uV2/Hz", "uV/s", "A", "mA",
    ],
)  # fmt: skip
def test_what_is_no_voltage_is_unknown_and_never_guessed(unit: str | None) -> None:
    assert microvolts_per(unit) is None


def test_a_scale_says_what_a_count_is_worth() -> None:
    assert microvolts_per("uV", 0.0244) == pytest.approx(0.0244)
    assert microvolts_per("mV", 0.001) == pytest.approx(1.0)
    assert microvolts_per("counts", 0.1) is None
    assert microvolts_per(None, 0.1) is None
    assert microvolts_per("uV", 0.0) is None


@given(st.text(max_size=30), st.one_of(st.none(), st.floats()))
def test_any_text_gives_a_usable_number_or_none(unit: str, scale: float | None) -> None:
    worth = microvolts_per(unit, scale)
    assert worth is None or 0 < abs(worth) < float("inf")
