"""From a configuration to a ward: every part made as configured."""

from __future__ import annotations

import functools
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from hypnocast.config.tables import (
    BedTable,
    BesidePackTable,
    BrokerTable,
    Config,
    PackTable,
    credential,
)
from hypnocast.core.montage.choice import Montage, choose_montage
from hypnocast.core.night.session import SessionKeeper
from hypnocast.core.timing.decisions import Decision
from hypnocast.core.types import Arrival, Role, StreamHeader
from hypnocast.core.verdicts.decider import Decider
from hypnocast.errors import ConfigError
from hypnocast.live.bed.bed_pipeline import BedPipeline
from hypnocast.live.bed.bed_updates import Item
from hypnocast.live.bed.page_drawing import DrawingSettings, load_libraries
from hypnocast.live.bed.signal_thread import MakePipeline
from hypnocast.live.bed.sources import ArrivalSource
from hypnocast.live.publishing.bed_worker import BedParts, EventOrigin
from hypnocast.live.staging.capacity import LIVE_DEADLINE_S
from hypnocast.live.staging.judging import Judge
from hypnocast.live.staging.second_opinion import BesidePack
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.mqtt.settings import BrokerSettings
from hypnocast.stagers.base import Stager
from hypnocast.stagers.fallback import FallbackStager, FallbackStep
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.onnx.vision_encoder import SEEN_AT_ONCE
from hypnocast.stagers.packs.catalogue import resolve_pack
from hypnocast.stagers.packs.judged import judged_montages
from hypnocast.stagers.packs.manifest import Generative, Signals
from hypnocast.stagers.packs.pack import Pack, load_pack
from hypnocast.stagers.packs.signing import check_signature
from hypnocast.stagers.remote.open_inference import RemoteStager
from hypnocast.stagers.signal import carries, sample_recipe

JOURNAL = "journal.sqlite"

Decided = Callable[[str, Sequence[Decision]], None]
ChangeTape = Callable[[str, Sequence[Arrival]], bool]


@dataclass(frozen=True, slots=True)
class WardDecisions:
    """The decisions of a tape, bed by bed, for a replay that obeys them."""

    decisions: dict[str, tuple[Decision, ...]]


def open_pack(config: Config) -> Pack:
    """Load and verify the configured pack."""
    pack = load_pack(resolve_pack(config.pack.name))
    _check_pinned(config.pack, pack, "pack")
    if isinstance(pack.manifest.model, Signals):
        _refuse_what_needs_pictures(config)
    return pack


def _check_pinned(table: PackTable | BesidePackTable, pack: Pack, where: str) -> None:
    """Refuse a pack that is not the one, or not by the one, that the configuration names."""
    if table.digest not in (None, pack.digest):
        raise ConfigError(
            f"{table.name} has the digest {pack.digest}, not {table.digest}",
            where=f"{where}.digest",
            remedy="Find out who changed the pack; name its digest if it was you.",
        )
    if table.signed_by is not None:
        check_signature(pack, table.signed_by)


def _refuse_what_needs_pictures(config: Config) -> None:
    for key, asked in (("remote", config.pack.remote), ("explain", config.pack.explain != "off")):
        if asked:
            raise ConfigError(
                f"{config.pack.name} reads signals, and this needs a model that reads pictures",
                where=f"pack.{key}",
                remedy="Leave the key out, or name another pack.",
            )


def broker_settings(broker: BrokerTable) -> BrokerSettings:
    """Return how to reach the configured broker."""
    host, port = broker.address
    return BrokerSettings(
        host=host,
        port=port,
        tls=broker.uses_tls,
        ca_file=credential(broker.ca_file),
        cert_file=credential(broker.cert_file),
        key_file=credential(broker.key_file),
        username_file=credential(broker.username_file),
        password_file=credential(broker.password_file),
        version=broker.version,
    )


def local_stager(table: PackTable, pack: Pack) -> LocalStager:
    """Open a pack on this machine; a model of language gets every core unless set otherwise."""
    alone = 1 if not isinstance(pack.manifest.model, Generative) else None
    return LocalStager(pack, table.provider, table.threads or alone)


def stager_builder(
    config: Config, pack: Pack, on_step: Callable[[FallbackStep], None]
) -> Callable[[], Stager]:
    """Return what builds the stager: anew each time, for a model that hung."""

    def build() -> Stager:
        ca_file = credential(config.pack.remote_ca_file)
        remote = [RemoteStager(pack, server, ca_file=ca_file) for server in config.pack.remote]
        return FallbackStager([*remote, local_stager(config.pack, pack)], on_step=on_step)

    return build


def make_parts(
    config: Config,
    pack: Pack,
    journal: Journal,
    *,
    live: bool,
    on_step: Callable[[FallbackStep], None],
) -> BedParts:
    """Return what every worker works with; unless ``live``, pages are judged several at once."""
    manifest = pack.manifest
    review = config.pack.review_below
    return BedParts(
        journal=journal,
        judge=Judge(
            stager_builder(config, pack, on_step),
            gather=1 if live else SEEN_AT_ONCE,
        ),
        decider=Decider(manifest.calibration, context_after=manifest.context.after > 0),
        context=manifest.context,
        needed=manifest.montage.needed,
        stamp=EventOrigin(
            site=config.site.id,
            pack_digest=pack.digest,
            recipe_digest=pack.recipe.digest,
            review_below=manifest.calibration.review_below if review is None else review,
            judged=judged_montages(manifest, pack.recipe),
        ),
        deadline_s=LIVE_DEADLINE_S if live else None,
        carries=carries(pack),
        rules_of=config.rules_of,
        beside=tuple(
            _beside_pack(config, table, live=live, on_step=on_step) for table in config.pack.beside
        ),
    )


