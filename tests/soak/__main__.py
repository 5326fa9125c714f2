"""``python -m soak``: ten minutes, or eight hours with ``--hours 8``."""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from soak.amplifiers import SoakAmplifiers
from soak.checker import (
    Verdict,
    all_words,
    check_events,
    check_naming,
    check_pages,
    check_sizes,
    journal_events,
    killed_while_degraded,
)
from soak.consumer import Consumer
from soak.disk import FailingDisk, MemoryGroup
from soak.faults import Injected, Injector, SoakScene
from soak.manager import DaemonLife, ServiceManager
from soak.proxy import FailingProxy
from support.brokers import running_mosquitto

CONFIG = """
[site]
id = "soak"
[daemon]
node = "pc1"
state_dir = "{state}"
[broker]
port = {port}
[session]
auto = true
[lsl]
peers = ["127.0.0.1"]
scope = "machine"
base_port = {lsl}
port_range = 64
[tape]
part_mb = 1
keep_gb = 0.02
"""
BED = """
[[bed]]
id = "{bed}"
streams = [{{ source_id = "soak-{bed}" }}]
"""
API = """
[ports]
MulticastPort = {multicast}
BasePort = {lsl}
PortRange = 64
IPv6 = disable
[multicast]
ResolveScope = machine
[lab]
KnownPeers = {{127.0.0.1}}
[log]
level = -2
"""
FIRST_PAGES_S = 300.0
"""Nothing fails until every bed has its first page, which may take so long."""

SETTLE_S = 120.0
"""At the end the daemon has so long to send what waits."""

LSL_PORT = 16_600


def print_now(words: str) -> None:
    """Print for whoever watches."""
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def soak(
    folder: Path, seconds: float, beds: tuple[str, ...], seed: int, without: Sequence[str]
) -> dict[str, Any]:
    """Run it, without some kinds of faults, and return what was found."""
    chance = random.Random(seed)
    api = folder / "lsl_api.cfg"
    api.write_text(API.format(multicast=LSL_PORT - 4, lsl=LSL_PORT))
    disk, memory = FailingDisk(folder, 96 + round(seconds / 36.0)), MemoryGroup()
    config = folder / "soak.toml"
    persistence = f"persistence true\npersistence_location {folder}/\nautosave_interval 1\n"
    persistence += "autosave_on_changes true\nmax_queued_messages 0\n"
    try:
        with running_mosquitto(folder, persistence) as mosquitto:
            proxy = FailingProxy(mosquitto.port)
            text = CONFIG.format(state=disk.path, port=proxy.port, lsl=LSL_PORT)
            config.write_text(text + "".join(BED.format(bed=bed) for bed in beds))
            consumer = Consumer(mosquitto.port, "hypnocast/soak")
            amplifiers = SoakAmplifiers(beds, api, chance)
            surroundings = disk.environment() | {"LSLAPICFG": str(api)}
            manager = ServiceManager(config, folder / "daemon.log", surroundings, memory.take_in)
            scene = SoakScene(manager, mosquitto, proxy, disk, memory, amplifiers, chance)
            began = time.time()
            _first_pages(consumer, beds)
            kinds = [kind for kind in scene.kinds() if kind.name not in without]
            injector = Injector(kinds, seed)
            _wait(seconds, injector, consumer, manager)
            injector.stop()
            disk.shift_clock(0)
            _settle(consumer)
            caught_up_at = time.time()
            for bed in beds:
                consumer.catch_up(bed)
            code = manager.stop()
            consumer.close()
            amplifiers.close()
            proxy.close()
            _keep(folder / "words.jsonl", all_words(consumer.states, manager.statuses))
            _keep(folder / "injected.jsonl", [asdict(each) for each in injector.injected])
            return _judge(
                disk.path / "journal.sqlite", injector.injected, consumer, manager, amplifiers,
                code=code, span=(began, caught_up_at),
            )  # fmt: skip
    finally:
        disk.close()
        memory.close()


