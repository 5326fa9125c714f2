"""The public functions: a night opened, drawn, staged and explained by the daemon's own code."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from hypnocast.api.hypnogram import StagedHypnogram
from hypnocast.api.recorded import Recorded, recording_of
from hypnocast.core.montage.choice import choose_montage
from hypnocast.core.pictures.compressed import png
from hypnocast.core.pictures.recipe import Recipe, builtin
from hypnocast.core.pictures.render import draw_page
from hypnocast.core.quality import assess, verdict_on
from hypnocast.core.types import PAGE_S, STAGES, Look, Opinion, Page, Picture, Pixels, Reason
from hypnocast.core.verdicts.decider import decide_night
from hypnocast.errors import TapeError
from hypnocast.nights.one_page import pages_of
from hypnocast.stagers.packs.catalogue import resolve_pack
from hypnocast.stagers.packs.pack import Pack, load_pack

if TYPE_CHECKING:
    from hypnocast.ports.recordings.recording import Recording
    from hypnocast.stagers.onnx.local import LocalStager

_BATCH = 16


@dataclass(frozen=True, slots=True, eq=False)
class PagePicture:
    """One page as the model sees it."""

    epoch: int
    rgb: Pixels
    """(height, width, 3) bytes."""
    digest: str
    """Over those bytes; the same in events, reports and replays."""
    channels: Mapping[str, str]
    """Role → derivation that was drawn."""
    quality: Mapping[str, str]
    """Role → how much came, and what is wrong with it."""

    def png(self) -> bytes:
        """Give it as a PNG file."""
        return png(self.rgb)

    def save(self, path: str | Path) -> None:
        """Write it as a PNG file."""
        Path(path).write_bytes(self.png())

    def _repr_png_(self) -> bytes:
        return self.png()


@dataclass(frozen=True, slots=True, eq=False)
class StagedRecording:
    """What a pack makes of a night."""

    hypnogram: StagedHypnogram
    log_probabilities: Any
    """(pages, 5) as the model gave them, before calibration and filter; NaN where withheld."""
    channels: Mapping[str, str]
    pack_digest: str


@dataclass(frozen=True, slots=True, eq=False)
class ExplainedPage:
    """What the stage of a page rests on."""

    epoch: int
    stage: str
    probability: float
    channels: Mapping[str, float]
    """Role → by how much the stage's probability falls where the channel is blanked."""
    sentence: str
    patches: tuple[tuple[float, ...], ...] | None
    """The same for patches of the page, rows from top to bottom; where they were asked for."""


class OpenNight:
    """A recording: its pages are numbered from 0, from its first sample on."""

    def __init__(self, recording: Recording, mains_hz: int = 50) -> None:
        """Choose the montage by the daemon's rules."""
        self._recording, self._mains_hz = recording, mains_hz
        self._montage = choose_montage(recording.headers)

    @property
    def duration_s(self) -> float:
        """How long it is."""
        return self._recording.duration_s

    @property
    def pages(self) -> int:
        """How many whole pages it has."""
        return int(self.duration_s / PAGE_S + 1e-9)

    @property
    def channels(self) -> dict[str, str]:
        """Role → derivation, for the channels there are."""
        return {role.value: name for role, name in self._montage.channels.items()}

    @property
    def problems(self) -> dict[str, str]:
        """Role or stream → what is wrong with it."""
        return dict(self._montage.problems)

    def draw(self, epoch: int, recipe: str = "spectral-448") -> PagePicture:
        """Draw a page."""
        drawn = builtin(recipe)
        for page in self._pages(drawn):
            if page.epoch == epoch:
                return _shown(draw_page(page, drawn, self._mains_hz), page)
        raise TapeError(
            f"has no page {epoch}",
            where=str(self._recording.path),
            remedy=f"It has {self.pages}, numbered from 0.",
        )

    def stage(
        self, pack: str | Path = "hypnocast-small", *, min_coverage: float | None = None
    ) -> StagedRecording:
        """Stage every page. ``min_coverage`` replaces the pack's own."""
        with _Judge(pack, min_coverage) as judge:
            return judge.stage(self)

    def explain(
        self, epoch: int, pack: str | Path = "hypnocast-small", *, patches: bool = False
    ) -> ExplainedPage:
        """Return what the stage of a page rests on: channels, or patches of the page too."""
        with _Judge(pack, None) as judge:
            return judge.explain(self, epoch, patches=patches)

    def _pages(self, recipe: Recipe) -> Iterator[Page]:
        """Give the pages in their order; the last one may be partial, as at a session's end."""
        return pages_of(self._recording, recipe)


