"""A ward of simulated nights as the topics of the contract: what a daemon would have published.

``python -m browser.ward_topics --port 1883`` (with ``tests`` and ``daemon`` on the path) publishes
it to a broker, so that the ward page can be looked at without any daemon.
"""

from __future__ import annotations

import argparse
import base64
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from io import BytesIO
from types import MappingProxyType

import msgspec
import numpy as np
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from PIL import Image

from hypnocast.core.evidence.occlusion import PATCHES, StageBasis
from hypnocast.core.night.ledger import NightTitle
from hypnocast.core.night.spectra import NightSpectra
from hypnocast.core.pages.moving_traces import envelope
from hypnocast.core.pictures.recipe import Recipe, builtin
from hypnocast.core.pictures.render import draw_page
from hypnocast.core.types import (
    PAGE_S,
    ChannelQuality,
    Derivation,
    Page,
    Picture,
    Role,
    Signal,
    Stage,
)
from hypnocast.core.wire.commands import Reply, decode_command
from hypnocast.core.wire.payloads import (
    BedState,
    BedStatus,
    Beside,
    ChannelHealth,
    ChannelReport,
    DaemonState,
    Digests,
    Explained,
    Explanation,
    FlagName,
    LightsName,
    Night,
    NightMark,
    NightStatistics,
    OutboxCounters,
    PhaseName,
    ReasonName,
    SecondOpinion,
    SourceName,
    StageEvent,
    StageName,
    StageProbabilities,
    StageStatistics,
    StreamHealth,
    Timing,
    encode,
    event_id,
)
from hypnocast.core.wire.spectra import NightSpectrum
from hypnocast.core.wire.traces import TraceColumns, Traces
from hypnocast.simulate.montages import CLINICAL
from hypnocast.simulate.night import SimulatedNight as Sleeper
from support.paho_clients import end_client

PREFIX = "hypnocast/lab"
RECIPE = builtin("spectral-448")
PACK = "sha256:" + "5a" * 32
ROLES = (Role.F4, Role.C4, Role.O2, Role.E1, Role.E2, Role.CHIN)
STAGES: tuple[StageName, ...] = ("W", "N1", "N2", "N3", "R")
RATE = 256