def _keep(path: Path, rows: Sequence[object]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def _first_pages(consumer: Consumer, beds: tuple[str, ...]) -> None:
    until = time.monotonic() + FIRST_PAGES_S
    while {each.bed for each in consumer.events()} < set(beds):
        if time.monotonic() > until:
            raise TimeoutError("no first page of every bed")
        time.sleep(0.5)


def _wait(seconds: float, injector: Injector, consumer: Consumer, manager: ServiceManager) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0.0:
        time.sleep(min(60.0, left))
        print_now(
            f"{left / 60.0:6.1f} min left: {len(injector.injected)} faults, "
            f"{len(consumer.events())} events, {len(manager.lives)} restarts"
        )


def _settle(consumer: Consumer) -> None:
    """Wait until the daemon says that nothing waits and nothing is wrong."""
    until = time.monotonic() + SETTLE_S
    since = time.time()
    while time.monotonic() < until:
        time.sleep(1.0)
        if consumer.states:
            at, state = consumer.states[-1]
            if at > since + 2.0 and not state["degraded"] and not state["outbox"]["waiting"]:
                return


def _quiet(
    injected: list[Injected], lives: list[DaemonLife], span: tuple[float, float]
) -> list[tuple[float, float]]:
    """Return the stretches in which nothing failed and nothing recovered."""
    busy = sorted(
        [(each.began - 5.0, each.ended + 40.0) for each in injected]
        + [(life.ended - 5.0, life.ended + 60.0) for life in lives]
    )
    quiet, at = [], span[0]
    for begin, end in busy:
        if begin > at:
            quiet.append((at, begin))
        at = max(at, end)
    return [*quiet, (at, span[1])] if at < span[1] else quiet


def _judge(
    journal: Path,
    injected: list[Injected],
    consumer: Consumer,
    manager: ServiceManager,
    amplifiers: SoakAmplifiers,
    *,
    code: int,
    span: tuple[float, float],
) -> dict[str, Any]:
    verdict = Verdict()
    events = journal_events(journal)
    ends = [life.ended for life in manager.lives]
    not_durable = killed_while_degraded(manager.statuses, ends)
    check_events(verdict, consumer.events(), events, not_durable)
    check_pages(verdict, events, amplifiers.gaps, _quiet(injected, manager.lives, span))
    up = [(at, next((end for end in ends if end > at), span[1])) for at in manager.ready]
    namings = check_naming(injected, consumer.states, manager.statuses, up)
    for naming in namings:
        if naming.named < naming.long:
            verdict.wrong["faults not named within 10 s"] += naming.missed
    if code != 0:
        verdict.wrong["end in good order"].append(f"exit code {code}")
    verdict.wrong["broken messages"] += consumer.broken
    verdict.wrong["ended by the watchdog"] += [str(life) for life in manager.lives if life.silent]
    longest_s, grown = check_sizes(verdict, manager.sizes)
    return {
        "passed": verdict.passed,
        "counts": verdict.counts | {"restarts": len(manager.lives) - 1},
        "wrong": {what: found[:20] for what, found in verdict.wrong.items() if found},
        "faults": [asdict(naming) for naming in namings],
        "longest life, min": round(longest_s / 60.0, 1),
        "growth": [asdict(each) for each in grown],
    }


def table(found: dict[str, Any]) -> str:
    """Return it for people."""
    lines = [f"{'fault':<18}{'injected':>9}{'to name':>9}{'named':>7}{'slowest s':>11}"]
    lines += [
        f"{row['kind']:<18}{row['injected']:>9}{row['long']:>9}{row['named']:>7}"
        f"{row['slowest_s']:>11.1f}"
        for row in found["faults"]
    ]
    lines += ["", *(f"{what:<32}{count:>8}" for what, count in found["counts"].items()), ""]
    lines.append(f"in the longest life ({found['longest life, min']} min):")
    lines += [
        f"  {row['what']:<30}{row['begin']:>8.1f} → {row['end']:.1f}, {row['an_hour']:+.1f} an hour"
        f"{'' if row['flat'] else ', GROWS'}"
        for row in found["growth"]
    ]
    for what, cases in found["wrong"].items():
        lines.append(f"WRONG {what}: {len(cases)}")
        lines += [f"    {case}" for case in cases[:5]]
    lines.append("PASSED" if found["passed"] else "FAILED")
    return "\n".join(lines)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--hours", type=float, help="instead of minutes; the long form has 8")
    parser.add_argument("--beds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument(
        "--without", action="append", default=[], metavar="KIND", help="leave a fault out"
    )
    parser.add_argument("--keep", type=Path, help="keep logs and findings in this folder")
    options = parser.parse_args()
    seconds = options.minutes * 60.0 if options.hours is None else options.hours * 3600.0
    beds = tuple(f"bed{number}" for number in range(1, options.beds + 1))
    print_now(f"seed {options.seed}, {seconds / 60.0:g} min, {options.beds} beds")
    with tempfile.TemporaryDirectory(prefix="hypnocast-soak-") as made:
        folder = options.keep or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        found = soak(folder, seconds, beds, options.seed, options.without)
        (folder / "found.json").write_text(json.dumps(found, indent=2))
    print_now(table(found))
    return 0 if found["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
