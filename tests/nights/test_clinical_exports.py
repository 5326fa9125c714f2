"""FHIR and HL7: what independent libraries read is the night, and it says that it is research."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from hypnocast.nights import hl7
from hypnocast.nights.export import export_night
from hypnocast.nights.night_view import NightView, view_of
from support.needs import need_module
from support.night_records import random_nights

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture(scope="module")
def views() -> list[NightView]:
    return [view_of(record, now=0.0) for record in random_nights(8)]


def _fhir(view: NightView, folder: Path) -> Any:
    (path,) = export_night(view, "fhir", folder, BERLIN)
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_bundle_is_valid_fhir_r5_and_gives_the_night(
    views: list[NightView], tmp_path: Path
) -> None:
    need_module("fhir.resources")
    from fhir.resources.bundle import Bundle  # R5 by default

    for view in views:
        bundle: Any = Bundle.model_validate(_fhir(view, tmp_path / view.session.id))
        night, *pages = [entry.resource for entry in bundle.entry]
        stages = [
            None if one.valueCodeableConcept is None else one.valueCodeableConcept.coding[0].code
            for one in pages
        ]
        assert stages == list(view.stages)
        assert len({entry.fullUrl for entry in bundle.entry}) == len(pages) + 1
        for one in (night, *pages):
            assert "Research use only" in one.note[0].text
            assert one.meta.security[0].code == "HRESCH"
            assert one.status == "preliminary"
        for epoch, one in enumerate(pages):
            assert one.effectivePeriod.start == view.begins(epoch)
            assert (one.dataAbsentReason is None) == (one.valueCodeableConcept is not None)
        numbers = {one.code.coding[0].code: one for one in night.component}
        efficiency = view.night.statistics.sleep_efficiency_percent
        if efficiency is None:
            assert numbers["sleep-efficiency"].dataAbsentReason is not None
        else:
            assert float(numbers["sleep-efficiency"].valueQuantity.value) == pytest.approx(
                efficiency, abs=1e-3
            )
        members = [one.reference for one in night.hasMember or ()]
        assert members == [entry.fullUrl for entry in bundle.entry[1:]]


def test_the_same_night_has_the_same_ids(views: list[NightView], tmp_path: Path) -> None:
    first, second = (_fhir(views[5], tmp_path / name) for name in ("a", "b"))
    assert first == second


def test_the_validator_refuses_what_is_no_fhir(views: list[NightView], tmp_path: Path) -> None:
    need_module("fhir.resources")
    from fhir.resources.bundle import Bundle

    wrong = _fhir(views[1], tmp_path)
    wrong["entry"][1]["resource"]["status"] = ["final"]
    with pytest.raises(ValueError, match="status"):
        Bundle.model_validate(wrong)


def _hl7(view: NightView, folder: Path) -> str:
    (path,) = export_night(view, "hl7", folder, BERLIN)
    return path.read_bytes().decode("utf-8")


def test_a_message_is_valid_hl7_and_gives_the_night(views: list[NightView], tmp_path: Path) -> None:
    need_module("hl7apy")
    from hl7apy.consts import VALIDATION_LEVEL
    from hl7apy.parser import parse_message

    for view in views:
        if len(view.pages) > 400:
            continue  # the validator takes its time over each segment
        text = _hl7(view, tmp_path / view.session.id)
        message: Any = parse_message(text, validation_level=VALIDATION_LEVEL.STRICT)
        message.validate()
        assert message.msh.msh_11.to_er7() == "T"
        assert "RESEARCH USE ONLY" in text
        rows = [line.split("|") for line in text.split("\r") if line.startswith("OBX")]
        pages = [row for row in rows if row[3].startswith("STAGE^")]
        assert [int(row[1]) for row in rows] == list(range(1, len(rows) + 1))
        assert [int(row[4]) for row in pages] == list(range(len(view.pages)))
        assert [row[5].split("^")[0] or None for row in pages] == list(view.stages)
        assert {row[11] for row in pages if not row[5]} <= {"X"}


def test_the_other_validator_refuses_what_is_no_hl7(views: list[NightView], tmp_path: Path) -> None:
    need_module("hl7apy")
    from hl7apy.consts import VALIDATION_LEVEL
    from hl7apy.exceptions import HL7apyException
    from hl7apy.parser import parse_message

    text = _hl7(views[1], tmp_path).replace("\rOBR|", "\rZZZ|")
    with pytest.raises(HL7apyException):
        parse_message(text, validation_level=VALIDATION_LEVEL.STRICT).validate()


def test_nothing_in_a_subject_ends_a_field() -> None:
    assert hl7._text("a|b^c&d~e\\f\rg") == "a\\F\\b\\S\\c\\T\\d\\R\\e\\E\\f g"
