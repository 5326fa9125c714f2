"""From a verdict to the event that crosses the wire: every key filled, nothing else decided."""

from __future__ import annotations

from dataclasses import dataclass

from hypnocast.core.timing.utc import instant
from hypnocast.core.types import (
    PAGE_S,
    ChannelQuality,
    FloatArray,
    Gap,
    Picture,
    Staged,
    Verdict,
)
from hypnocast.core.wire import payloads
from hypnocast.core.wire.page_facts import Evidence, JudgedMontages
from hypnocast.live.bed.bed_updates import Timings

UNASSIGNED = 1
"""Sequence of an event that the journal has not numbered yet."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What all events of a session have in common."""

    site: str
    bed: str
    session: str
    subject: str | None
    source: payloads.SourceName
    start_utc: float
    """Start of epoch 0."""
    pack_digest: str
    recipe_digest: str
    review_below: float
    judged: JudgedMontages


def stage_event(
    origin: Origin,
    verdict: Verdict,
    outcome: Picture | Gap | None,
    timings: Timings,
    lights: payloads.LightsName,
    *,
    evidence: Evidence | None = None,
    review: bool = False,
) -> payloads.StageEvent:
    """Build the event; its sequence is given by the journal."""
    staged = verdict if isinstance(verdict, Staged) else None
    start = origin.start_utc + PAGE_S * verdict.epoch
    revision = 0 if staged is not None and staged.provisional else 1
    confidence = float(staged.probabilities.max()) if staged is not None else None
    picture = outcome.digest if isinstance(outcome, Picture) else None
    channels = {role.value: name for role, name in outcome.channels.items()} if outcome else {}
    return payloads.StageEvent(
        id=payloads.event_id(origin.session, verdict.epoch, revision),
        sequence=UNASSIGNED,
        source=origin.source,
        site=origin.site,
        bed=origin.bed,
        session=origin.session,
        subject=origin.subject,
        epoch=verdict.epoch,
        start=instant(start),
        end=instant(start + PAGE_S),
        revision=1 if revision else 0,
        status=_status(staged),
        reason=None if isinstance(verdict, Staged) else verdict.reason.value,
        stage=staged.stage.value if staged is not None else None,
        probabilities=probabilities_of(staged.probabilities) if staged is not None else None,
        raw_probabilities=probabilities_of(staged.raw_probabilities)
        if staged is not None
        else None,
        confidence=round(confidence, 6) if confidence is not None else None,
        rationale=staged.rationale if staged is not None else None,
        rules=staged.rules if staged is not None else None,
        channels=channels,
        quality=_quality(outcome),
        judged=origin.judged.of(channels),
        review=review or (confidence is not None and confidence < origin.review_below),
        evidence=_checked(evidence, staged),
        lights=lights,
        digests=payloads.Digests(
            pack=origin.pack_digest, recipe=origin.recipe_digest, picture=picture
        ),
        provider=staged.provider if staged is not None else None,
        timing=payloads.Timing(
            closed=_ms(timings.closed),
            drawn=_ms(timings.drawn),
            judged=_ms(timings.judged),
            journaled=_ms(timings.journaled),
        ),
    )


def _checked(evidence: Evidence | None, staged: Staged | None) -> Evidence | None:
    """Hold what the model claims against what was measured."""
    if evidence is None or staged is None or staged.rationale is None:
        return evidence
    from hypnocast.core.evidence.measures import with_claims

    return with_claims(evidence, staged.rationale)


def _status(staged: Staged | None) -> payloads.StatusName:
    if staged is None:
        return "withheld"
    return "provisional" if staged.provisional else "final"


def _ms(value: float | None) -> float | None:
    return round(value, 1) if value is not None else None


def probabilities_of(values: FloatArray) -> payloads.StageProbabilities:
    """Write the probabilities of the five stages as they cross the wire."""
    w, n1, n2, n3, r = (min(1.0, max(0.0, round(float(value), 6))) for value in values)
    return payloads.StageProbabilities(W=w, N1=n1, N2=n2, N3=n3, R=r)


def _quality(outcome: Picture | Gap | None) -> dict[str, payloads.ChannelReport]:
    if outcome is None:
        return {}
    return {role.value: _report(quality) for role, quality in outcome.quality.items()}


def _report(quality: ChannelQuality) -> payloads.ChannelReport:
    return payloads.ChannelReport(
        coverage=round(quality.coverage, 4),
        flags=tuple(sorted(flag.value for flag in quality.flags)),
    )
