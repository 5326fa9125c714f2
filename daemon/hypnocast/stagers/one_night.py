"""One night's looks judged in their order, each with what the page before it left behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypnocast.core.types import Look, Opinion
from hypnocast.core.verdicts.sequence_filter import FORGET_AFTER
from hypnocast.stagers.base import Stager


class OneNight:
    """Judges the pages of a recording that is there as a whole."""

    def __init__(self, stager: Stager, *, carries: bool) -> None:
        """Keep who judges, and whether it carries anything over from page to page."""
        self._stager = stager
        self._carries = carries
        self._epoch = 0
        self._carried: bytes | None = None

    def judge(self, looks: Sequence[Look]) -> list[Opinion]:
        """Give an opinion on each look; pages come in the order of the night."""
        if not self._carries:
            return self._stager.judge(looks)
        return [self._next(look) for look in looks]

    def _next(self, look: Look) -> Opinion:
        epoch = look.page.epoch
        carried = self._carried if epoch - self._epoch <= FORGET_AFTER else None
        (opinion,) = self._stager.judge([replace(look, carried=carried)])
        self._epoch, self._carried = epoch, opinion.carried
        return opinion
