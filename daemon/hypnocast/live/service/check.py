"""``check`` and ``doctor``: what ``run`` would do, what is wrong, what is installed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from hypnocast import __version__
from hypnocast.config.tables import BesidePackTable, Config, PackTable
from hypnocast.core.montage.choice import Montage
from hypnocast.core.wire.page_facts import JudgedMontages
from hypnocast.errors import HypnocastError, InstallError
from hypnocast.live.service.build import (
    beside_roles,
    broker_settings,
    load_beside,
    local_stager,
    open_pack,
)
from hypnocast.live.staging.capacity import Capacity
from hypnocast.ports.memory import resident_bytes
from hypnocast.ports.mqtt.settings import BrokerSettings

ROOM_PER_BED_GB = 0.5
"""What a bed's tape and journal need for a night, amply: 6 channels at 512 Hz for 12 h."""

LIBRARIES = (
    "pylsl", "aiomqtt", "paho-mqtt", "onnxruntime", "onnxruntime-gpu", "numpy", "scipy",
    "msgspec", "edfio", "pyxdf", "starlette", "uvicorn", "tokenizers", "llguidance",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    bad: bool
    text: str

    def line(self) -> str:
        """Return it for people."""
        return f"{'FAULT' if self.bad else 'good ':<5} {self.subject:<9} {self.text}"

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {"subject": self.subject, "fault": self.bad, "text": self.text}


def check_all(config: Config) -> list[Finding]:
    """Look at everything that ``run`` will need; nothing is changed but one probe of the broker."""
    findings = [Finding("config", bad=False, text=_would_do(config))]
    for subject, look in (
        ("pack", pack_findings),
        ("broker", _broker),
        ("disk", _disk),
        ("clock", _clock),
        ("streams", _streams),
    ):
        findings += _guarded(subject, look, config)
    return findings


def _guarded(
    subject: str, look: Callable[[Config], Iterator[Finding]], config: Config
) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(look(config))
    except HypnocastError as error:
        found.append(Finding(subject, bad=True, text=str(error)))
    return found


def _would_do(config: Config) -> str:
    beds = ", ".join(bed.id for bed in config.bed) or "whatever beds are found"
    host, port = config.broker.address
    tls = "TLS" if config.broker.uses_tls else "no TLS"
    begin = "by themselves" if config.auto_session else "by command or marker"
    return f"serves {beds}; events to {host}:{port} ({tls}); nights begin {begin}"


def pack_findings(config: Config) -> Iterator[Finding]:
    """Look at the pack that speaks, warmed, and at those beside it."""
    pack = open_pack(config)
    began, before = time.perf_counter(), resident_bytes()
    stager = local_stager(config.pack, pack)
    took = time.perf_counter() - began
    try:
        name = f"{pack.manifest.name} {pack.manifest.version}"
        capacity = Capacity.of(
            stager.pace, max(0, resident_bytes() - before), pack.manifest.context
        )
        text = f"{name} on {stager.provider}, warm in {took:.1f} s; {capacity.line()}"
        yield Finding("pack", bad=capacity.beds == 0, text=text)
        beyond = capacity.beyond([bed.id for bed in config.bed])
        if beyond and capacity.beds:
            text = f"too slow for bed {', '.join(beyond)}: pages there will be withheld as too late"
            yield Finding("pack", bad=True, text=text)
        if stager.failure is not None:
            yield Finding("pack", bad=True, text=str(stager.failure))
    finally:
        stager.close()
    beside_roles(config, pack)  # refuses one that is not the pinned one, or cannot see these pages
    for table in config.pack.beside:
        yield from _beside(table)


def _beside(table: BesidePackTable) -> Iterator[Finding]:
    """Warm a pack beside once; it may be slow, for its pages are shed first."""
    other = load_beside(table.name)
    stager = local_stager(
        PackTable(name=table.name, provider=table.provider, threads=table.threads), other
    )
    try:
        name = f"{other.manifest.name} {other.manifest.version}"
        text = f"beside: {name} on {stager.provider}"
        yield Finding("pack", bad=stager.failure is not None, text=str(stager.failure or text))
    finally:
        stager.close()


def _broker(config: Config) -> Iterator[Finding]:
    yield from asyncio.run(_probe(broker_settings(config.broker), config))


async def _probe(settings: BrokerSettings, config: Config) -> list[Finding]:
    from hypnocast.ports.mqtt.probe import probe

    answer = await probe(
        settings, config.prefix, config.daemon.node, [bed.id for bed in config.bed]
    )
    findings = [
        Finding("broker", bad=False, text=f"{settings.where} speaks MQTT {answer.protocol}")
    ]
    findings += [
        Finding("broker", bad=True, text=f"{topic}: {why}") for topic, why in answer.refused.items()
    ]
    if not config.broker.uses_tls and not config.broker.loopback:
        findings.append(
            Finding("broker", bad=False, text="TLS is off: everybody on the way can read along")
        )
    return findings


def _disk(config: Config) -> Iterator[Finding]:
    state, tapes, beds = config.state_dir, config.tape_dir, max(1, len(config.bed))
    yield _room(state, beds)
    if config.tape.enabled and state not in tapes.parents:
        yield _room(tapes, beds)


def _room(folder: Path, beds: int) -> Finding:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        return Finding("disk", bad=True, text=f"{there}: is a file, and should be a folder")
    if not os.access(there, os.W_OK):
        return Finding("disk", bad=True, text=f"{folder}: not writable by this user")
    free = shutil.disk_usage(there).free / 1e9
    need = ROOM_PER_BED_GB * beds
    text = f"{folder}: {free:.0f} GB free, {need:.1f} GB needed for a night"
    return Finding("disk", bad=free < need, text=text)


def _clock(_: Config) -> Iterator[Finding]:
    year = time.gmtime().tm_year
    yield Finding(
        "clock", bad=year < 2024, text=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    )


def _streams(config: Config) -> Iterator[Finding]:
    from hypnocast.live.service.stream_survey import survey
    from hypnocast.stagers.packs.catalogue import resolve_pack
    from hypnocast.stagers.packs.judged import judged_montages
    from hypnocast.stagers.packs.pack import read_manifest

    found = survey(config, wait_s=3.0)
    judged = JudgedMontages()
    with contextlib.suppress(HypnocastError):  # said under "pack"
        judged = judged_montages(read_manifest(resolve_pack(config.pack.name)))
    served = set(found.montages)
    for bed in config.bed:
        if bed.id not in served:
            yield Finding("streams", bad=True, text=f"bed {bed.id}: no stream fits its selectors")
    if not config.bed and not served:
        yield Finding("streams", bad=False, text="none on the network yet; run waits for them")
    for name, montage in found.montages.items():
        yield from _montage(name, montage, judged)
    unlisted = [one.seen for one in found.found if one.bed is None and one.seen.is_psg]
    if config.bed and unlisted:
        names = ", ".join(f"{seen.name} on {seen.host}" for seen in unlisted)
        text = f"taken by no [[bed]], and with any no others are found: {names}"
        yield Finding("streams", bad=False, text=text)
    for each in found.found:
        for problem in each.problems:
            yield Finding("streams", bad=True, text=str(problem))


def _montage(bed: str, montage: Montage, judged: JudgedMontages) -> Iterator[Finding]:
    names = ", ".join(d.name for d in montage.derivations.values()) or "no derivation"
    yield Finding("streams", bad=not montage.derivations, text=f"bed {bed}: {names}")
    seen = judged.of({role.value: used for role, used in montage.channels.items()})
    if seen is not None and seen.words is not None:
        yield Finding("streams", bad=False, text=f"bed {bed}: {seen.words}")
    for role, derivation in montage.derivations.items():
        if derivation.microvolts_per_unit is None:
            why = montage.problems.get(role.value, "unit unknown")
            yield Finding("streams", bad=True, text=f"bed {bed}: {role}: {why}")


def installation(config: Config) -> dict[str, str]:
    """Return what there is to know about this installation, and of the daemon if it runs."""
    from hypnocast.live.service.running_daemon import running_daemon

    facts = {
        "hypnocast": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": f"{os.cpu_count()} × {platform.processor() or platform.machine()}",
        "state": str(config.state_dir),
        "pack": _or_fault(lambda: _pack_words(config)),
        "liblsl": _or_fault(_liblsl),
        "inference": _or_fault(_inference),
        "in systemd": "yes" if os.environ.get("INVOCATION_ID") else "no",
    }
    for name in LIBRARIES:
        try:
            facts[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            facts[name] = "not installed"
    try:
        facts |= running_daemon(config)
    except HypnocastError as error:
        facts["daemon"] = f"not seen: {error}"
    return facts


def _or_fault(look: Callable[[], str]) -> str:
    try:
        return look()
    except HypnocastError as error:
        return f"FAULT: {error}"


def _pack_words(config: Config) -> str:
    pack = open_pack(config)
    return f"{pack.manifest.name} {pack.manifest.version} {pack.digest}"


def _liblsl() -> str:
    from hypnocast.ports.lsl.library import load_pylsl

    number = int(load_pylsl().library_version())
    return f"{number // 100}.{number % 100}"


def _inference() -> str:
    from hypnocast.stagers.onnx.engine import installed_runtime

    kind = installed_runtime()
    name = "onnxruntime" if kind == "cpu" else "onnxruntime-gpu"
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        raise InstallError(f"{name} is not installed", remedy="Install hypnocast[cpu].") from None
