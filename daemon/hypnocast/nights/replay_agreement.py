"""How a replayed night compares with the stages that its file brings along, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypnocast.core.night.agreement import Agreement
from hypnocast.core.types import STAGES


def agreement_as_json(agreement: Agreement) -> dict[str, Any]:
    """Return it for programs."""
    return {
        "pages": agreement.pages,
        "agreed": agreement.same,
        "kappa": agreement.kappa,
        "confusion": [list(row) for row in agreement.confusion],
        "stages": [stage.value for stage in STAGES],
    }


def agreement_lines(agreement: Agreement) -> Iterator[str]:
    """Return it for people."""
    kappa = "undefined" if agreement.kappa is None else f"{agreement.kappa:.3f}"
    share = agreement.agreed or 0.0
    yield f"against the file's stages: {agreement.pages} pages, {share:.1%} agree, kappa {kappa}"
    yield "file \\ model " + "".join(f"{stage:>6}" for stage in STAGES)
    for stage, row in zip(STAGES, agreement.confusion, strict=True):
        yield f"{stage:<12} " + "".join(f"{count:>6}" for count in row)
