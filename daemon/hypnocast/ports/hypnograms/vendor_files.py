"""A night's hypnogram as the files of clinical software and of the field's own programs.

Each writer takes the same :class:`NightHypnogram`, and what it writes is read back by
``read_scoring`` stage by stage.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from xml.etree import ElementTree as ET

from hypnocast.core.types import PAGE_S
from hypnocast.core.wire.payloads import StageName
from hypnocast.ports.hypnograms.night_files import NightHypnogram, runs

_Words = Mapping[StageName | None, str]

_WORDS: _Words = MappingProxyType(
    {"W": "Wake", "N1": "N1", "N2": "N2", "N3": "N3", "R": "REM", None: "?"}
)


def _named(**other: str) -> _Words:
    """Return the words of a program; ``none`` is its word for no stage."""
    words = dict(_WORDS)
    words[None] = other.pop("none", "?")
    return MappingProxyType(words | other)  # type: ignore[arg-type]


_REMLOGIC = _named(
    W="SLEEP-S0", N1="SLEEP-S1", N2="SLEEP-S2", N3="SLEEP-S3", R="SLEEP-REM", none="SLEEP-UNSCORED"
)
_DOMINO = _named(R="Rem", none="A")
_RML = _named(N1="NonREM1", N2="NonREM2", N3="NonREM3", none="NotScored")
_OPENXDF = _named(W="W", N1="1", N2="2", N3="3", R="R")
_WONAMBI = _named(N1="NREM1", N2="NREM2", N3="NREM3", none="Unknown")
_YASA = _named(W="WAKE", none="UNS")
_LUNA = _named(W="W", R="R")
_NOXTURNAL = _named(none="Unscored")
_SLEEPWORKS = _named(W="W", R="R")


def _times(night: NightHypnogram) -> Iterator[tuple[datetime, StageName | None]]:
    for epoch, stage in enumerate(night.stages):
        yield night.local_start + timedelta(seconds=PAGE_S * epoch), stage


def remlogic(night: NightHypnogram) -> str:
    """Return RemLogic's event export."""
    used = sorted({_REMLOGIC[stage] for stage in night.stages})
    lines = [
        "RemLogic Event Export",
        f"Patient:\t{night.subject or night.session}",
        f"Patient ID:\t{night.subject or night.session}",
        f"Recording Date:\t{night.local_start:%d/%m/%Y}",
        "",
        "Events Included:",
        *used,
        "",
        "Time [hh:mm:ss]\tEvent\tDuration[s]",
    ]
    lines += [
        f"{time.isoformat(timespec='microseconds')}\t{_REMLOGIC[stage]}\t{PAGE_S:g}"
        for time, stage in _times(night)
    ]
    return "\r\n".join(lines) + "\r\n"


def domino(night: NightHypnogram) -> str:
    """Return DOMINO's sleep profile."""
    lines = [
        "Signal ID: SchlafProfil\\profil",
        f"Start Time: {night.local_start:%d.%m.%Y %H:%M:%S}",
        "Unit: ",
        "Signal Type: Discret",
        "Events list: N3,N2,N1,Rem,Wake,Artifact",
        f"Rate: {PAGE_S:g} s",
        "",
    ]
    lines += [
        f"{time:%H:%M:%S},{time.microsecond // 1000:03d}; {_DOMINO[stage]}"
        for time, stage in _times(night)
    ]
    return "\r\n".join(lines) + "\r\n"


def noxturnal(night: NightHypnogram) -> str:
    """Return Noxturnal's events as CSV."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\r\n")
    table.writerow(("Start Time", "End Time", "Event", "Duration"))
    for stage, first, pages in runs(night.stages):
        begun = night.local_start + timedelta(seconds=PAGE_S * first)
        ends = begun + timedelta(seconds=PAGE_S * pages)
        shown = [f"{time:%d/%m/%Y %H:%M:%S}" for time in (begun, ends)]
        table.writerow((*shown, _NOXTURNAL[stage], f"{PAGE_S * pages:g}"))
    return out.getvalue()


def sleepworks(night: NightHypnogram) -> str:
    """Return annotations as the NCH Sleep DataBank exports them from Natus SleepWorks."""
    rows = [
        f"{PAGE_S * epoch:g}\t{PAGE_S:g}\tSleep stage {_SLEEPWORKS[stage]}"
        for epoch, stage in enumerate(night.stages)
    ]
    lights = [(at, "Lights On" if on else "Lights Off") for at, on in night.lights]
    rows += [f"{at:g}\t0\t{text}" for at, text in lights]
    return "\n".join(["onset\tduration\tdescription", *rows]) + "\n"


def yasa(night: NightHypnogram) -> str:
    """Return what ``yasa.Hypnogram.hypno.to_csv()`` writes."""
    rows = [f"{epoch},{_YASA[stage]}" for epoch, stage in enumerate(night.stages)]
    return "\n".join(["Epoch,Stage", *rows]) + "\n"


def luna(night: NightHypnogram) -> str:
    """Return Luna's annotations (``.annot``)."""
    rows = [
        f"{_LUNA[stage]}\t.\t.\t{PAGE_S * first:g}\t{PAGE_S * (first + pages):g}\t."
        for stage, first, pages in runs(night.stages)
    ]
    return "\n".join(["class\tinstance\tchannel\tstart\tstop\tmeta", *rows]) + "\n"


