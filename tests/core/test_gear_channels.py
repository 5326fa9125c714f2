"""Position and impedance: known by type or label, never taken for a signal, the newest kept."""

from __future__ import annotations

import numpy as np
import pytest

from hypnocast.core.montage.choice import choose_montage
from hypnocast.core.montage.gear_channels import MOST, GearValues, gear_kind
from hypnocast.core.types import ChannelInfo, Chunk, Role, StreamHeader


def stream(*channels: ChannelInfo, type_: str = "EEG") -> StreamHeader:
    return StreamHeader("amp", "amp", type_, "amp", "uid", "host", 256.0, channels)


def chunk(stamp: float, *values: float, arrived: float = 0.0) -> Chunk:
    return Chunk("amp", np.array([values]), np.array([stamp]), arrived)


@pytest.mark.parametrize(
    ("label", "type_", "kind"),
    [
        ("C4", "Impedance", "impedance"),
        ("7", "Position", "position"),
        ("body", "Body Position", "position"),
        ("Pos", None, "position"),
        ("Position", None, "position"),
        ("Body Pos.", None, "position"),
        ("POSITION SEN", None, "position"),
        ("Pos. Angle", None, "position"),
        ("Imp C4", None, "impedance"),
        ("IMP_F4", None, "impedance"),
        ("C4-M1 Impedance", None, "impedance"),
        ("C4", None, None),
        ("C4-M1", "EEG", None),
        ("POz", "EEG", None),
        ("Pz", None, None),
        ("Chin Impulse", None, None),
        ("Postcentral", None, None),
    ],
)
def test_what_a_channel_carries_is_known_by_its_type_or_its_label(
    label: str, type_: str | None, kind: str | None
) -> None:
    channel = ChannelInfo(label, kind=type_)
    assert gear_kind(stream(channel), channel) == kind
    assert gear_kind(stream(channel, type_="Impedance"), channel) == (kind or "impedance")


def test_an_impedance_is_never_taken_for_the_signal_of_its_electrode() -> None:
    shadows = [ChannelInfo(name, "uV", "Impedance") for name in ("F4-M1", "C4-M1", "E1-M2")]
    assert not choose_montage([stream(*shadows)]).derivations
    plain = [ChannelInfo(name, "uV") for name in ("F4-M1", "C4-M1")]
    assert not choose_montage([stream(*plain, type_="Impedances")]).derivations
    real = ChannelInfo("C4-M1", "uV", "EEG")
    chosen = choose_montage([stream(*shadows, real)]).derivations
    assert {role: one.positive for role, one in chosen.items()} == {Role.C4: 3}


def test_the_newest_value_is_kept_with_the_time_since_which_it_holds() -> None:
    values = GearValues()
    amplifier = stream(
        ChannelInfo("C4-M1", "uV"),
        ChannelInfo("Position", None),
        ChannelInfo("C4", "kOhm", "Impedance", scale=0.5),
    )
    values.open(amplifier)
    assert values.now() == ()
    values.add(chunk(10.0, 55.0, 3.0, 8.111))
    values.add(chunk(11.0, 56.0, 3.01, 8.14))
    values.add(chunk(12.0, 57.0, float("nan"), 21.0, arrived=912.0))
    position, impedance = values.now()
    assert (position.kind, position.value, position.unit, position.since) == (
        "position", 3.0, None, 10.0,
    )  # fmt: skip
    assert (impedance.channel, impedance.value, impedance.unit, impedance.since) == (
        "C4", 10.0, "kOhm", 912.0,
    )  # fmt: skip
    values.lose("amp")
    assert values.now() == ()
    values.add(chunk(13.0, 55.0, 4.0, 8.0))
    assert values.now() == ()


def test_a_stream_of_a_thousand_impedances_is_bounded() -> None:
    values = GearValues()
    values.open(stream(*(ChannelInfo(f"Imp {place}") for place in range(1000))))
    values.add(chunk(1.0, *range(1000)))
    assert len(values.now()) == MOST