def instant(at: float) -> str:
    """Return seconds since 1970 as the contract writes an instant."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


@dataclass(frozen=True)
class Scene:
    """One bed: a sleeper, how far the night is, and what is wrong."""

    bed: str
    seed: int
    pages: int
    start: float
    """Start of epoch 0, in seconds since 1970."""
    state: BedState = "live"
    phase: PhaseName = "recording"
    source: SourceName = "live"
    gaps: tuple[tuple[int, int, ReasonName], ...] = ()
    """First page, last page and reason of what was withheld."""
    faults: MappingProxyType[str, FlagName] = field(default_factory=lambda: MappingProxyType({}))
    problems: tuple[str, ...] = ()
    notes: tuple[tuple[int, str], ...] = ()

    @property
    def session(self) -> str:
        return f"{self.bed}-{datetime.fromtimestamp(self.start, UTC):%Y%m%dT%H%M%SZ}"

    @property
    def now(self) -> float:
        return self.start + self.pages * PAGE_S

    @cached_property
    def sleeper(self) -> Sleeper:
        return Sleeper(self.seed, hours=8.5)

    def reason(self, epoch: int) -> ReasonName | None:
        return next((why for first, last, why in self.gaps if first <= epoch <= last), None)

    def truth(self, epoch: int) -> StageName:
        return self.sleeper.stage(epoch).value

    def lights(self, epoch: int) -> LightsName:
        at = epoch * PAGE_S
        graph = self.sleeper.hypnogram
        return "off" if graph.lights_off <= at < graph.lights_on else "on"

    def probabilities(self, epoch: int) -> tuple[int, int, int, int, int]:
        """Return thousandths that lean to the truth, less surely next to a change of stage."""
        rng = np.random.default_rng([self.seed, epoch])
        logits = rng.normal(0.0, 0.7, 5)
        here = STAGES.index(self.truth(epoch))
        changing = self.truth(max(0, epoch - 1)) != self.truth(epoch)
        logits[here] += 1.9 if changing else 3.8
        if changing:
            logits[STAGES.index(self.truth(max(0, epoch - 1)))] += 1.4
        shares = np.exp(logits) / np.exp(logits).sum()
        whole = [int(share * 1000) for share in shares]
        whole[here] += 1000 - sum(whole)
        return whole[0], whole[1], whole[2], whole[3], whole[4]

    # --- messages

    def picture(self, epoch: int, recipe: Recipe = RECIPE, *, spectrum: bool = False) -> Picture:
        """Draw a page of the night by the project's own code."""
        first = epoch * PAGE_S - recipe.context_s
        last = (epoch + 1) * PAGE_S + recipe.tail_s
        samples = np.zeros((round((last - first) * RATE), len(ROLES)))
        got = self.sleeper.samples(max(0.0, first), last, leads=CLINICAL, rate=RATE)
        samples[len(samples) - len(got) :] = got
        present = [role for role in ROLES if self.faults.get(role.value) != "missing"]
        signals = {
            role: Signal(
                Derivation(role, role.value, "sim", place, None, 1.0, rate=RATE),
                RATE,
                np.round(samples[:, place] * 64) / 64,
            )
            for place, role in enumerate(ROLES)
            if role in present
        }
        page = Page(epoch, signals, recipe.context_s, recipe.tail_s)
        quality = {role: ChannelQuality(1.0) for role in present}
        names = {role: role.value for role in present}
        return draw_page(page, recipe, 50, quality, names, spectrum=spectrum)

    def png(self, epoch: int) -> bytes:
        file = BytesIO()
        Image.fromarray(self.picture(epoch).rgb).save(file, "PNG")
        return file.getvalue()

    def event(self, epoch: int, *, picture: str | None = None) -> StageEvent:
        reason = self.reason(epoch)
        shares = None
        if reason is None:
            thousandths = self.probabilities(epoch)
            shares = StageProbabilities(
                **{stage: share / 1000 for stage, share in zip(STAGES, thousandths, strict=True)}
            )
        stage = None if reason is not None else self.truth(epoch)
        best = max(self.probabilities(epoch)) / 1000
        late = 1020.0 + 40 * (epoch % 5)
        return StageEvent(
            id=event_id(self.session, epoch, 1),
            sequence=epoch + 1,
            source=self.source,
            site="lab",
            bed=self.bed,
            session=self.session,
            subject=f"S{self.seed:04d}",
            epoch=epoch,
            start=instant(self.start + epoch * PAGE_S),
            end=instant(self.start + (epoch + 1) * PAGE_S),
            revision=1,
            status="final" if reason is None else "withheld",
            reason=reason,
            stage=stage,
            probabilities=shares,
            raw_probabilities=shares,
            confidence=best if reason is None else None,
            rationale=_RATIONALE[stage] if stage is not None else None,
            rules=_RULES[stage] if stage is not None else None,
            channels={role.value: role.value for role in ROLES},
            quality={
                role.value: ChannelReport(
                    coverage=1.0,
                    flags=(self.faults[role.value],) if role.value in self.faults else (),
                )
                for role in ROLES
            },
            review=reason is None and best < 0.6,
            evidence=None,
            lights=self.lights(epoch),
            digests=Digests(pack=PACK, recipe=RECIPE.digest, picture=picture),
            provider="cpu" if reason is None else None,
            timing=Timing(
                closed=1000.0,
                drawn=late - 14 if reason is None else None,
                judged=late - 5 if reason is None else None,
                journaled=late,
            ),
        )

    def night(self) -> Night:
        reasons = tuple(self.reason(epoch) for epoch in range(self.pages))
        stages = tuple(
            self.truth(epoch) if why is None else None for epoch, why in enumerate(reasons)
        )
        graph = self.sleeper.hypnogram
        marks = [
            NightMark(at=instant(self.start + graph.lights_off), kind="lights_off", text=""),
            *(
                NightMark(at=instant(self.start + epoch * PAGE_S), kind="note", text=text)
                for epoch, text in self.notes
            ),
        ]
        ended = self.now if self.state == "ended" else None
        return Night(
            at=instant(self.now),
            site="lab",
            bed=self.bed,
            session=self.session,
            subject=f"S{self.seed:04d}",
            source=self.source,
            start=instant(self.start),
            ended=instant(ended) if ended is not None else None,
            epochs=self.pages,
            status="".join("f" if why is None else "w" for why in reasons),
            stages=stages,
            reasons=reasons,
            probabilities=tuple(
                self.probabilities(epoch) if why is None else None
                for epoch, why in enumerate(reasons)
            ),
            review=tuple(
                epoch
                for epoch, why in enumerate(reasons)
                if why is None and max(self.probabilities(epoch)) < 600
            ),
            marks=tuple(sorted(marks, key=lambda mark: mark.at)),
            statistics=_statistics(stages, graph.lights_off / 60),
            last_sequence=self.pages,
        )

    def spectrum(self) -> NightSpectrum:
        """Work out the night's spectrum by the project's own code: some 20 ms a page."""
        night = NightSpectra(
            NightTitle("lab", self.bed, self.session, None, self.source, instant(self.start))
        )
        for epoch in range(self.pages):
            drawn = self.reason(epoch) is None
            night.add(epoch, self.picture(epoch, spectrum=True).spectrum if drawn else None)
        return night.message(at=instant(self.now))

    def traces(self, end: float, seconds: int = 32) -> Iterator[Traces]:
        """Cut the newest seconds of the night by the project's own code, as ending at a time."""
        for ago in range(seconds, 0, -1):
            first = self.pages * PAGE_S - ago
            wave = self.sleeper.samples(first, first + 1.0, leads=CLINICAL, rate=RATE)
            cut = [envelope(column) for column in wave.T]
            yield Traces(
                source=self.source,
                site="lab",
                bed=self.bed,
                start=instant(end - ago),
                seconds=1.0,
                channels={
                    role.value: TraceColumns(low=one.low, high=one.high)
                    for role, one in zip(ROLES, cut, strict=True)
                },
            )

    def status(self) -> BedStatus:
        ended = self.state == "ended"
        silent = self.state in ("stale", "ended")
        return BedStatus(
            at=instant(self.now),
            site="lab",
            bed=self.bed,
            node="bedside",
            state=self.state,
            phase="ended" if ended else self.phase,
            session=self.session,
            subject=f"S{self.seed:04d}",
            source=self.source,
            since=instant(self.start),
            epoch=self.pages - 1,
            lights=self.lights(self.pages),
            streams=(
                StreamHealth(
                    name=f"PSG {self.bed}",
                    source_id=f"amp-{self.bed}",
                    host="bedside",
                    rate=float(RATE),
                    state="silent" if silent else "live",
                    age_s=95.0 if silent else 0.1,
                    problem=None,
                ),
            ),
            channels={}
            if silent
            else {
                role.value: ChannelHealth(
                    derivation=role.value,
                    unit="µV",
                    flags=(self.faults[role.value],) if role.value in self.faults else (),
                    words=self.faults.get(role.value, "good").replace("_", " "),
                )
                for role in ROLES
            },
            problems=self.problems,
            latency_ms=1020.0 + 40 * ((self.pages - 1) % 5),
            provider="cpu",
            pack="hypnocast-small",
        )

    def later(self, pages: int = 1) -> Scene:
        """Return the scene some pages on."""
        return replace(self, pages=self.pages + pages)

    def messages(self, *, page: bool = True) -> Iterator[tuple[str, bytes, bool]]:
        """Yield topic, payload and whether it is retained, as after the newest page."""
        base = f"{PREFIX}/bed/{self.bed}"
        newest = self.pages - 1
        gone = self.state == "ended"
        drawn = page and not gone and self.reason(newest) is None
        digest = self.picture(newest).digest if drawn else None
        event = encode(self.event(newest, picture=digest))
        yield f"{base}/status", encode(self.status()), True
        yield f"{base}/events", event, False
        yield f"{base}/stage", b"" if gone else event, True
        yield f"{base}/night", encode(self.night()), True
        if page:
            yield f"{base}/page", self.png(newest) if drawn else b"", True
        known = page and not gone and self.reason(newest) is None
        yield f"{base}/explanation", encode(self.explained(newest)) if known else b"", True

    def beside(self) -> Beside:
        """Return a second opinion: N1 instead of each tenth N2 of the pack that speaks."""
        stages = self.night().stages
        values = tuple("N1" if n % 10 == 0 and s == "N2" else s for n, s in enumerate(stages))
        parted = tuple(n for n, (a, b) in enumerate(zip(stages, values, strict=True)) if a != b)
        newest = self.pages - 1
        opinion = SecondOpinion(
            pack="other 1.0.0",
            digest="sha256:" + "1" * 64,
            provider="cpu",
            epoch=newest,
            stage=values[newest],
            reason=None,
            probabilities=None,
            review=newest in parted,
            stages=values,
            parted=parted,
            compared=sum(stage is not None for stage in stages),
            kappa=0.875,
            shed=2,
        )
        return Beside(
            at=self.night().at,
            site="lab",
            bed=self.bed,
            session=self.session,
            source=self.source,
            packs=(opinion,),
        )

    def explained(self, epoch: int) -> Explained:
        """Return what a page's stage rests on, as published unasked."""
        found = msgspec.structs.asdict(self.explanation(epoch))
        return Explained(
            **found,
            site="lab",
            bed=self.bed,
            session=self.session,
            source=self.source,
            event=event_id(self.session, epoch, 1),
        )

    def explanation(self, epoch: int) -> Explanation:
        """Return a made-up explanation: what a stage rests on by the manual."""
        stage = self.truth(epoch)
        falls = dict.fromkeys(ROLES, 0.02) | _RESTS[stage]
        rests = StageBasis(Stage(stage), 0.9, falls, {"EEG": 0.6, "eyes": 0.6, "chin": 0.2}, 0.2)
        first = RECIPE.height // 2
        return Explanation(
            epoch=epoch,
            stage=stage,
            sentence=rests.sentence,
            probability=rests.probability,
            channels={role.value: fall for role, fall in falls.items()},
            alone=rests.alone,
            patches=tuple(
                tuple(max(0.0, 0.3 - 0.08 * abs(x - 9)) * (y * 32 < first) for x in range(PATCHES))
                for y in range(PATCHES)
            ),
        )

    def answer(self, payload: bytes) -> bytes:
        """Return the reply a daemon would give to a command."""
        command = decode_command(payload)
        name = msgspec.json.decode(payload)["command"]
        png = None
        error = None
        explanation = None
        if name == "explain":
            explanation = self.explanation(msgspec.json.decode(payload)["epoch"])
        if name == "page":
            epoch: int = msgspec.json.decode(payload)["epoch"]
            if epoch < self.pages and self.reason(epoch) is None:
                png = base64.b64encode(self.png(epoch)).decode()
            else:
                error = f"page {epoch} has no picture"
        return encode(
            Reply(
                request=command.request,
                command=name,
                ok=error is None,
                error=error,
                session=self.session,
                events=None,
                more=None,
                png=png,
                explanation=explanation,
            )
        )