def rml(night: NightHypnogram) -> str:
    """Return Philips Sleepware's ``.rml``."""
    space = "http://www.respironics.com/PatientStudy.xsd"
    root = ET.Element("PatientStudy", {"xmlns": space})
    session = ET.SubElement(
        ET.SubElement(ET.SubElement(root, "Acquisition"), "Sessions"), "Session"
    )
    ET.SubElement(session, "RecordingStart").text = night.local_start.isoformat(
        timespec="microseconds"
    )
    ET.SubElement(session, "Duration").text = f"{PAGE_S * len(night.stages):g}"
    data = ET.SubElement(ET.SubElement(root, "ScoringData"), "StagingData")
    staging = ET.SubElement(ET.SubElement(data, "UserStaging"), "NeuroAdultAASMStaging")
    for stage, first, _ in runs(night.stages):
        ET.SubElement(staging, "Stage", {"Type": _RML[stage], "Start": f"{PAGE_S * first:g}"})
    return _document(root)


def openxdf(night: NightHypnogram) -> str:
    """Return Polysmith's OpenXDF."""
    root = ET.Element("xdf:OpenXDF", {"xmlns:xdf": "http://www.openxdf.org/xdf"})
    ET.SubElement(root, "xdf:EpochLength").text = f"{PAGE_S:g}"
    session = ET.SubElement(root, "xdf:Session")
    ET.SubElement(session, "xdf:StartTime").text = night.local_start.isoformat(
        timespec="microseconds"
    )
    results = ET.SubElement(root, "xdf:ScoringResults")
    scorer = ET.SubElement(ET.SubElement(results, "xdf:Scorers"), "xdf:Scorer")
    ET.SubElement(scorer, "xdf:FirstName").text = "Hypnocast"
    stages = ET.SubElement(scorer, "xdf:SleepStages")
    for epoch, stage in enumerate(night.stages, start=1):
        page = ET.SubElement(stages, "xdf:SleepStage")
        ET.SubElement(page, "xdf:EpochNumber").text = str(epoch)
        ET.SubElement(page, "xdf:Stage").text = _OPENXDF[stage]
    return _document(root)


def wonambi(night: NightHypnogram) -> str:
    """Return Wonambi's annotations."""
    root = ET.Element("annotations", {"version": "5"})
    dataset = ET.SubElement(root, "dataset")
    ET.SubElement(dataset, "filename").text = night.session
    ET.SubElement(dataset, "path").text = night.session
    ET.SubElement(dataset, "start_time").text = night.local_start.isoformat()
    ET.SubElement(dataset, "first_second").text = "0"
    ET.SubElement(dataset, "last_second").text = f"{PAGE_S * len(night.stages):g}"
    made = night.local_start.isoformat()
    rater = ET.SubElement(root, "rater", {"name": "hypnocast", "created": made, "modified": made})
    for empty in ("bookmarks", "events"):
        ET.SubElement(rater, empty)
    stages = ET.SubElement(rater, "stages")
    for epoch, stage in enumerate(night.stages):
        page = ET.SubElement(stages, "epoch")
        ET.SubElement(page, "epoch_start").text = f"{PAGE_S * epoch:g}"
        ET.SubElement(page, "epoch_end").text = f"{PAGE_S * (epoch + 1):g}"
        ET.SubElement(page, "stage").text = _WONAMBI[stage]
        ET.SubElement(page, "quality").text = "Good"
    ET.SubElement(rater, "cycles")
    return _document(root)


def _document(root: ET.Element) -> str:
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


VENDOR_FORMATS: Mapping[str, tuple[str, Callable[[NightHypnogram], str]]] = MappingProxyType(
    {
        "remlogic": ("-remlogic.txt", remlogic),
        "domino": ("-domino.txt", domino),
        "noxturnal": ("-noxturnal.csv", noxturnal),
        "alice": (".rml", rml),
        "polysmith": ("-openxdf.xml", openxdf),
        "sleepworks": ("-sleepworks.tsv", sleepworks),
        "yasa": ("-yasa.csv", yasa),
        "luna": (".annot", luna),
        "wonambi": ("-wonambi.xml", wonambi),
    }
)
"""``--format`` → the end of the file's name, and what writes it."""
