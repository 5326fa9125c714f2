"""The long form: every fault many times over, and the table for ``docs/faults.md``.

``python -m faults.table`` (with ``tests`` and ``daemon`` on the path) runs some ten minutes;
``python -m faults.table kills broker`` does only these parts.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from faults import test_broker
from faults.checker import NightCheck
from faults.endurance import Endured, endure
from faults.kills import KilledNight, one_night, plan_of
from faults.life import ORIGIN, Orders, a_ward
from faults.points import POINTS
from faults.witness import fault_proxy, witness
from hypnocast.live.service.logs import set_up_logs
from support.brokers import running_mosquitto
from support.mqtt_lab import until
from support.packs import make_tiny_pack

SEED = 20260309
EACH = 8
HOURS = 8.0


def row(fault: str, tries: int, findings: Iterable[NightCheck]) -> str:
    """Return a line of the table."""
    found = list(findings)
    numbers = [
        sum(one.expected for one in found),
        sum(one.terminal for one in found),
        sum(len(one.lost) for one in found),
        sum(len(one.doubled) for one in found),
        sum(len(one.wrongly_staged) for one in found),
    ]
    amiss = "; ".join(sorted({text for one in found for text in one.wrong})) or "nothing"
    return f"| {fault} | {tries} | {' | '.join(map(str, numbers))} | {amiss} |"


def kills(folder: Path, pack: Path, *, cuts: bool) -> KilledNight:
    """Kill the daemon at every named point, several times."""
    folder.mkdir()
    with running_mosquitto(folder) as broker:
        plan = plan_of(SEED + cuts, EACH)
        return one_night(folder, broker.port, pack, plan, SEED + cuts, cuts=cuts)


async def backlog(folder: Path, pack: Path) -> tuple[int, float, float, float]:
    """An hour of four beds without a broker: events, events/s on return, live latency in ms."""
    folder.mkdir()  # noqa: ASYNC240 - once, at the start
    beds = ("bed1", "bed2", "bed3", "bed4")
    with running_mosquitto(folder) as broker, fault_proxy(broker.port) as proxy:
        proxy.refuse = True
        proxy.slow_s = 0.0
        orders = Orders(str(folder / "state"), str(pack), proxy.port, ORIGIN, beds=beds, pace_s=0.0)
        async with a_ward(orders) as alive:
            ward = asyncio.create_task(alive.ward.run())
            everyone = alive.ward.publishers
            await until(
                lambda: sum(b.counts["pages"] for b in everyone.values()) >= 480, "pages", 300.0
            )
            with witness(broker.port) as listener:
                # From here on the night goes at a pace of about ten pages a second.
                alive.source.orders = Orders(
                    str(folder / "state"), str(pack), proxy.port, ORIGIN, beds=beds, pace_s=0.05
                )
                late = sum(publisher.counts["pages"] for publisher in everyone.values())
                proxy.refuse = False
                await until(lambda: alive.journal.sent >= late, "the backlog is gone", 120.0)
                stage = [at for topic, _, at in listener.messages if topic.endswith("/stage")]
                came = [at for topic, _, at in listener.messages if topic.endswith("/events")]
                begun, ended = came[0], came[min(late, len(came)) - 1]
                gaps = sorted(b - a for a, b in itertools.pairwise(stage))
                alive.ward.stop()
                await ward
    middle = gaps[len(gaps) // 2] if gaps else 0.0
    return late, late / max(ended - begun, 1e-3), 1000.0 * middle, 1000.0 * max(gaps, default=0.0)


HEAD = (
    "| fault | tries | epochs expected | terminal found | lost | doubled "
    "| wrongly staged | else amiss |\n|---|---|---|---|---|---|---|---|\n"
)
CUTS = (
    test_broker.cut_before_publish,
    test_broker.cut_before_puback,
    test_broker.cut_after_puback,
)
ELSE = (test_broker.refused, test_broker.silent, test_broker.slow)


def print_now(text: str) -> None:
    """Print at once: this is slow."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_kills(root: Path, pack: Path, *, cuts: bool) -> None:
    """Kill, and print the line."""
    night = kills(root / f"kills-{cuts}", pack, cuts=cuts)
    least = min(night.kills[point] for point in POINTS)
    what = f"`kill -9` at {len(POINTS)} named points (each ≥ {least} times)"
    what += f", with {night.cuts} broken connections" if cuts else ""
    what += f"; {night.tapes} tapes read back, {night.torn} torn"
    print_now(row(what, sum(night.kills.values()), [night.finding]))


def print_broker(root: Path, pack: Path) -> None:
    """Do everything to the broker, and print a line for each."""
    for fault in (*CUTS, *ELSE):
        found = []
        for number in range(6):
            folder = root / f"{fault.__name__}-{number}"
            folder.mkdir()
            found.append(asyncio.run(test_broker.the_night(folder, pack, fault)))
        each = 3 if fault in CUTS else 1
        print_now(row(f"broker: {fault.__name__.replace('_', ' ')}", each * len(found), found))


def print_endurance(root: Path, pack: Path) -> None:
    """Endure eight hours, and print how big the daemon was."""
    folder = root / "endurance"
    folder.mkdir()
    with running_mosquitto(folder) as broker:
        endured = endure(folder, broker.port, pack, hours=HOURS, seed=SEED)
    print_now(row("eight hours of faults at random", 1, endured.findings.values()))
    print_now("\n" + _size(endured))


def print_backlog(root: Path, pack: Path) -> None:
    """Let an hour of pages wait for the broker, and print how they went out."""
    begun = time.monotonic()
    events, rate, middle, longest = asyncio.run(backlog(root / "backlog", pack))
    print_now(
        f"Backlog: {events} events, {rate:.0f} events/s; between two live `stage` events "
        f"{middle:.0f} ms in the middle, {longest:.0f} ms at most "
        f"({time.monotonic() - begun:.0f} s in all)"
    )


PARTS: dict[str, Callable[[Path, Path], None]] = {
    "kills": lambda root, pack: print_kills(root, pack, cuts=False),
    "kills-and-cuts": lambda root, pack: print_kills(root, pack, cuts=True),
    "broker": print_broker,
    "endurance": print_endurance,
    "backlog": print_backlog,
}


def main() -> None:
    """Run what is named on the command line, or everything, and print the table."""
    set_up_logs(quiet=True)
    print_now(f"Seed {SEED}.\n\n{HEAD}".rstrip())
    with tempfile.TemporaryDirectory(prefix="hypnocast-faults-") as name:
        root = Path(name)
        pack = make_tiny_pack(root / "pack", family="contrastive")
        for part in sys.argv[1:] or PARTS:
            PARTS[part](root, pack)


def _size(endured: Endured) -> str:
    late = [size for size in endured.sizes if size.hours > 0.1 * HOURS]
    return (
        f"Memory {min(s.rss_kb for s in late) / 1024:.0f}–{max(s.rss_kb for s in late) / 1024:.0f} "
        f"MiB, growth {100 * endured.growth(0.1, 1.0):+.1f} %; descriptors "
        f"{min(s.descriptors for s in late)}–{max(s.descriptors for s in late)}; threads "
        f"{min(s.threads for s in late)}–{max(s.threads for s in late)}; {endured.cuts} cuts; "
        f"{endured.seconds:.0f} s\n"
    )


if __name__ == "__main__":
    main()
