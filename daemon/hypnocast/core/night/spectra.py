"""The spectra of a night, page by page, as they are published for a spectrogram."""

from __future__ import annotations

from hypnocast.core.night.ledger import NightTitle
from hypnocast.core.pictures.page_spectrum import BANDS, BINS, FLOOR_DB, STEP_DB, STEP_HZ
from hypnocast.core.types import PageSpectrum
from hypnocast.core.wire.payloads import Instant
from hypnocast.core.wire.spectra import MAX_PAGES, NightSpectrum, SpectrumSource


class NightSpectra:
    """Collects the spectra of a night's newest 24 hours; a page without one is a gap."""

    def __init__(self, title: NightTitle) -> None:
        """Begin an empty night."""
        self.title = title
        self._first = 0
        self._pages: list[PageSpectrum | None] = []

    def __bool__(self) -> bool:
        """Return whether there is a spectrum of any page."""
        return any(self._pages)

    def add(self, epoch: int, spectrum: PageSpectrum | None) -> None:
        """Enter a page; what is known of it already stays."""
        place = epoch - self._first
        if place < 0:
            return
        self._pages.extend([None] * (place + 1 - len(self._pages)))
        self._pages[place] = self._pages[place] or spectrum
        surplus = len(self._pages) - MAX_PAGES
        if surplus > 0:
            del self._pages[:surplus]
            self._first += surplus

    def message(self, at: Instant) -> NightSpectrum:
        """Return the night so far as it is published."""
        title = self.title
        return NightSpectrum(
            at=at,
            source=title.source,
            site=title.site,
            bed=title.bed,
            session=title.session,
            start=title.start,
            first=self._first,
            pages=len(self._pages),
            derivations=self._derivations(),
            lowest_hz=STEP_HZ,
            step_hz=STEP_HZ,
            bins=BINS,
            bands_hz=BANDS,
            floor_db=FLOOR_DB,
            step_db=STEP_DB,
            levels=b"".join(page.levels if page else bytes(BINS) for page in self._pages),
            bands=b"".join(page.bands if page else bytes(len(BANDS)) for page in self._pages),
        )

    def _derivations(self) -> tuple[SpectrumSource, ...]:
        found: list[SpectrumSource] = []
        for epoch, page in enumerate(self._pages, start=self._first):
            if page is not None and (not found or found[-1].derivation != page.derivation):
                found.append(SpectrumSource(epoch=epoch, derivation=page.derivation))
        return tuple(found)
