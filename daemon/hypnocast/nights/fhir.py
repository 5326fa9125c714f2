"""A night as a FHIR R5 Bundle of Observations: research only, and every resource says so.

Codes are Hypnocast's own. What LOINC has for sleep means what a person or a watch says, and other
people's software gives the same number different meanings; a wrong code is worse than none.
"""

from __future__ import annotations

import uuid
from typing import Any, Final

import msgspec

from hypnocast import __version__
from hypnocast.core.types import PAGE_S
from hypnocast.core.wire.payloads import NightStatistics, StageName
from hypnocast.nights.night_view import NightView

Json = dict[str, Any]

CODES: Final = "urn:hypnocast:codes"
_UCUM: Final = "http://unitsofmeasure.org"
_ABSENT: Final = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
_RESEARCH: Final = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ActReason",
    "code": "HRESCH",
    "display": "healthcare research",
}
_NOTE: Final = "Research use only. Not a medical device: no diagnosis, no alarm function."

STATISTICS: Final = (
    ("time_in_bed_min", "Time in bed", "min"),
    ("total_sleep_min", "Total sleep time", "min"),
    ("sleep_efficiency_percent", "Sleep efficiency", "%"),
    ("sleep_onset_latency_min", "Sleep onset latency", "min"),
    ("wake_after_sleep_onset_min", "Wake after sleep onset", "min"),
    ("rem_latency_min", "REM latency", "min"),
    ("withheld_min", "Time in bed without a stage", "min"),
)
"""Key of the night's statistics, its name, its unit in UCUM."""


def fhir_bundle(view: NightView) -> str:
    """Return the night as JSON: its statistics, then one Observation for each page."""
    stages = view.stages
    pages = [_page(view, epoch, stages[epoch]) for epoch in range(len(stages))]
    entries = [_statistics(view, pages), *pages]
    bundle = {
        "resourceType": "Bundle",
        "identifier": {"system": "urn:hypnocast:session", "value": view.session.id},
        "meta": {"security": [_RESEARCH]},
        "type": "collection",
        "timestamp": view.night.at,
        "entry": [{"fullUrl": f"urn:uuid:{one['id']}", "resource": one} for one in entries],
    }
    return msgspec.json.format(msgspec.json.encode(bundle), indent=1).decode() + "\n"


def _observation(view: NightView, name: str, code: str, display: str) -> Json:
    resource: Json = {
        "resourceType": "Observation",
        # The same night gives the same ids, however often it is exported.
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"urn:hypnocast:{name}")),
        "meta": {"security": [_RESEARCH]},
        "identifier": [{"system": "urn:hypnocast:event", "value": name}],
        "status": "preliminary",
        "code": _concept(code, display),
        "device": {"display": f"hypnocast {__version__}"},
        "note": [{"text": _NOTE}],
    }
    if view.session.subject is not None:
        code_of = {"system": "urn:hypnocast:subject", "value": view.session.subject}
        resource["subject"] = {"type": "Patient", "identifier": code_of}
    return resource


def _page(view: NightView, epoch: int, stage: StageName | None) -> Json:
    page = view.pages[epoch]
    name = f"{view.session.id}/{epoch}" if page is None else page.id
    resource = _observation(view, name, "sleep-stage", f"Sleep stage of {PAGE_S:g} s")
    resource["effectivePeriod"] = {
        "start": view.begins(epoch).isoformat(timespec="milliseconds"),
        "end": view.begins(epoch + 1).isoformat(timespec="milliseconds"),
    }
    if page is None or stage is None:
        reason = "unknown" if page is None else page.reason or page.status
        absent = {"system": _ABSENT, "code": "unknown" if page is None else "error"}
        resource["dataAbsentReason"] = {"coding": [absent], "text": reason}
        return resource
    resource["valueCodeableConcept"] = _concept(stage, f"Stage {stage}")
    if page.confidence is not None:
        sure = _quantity(page.confidence, "1")
        resource["component"] = [{"code": _concept("confidence", "Confidence"), **sure}]
    if page.digests.pack is not None:
        resource["method"] = {"text": f"pack {page.digests.pack}"}
    return resource


def _statistics(view: NightView, pages: list[Json]) -> Json:
    night = view.night
    resource = _observation(view, f"{view.session.id}/night", "night", "Night of sleep")
    resource["effectivePeriod"] = {
        "start": night.start,
        "end": night.ended or view.begins(night.epochs).isoformat(timespec="milliseconds"),
    }
    resource["component"] = [*_numbers(night.statistics), *_minutes(night.statistics)]
    if pages:
        resource["hasMember"] = [{"reference": f"urn:uuid:{page['id']}"} for page in pages]
    return resource


def _numbers(statistics: NightStatistics) -> list[Json]:
    components: list[Json] = []
    for key, words, unit in STATISTICS:
        value = getattr(statistics, key)
        code = {"code": _concept(key.rpartition("_")[0].replace("_", "-"), words)}
        if value is None:
            absent = {"coding": [{"system": _ABSENT, "code": "not-applicable"}]}
            components.append({**code, "dataAbsentReason": absent})
        else:
            components.append({**code, **_quantity(round(value, 3), unit)})
    return components


def _minutes(statistics: NightStatistics) -> list[Json]:
    return [
        {
            "code": _concept(f"minutes-of-{stage}", f"Time in stage {stage}"),
            **_quantity(share.minutes, "min"),
        }
        for stage, share in statistics.stages.items()
    ]


def _concept(code: str, display: str) -> Json:
    return {"coding": [{"system": CODES, "code": code, "display": display}], "text": display}


def _quantity(value: float, unit: str) -> Json:
    return {"valueQuantity": {"value": value, "unit": unit, "system": _UCUM, "code": unit}}