_RATIONALE: dict[StageName, str] = {
    "W": "Alpha rhythm fills more than half of the page over the occiput; chin tone is high.",
    "N1": "Low-voltage mixed frequencies with slow eye movements; no spindles, no K complexes.",
    "N2": "A K complex in the first half and sleep spindles over the vertex; chin tone is low.",
    "N3": "Slow waves of more than 75 µV over more than a fifth of the page.",
    "R": "Rapid eye movements out of phase, low chin tone, low-voltage mixed frequencies.",
}
_RESTS: dict[StageName, dict[Role, float]] = {
    "W": {Role.O2: 0.38, Role.CHIN: 0.22},
    "N1": {Role.O2: 0.16, Role.E1: 0.14},
    "N2": {Role.C4: 0.34, Role.F4: 0.27},
    "N3": {Role.F4: 0.45, Role.C4: 0.31},
    "R": {Role.E1: 0.33, Role.E2: 0.29},
}
_RULES: dict[StageName, tuple[str, ...]] = {
    "W": ("W.1",),
    "N1": ("N1.2",),
    "N2": ("N2.1", "N2.2"),
    "N3": ("N3.1",),
    "R": ("R.1", "R.2"),
}


def _statistics(stages: tuple[StageName | None, ...], off: float) -> NightStatistics:
    asleep = [place for place, stage in enumerate(stages) if stage not in (None, "W")]
    sleep_min = len(asleep) / 2
    bed_min = max(len(stages) / 2 - off, 0.0)
    first = asleep[0] if asleep else None
    dreams = [place for place, stage in enumerate(stages) if stage == "R"]
    waso = sum(stage == "W" for stage in stages[first:]) / 2 if first is not None else None
    return NightStatistics(
        time_in_bed_from="lights_off",
        time_in_bed_to="last_page",
        time_in_bed_min=bed_min,
        total_sleep_min=sleep_min,
        sleep_efficiency_percent=100 * sleep_min / bed_min if bed_min else None,
        sleep_onset_latency_min=first / 2 - off if first is not None else None,
        wake_after_sleep_onset_min=waso,
        rem_latency_min=(dreams[0] - first) / 2 if dreams and first is not None else None,
        stages={
            stage: StageStatistics(
                minutes=stages.count(stage) / 2,
                percent=100 * stages.count(stage) / 2 / sleep_min
                if stage != "W" and sleep_min
                else None,
            )
            for stage in STAGES
        },
        withheld_min=stages.count(None) / 2,
        affected_by_withheld=(),
    )


