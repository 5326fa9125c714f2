"""The Greifswald Sleep Stage Classifier as a pack, made on the user's own machine.

The PyPI package ``gssc`` (AGPL-3.0) carries its networks inside. They are converted by a program
that runs in an environment of its own, and what comes out is compared with GSSC's own real-time
code before the pack counts as made. Nothing of it is part of Hypnocast.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.pictures.samples import sample
from hypnocast.core.types import EEG_ROLES, STAGES, FloatArray, Look, Page, Picture, Role
from hypnocast.errors import InstallError, PackError
from hypnocast.stagers.one_night import OneNight
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.packs.manifest import Signals
from hypnocast.stagers.packs.pack import Pack
from hypnocast.stagers.signal import sample_recipe, scaled
from hypnocast_models.export.packing import write_pack

Scaling = Literal["page", "running"]

RECIPE = "clinical-448x224"
"""The picture that people see of a page; the model sees its samples."""

LOW_HZ, HIGH_HZ = 0.3, 30.0
PARITY = 1e-4
CHECKED = 40
"""Pages that the pack and GSSC's own code are compared on."""

_PROGRAM = Path(__file__).with_name("gssc_networks.py")
_EYES = {"left_eog": Role.E1, "right_eog": Role.E2}
_MONTAGES: tuple[tuple[Role, ...], ...] = ((), (Role.E1,), (Role.E1, Role.E2))
"""Eyes beside one EEG: what parity is shown on."""


@dataclass(frozen=True, slots=True)
class AdoptionParity:
    """How far a pack is from GSSC's own real-time code."""

    pages: int
    probability: float
    """The largest difference of a probability."""
    stages: int
    """Pages with another stage."""


def adopt_gssc(
    folder: Path,
    python: Path,
    pages: Iterable[Page],
    *,
    scaling: Scaling,
    progress: Callable[[str], None] = lambda _: None,
) -> Pack:
    """Convert GSSC into a pack, and hold it against GSSC's own code on the first pages."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = json.loads(_run(python, "export", folder).splitlines()[-1])
    (folder / "CARD.md").write_text(_card(facts["version"], scaling), encoding="utf-8")
    pack = write_pack(folder, _manifest(facts, scaling))
    progress(f"GSSC {facts['version']} converted: {pack.digest}")
    first = list(islice(pages, CHECKED))
    for eyes in _MONTAGES:
        found = parity(pack, python, first, eyes)
        what = " + ".join(("one EEG", *eyes))
        progress(
            f"{what}: {found.pages} pages, probabilities within {found.probability:.1e} of "
            f"GSSC's own real-time code, {found.stages} other stages"
        )
        if found.probability > PARITY or found.stages:
            raise PackError(
                f"differs from GSSC's own code by {found.probability:.1e} with {what}",
                where=str(folder),
                remedy="Do not use it; say which versions of torch and gssc made it.",
            )
    return pack


def parity(pack: Pack, python: Path, pages: Sequence[Page], eyes: Sequence[Role]) -> AdoptionParity:
    """Judge pages with the pack and with GSSC's own code, and compare."""
    model = pack.manifest.model
    assert isinstance(model, Signals)  # noqa: S101 - such a pack was just made
    recipe = sample_recipe(model)
    mains_hz = 50
    read = [sample(page, recipe, mains_hz) for page in pages]
    eeg = next((role for role in EEG_ROLES if role in read[0]), None)
    if eeg is None or any(role not in samples for role in eyes for samples in read):
        return AdoptionParity(0, 0.0, 0)
    roles = (eeg, *eyes)
    stager = LocalStager(pack, "cpu", 1)
    looks = [
        Look((_shown(place, {role: samples[role] for role in roles}, pack),))
        for place, samples in enumerate(read)  # whatever their numbers, one after another
    ]
    ours = np.exp([one.log_probabilities for one in OneNight(stager, carries=True).judge(looks)])
    stager.close()
    night = {role: np.stack([samples[role] for samples in read]) for role in roles}
    theirs, stages = _own(python, {role: scaled(x, model.scaling) for role, x in night.items()})
    different = int((ours.argmax(axis=1) != stages).sum())
    return AdoptionParity(len(pages), float(np.abs(ours - theirs).max()), different)


