"""Which derivation is wanted for which role, best first.

AASM's recommended derivation, its mirror image on the other side, then what still shows the same
region, and last an electrode whose reference nobody knows.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from hypnocast.core.montage.electrodes import CHIN, ECG, EEG, EMG, EOG, LINKED_EARS
from hypnocast.core.types import DerivationKind, Role

ANY = "*"
"""In a preference: against whatever the stream gives, as long as it names it."""

Wish = tuple[str, str | None, DerivationKind]
"""Electrode, its reference (None: unknown), and what to call the result."""


def _scalp_wishes(right: str, left: str, others: Sequence[tuple[str, str]]) -> tuple[Wish, ...]:
    """Recommended, mirrored, other ears, linked ears, other neighbours, unknown reference."""
    return (
        (right, "M1", "recommended"),
        (left, "M2", "mirrored"),
        (right, LINKED_EARS, "substitute"),
        (right, "M2", "substitute"),
        (left, LINKED_EARS, "substitute"),
        (left, "M1", "substitute"),
        (right, ANY, "substitute"),
        (left, ANY, "substitute"),
        # In a cap the mastoids are TP9 and TP10.
        (right, "TP9", "substitute"),
        (left, "TP10", "substitute"),
        *((positive, negative, "substitute") for positive, negative in others),
        (right, None, "assumed_reference"),
        (left, None, "assumed_reference"),
    )


def _eye_wishes(eye: str) -> tuple[Wish, ...]:
    # One eye against the other is used only where the stream has it so: made of two electrodes,
    # it would show both eyes as one signal and its negative, and nothing that they share.
    return (
        (eye, "M2", "recommended"),
        (eye, "M1", "substitute"),
        (eye, LINKED_EARS, "substitute"),
        (eye, "TP10", "substitute"),
        (eye, "TP9", "substitute"),
        (eye, "Fpz", "substitute"),
        (eye, ANY, "substitute"),
        (eye, None, "assumed_reference"),
    )


_CHINS = "123LRZAC"
_CHIN_PAIRS = [(a, b) for a, b in itertools.permutations(_CHINS, 2)]
WISHES: Mapping[Role, tuple[Wish, ...]] = MappingProxyType(
    {
        Role.F4: _scalp_wishes(
            "F4",
            "F3",
            [
                *((middle, ANY) for middle in ("Fpz", "Fz", "Fp2", "Fp1", "AF4", "AF3")),
                # Headbands: Muse has the temples behind the ears, ZMax has Fpz.
                ("AF8", "TP9"),
                ("AF7", "TP10"),
                *((side, ANY) for side in ("AF8", "AF7", "F8", "F7")),
            ],
        ),
        Role.C4: (*_scalp_wishes("C4", "C3", [("Cz", ANY)]), (EEG, None, "substitute")),
        Role.O2: _scalp_wishes("O2", "O1", [("Oz", ANY), ("Cz", "Oz"), ("Pz", "Oz")]),
        Role.E1: (*_eye_wishes("E1"), (EOG, None, "substitute")),
        Role.E2: _eye_wishes("E2"),
        Role.CHIN: (
            *((CHIN + a, CHIN + b, "recommended") for a, b in _CHIN_PAIRS),
            (CHIN, None, "recommended"),
            *((CHIN + a, ANY, "substitute") for a in _CHINS),
            (EMG + "1", EMG + "2", "substitute"),
            (EMG, None, "substitute"),
            *((CHIN + a, None, "assumed_reference") for a in _CHINS),
        ),
        Role.ECG: (
            (ECG + "1", ECG + "2", "recommended"),
            (ECG, None, "recommended"),
            (ECG + "II", None, "recommended"),
            (ECG + "I", None, "substitute"),
            (ECG + "III", None, "substitute"),
            *((ECG + a, ANY, "substitute") for a in ("1", "2", "R", "L", "RA", "LA", "V1", "V2")),
            *((ECG + a, None, "assumed_reference") for a in ("1", "2", "V1", "V2")),
        ),
    }
)
