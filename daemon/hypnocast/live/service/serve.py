"""``hypnocast run``: the daemon in earnest, from a configuration, until it is asked to end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import structlog

from hypnocast.config.file import load_config
from hypnocast.config.tables import Config, changed_keys
from hypnocast.core.timing.decisions import Decision, decision_to_json
from hypnocast.core.wire.topics import Topics
from hypnocast.errors import HypnocastError
from hypnocast.live.bed.sources import LiveSource
from hypnocast.live.explaining.past_pages import PastPages, depth_of, reasons_later
from hypnocast.live.explaining.picture_store import PAGES, PictureStore
from hypnocast.live.explaining.published_explanations import PublishedExplanations
from hypnocast.live.service.build import (
    JOURNAL,
    boot_id,
    broker_settings,
    make_parts,
    open_pack,
    pipeline_maker,
)
from hypnocast.live.service.health_report import HealthReport
from hypnocast.live.service.lsl_settings import beds_of, network_of
from hypnocast.live.service.numbers import live_numbers
from hypnocast.live.service.pseudonym_warnings import PseudonymWarnings
from hypnocast.live.service.ward import Ward, WardParts, Watcher
from hypnocast.live.service.watchdog import Watchdog, keep_watch
from hypnocast.ports.durable_files import room_problem
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.kept_word import MQTT_CLIENT, WARD_TOKEN, kept_word
from hypnocast.ports.lsl.library import configure_lsl, load_pylsl
from hypnocast.ports.lsl.senders import Senders
from hypnocast.ports.lsl.source import LslSource
from hypnocast.ports.lsl.stage_outlets import StageOutlets
from hypnocast.ports.metrics import MetricsServer
from hypnocast.ports.mqtt.link import MqttLink
from hypnocast.ports.recordings.tape_recorder import TapeLimits, TapeRecorder
from hypnocast.ports.supervision import Supervisor
from hypnocast.ports.system import Notifier
from hypnocast.stagers.fallback import FallbackStep
from hypnocast.stagers.packs.pack import Pack

BACKGROUND_THREADS = 8

_log = structlog.get_logger("run")


async def serve(
    config: Config, path: Path | None = None, *, watchers: tuple[Watcher, ...] = ()
) -> None:
    """Serve until SIGTERM or SIGINT."""
    pack = open_pack(config)
    configure_lsl(network_of(config))
    pylsl = load_pylsl()
    state_dir = config.state_dir
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    notifier = Notifier()
    supervisor = supervise()
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(notifier.close)
        journal = await stack.enter_async_context(Journal.open(state_dir / JOURNAL, supervisor))
        _log_condition(journal)
        keeping = supervisor.task(
            "keeping",
            lambda _: forget_old_nights(journal, config.journal.keep_days),
            on_failure="restart",
        )
        stack.push_async_callback(_cancel, keeping)
        clock = pylsl.local_clock
        tapes = _tape_recorder(config, clock, supervisor) if config.tape.enabled else None
        if tapes is not None:
            stack.callback(tapes.close)
        lsl = LslSource(
            beds_of(config),
            supervisor=supervisor,
            session_of=lambda bed: ward.session_of(bed),  # noqa: PLW0108 - there is no ward yet
            pinned=config.lsl.pin,
            senders=Senders(config.lsl.senders),
        )
        source = LiveSource(lsl, clock, tapes.write if tapes is not None else None)

        def decided(bed: str, decisions: Sequence[Decision]) -> None:
            if tapes is not None:
                for decision in decisions:
                    tapes.note(bed, decision_to_json(decision), clock())

        parts = make_parts(config, pack, journal, live=True, on_step=_log_step)
        picture_store = _picture_store(state_dir, pack.recipe.digest, supervisor, stack)
        past = PastPages(picture_store, parts.judge, journal, pack, depth=depth_of(config))
        explanations_out = _explanations_out(config, pack, past)
        everyone = (*watchers, PseudonymWarnings(bed.id for bed in config.bed))
        outlets = _stage_outlets(config, stack)
        ward = Ward(
            WardParts(
                source=source,
                pack=pack,
                parts=parts,
                topics=Topics(config.site.id, config.broker.topic_root),
                node=config.daemon.node,
                broker=replace(
                    broker_settings(config.broker), client_word=kept_word(state_dir, MQTT_CLIENT, 6)
                ),
                make_pipeline=pipeline_maker(
                    config,
                    pack,
                    source,
                    boot_id=boot_id(),
                    auto=config.auto_session,
                    decided=decided,
                    change_tape=None if tapes is None else tapes.change,
                ),
                beds=tuple(bed.id for bed in config.bed),
                show_pages=config.publish.page,
                show_spectrum=config.publish.spectrum,
                lsl_stages=outlets,
                home_assistant=config.publish.home_assistant,
                boot_id=boot_id(),
                problems=lambda bed: tuple(
                    problem for problem in lsl.problems() if problem.bed == bed
                ),
                accept_streams=lsl.accept,
                watchers=everyone if explanations_out is None else (*everyone, explanations_out),
                past=past,
                supervisor=supervisor,
                disk_problems=lambda: _disk_problems(config, tapes),
                source_numbers=lambda: live_numbers(lsl, tapes, picture_store, outlets),
            )
        )

        def end() -> None:
            notifier.stopping()
            ward.stop()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end)
        loop.add_signal_handler(signal.SIGHUP, lambda: reload(config, path, ward.link))
        _log_serving(config, pack.manifest.name)
        if explanations_out is not None:
            explaining = supervisor.task(
                "explanations",
                lambda _: explanations_out.run(ward.publishers),
                on_failure="restart",
            )
            stack.push_async_callback(_cancel, explaining)
        if config.dashboard.enabled:
            page = supervisor.task(
                "ward page", lambda _: _dashboard(config, supervisor), on_failure="restart"
            )
            stack.push_async_callback(_cancel, page)
        report = HealthReport(
            ward,
            reading=lambda: lsl.turns,
            closing_s=pack.recipe.tail_s + config.signal.grace_s,
        )
        metrics = config.metrics
        if metrics.port is not None:
            numbers = MetricsServer(metrics.host, metrics.port, report.readings, supervisor)
            stack.enter_context(numbers)
        await keep_watch(ward.run(), Watchdog(report, notifier), ward.ready, stop=ward.stop)
        _log.info("ended in good order; sessions that run can be taken up again")


def _explanations_out(config: Config, pack: Pack, past: PastPages) -> PublishedExplanations | None:
    """Return who explains every page, where that is asked or the model writes reasons later."""
    covering = config.pack.explain != "off"
    if not covering and not reasons_later(pack):
        return None
    return PublishedExplanations(functools.partial(past.explain, channels=covering))


def _disk_problems(config: Config, tapes: TapeRecorder | None) -> tuple[str, ...]:
    """Return what is wrong with the tapes, and which disk is full."""
    lines = [room_problem(config.state_dir)]
    if tapes is not None:
        lines.append(tapes.statistics().problem)
        if config.state_dir not in config.tape_dir.parents:
            lines.append(room_problem(config.tape_dir))
    return tuple(line for line in lines if line)


def _picture_store(
    state_dir: Path, recipe: str, supervisor: Supervisor, stack: contextlib.AsyncExitStack
) -> PictureStore:
    store = PictureStore(state_dir / PAGES, recipe, supervisor=supervisor)
    stack.callback(store.close)
    return store


def _stage_outlets(config: Config, stack: contextlib.AsyncExitStack) -> StageOutlets | None:
    if not config.lsl.publish:
        return None
    rolling = config.publish.hop_s is not None
    outlets = StageOutlets(config.site.id, config.daemon.node, rolling=rolling)
    stack.callback(outlets.close)
    return outlets


def _log_serving(config: Config, pack: str) -> None:
    _log.info(
        "serving",
        pack=pack,
        broker=f"{config.broker.address[0]}:{config.broker.address[1]}",
        beds=[bed.id for bed in config.bed] or "found by themselves",
        state_dir=str(config.state_dir),
    )


def supervise() -> Supervisor:
    """Return a supervisor that also knows what asyncio and the libraries do in threads."""
    supervisor = Supervisor()
    pool = supervisor.pool("background", BACKGROUND_THREADS)
    asyncio.get_running_loop().set_default_executor(pool)
    return supervisor


def reload(config: Config, path: Path | None, link: MqttLink) -> None:
    """Apply what can change while beds are served: credentials and certificates.

    Whatever else changed in the file is named, and applies at the next start: a night goes
    on under the configuration it began with.
    """
    try:
        changed = changed_keys(config, load_config(path))
    except HypnocastError as error:
        _log.error("the changed configuration is refused; the old one stays", error=str(error))
        return
    for key in changed:
        _log.warning("takes effect at the next start: a night keeps its configuration", key=key)
    _log.info("credentials and certificates are read anew")
    link.reconnect()


async def forget_old_nights(journal: Journal, keep_days: int, *, every_s: float = 86400.0) -> None:
    """Forget nights that are too old, now and every day: a daemon may run for years."""
    while True:
        try:
            nights = await journal.forget(keep_days=keep_days, now=datetime.now(UTC))
        except HypnocastError as error:
            _log.warning("old nights cannot be forgotten", error=str(error))
        else:
            _log.info("old nights were forgotten", nights=nights, older_than_days=keep_days)
        await asyncio.sleep(every_s)


async def _dashboard(config: Config, supervisor: Supervisor) -> None:
    """Serve the ward page; without it the night goes on."""
    from hypnocast.dashboard.server import serve as serve_page
    from hypnocast.dashboard.settings import DashboardSettings

    settings = replace(
        DashboardSettings.of(config, broker_settings(config.broker)),
        token=kept_word(config.state_dir, WARD_TOKEN, 16),
    )
    await serve_page(
        settings, started=lambda at: _log.info("ward page", address=at), supervisor=supervisor
    )


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _tape_recorder(
    config: Config, clock: Callable[[], float], supervisor: Supervisor
) -> TapeRecorder:
    limits = TapeLimits(
        part_bytes=config.tape.part_mb * 1_000_000,
        keep_days=config.tape.keep_days,
        keep_bytes=int(config.tape.keep_gb * 1e9),
    )
    facts = {"site": config.site.id, "node": config.daemon.node, "boot_id": boot_id()}
    return TapeRecorder(
        config.tape_dir, limits=limits, facts=facts, clock=clock, supervisor=supervisor
    )


def _log_step(step: FallbackStep) -> None:
    _log.warning("the model's engine changed", before=step.before, after=step.after, why=step.why)


def _log_condition(journal: Journal) -> None:
    condition = journal.condition
    if condition.set_aside is not None:
        _log.error("a damaged journal was set aside", kept_as=str(condition.set_aside))
    if condition.why:
        _log.error("the journal is degraded", why=condition.why)
