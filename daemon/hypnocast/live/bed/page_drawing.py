"""From a page to its picture, or to why it has none, and what is measured on it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypnocast.core.pages.page_builder import PageNeeds
from hypnocast.core.pictures.conditioning import load_filters
from hypnocast.core.pictures.recipe import Recipe
from hypnocast.core.pictures.render import draw_page
from hypnocast.core.pictures.samples import SampleRecipe, sample
from hypnocast.core.quality import assess, verdict_on
from hypnocast.core.types import PAGE_S, Gap, Page, Picture, Reason, Role
from hypnocast.core.wire.page_facts import Evidence


@dataclass(frozen=True, slots=True)
class DrawingSettings:
    """How every bed's pages are drawn."""

    recipe: Recipe
    needed: tuple[tuple[Role, ...], ...]
    min_coverage: float
    mains_hz: int
    grace_s: float
    hop_s: float | None = None
    """Between two glimpses of the last 30 s; None: there are none."""
    traces: bool = False
    """Whether the signals themselves are shown, second by second."""
    spectrum: bool = False
    """Whether the power spectrum of every page goes with its picture."""
    measure: bool = False
    """Whether evidence is measured on every page."""
    samples: SampleRecipe | None = None
    """How the samples are conditioned that go with the picture, for a pack that reads signals."""
    beside: tuple[Role, ...] = ()
    """Roles that packs beside read; where there are any, pages go on to them."""

    @property
    def own_roles(self) -> tuple[Role, ...]:
        """Roles that are drawn, or read by the pack itself."""
        read = () if self.samples is None else (role for role, _, _ in self.samples.bands)
        return tuple(dict.fromkeys((*self.recipe.roles, *read)))

    @property
    def needs(self) -> PageNeeds:
        """What pages must carry."""
        spare_s = PAGE_S if self.hop_s is not None else 0.0
        roles = tuple(dict.fromkeys((*self.own_roles, *self.beside)))
        return PageNeeds(roles, self.recipe.context_s, self.recipe.tail_s, spare_s)


def load_libraries(settings: DrawingSettings) -> None:
    """Load what drawing, keeping and measuring need, before threads compete for the interpreter."""
    from PIL import Image

    Image.preinit()
    load_filters()
    if settings.measure:
        import hypnocast.core.evidence.measures  # noqa: F401 - that it is loaded is all


class PageDrawing:
    """Draws the pages of one bed."""

    def __init__(self, settings: DrawingSettings) -> None:
        """Keep how pages are drawn."""
        self._settings = settings
        self._tones: list[float] = []

    def begin(self) -> None:
        """Begin another night: what was learnt of the last person's chin is forgotten."""
        self._tones.clear()

    def draw(self, page: Page, against: Reason | None = None) -> Picture | Gap:
        """Draw a page, unless there is something against it."""
        settings = self._settings
        roles = settings.own_roles
        quality = assess(page, roles, settings.mains_hz)
        channels = {role: name for role, name in page.channels.items() if role in roles}
        reason = against or verdict_on(quality, settings.needed, settings.min_coverage)
        if reason is not None:
            return Gap(page.epoch, reason, quality, channels)
        picture = draw_page(
            page,
            settings.recipe,
            settings.mains_hz,
            quality,
            channels,
            spectrum=settings.spectrum,
        )
        if settings.samples is None:
            return picture
        return replace(picture, samples=sample(page, settings.samples, settings.mains_hz))

    def measure(self, page: Page, drawn: Picture | Gap) -> Evidence | None:
        """Measure the evidence on a page that was drawn, if that is wanted."""
        if not self._settings.measure or isinstance(drawn, Gap):
            return None
        from hypnocast.core.evidence.measures import chin_tone, measure

        evidence = measure(page, self._tones, drawn.quality)
        tone = chin_tone(page, drawn.quality)
        if tone is not None:
            self._tones.append(tone)
        return evidence
