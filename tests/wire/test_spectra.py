"""The night's spectrum as others read it: by its schema, by the words of the docs, bounded."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
from jsonschema import Draft202012Validator

from hypnocast.core.night.ledger import NightTitle
from hypnocast.core.night.spectra import NightSpectra
from hypnocast.core.pictures.page_spectrum import decibels
from hypnocast.core.types import PageSpectrum
from hypnocast.core.wire import schema
from hypnocast.core.wire.payloads import encode
from hypnocast.core.wire.spectra import MAX_PAGES
from support.nights import a_night_of_spectra, instant

LARGEST = 256 << 10
"""A longer state is no longer sent after a connection that ended while it was under way."""


def sent(night: NightSpectra) -> Any:
    message = json.loads(encode(night.message(at=instant())))
    Draft202012Validator(schema.json_schemas()["spectrum"]).validate(message)
    return message


def a_page(level: int, derivation: str = "F4-M1") -> PageSpectrum:
    return PageSpectrum(derivation, bytes([level] * 60), bytes([level] * 5))


def empty() -> NightSpectra:
    return NightSpectra(NightTitle("lab", "bed1", "bed1-night", None, "live", instant()))


def test_a_consumer_reads_back_what_the_docs_say_with_base64_and_numpy_alone() -> None:
    night = empty()
    night.add(0, a_page(101))
    night.add(3, a_page(126, "C4-M1"))
    night.add(3, a_page(7, "O2-M1"))  # its terminal event: what is known stays
    found = sent(night)
    assert (found["first"], found["pages"]) == (0, 4)
    assert found["derivations"] == [
        {"epoch": 0, "derivation": "F4-M1"},
        {"epoch": 3, "derivation": "C4-M1"},
    ]
    levels = np.frombuffer(base64.b64decode(found["levels"]), np.uint8).reshape(4, found["bins"])
    bands = np.frombuffer(base64.b64decode(found["bands"]), np.uint8).reshape(4, -1)
    assert bands.shape[1] == len(found["bands_hz"])
    assert not levels[1:3].any()
    assert not bands[1:3].any()
    decibel = found["floor_db"] + found["step_db"] * (levels[[0, 3]] - 1.0)
    assert np.allclose(decibel, [[0.0] * 60, [10.0] * 60])
    assert np.allclose(decibel[1], decibels(bytes(levels[3])))


def test_the_newest_24_hours_are_published_and_stay_below_what_a_broker_may_cut() -> None:
    night = a_night_of_spectra(MAX_PAGES + 100)
    assert len(encode(night.message(at=instant()))) < LARGEST
    found = sent(night)
    assert (found["first"], found["pages"]) == (100, MAX_PAGES)
    assert base64.b64decode(found["levels"])[0] == 101
    night.add(3, a_page(9))  # older than what is kept
    assert sent(night) == found


def test_a_night_without_a_drawn_page_has_nothing_to_publish() -> None:
    night = empty()
    night.add(0, None)
    assert not night
    night.add(1, a_page(1))
    assert night
