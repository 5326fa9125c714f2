"""A night's hypnogram as the files that other people's software reads.

EDF+ with the standard texts, with or without signals; the NSRR's two XML files, Profusion's page by
page and the NSRR's own event by event; BIDS ``events.tsv`` with its side-car. Each writer gets
the same :class:`NightHypnogram`, so that none can differ from the others.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from xml.etree import ElementTree as ET
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.timing.utc import file_time
from hypnocast.core.types import PAGE_S
from hypnocast.core.wire.payloads import StageName

NSRR_EVENTS = MappingProxyType(
    {
        "W": ("Wake", 0),
        "N1": ("Stage 1 sleep", 1),
        "N2": ("Stage 2 sleep", 2),
        "N3": ("Stage 3 sleep", 3),
        "R": ("REM sleep", 5),
        None: ("Unscored", 9),
    }
)
"""Stage → the NSRR's concept and Profusion's code."""

FIRST_COUNT, LAST_COUNT = -32_768, 32_704
"""Of 16 bits, so many that 64 steps are a whole µV at either end."""
_EDF_YEARS = range(1985, 2085)
"""A header has two digits for the year."""
_EDF_ID = 46
"""How much of a session's id fits into the 80 characters of the recording's field."""

_BIDS_LEVELS = MappingProxyType(
    {
        "W": "Wake",
        "N1": "NREM sleep, stage 1",
        "N2": "NREM sleep, stage 2",
        "N3": "NREM sleep, stage 3",
        "R": "REM sleep",
        "lights_off": "Lights off, start of the time in bed",
        "lights_on": "Lights on, end of the time in bed",
    }
)


@dataclass(frozen=True, slots=True)
class NightHypnogram:
    """What every file holds."""

    start: datetime
    """When epoch 0 began, in UTC."""
    zone: ZoneInfo
    """Where the clock hung that file times are read from."""
    subject: str | None
    session: str
    stages: tuple[StageName | None, ...]
    """None: no stage, written as unknown."""
    lights: tuple[tuple[float, bool], ...]
    """When (seconds after the start) they went on (True) or off."""
    notes: tuple[tuple[float, str], ...] = ()

    @property
    def local_start(self) -> datetime:
        """The start as files give it: local and zoneless."""
        return file_time(self.start, self.zone)


@dataclass(frozen=True, slots=True, eq=False)
class NightSignal:
    """One signal of a whole night in 16 bits, as EDF keeps it."""

    label: str
    rate: float
    counts: NDArray[np.int16]
    """Steps about ``centre_uv``, from :data:`FIRST_COUNT` to :data:`LAST_COUNT`."""
    centre_uv: int
    steps_per_uv: int
    """A power of two: then what a reader reckons of the header is exact."""
    missing: tuple[tuple[float, float], ...]
    """Onset and duration (s) of what was not recorded; its counts are 0."""

    @property
    def range_uv(self) -> tuple[float, float]:
        """µV of the first and the last count: whole numbers, for which a header has room."""
        return (
            self.centre_uv + FIRST_COUNT / self.steps_per_uv,
            self.centre_uv + LAST_COUNT / self.steps_per_uv,
        )


def write_edf(night: NightHypnogram, path: Path, signals: Sequence[NightSignal] = ()) -> None:
    """Write an EDF+ file: annotations for every page, the lights and the notes, and signals."""
    from edfio import Edf, EdfAnnotation, EdfSignal, Patient, Recording

    # A night without pages has this one, for a file of nothing would be no EDF+ file.
    annotations = [EdfAnnotation(0.0, None, "Recording starts")]
    annotations += [
        EdfAnnotation(PAGE_S * epoch, PAGE_S, f"Sleep stage {stage or '?'}")
        for epoch, stage in enumerate(night.stages)
    ]
    annotations += [
        EdfAnnotation(at, None, "Lights on" if on else "Lights off") for at, on in night.lights
    ]
    annotations += [EdfAnnotation(at, None, f"Note: {_plain(text)}") for at, text in night.notes]
    absent: dict[tuple[float, float], list[str]] = {}
    for signal in signals:
        for stretch in signal.missing:
            absent.setdefault(stretch, []).append(signal.label)
    annotations += [
        EdfAnnotation(onset, duration, f"Not recorded: {', '.join(labels)}")
        for (onset, duration), labels in absent.items()
    ]
    began = night.local_start
    dated = began.year in _EDF_YEARS
    whole_seconds = all(signal.rate.is_integer() for signal in signals)
    file = Edf(
        [
            EdfSignal.from_digital(
                signal.counts,
                signal.rate,
                label=signal.label,
                physical_dimension="uV",
                physical_range=signal.range_uv,
                digital_range=(FIRST_COUNT, LAST_COUNT),
            )
            for signal in signals
        ],
        patient=Patient(code=_word(night.subject)),
        recording=Recording(
            startdate=began.date() if dated else None,
            # Its end distinguishes nights: the bed's and the time.
            hospital_administration_code=_word(night.session)[-_EDF_ID:],
            equipment_code="hypnocast",
        ),
        starttime=began.time(),
        data_record_duration=(1 if whole_seconds else PAGE_S) if signals else None,
        annotations=sorted(annotations, key=lambda one: one.onset),
    )
    file.write(path)


def profusion_xml(night: NightHypnogram) -> str:
    """Return Profusion's file: the code of every page."""
    root = ET.Element("CMPStudyConfig")
    ET.SubElement(root, "EpochLength").text = f"{PAGE_S:g}"
    ET.SubElement(root, "StepChannels")
    ET.SubElement(root, "ScoredEvents")
    pages = ET.SubElement(root, "SleepStages")
    for stage in night.stages:
        ET.SubElement(pages, "SleepStage").text = str(NSRR_EVENTS[stage][1])
    return _document(root)


