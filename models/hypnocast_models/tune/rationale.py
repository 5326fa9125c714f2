"""Rationales to learn from: what the detectors measure on a page, in words, and the rules it meets.

They are made of this project's own measurements (docs/research.md, Evidence), not by experts: they
teach a model to say what is on the page before it names the expert's stage.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from hypnocast.core.evidence.measures import measure
from hypnocast.core.types import Page, Stage
from hypnocast.core.wire.page_facts import Evidence

REASON, RULES, STAGE = "reasoning_text", "applicable_rules", "sleep_stage"
"""Keys of the answer, in the order in which they are written."""
_MUCH_ALPHA, _SLOW_SHARE, _HIGH_TONE, _LOW_TONE = 0.5, 0.2, 0.6, 0.2


def reasoned_answer(page: Page, stage: Stage) -> str:
    """Write the answer that a page asks for: what is measured, which rules it meets, its stage."""
    evidence = measure(page)
    seen = "; ".join(_words(evidence)) or "nothing could be measured"
    return as_answer(f"{seen[0].upper()}{seen[1:]}.", list(_rules(evidence, stage)), stage.value)


def as_answer(reason: str, rules: list[str], stage: str) -> str:
    """Write an answer with its keys in the order of the schema."""
    return json.dumps({REASON: reason, RULES: rules, STAGE: stage}, ensure_ascii=False)


def _words(evidence: Evidence) -> Iterator[str]:
    if evidence.alpha_share is not None:
        yield f"alpha over {evidence.alpha_share:.0%} of the page"
    if evidence.slow_wave_share is not None:
        yield f"slow waves over {evidence.slow_wave_share:.0%}"
    for name, times in (
        ("spindles", evidence.spindles),
        ("K complexes", evidence.k_complexes),
        ("rapid eye movements", evidence.rapid_eye_movements),
        ("slow eye movements", evidence.slow_eye_movements),
    ):
        if times is not None:
            yield f"{name}: {len(times)}" if times else f"no {name}"
    tone = evidence.chin_tone_quantile
    if tone is not None:
        height = "high" if tone > _HIGH_TONE else "low" if tone < _LOW_TONE else "medium"
        yield f"chin tone {height}"


def _rules(evidence: Evidence, stage: Stage) -> Iterator[str]:
    """Give the rules of a stage that the evidence meets; of low amplitude where it meets none."""
    met = {
        Stage.W: {
            "W.alpha": (evidence.alpha_share or 0.0) > _MUCH_ALPHA,
            "W.eyes": bool(evidence.rapid_eye_movements),
        },
        Stage.N1: {"N1.slow-eyes": bool(evidence.slow_eye_movements)},
        Stage.N2: {
            "N2.spindle": bool(evidence.spindles),
            "N2.complex": bool(evidence.k_complexes),
        },
        Stage.N3: {"N3.slow": (evidence.slow_wave_share or 0.0) >= _SLOW_SHARE},
        Stage.R: {"R.eyes": bool(evidence.rapid_eye_movements)},
    }[stage]
    found = [rule for rule, there in met.items() if there]
    otherwise = {Stage.N1: "N1.low", Stage.R: "R.low"}
    yield from found or ([otherwise[stage]] if stage in otherwise else [])