def _beside_pack(
    config: Config, table: BesidePackTable, *, live: bool, on_step: Callable[[FallbackStep], None]
) -> BesidePack:
    pack = load_beside(table.name)
    alone = PackTable(name=table.name, provider=table.provider, threads=table.threads)
    own = msgspec.structs.replace(
        config, pack=alone, publish=msgspec.structs.replace(config.publish, evidence=False)
    )
    manifest = pack.manifest
    stamp = EventOrigin(
        site=config.site.id,
        pack_digest=pack.digest,
        recipe_digest=pack.recipe.digest,
        review_below=0.0,
        judged=judged_montages(manifest, pack.recipe),
    )
    return BesidePack(
        name=f"{manifest.name} {manifest.version}",
        digest=pack.digest,
        judge=Judge(stager_builder(own, pack, on_step), gather=1 if live else SEEN_AT_ONCE),
        decider=Decider(manifest.calibration, context_after=manifest.context.after > 0),
        context=manifest.context,
        trace=drawing_settings(own, pack),
        origin=stamp.origin,
        carries=carries(pack),
    )


@functools.cache
def load_beside(name: str) -> Pack:
    """Load and verify a pack beside; once, for it may be large."""
    return load_pack(resolve_pack(name))


def beside_roles(config: Config, pack: Pack) -> tuple[Role, ...]:
    """Return what packs beside read of a page; a pack whose pages are cut otherwise is refused."""
    packs = [load_beside(table.name) for table in config.pack.beside]
    for place, (table, other) in enumerate(zip(config.pack.beside, packs, strict=True)):
        _check_pinned(table, other, f"pack.beside[{place}]")
    digests = [pack.digest, *(other.digest for other in packs)]
    cut = (pack.recipe.context_s, pack.recipe.tail_s)
    for place, other in enumerate(packs):
        if (other.recipe.context_s, other.recipe.tail_s) != cut:
            why = "needs pages with another context or tail than the pack that speaks"
        elif digests.count(other.digest) > 1:
            why = "is the pack that speaks, or stands here twice"
        else:
            continue
        raise ConfigError(
            f"{other.manifest.name} {why}",
            where=f"pack.beside[{place}]",
            remedy="Name another pack.",
        )
    own = [drawing_settings(config, other).own_roles for other in packs]
    return tuple(dict.fromkeys(role for roles in own for role in roles))


def drawing_settings(config: Config, pack: Pack, *, rolling: bool = False) -> DrawingSettings:
    """Return how pages are drawn for a pack; ``rolling``: with what is configured of it."""
    montage, model = pack.manifest.montage, pack.manifest.model
    return DrawingSettings(
        recipe=pack.recipe,
        needed=tuple(tuple(Role(role) for role in group) for group in montage.needed),
        min_coverage=montage.min_coverage,
        mains_hz=config.signal.mains_hz,
        grace_s=config.signal.grace_s,
        measure=config.publish.evidence,
        hop_s=config.publish.hop_s if rolling else None,
        traces=config.publish.traces and rolling,
        samples=sample_recipe(model) if isinstance(model, Signals) else None,
    )


def pipeline_maker(
    config: Config,
    pack: Pack,
    source: ArrivalSource,
    *,
    boot_id: str,
    auto: bool,
    site: str | None = None,
    decided: Decided | None = None,
    change_tape: ChangeTape | None = None,
    script: WardDecisions | None = None,
) -> MakePipeline:
    """Return what makes the pipeline of a bed when it first appears."""
    settings = replace(
        drawing_settings(config, pack, rolling=source.kind != "replay"),
        beside=beside_roles(config, pack),
        spectrum=config.publish.spectrum,
    )
    load_libraries(settings)
    beds = {bed.id: bed for bed in config.bed}

    def make(bed: str, send: Callable[[Item], None]) -> BedPipeline:
        keeper = SessionKeeper(
            site or config.site.id,
            bed,
            source=source.kind,
            boot_id=boot_id,
            auto=auto,
            timeout_s=config.session.timeout_s,
        )
        write = None if decided is None else lambda decisions: decided(bed, decisions)
        change = None if change_tape is None else lambda arrivals: change_tape(bed, arrivals)
        return BedPipeline(
            keeper,
            settings,
            chooser(beds.get(bed)),
            send,
            utc_of=source.utc_of,
            auto=auto,
            decided=write,
            change_tape=change,
            obey=script.decisions.get(bed) if script is not None else None,
            heeds=_named_in(beds.get(bed), live=source.kind == "live"),
        )

    return make


def _named_in(bed: BedTable | None, *, live: bool) -> Callable[[StreamHeader], bool]:
    """Return which of a bed's streams the configuration names: anybody can send any other."""

    def named(header: StreamHeader) -> bool:
        return not live or any(
            (wanted.source_id or wanted.name or wanted.host or wanted.predicate) is not None
            and wanted.source_id in (None, header.source_id)
            and wanted.name in (None, header.name)
            and wanted.host in (None, header.host)
            for wanted in (bed.streams if bed is not None else ())
        )

    return named


def topic_word(name: str) -> str:
    """Return a bed's name as one level of a topic."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:64] or "bed"


@functools.cache
def boot_id() -> str:
    """Return what distinguishes this boot of the host from any other.

    Where the host has no such id, every start counts as a boot: a grid found again by UTC is
    good, one that follows a clock which began anew is not.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return f"unknown-{secrets.token_hex(4)}"


def chooser(bed: BedTable | None) -> Callable[[Sequence[StreamHeader]], Montage]:
    """Return how a bed's montage is chosen."""
    if bed is None:
        return choose_montage

    def choose(headers: Sequence[StreamHeader]) -> Montage:
        return choose_montage(
            headers, overrides=bed.roles, units=bed.units, reference=bed.reference
        )

    return choose
