"""How fast a stager works, and how long it may be silent before it counts as hung.

A slow model is not a hung one. The stager beats after every step it completes (a run of a graph,
a token, a batch). The longest step so far decides how long the next may last.
"""

from __future__ import annotations

import time
from collections.abc import Callable

SLACK = 5.0
"""A step may last so many times the longest so far: a busy machine is not a hung one."""

NOTICED_S = 1.0
"""Nobody notices whether a quicker model judges one by one."""

WORTH_A_BATCH = 0.9
"""A page in a batch must need less than this share of its time alone."""

OPENING_S = 900.0
"""A model may need so long to open and warm up: gigabytes from a slow disk, on a busy machine."""

NEWEST = 0.3
"""Weight of the newest batch in the estimate for a page."""


class Pace:
    """Beats and times of one stager; written by its thread, read by any."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing measured."""
        self._clock = clock
        self.beats = 0
        """Steps completed since the beginning."""
        self.page_s = 0.0
        """Seconds a page alone needs, by the newest measurements; 0 before the first."""
        self.each_s = 0.0
        """Seconds a page needs in a batch; 0 before the first."""
        self._at = clock()
        self._pages = 1
        self._longest = 0.0
        self._opening = False

    def open(self) -> None:
        """Note that the model is being opened: nothing is known of it, and it may be slow."""
        self._opening = True
        self._longest = 0.0
        self.page_s = self.each_s = 0.0
        self.begin(1)

    def begin(self, pages: int) -> None:
        """Note that a batch of so many pages begins."""
        self._pages = max(1, pages)
        self._at = self._clock()

    def beat(self) -> None:
        """Note that a step is done."""
        now = self._clock()
        if not self._opening:  # reading gigabytes from a disk is no step
            self._longest = max(self._longest, (now - self._at) / self._pages)
        self._at = now
        self.beats += 1

    def measured(self, pages: int, seconds: float) -> None:
        """Note how long a whole batch lasted."""
        self._opening = False
        if pages == 1:
            self.page_s = _blend(self.page_s, seconds)
        else:
            self.each_s = _blend(self.each_s, seconds / pages)

    @property
    def silent_s(self) -> float:
        """How long ago the last step was done, or the batch begun."""
        return self._clock() - self._at

    @property
    def allowed_s(self) -> float:
        """How long the step that runs may last: a whole page may be one step."""
        if self._opening:
            return OPENING_S
        return SLACK * max(self._longest, self.page_s, self.each_s) * self._pages

    @property
    def gains_by_batches(self) -> bool:
        """Whether pages judged together are quicker than one after the other, as far as is known.

        Where they do not, each page gets its stage as soon as it can.
        """
        known = self.each_s and self.page_s > NOTICED_S
        return not known or self.each_s < WORTH_A_BATCH * self.page_s

    def batch_s(self, pages: int) -> float:
        """Estimate how long so many pages last together."""
        if pages == 1 or not self.each_s:
            return self.page_s * pages
        return max(self.page_s, self.each_s * pages)


def _blend(before: float, now: float) -> float:
    return now if not before else (1 - NEWEST) * before + NEWEST * now
