"""How the small pack fares on simulated pages as channels come and go.

Agreement with the simulator's own stages, never to be called accuracy: it shows that the pack
reads whatever montage it is given, not how well it stages people.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from hypnocast.core.pictures.render import draw_page
from hypnocast.core.types import STAGES, Look, Picture, Role
from hypnocast.core.verdicts.decider import Decider, NightState
from hypnocast.simulate.montages import CLINICAL
from hypnocast.simulate.night import SimulatedNight
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.packs.pack import Pack
from hypnocast_models.compare import figures
from hypnocast_models.data.recordings import page_of
from hypnocast_models.data.simulated import RATE, ROLES

PEOPLE = range(7001, 7005)
"""Simulated people whom training has not met."""
FIRST_PAGE, PAGES = 40, 240
_EEG, _EOG, _EMG = ROLES[:3], ROLES[3:5], ROLES[5:]
MONTAGES: dict[str, tuple[Role, ...]] = {
    "EEG only": _EEG,
    "EEG + EOG": (*_EEG, *_EOG),
    "EEG + EOG + EMG": ROLES,
    **{f"all but {role.value}": tuple(r for r in ROLES if r is not role) for role in ROLES},
    **{f"{role.value} alone": (role,) for role in _EEG},
}


def judge_montages(
    pack: Pack, people: Sequence[int] = PEOPLE, advance: Callable[[int], None] = lambda _: None
) -> dict[str, tuple[float, float]]:
    """Give agreement (κ, share of pages) with the simulator for every montage."""
    stager = LocalStager(pack, "cpu", threads=1)
    tables = {name: np.zeros((5, 6), dtype=np.int64) for name in MONTAGES}
    for person in people:
        night = SimulatedNight(person, hours=8)
        for name, roles in MONTAGES.items():
            truth, ours = _stage(night, roles, pack, stager)
            tables[name] += figures.confusion(truth, ours)
            advance(PAGES)
    stager.close()
    return {name: (figures.kappa(t), figures.accuracy(t)) for name, t in tables.items()}


def _stage(
    night: SimulatedNight, roles: Sequence[Role], pack: Pack, stager: LocalStager
) -> tuple[figures.Stages, figures.Stages]:
    recipe, before = pack.recipe, pack.manifest.context.before
    recent: deque[Picture | None] = deque([None] * (before + 1), maxlen=before + 1)
    looks, truth = [], []
    for page in range(FIRST_PAGE, FIRST_PAGE + PAGES):
        start = page * 30.0
        samples = night.samples(
            start - recipe.context_s, start + 30.0 + recipe.tail_s, leads=CLINICAL, rate=RATE
        )
        channels = {
            role: (samples[:, ROLES.index(role)].astype(np.float64), float(RATE), role.value)
            for role in roles
        }
        drawn = page_of(channels, page, recipe.context_s, recipe.tail_s)
        recent.append(draw_page(drawn, recipe, 50, {}, {role: role.value for role in roles}))
        looks.append(Look(tuple(recent), center=before))
        truth.append(STAGES.index(night.stages[page]))
    decider, state, ours = Decider(pack.manifest.calibration), NightState(), []
    for opinion in stager.judge(looks):
        state, staged = decider.step(state, opinion)
        ours.append(STAGES.index(staged.stage))
    return np.asarray(truth), np.asarray(ours)
