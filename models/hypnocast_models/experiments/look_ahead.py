"""How far ahead a verdict may look: not at all, some pages, or to the night's end."""

from __future__ import annotations

import numpy as np

from hypnocast.core.types import FloatArray

WHOLE_NIGHT = -1
_FLOOR = 1e-12


def follow(
    log_probabilities: FloatArray, prior: FloatArray, transitions: FloatArray, ahead: int
) -> FloatArray:
    """Give the probabilities of each page, knowing all before it and ``ahead`` pages after it.

    With none it is the daemon's forward filter. Rows of NaN carry no evidence.
    """
    known = np.isfinite(log_probabilities).all(axis=1)
    evidence = np.ones_like(log_probabilities)
    evidence[known] = np.exp(log_probabilities[known]) / prior
    evidence /= evidence.max(axis=1, keepdims=True)
    pages = len(evidence)
    forward = np.empty_like(evidence)
    belief = np.asarray(prior)
    for page in range(pages):
        belief = (belief if page == 0 else belief @ transitions) * evidence[page]
        belief = belief / max(belief.sum(), _FLOOR)
        forward[page] = belief
    out = np.empty_like(evidence)
    reach = pages if ahead == WHOLE_NIGHT else ahead
    backward = np.ones(evidence.shape[1])
    for page in range(pages - 1, -1, -1):
        if reach < pages:
            backward = np.ones(evidence.shape[1])
            for later in range(min(page + reach, pages - 1), page, -1):
                backward = transitions @ (evidence[later] * backward)
        elif page < pages - 1:
            backward = transitions @ (evidence[page + 1] * backward)
            backward = backward / max(backward.max(), _FLOOR)
        smoothed = forward[page] * backward
        out[page] = smoothed / max(smoothed.sum(), _FLOOR)
    return out
