"""``hypnocast export``: a night as files for other people's software."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec

from hypnocast import __version__
from hypnocast.core.types import PAGE_S
from hypnocast.core.wire.payloads import StageEvent
from hypnocast.errors import CommandError
from hypnocast.nights.fhir import fhir_bundle
from hypnocast.nights.hl7 import hl7_message
from hypnocast.nights.night_view import NightView
from hypnocast.ports.durable_files import private_file
from hypnocast.ports.hypnograms.night_files import (
    NightHypnogram,
    NightSignal,
    bids_events,
    bids_sidecar,
    bids_stem,
    nsrr_xml,
    profusion_xml,
    write_edf,
)
from hypnocast.ports.hypnograms.vendor_files import VENDOR_FORMATS

FORMATS = ("edf", "csv", "bids", "nsrr", "json", "fhir", "hl7", *VENDOR_FORMATS)

_STAGES = ("W", "N1", "N2", "N3", "R")


def export_night(
    view: NightView,
    form: str,
    folder: Path,
    zone: ZoneInfo,
    signals: Sequence[NightSignal] = (),
) -> list[Path]:
    """Write a night into a folder and return the files; ``signals`` go into EDF."""
    if form not in FORMATS:
        raise CommandError(
            f"{form!r} is no format", where="--format", remedy=f"Use {', '.join(FORMATS)}."
        )
    folder.mkdir(parents=True, exist_ok=True)
    night, stem = hypnogram_of(view, zone), file_stem(view)
    match form:
        case "edf":
            path = folder / f"{stem}.edf"
            part = path.with_name(f".{path.name}")
            try:
                private_file(part, b"")
                write_edf(night, part, signals)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
            return [path]
        case "csv":
            texts = {f"{stem}.csv": as_csv(view, zone)}
        case "json":
            texts = {f"{stem}.json": as_json(view)}
        case "fhir":
            texts = {f"{stem}.fhir.json": fhir_bundle(view)}
        case "hl7":
            texts = {f"{stem}.hl7": hl7_message(view, zone)}
        case "nsrr":
            texts = {
                f"{stem}-profusion.xml": profusion_xml(night),
                f"{stem}-nsrr.xml": nsrr_xml(night),
            }
        case "bids":
            name = bids_stem(night)
            texts = {
                f"{name}_events.tsv": bids_events(night),
                f"{name}_events.json": bids_sidecar(night, _made_by(view)),
            }
        case _:
            ending, write = VENDOR_FORMATS[form]
            texts = {f"{stem}{ending}": write(night)}
    for name, text in texts.items():
        path = folder / name
        part = path.with_name(f".{name}")
        try:
            private_file(part, text.encode())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    return [folder / name for name in texts]


def hypnogram_of(view: NightView, zone: ZoneInfo) -> NightHypnogram:
    """Return what every file holds of a night."""
    start = view.start
    lights = [mark for mark in view.night.marks if mark.kind in ("lights_on", "lights_off")]
    notes = [mark for mark in view.night.marks if mark.kind == "note"]
    return NightHypnogram(
        start=start,
        zone=zone,
        subject=view.session.subject,
        session=view.session.id,
        stages=view.stages,
        lights=tuple((_after(start, mark.at), mark.kind == "lights_on") for mark in lights),
        notes=tuple((_after(start, mark.at), mark.text) for mark in notes),
    )


def file_stem(view: NightView) -> str:
    """Return a night's id as the beginning of a file's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", view.session.id).strip(".-") or "night"


def as_csv(view: NightView, zone: ZoneInfo) -> str:
    """Return one row per page: everything about the verdict that fits a table."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(
        (
            *("epoch", "start_utc", "start_local", "status", "reason", "stage", "confidence"),
            *(f"p_{stage}" for stage in _STAGES),
            *(f"raw_{stage}" for stage in _STAGES),
            *("review", "lights", "provider", "picture", "pack", "id"),
            *(f"scorer_{name}" for name in view.scorers),
        )
    )
    for epoch, page in enumerate(view.pages):
        begins = view.begins(epoch)
        local = begins.astimezone(zone).replace(tzinfo=None)
        stages = [scored[epoch] or "" for scored in view.scorers.values()]
        utc = f"{begins:%Y-%m-%dT%H:%M:%S}.{begins.microsecond // 1000:03d}Z"
        table.writerow((epoch, utc, local.isoformat(timespec="milliseconds"), *_row(page), *stages))
    return out.getvalue()


def as_json(view: NightView) -> str:
    """Return the night and the last event of every page, as on MQTT, and the corrections."""
    whole = {
        "night": msgspec.to_builtins(view.night),
        "events": [msgspec.to_builtins(page) for page in view.pages if page is not None],
        "scorers": {name: list(stages) for name, stages in view.scorers.items()},
        "page_s": PAGE_S,
        "generator": f"hypnocast {__version__}",
        "research_use_only": True,
    }
    return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode() + "\n"


def _row(page: StageEvent | None) -> tuple[object, ...]:
    if page is None:
        return ("unknown", *("",) * 19)
    after, raw = page.probabilities, page.raw_probabilities
    return (
        page.status,
        page.reason or "",
        page.stage or "",
        "" if page.confidence is None else page.confidence,
        *("" if after is None else getattr(after, stage) for stage in _STAGES),
        *("" if raw is None else getattr(raw, stage) for stage in _STAGES),
        int(page.review),
        page.lights,
        page.provider or "",
        page.digests.picture or "",
        page.digests.pack or "",
        page.id,
    )


def _made_by(view: NightView) -> str:
    packs = {page.digests.pack for page in view.pages if page is not None and page.digests.pack}
    return f"hypnocast {__version__}, session {view.session.id}, pack {', '.join(sorted(packs))}"


def _after(start: datetime, at: str) -> float:
    return (datetime.fromisoformat(at) - start).total_seconds()
