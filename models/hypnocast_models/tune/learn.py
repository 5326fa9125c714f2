"""A model learns from a lab's own nights; people it has not seen show what that was worth.

The nights are recordings with experts' stages, pages that scorers corrected, or pages with the
stages of a second opinion where it was sure. Weights become packs before and after; both stage
the people who were held out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypnocast.core.pictures.recipe import builtin
from hypnocast.errors import CommandError
from hypnocast.ports.durable_files import replace_file
from hypnocast.stagers.packs.pack import Pack
from hypnocast_models.compare import figures
from hypnocast_models.compare.evaluate import Evaluation, evaluate, rounded, summarise
from hypnocast_models.export.label import NO_COMMIT, Label, plain_label
from hypnocast_models.readers.material import (
    Material,
    only_subjects,
    open_material,
    without_subjects,
)
from hypnocast_models.tune.deliver import check_delivery, deliver
from hypnocast_models.tune.recipe import Training
from hypnocast_models.tune.run_folder import teachers_of
from hypnocast_models.tune.session import TuningSession, cast_of

RUN, BEFORE, AFTER, FIGURES = "run", "before", "pack", "learned.json"


@dataclass(frozen=True, eq=False)
class Lesson:
    """What is learnt from, and who judges it."""

    weights: Path
    database: Path
    held_out: Sequence[str]
    training: Training
    mains_hz: int = 50
    min_coverage: float | None = None
    """For the judging; None: the pack's own."""


@dataclass(frozen=True, eq=False)
class Learned:
    """A pack before and after, on people whom neither has seen."""

    before: Evaluation
    after: Evaluation
    pack: Pack
    teachers: dict[str, int]
    """Who gave the stages of kept pictures, and of how many pages."""

    @property
    def gained(self) -> figures.Interval:
        """κ after minus κ before, paired over the subjects that were held out."""
        return figures.bootstrap_difference(self.after.scored, self.before.scored)

    def to_json(self) -> dict[str, Any]:
        """Give every figure."""
        return {
            "pack": self.pack.digest,
            "teachers": self.teachers,
            "before": summarise(self.before.scored),
            "after": summarise(self.after.scored),
            "gained": rounded(self.gained),
        }


def learn(
    lesson: Lesson,
    out: Path,
    *,
    name: str,
    version: str,
    progress: Callable[[str], None] = lambda _: None,
    advance: Callable[[int, float], None] = lambda _step, _loss: None,
) -> Learned:
    """Tune, export before and after, and judge both; a tuning that was ended goes on."""
    check_delivery(name, version, "fp32")
    recipe = builtin(lesson.training.pages)
    nights = open_material(lesson.database, recipe)
    if not lesson.held_out:
        raise CommandError("nobody judges what was learnt", where="--held-out", remedy="Name one.")
    judged = only_subjects(nights, lesson.held_out)
    taught = without_subjects(nights, lesson.held_out)
    _refuse_weak_judges(judged)
    session = TuningSession(lesson.weights, lesson.training)
    session.train(
        lesson.database,
        cast_of(taught, lesson.training, lesson.held_out),
        out / RUN,
        mains_hz=lesson.mains_hz,
        advance=advance,
    )
    tuned = out / RUN / "weights"
    labels = {
        out / BEFORE: plain_label(f"{name}-before", version, recipe, NO_COMMIT),
        out / AFTER: plain_label(name, version, recipe, NO_COMMIT, tuned),
    }
    before, after = (
        _pack(weights, folder, label, progress)
        for weights, (folder, label) in zip((lesson.weights, tuned), labels.items(), strict=True)
    )
    found = [
        evaluate(pack, judged, mains_hz=lesson.mains_hz, min_coverage=lesson.min_coverage)
        for pack in (before, after)
    ]
    learned = Learned(found[0], found[1], after, teachers_of(taught))
    text = json.dumps(learned.to_json(), indent=1, ensure_ascii=False)
    replace_file(out / FIGURES, f"{text}\n".encode(), mode=0o666)
    return learned


def _refuse_weak_judges(judged: Sequence[Material]) -> None:
    """Refuse nights that a model staged: agreeing with it is no proof of having learnt."""
    weak = sorted(night.name for night in judged if getattr(night, "weak", False))
    if weak:
        raise CommandError(
            f"{', '.join(weak)} was staged by a second opinion, which cannot judge",
            where="--held-out",
            remedy="Hold out somebody whom a person has scored.",
        )


def _pack(weights: Path, folder: Path, label: Label, progress: Callable[[str], None]) -> Pack:
    folder.mkdir(parents=True, exist_ok=True)
    if label.provenance.notes:
        card = (
            f"# {label.name} {label.version}\n\nResearch only: no diagnosis.\n\n"
            f"{label.provenance.notes}\n"
        )
        (folder / "CARD.md").write_text(card, encoding="utf-8")
    return deliver(weights, label, folder, progress=progress)
