"""Whether `hypnocast why` names what carries the stage, and whether pixels agree.

Run as ``python tests/bench/bench_why.py [PACK] [NIGHTS]`` from the project's folder. Simulated
sleep is taped as by a daemon; then of each of ten nights five pages of R with rapid eye movements
and five of N2 with spindles, among those that got their stage, are drawn again and explained. A
page counts as named where the sentence names a channel that carries the feature: an eye for R, an
EEG for N2. Naming every channel would always be right, so it is printed beside it how many channels
a sentence names, and how often as many channels drawn by lot would have held a carrier.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import Counter
from math import comb
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT / "tests"), str(_ROOT / "daemon")]

import structlog  # noqa: E402

from hypnocast.core.types import EEG_ROLES, EOG_ROLES, PAGE_S, Role, Stage  # noqa: E402
from hypnocast.live.explaining.explanations import explain_channels  # noqa: E402
from hypnocast.nights.night_view import NightView, open_night  # noqa: E402
from hypnocast.nights.redraw import Redrawn, redraw  # noqa: E402
from hypnocast.nights.why import Answer, look_at  # noqa: E402
from hypnocast.simulate import EventKind, SimulatedSource  # noqa: E402
from hypnocast.stagers.onnx.local import LocalStager  # noqa: E402
from hypnocast.stagers.packs.catalogue import resolve_pack  # noqa: E402
from hypnocast.stagers.packs.pack import load_pack  # noqa: E402
from support.brokers import free_port  # noqa: E402
from support.taped_nights import T0, Taped, tape_nights  # noqa: E402

PAGES = 5
NIGHTS = 10
CYCLE = (*(Stage.W,) * 2, *(Stage.N1,) * 2, *(Stage.N2,) * 16, *(Stage.R,) * 16)
"""As short as may be: a whole night would cost hours of replaying for the same pages."""
CARRIES: dict[Stage, tuple[EventKind, tuple[Role, ...]]] = {
    Stage.R: (EventKind.RAPID_EYE_MOVEMENT, EOG_ROLES),
    Stage.N2: (EventKind.SPINDLE, EEG_ROLES),
}


def main(pack: str, nights: int = NIGHTS) -> None:
    """Tape, explain, print."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    folder = resolve_pack(pack)
    stager = LocalStager(load_pack(folder), "cpu", 1)
    values: dict[Stage, list[Answer]] = {stage: [] for stage in CARRIES}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(nights):
            sim = SimulatedSource(1, seed=100 + seed, stages=CYCLE)
            state = Path(scratch) / str(seed)
            taped = asyncio.run(tape_nights(state, folder, sim, port=free_port()))
            view = open_night(taped.config, "latest")
            night = range(view.night.epochs)
            redrawn = redraw(taped.config, view, stager.pack.recipe, night, needed=night[-1] - 1)
            for stage, answers in values.items():
                wanted = PAGES * (seed + 1) - len(answers)
                for epoch in _pages(taped, view, stage)[:wanted]:
                    answers.append(_answer(stager, view, redrawn, epoch))
            print(f"night {seed + 1} of {nights}", file=sys.stderr)
    print(f"pack {pack}, {time.perf_counter() - began:.0f} s")
    for stage, answers in values.items():
        print(_line(stage, answers))


def _answer(stager: LocalStager, view: NightView, redrawn: Redrawn, epoch: int) -> Answer:
    """Answer as `hypnocast why` does, from a tape read once for the whole night."""
    context, event = stager.pack.manifest.context, view.page(epoch)
    look = look_at(view, redrawn, epoch, before=context.before, after=context.after)
    rests = explain_channels(stager, redrawn.recipe, look, Stage(str(event.stage)))
    return Answer(view, event, redrawn, rests, stager.pack.digest)


def _pages(taped: Taped, view: NightView, stage: Stage) -> list[int]:
    """Return pages that are of the stage, show its feature, and were staged so; spread out."""
    night = taped.sim.nights["bed-01"]
    kind, _ = CARRIES[stage]
    late = view.start.timestamp() - T0
    found = []
    for epoch, given in enumerate(view.stages):
        begins = epoch * PAGE_S + late
        shown = [e for e in night.events(begins, begins + PAGE_S) if e.kind is kind]
        true = night.stage(int(begins // PAGE_S))
        if given == stage.value and true is stage and len(shown) >= 2:
            found.append(epoch)
    return found[:: max(1, len(found) // PAGES)]


def _line(stage: Stage, answers: list[Answer]) -> str:
    _, carriers = CARRIES[stage]
    rests = [one.rests for one in answers if one.rests is not None]
    named = [set(one.named) for one in rests]
    pages = max(1, len(named))
    right = sum(bool(names & set(carriers)) for names in named)
    only = sum(bool(names) and names <= set(carriers) for names in named)
    lot = sum(_by_lot(list(one.channels), len(one.named), carriers) for one in rests)
    same = sum(one.same is True for one in answers)
    counts = Counter(role.value for names in named for role in names)
    others = Counter(kind for one in rests for kind in one.would_do)
    return (
        f"{stage}: {len(answers)} pages, digest equal on {same}\n"
        f"   a carrier ({', '.join(carriers)}) is named on {right} ({right / pages:.0%}; by lot "
        f"{lot / pages:.0%}), nothing else is named on {only}\n"
        f"   channels named a page {sum(map(len, named)) / pages:.1f}, none on "
        f"{named.count(set())}: {dict(counts.most_common())}\n"
        f"   said to do alone, on so many pages: {dict(others.most_common())}"
    )


def _by_lot(channels: list[Role], named: int, carriers: tuple[Role, ...]) -> float:
    """Return how likely a carrier is among so many channels drawn by lot."""
    silent = sum(role not in carriers for role in channels)
    return 1.0 - comb(silent, named) / comb(len(channels), named)


if __name__ == "__main__":
    main(
        sys.argv[1] if len(sys.argv) > 1 else "hypnocast-small",
        int(sys.argv[2]) if len(sys.argv) > 2 else NIGHTS,
    )