def _own(python: Path, night: dict[Role, FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Ask GSSC's own code; return the probabilities of the vote that decides, and the stages."""
    names = [role.value for role in night]
    with tempfile.TemporaryDirectory(prefix="hypnocast-gssc-") as scratch:
        given, own = Path(scratch, "pages.npz"), Path(scratch, "opinions.npz")
        stacked = np.stack(list(night.values()), axis=1).astype(np.float32)
        np.savez(given, pages=stacked, eeg=np.array(names[:1]), eog=np.array(names[1:], "U16"))
        _run(python, "judge", given, own)
        output = np.load(own)
        logits, stages = output["logits"], output["stages"]
    loudest = logits.max(axis=2).argmax(axis=1)
    return np.exp(logits[np.arange(len(logits)), loudest]), stages


def _shown(place: int, samples: dict[Role, FloatArray], pack: Pack) -> Picture:
    recipe = pack.recipe
    black = np.zeros((recipe.height, recipe.width, 3), np.uint8)
    return Picture(place, black, "", recipe.digest, quality={}, channels={}, samples=samples)


def _run(python: Path, *arguments: object) -> str:
    command = [str(python), "-I", str(_PROGRAM), *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise InstallError(
            f"cannot be started: {error.strerror}",
            where=str(python),
            remedy="Name the Python of the environment that has gssc: --python.",
        ) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise InstallError(
            f"GSSC could not be asked: {last[:300]}",
            where=str(python),
            remedy="It needs an environment with `pip install gssc onnx`: docs/packs.md.",
        )
    return done.stdout


def _manifest(facts: dict[str, Any], scaling: Scaling) -> dict[str, Any]:
    recipe = builtin(RECIPE)
    band = {"low_hz": LOW_HZ, "high_hz": HIGH_HZ}
    eeg = ["C4-M1", "F4-M1", "O2-M1"]
    return {
        "name": "gssc",
        "version": facts["version"],
        "licence": "AGPL-3.0-only",
        "intended_use": "Research only. For the use of the lab that converted it; see CARD.md.",
        "recipe": recipe.name,
        "recipe_digest": recipe.digest,
        "montage": {"needed": [eeg], "wanted": ["E1-M2", "E2-M2"]},
        "model": {
            "family": "signal",
            "samples": facts["samples"],
            "scaling": scaling,
            "inputs": [
                {"name": "eeg", "roles": eeg, **band},
                *({"name": name, "roles": [role.value], **band} for name, role in _EYES.items()),
            ],
            "votes": [
                {"graph": "eeg.onnx", "inputs": ["eeg"]},
                *({"graph": "eog.onnx", "inputs": [eye]} for eye in _EYES),
                *({"graph": "eeg_eog.onnx", "inputs": ["eeg", eye]} for eye in _EYES),
            ],
            "voting": "loudest",
            "recurrent": "context.onnx",
            "state_shape": facts["state_shape"],
        },
        "calibration": {"prior": [1 / len(STAGES)] * len(STAGES)},
        "provenance": {
            "base": f"gssc {facts['version']} from PyPI",
            "sources": [],
            "seed": 0,
            "commit": "0" * 40,
            "command": f"hypnocast-models adopt gssc --scaling {scaling}",
        },
    }


def _card(version: str, scaling: Scaling) -> str:
    return f"""# GSSC {version}, converted

The Greifswald Sleep Stage Classifier (J. Hanna, A. Flöel; https://github.com/jshanna100/gssc),
converted on this machine by `hypnocast-models adopt gssc` from the networks that the PyPI package
`gssc` {version} carries. Its licence is the GNU Affero General Public License, version 3: pass
this folder on only as that licence says. Hypnocast neither ships nor contains it.

It reads one EEG and, where they are there, both EOG: {LOW_HZ} to {HIGH_HZ} Hz, 2560 samples a
page, each derivation scaled by {"its own page" if scaling == "page" else "the night so far"}.
Every combination gives one vote, each with a state of its own that is carried from page to page;
the vote that is surest of its stage speaks. It knows nothing of the pages to come.

Its figures are those of its authors; it was not calibrated or validated here. Research only.
"""
