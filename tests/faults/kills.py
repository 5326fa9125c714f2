"""One long night, killed again and again at named points and resumed each time."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from faults.afterwards import send_the_rest
from faults.checker import NightCheck, Truth, check_night
from faults.life import CHUNK_S, ORIGIN, RATE, UTC0, Orders, TimeFile, is_bad, made_up
from faults.nursery import Nursery
from faults.points import MOST_HITS, POINTS
from faults.tapes import read_raw
from faults.witness import FaultProxy, Witness, fault_proxy, until, witness

PATIENCE_S = 12.0
"""A life in which the point does not come is ended from outside after so long."""


@dataclass
class KilledNight:
    """What became of it."""

    finding: NightCheck
    kills: Counter[str] = field(default_factory=Counter)
    """Point → how often the daemon died there."""
    outside: int = 0
    """Lives ended from outside, because their point did not come."""
    lives: list[tuple[float, float]] = field(default_factory=list)
    """From when to when, by the local clock, somebody was there."""
    tapes: int = 0
    """Tapes that were read back and compared with what the source sent."""
    torn: int = 0
    """Those of them that end in the middle of a chunk."""
    cuts: int = 0


def plan_of(seed: int, each: int, more: int = 0) -> list[tuple[str, int]]:
    """Draw the kills: every point so often, some more at random, in random order."""
    chance = random.Random(seed)
    points = [point for point in POINTS for _ in range(each)]
    points += chance.choices(POINTS, k=more)
    chance.shuffle(points)
    return [
        (point, chance.randint(1, MOST_HITS.get(point.partition(":")[0], 12))) for point in points
    ]


def one_night(
    folder: Path,
    port: int,
    pack: Path,
    plan: list[tuple[str, int]],
    seed: int,
    *,
    cuts: bool = False,
) -> KilledNight:
    """Kill by plan, let the last life end its night, and check everything."""
    chance = random.Random(seed)
    clock = folder / "clock"
    time_file = TimeFile(clock)
    night = KilledNight(NightCheck())
    orders = Orders(
        state=str(folder / "state"), pack=str(pack), port=port, begins=ORIGIN,
        clock=str(clock), tape=True,
    )  # fmt: skip
    with witness(port) as listener, Nursery(folder / "daemons.log") as nursery:
        with fault_proxy(port) as proxy:
            orders = replace(orders, port=proxy.port)
            for point, hit in plan:
                if cuts:
                    _some_cut(proxy, chance)
                begins = time_file.now
                _one_life(
                    nursery, replace(orders, begins=begins, kill_at=point, kill_hit=hit), night
                )
                night.lives.append((begins, time_file.now))
                time_file.now += chance.choice([0.0, 5.0, 25.0, 65.0])
            begins = time_file.now
            ends = begins + 200.0
            last = replace(orders, begins=begins, until=ends)
            nursery.begin(last)
            assert nursery.ended() == 0, (folder / "daemons.log").read_text()[-4000:]
            night.lives.append((begins, ends))
            send_the_rest(last, nursery, proxy)
            night.cuts = proxy.cuts
        _all_came(folder, listener)
        truth = Truth(
            begins=tuple(UTC0 + begins - ORIGIN for begins, _ in night.lives),
            ends=UTC0 + ends - ORIGIN,
            good=lambda at: _good(ORIGIN + at - UTC0, night.lives),
        )
        journal = folder / "state" / "journal.sqlite"
        night.finding = check_night([journal], listener.events(), "bed1", truth)
    _check_tapes(sorted((folder / "state" / "tapes").glob("*.xdf")), night)
    return night


def _check_tapes(paths: list[Path], night: KilledNight) -> None:
    """Compare what every killed daemon left on tape with what its source sent."""
    reached: dict[float, float] = {}
    for path in paths:
        tape = read_raw(path)
        night.tapes += 1
        night.torn += tape.torn > 0
        streams = [stream for stream in tape.named("eeg") if stream.stamps]
        if not streams:
            continue
        (stream,) = streams
        begins, count = stream.stamps[0], len(stream.stamps)
        first, step = round((begins - ORIGIN) * RATE), round(CHUNK_S * RATE)
        want = np.concatenate([made_up(at, step, 0)[0] for at in range(first, first + count, step)])
        if count % step or not np.array_equal(np.asarray(stream.rows, "f4"), want, equal_nan=True):
            night.finding.wrong.append(f"{path.name} holds other samples than were sent")
        reached[begins] = max(reached.get(begins, 0.0), begins + count / RATE)
    for begins, ends in night.lives:
        if ends > begins and reached.get(begins, 0.0) < ends - 0.5 / RATE:
            night.finding.wrong.append(
                f"the tape from {begins} ends at {reached.get(begins)}, the daemon lived to {ends}"
            )


def _some_cut(proxy: FaultProxy, chance: random.Random) -> None:
    """Let the connection break somewhere in this life as well."""
    kind = chance.choice(["cut_before_puback", "cut_after_puback", "cut_before_publish"])
    setattr(proxy, kind, chance.randint(1, 8))


def _one_life(nursery: Nursery, orders: Orders, night: KilledNight) -> None:
    process = nursery.begin(orders)
    ended = threading.Event()

    def end() -> None:
        if not ended.wait(PATIENCE_S):
            night.outside += 1
            night.kills[orders.kill_at] -= 1
            night.kills["elsewhere"] += 1
            os.kill(process, signal.SIGKILL)

    killer = threading.Thread(target=end)
    killer.start()
    code = nursery.ended()
    ended.set()
    killer.join()
    assert code == -signal.SIGKILL, f"{orders.kill_at} {orders.kill_hit}: ended with {code}"
    night.kills[orders.kill_at] += 1


def _all_came(folder: Path, listener: Witness) -> None:
    with sqlite3.connect(f"file:{folder / 'state' / 'journal.sqlite'}?mode=ro", uri=True) as db:
        newest = db.execute("SELECT id FROM events ORDER BY sequence DESC LIMIT 1").fetchone()[0]
    db.close()
    until(lambda: newest.encode() in b"".join(listener.events()[-50:]), "the last event")


def _good(local: float, lives: list[tuple[float, float]]) -> bool:
    return not is_bad(local) and any(begin <= local < end for begin, end in lives)