class _Judge:
    """A pack with its model loaded, for as long as it is needed."""

    def __init__(self, pack: str | Path, min_coverage: float | None) -> None:
        self.pack: Pack = load_pack(resolve_pack(pack))
        montage = self.pack.manifest.montage
        self.least = montage.min_coverage if min_coverage is None else min_coverage

    @cached_property
    def stager(self) -> LocalStager:
        from hypnocast.stagers.onnx.local import LocalStager

        return LocalStager(self.pack, "auto")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if "stager" in self.__dict__:
            self.stager.close()

    def stage(self, night: OpenNight) -> StagedRecording:
        reasons: dict[int, str] = {}
        opinions: dict[int, Opinion] = {}
        waiting: list[Look] = []
        for item in self._looks(night, reasons):
            waiting.append(item)
            if len(waiting) == _BATCH:
                opinions |= {one.epoch: one for one in self.stager.judge(waiting)}
                waiting.clear()
        if waiting:
            opinions |= {one.epoch: one for one in self.stager.judge(waiting)}
        return self._decide(night, opinions, reasons)

    def explain(self, night: OpenNight, epoch: int, *, patches: bool) -> ExplainedPage:
        from hypnocast.live.explaining.explanations import explain_channels, explain_patches

        reasons: dict[int, str] = {}
        for look in self._looks(night, reasons):
            if look.page.epoch == epoch:
                (opinion,) = self.stager.judge([look])
                stage = STAGES[int(np.argmax(opinion.log_probabilities))]
                study = explain_patches if patches else explain_channels
                rests = study(self.stager, self.pack.recipe, look, stage)
                falls = {role.value: fall for role, fall in rests.channels.items()}
                return ExplainedPage(
                    epoch, stage.value, rests.probability, falls, rests.sentence, rests.patches
                )
        raise TapeError(
            f"has no page {epoch} to explain"
            + (f": it is withheld, {reasons[epoch]}" if epoch in reasons else ""),
            where=str(night._recording.path),  # noqa: SLF001 - one module
        )

    def _looks(self, night: OpenNight, reasons: dict[int, str]) -> Iterator[Look]:
        """Give each page that may be staged among its neighbours; note why others may not."""
        context, recipe = self.pack.manifest.context, self.pack.recipe
        size = context.before + 1 + context.after
        window: deque[Picture | None] = deque([None] * size, maxlen=size)
        pages = night._pages(recipe)  # noqa: SLF001 - one module
        drawn = (self._drawn_or_none(night, page, reasons) for page in pages)
        for count, picture in enumerate(_then(drawn, context.after), start=1):
            window.append(picture)
            if count > context.after and window[context.before] is not None:
                yield Look(pictures=tuple(window), center=context.before)

    def _drawn_or_none(
        self, night: OpenNight, page: Page, reasons: dict[int, str]
    ) -> Picture | None:
        recipe = self.pack.recipe
        if page.epoch >= night.pages:
            reasons[page.epoch] = Reason.SESSION_END.value
            return None
        quality = assess(page, recipe.roles, night._mains_hz)  # noqa: SLF001 - one module
        reason = verdict_on(quality, self.pack.manifest.montage.needed, self.least)
        if reason is not None:
            reasons[page.epoch] = reason.value
            return None
        return draw_page(page, recipe, night._mains_hz)  # noqa: SLF001 - one module

    def _decide(
        self, night: OpenNight, opinions: Mapping[int, Opinion], reasons: Mapping[int, str]
    ) -> StagedRecording:
        pages = max([*opinions, *reasons], default=-1) + 1
        stages, chances, raw = decide_night(self.pack.manifest.calibration, opinions, pages)
        manifest = self.pack.manifest
        hypnogram = StagedHypnogram(
            stages=tuple(stage and stage.value for stage in stages),
            probabilities=chances,
            reasons=tuple(reasons.get(epoch) for epoch in range(pages)),
            onset_s=0.0,
            start=night._recording.start,  # noqa: SLF001 - one module
            pack=f"{manifest.name} {manifest.version}",
        )
        return StagedRecording(hypnogram, raw, night.channels, self.pack.digest)


def open_night(source: Recorded, *, mains_hz: int = 50, **how: Any) -> OpenNight:
    """Open a night: a path (EDF, BDF, XDF, tape), an ``mne.io.Raw``, or an array.

    ``how``: for an array ``rate``, ``channels`` and ``unit``; for a file ``timezone``.
    """
    return OpenNight(recording_of(source, **how), mains_hz)


def draw(
    source: Recorded, page: int, *, recipe: str = "spectral-448", mains_hz: int = 50, **how: Any
) -> PagePicture:
    """Draw one page of a night; see :func:`open_night` for what a night may be."""
    return open_night(source, mains_hz=mains_hz, **how).draw(page, recipe)


def stage(
    source: Recorded,
    pack: str | Path = "hypnocast-small",
    *,
    min_coverage: float | None = None,
    mains_hz: int = 50,
    **how: Any,
) -> StagedRecording:
    """Stage a night; see :func:`open_night` for what a night may be."""
    return open_night(source, mains_hz=mains_hz, **how).stage(pack, min_coverage=min_coverage)


def explain(
    source: Recorded,
    page: int,
    pack: str | Path = "hypnocast-small",
    *,
    patches: bool = False,
    mains_hz: int = 50,
    **how: Any,
) -> ExplainedPage:
    """Return what the stage of a page rests on; see :func:`open_night` for what a night may be."""
    return open_night(source, mains_hz=mains_hz, **how).explain(page, pack, patches=patches)


def _then(pictures: Iterator[Picture | None], nothing: int) -> Iterator[Picture | None]:
    """Give pictures, and then so many places in which there are none."""
    yield from pictures
    for _ in range(nothing):
        yield None


def _shown(picture: Picture, page: Page) -> PagePicture:
    quality = {
        role.value: ", ".join([f"{one.coverage:.0%}", *(flag.value for flag in one.flags)])
        for role, one in picture.quality.items()
    }
    channels = {role.value: name for role, name in picture.channels.items()}
    return PagePicture(page.epoch, picture.rgb, picture.digest, channels, quality)