def daemon_state(beds: tuple[str, ...], at: float) -> DaemonState:
    return DaemonState(
        at=instant(at),
        site="lab",
        node="bedside",
        version="0.1.0",
        pack="hypnocast-small",
        pack_version="1",
        pack_digest=PACK,
        recipe=RECIPE.name,
        provider="cpu",
        degraded=(),
        uptime_s=14_400.0,
        beds=beds,
        counters={"pages": 4000, "final": 3950, "withheld": 50},
        outbox=OutboxCounters(waiting=0, oldest_s=None, sent=4000),
    )


def ward(now: float) -> tuple[Scene, ...]:
    """Eight beds at ``now``: one stale, one withheld, one ended, one with a poor electrode."""

    def begun(pages: int) -> float:
        return now - pages * PAGE_S

    poor: MappingProxyType[str, FlagName] = MappingProxyType({"Chin": "line_noise"})
    off: MappingProxyType[str, FlagName] = MappingProxyType(
        {"F4-M1": "detached", "C4-M1": "detached", "O2-M1": "detached"}
    )
    return (
        Scene("1", 11, 521, begun(521)),
        Scene(
            "2", 23, 498, begun(498), notes=((60, "Cap adjusted"), (262, "Bathroom, 6 min")),
            gaps=((262, 273, "detached"),),
        ),
        Scene("3", 35, 476, begun(476), faults=poor),
        Scene(
            "4", 47, 455, begun(455), faults=off, gaps=((449, 455, "detached"),),
            problems=("M1 is off: three EEG derivations need it; reattach the left mastoid",),
        ),
        Scene("5", 52, 440, begun(440)),
        Scene("6", 64, 391, begun(397), state="stale"),
        Scene("7", 78, 530, begun(560), state="ended"),
        Scene("8", 83, 402, begun(402)),
    )  # fmt: skip