def nsrr_xml(night: NightHypnogram) -> str:
    """Return the NSRR's file: the recording, and each run of pages of one stage."""
    root = ET.Element("PSGAnnotation")
    ET.SubElement(root, "SoftwareVersion").text = "Compumedics"
    ET.SubElement(root, "EpochLength").text = f"{PAGE_S:g}"
    events = ET.SubElement(root, "ScoredEvents")
    whole = _nsrr_event(events, "", "Recording Start Time", 0.0, PAGE_S * len(night.stages))
    ET.SubElement(whole, "ClockTime").text = f"{night.local_start:00.00.00 %H.%M.%S}"
    for stage, first, pages in runs(night.stages):
        concept, code = NSRR_EVENTS[stage]
        _nsrr_event(events, "Stages|Stages", f"{concept}|{code}", PAGE_S * first, PAGE_S * pages)
    return _document(root)


def _nsrr_event(
    events: ET.Element, kind: str, concept: str, start: float, duration: float
) -> ET.Element:
    event = ET.SubElement(events, "ScoredEvent")
    ET.SubElement(event, "EventType").text = kind
    ET.SubElement(event, "EventConcept").text = concept
    ET.SubElement(event, "Start").text = f"{start:.1f}"
    ET.SubElement(event, "Duration").text = f"{duration:.1f}"
    return event


def _document(root: ET.Element) -> str:
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def bids_events(night: NightHypnogram) -> str:
    """Return ``events.tsv``: one row per page, and the lights."""
    rows: list[tuple[float, str, str, str]] = [
        (PAGE_S * epoch, f"{PAGE_S:g}", stage or "n/a", str(epoch))
        for epoch, stage in enumerate(night.stages)
    ]
    rows += [(at, "0", "lights_on" if on else "lights_off", "n/a") for at, on in night.lights]
    out = io.StringIO()
    table = csv.writer(out, dialect="excel-tab", lineterminator="\n")
    table.writerow(("onset", "duration", "trial_type", "epoch"))
    for onset, *rest in sorted(rows, key=lambda row: row[0]):
        table.writerow((f"{onset:g}" if onset == round(onset, 3) else f"{onset:.3f}", *rest))
    return out.getvalue()


def bids_sidecar(night: NightHypnogram, generated_by: str) -> str:
    """Return the side-car that explains the columns of ``events.tsv``."""
    return json.dumps(
        {
            "onset": {
                "Description": "Seconds after the start of epoch 0, "
                f"which began at {night.local_start.isoformat(timespec='milliseconds')} local time"
            },
            "duration": {"Description": "Length in seconds; 0 for a moment"},
            "trial_type": {
                "Description": "AASM stage of the 30-s page; n/a where none was given",
                "Levels": dict(_BIDS_LEVELS),
            },
            "epoch": {"Description": "Number of the page, from 0; n/a for a moment"},
            "GeneratedBy": [{"Name": "Hypnocast", "Description": generated_by}],
            "ResearchUseOnly": True,
        },
        indent=2,
        ensure_ascii=False,
    )


def bids_stem(night: NightHypnogram) -> str:
    """Return what BIDS has the files' names begin with.

    Whole ids distinguish nights: two beds may begin in one second, and have no subject code.
    """
    subject, session = (
        re.sub(r"[^A-Za-z0-9]", "", word or "") for word in (night.subject, night.session)
    )
    return f"sub-{subject or 'unknown'}_ses-{session}_task-sleep"


def runs(
    stages: tuple[StageName | None, ...],
) -> Iterator[tuple[StageName | None, int, int]]:
    """Give each run of one stage: the stage, its first page, how many pages."""
    first = 0
    for epoch in range(1, len(stages) + 1):
        if epoch == len(stages) or stages[epoch] != stages[first]:
            yield stages[first], first, epoch - first
            first = epoch


def _word(text: str | None) -> str:
    """Return a text as one field of an EDF+ header: printable ASCII, no space."""
    return re.sub(r"[^!-~]+", "_", text or "") or "X"


def _plain(text: str) -> str:
    """Return a note without what divides annotations."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f]", " ", text).split())
