"""Past pages of nights that run: what answers the commands ``page`` and ``explain``."""

from __future__ import annotations

import base64

from hypnocast.config.tables import Config
from hypnocast.core.types import Picture, Stage
from hypnocast.core.wire import commands, payloads
from hypnocast.errors import CommandError
from hypnocast.live.bed.bed_updates import ClosedPage, Item
from hypnocast.live.explaining.explanations import Depth, explain, explanation, reasons_alone
from hypnocast.live.explaining.picture_store import PictureStore
from hypnocast.live.staging.judging import Judge
from hypnocast.ports.journal.journal import Journal
from hypnocast.stagers.packs.manifest import Generative, Signals
from hypnocast.stagers.packs.pack import Pack


def depth_of(config: Config) -> Depth:
    """Return how deep explanations go: to the channels, unless the configuration asks for more."""
    return "patches" if config.pack.explain == "patches" else "channels"


def reasons_later(pack: Pack) -> bool:
    """Return whether a pack's model writes its reasons after the stage was published."""
    model = pack.manifest.model
    return isinstance(model, Generative) and model.gives_reasons_later


class PastPages:
    """Keeps the pictures of the pages that close, and gives and explains them."""

    def __init__(
        self,
        picture_store: PictureStore,
        judge: Judge,
        journal: Journal,
        pack: Pack,
        *,
        depth: Depth,
    ) -> None:
        """Keep where pictures are, who explains, and how deep explanations go."""
        self._picture_store = picture_store
        self._judge = judge
        self._journal = journal
        self._pack = pack
        self._depth: Depth = depth

    def keep(self, item: Item) -> None:
        """Keep the picture of a page that closed; never waits."""
        if isinstance(item, ClosedPage) and isinstance(item.outcome, Picture):
            self._picture_store.keep(item.session.id, item.outcome)

    async def answer(
        self, bed: str, command: commands.PageCommand | commands.Explain
    ) -> commands.Reply:
        """Answer a command; :class:`CommandError` where there is nothing to answer with."""
        await self._check(bed, command)
        if isinstance(command, commands.PageCommand):
            kept = await self._picture_store.png(command.session, command.epoch)
            if kept is None:
                raise _not_kept(bed, command.epoch)
            return _reply(command, png=base64.b64encode(kept).decode("ascii"))
        events = await self._journal.read(lambda reader: reader.night(command.session).events)
        staged = [event for event in events if event.epoch == command.epoch and event.stage]
        if not staged:
            raise CommandError(
                f"page {command.epoch} has no stage to explain",
                where=f"bed {bed}",
                remedy="Its event says why it was withheld.",
            )
        explained = await self.explain(staged[-1])
        return _reply(command, explanation=explained)

    async def explain(
        self, event: payloads.StageEvent, *, channels: bool = True
    ) -> payloads.Explanation:
        """Return what an event's stage rests on, and the reasons of a model that gives them later.

        Without ``channels`` nothing is covered: the reasons are all.
        """
        if isinstance(self._pack.manifest.model, Signals):
            raise CommandError(
                f"{self._pack.manifest.name} reads signals: nothing on its picture can be covered",
                where=f"bed {event.bed}",
                remedy="The event's probabilities and evidence say what there is to say.",
            )
        context = self._pack.manifest.context
        look = await self._picture_store.look(
            event.session, event.epoch, before=context.before, after=context.after
        )
        if look is None:
            raise _not_kept(event.bed, event.epoch)
        stage = Stage(str(event.stage))
        if not channels:
            return reasons_alone(stage, await self._judge.reasons(look, stage))
        reasons = await self._judge.reasons(look, stage) if reasons_later(self._pack) else None
        rests = await explain(self._judge, self._pack.recipe, look, stage, self._depth)
        return explanation(event.epoch, rests, reasons)

    async def _check(self, bed: str, command: commands.PageCommand | commands.Explain) -> None:
        session = await self._journal.read(lambda reader: reader.session(command.session))
        if session is None or session.bed != bed:
            raise CommandError(
                f"there was no session {command.session} here",
                where=f"bed {bed}",
                remedy="Name the session of an event of this bed.",
            )


def _not_kept(bed: str, epoch: int) -> CommandError:
    return CommandError(
        f"the picture of page {epoch} is not kept",
        where=f"bed {bed}",
        remedy="It was withheld, or is too long ago: `hypnocast why` draws it from the tape.",
    )


def _reply(
    command: commands.PageCommand | commands.Explain,
    *,
    png: str | None = None,
    explanation: payloads.Explanation | None = None,
) -> commands.Reply:
    return commands.Reply(
        request=command.request,
        command=commands.command_name(command),
        ok=True,
        session=command.session,
        png=png,
        explanation=explanation,
    )