def crowd(now: float, beds: int) -> tuple[Scene, ...]:
    """Many beds, all well, for the soak."""
    return tuple(
        Scene(f"{place + 1}", place + 1, 60 + place, now - (60 + place) * PAGE_S)
        for place in range(beds)
    )


class Publisher:
    """A stand-in for the daemon: publishes scenes to a broker and answers commands."""

    def __init__(self, port: int) -> None:
        self.scenes: dict[str, Scene] = {}
        self.commands: list[bytes] = []
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, "ward-topics")
        self._client.on_message = self._obey
        self._client.on_connect = lambda client, *_: client.subscribe(f"{PREFIX}/bed/+/command", 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def close(self) -> None:
        end_client(self._client)

    def publish(self, topic: str, payload: bytes, *, retained: bool = True) -> None:
        """Publish, and wait until the broker has it."""
        self._client.publish(topic, payload, qos=1, retain=retained).wait_for_publish(10)

    def show(self, scene: Scene, *, page: bool = True) -> None:
        self.scenes[scene.bed] = scene
        for topic, payload, retained in scene.messages(page=page):
            self.publish(topic, payload, retained=retained)

    def show_ward(self, scenes: tuple[Scene, ...], *, page: bool = True) -> None:
        base = f"{PREFIX}/daemon/bedside"
        self.publish(f"{base}/available", b"online")
        beds = tuple(scene.bed for scene in scenes)
        self.publish(f"{base}/state", encode(daemon_state(beds, scenes[0].now)))
        for scene in scenes:
            self.show(scene, page=page)

    def _obey(self, client: mqtt.Client, _: object, message: mqtt.MQTTMessage) -> None:
        bed = message.topic.split("/")[-2]
        payload = bytes(message.payload)
        self.commands.append(payload)
        if bed in self.scenes:
            client.publish(f"{PREFIX}/bed/{bed}/reply", self.scenes[bed].answer(payload), qos=1)


def main() -> None:
    """Publish the eight beds to a broker and answer commands until interrupted."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=1883)
    publisher = Publisher(parser.parse_args().port)
    publisher.show_ward(ward(datetime.now(UTC).timestamp()))
    try:
        input("The ward is published. Enter ends.")
    finally:
        publisher.close()


if __name__ == "__main__":
    main()
