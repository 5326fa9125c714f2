"""Every number that is counted or measured: one table for Prometheus, ``daemon/state``, ``doctor``.

Nothing is published that has no line here, and ``docs/numbers.md`` is made from these lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from hypnocast.core.wire.queue_state import QueueState
from hypnocast.live.bed import sources
from hypnocast.live.publishing.bed_health import silence_of
from hypnocast.live.publishing.bed_publisher import BedPublisher
from hypnocast.live.staging import questions
from hypnocast.ports.metrics import MetricValue
from hypnocast.ports.mqtt.link_states import Connected

if TYPE_CHECKING:
    from hypnocast.live.explaining.picture_store import PictureStore
    from hypnocast.live.service.ward import Ward
    from hypnocast.ports.lsl.source import LslSource
    from hypnocast.ports.lsl.stage_outlets import StageOutlets
    from hypnocast.ports.recordings.tape_recorder import TapeRecorder


@dataclass(frozen=True, slots=True)
class PublishedNumber:
    """One number: what it is called in Prometheus, and what it means."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    labels: tuple[str, ...] = ()
    in_state: str = ""
    """The key in ``counters`` of ``daemon/state``; there it is summed over its labels."""


METRICS: Final = {
    metric.name: metric
    for metric in (
        PublishedNumber("pages", "counter", "Events by what became of them", ("bed", "status")),
        PublishedNumber(
            "page_latency_ms", "gauge", "From the newest page's end until durable", ("bed",)
        ),
        PublishedNumber("in_session", "gauge", "1 while a session runs", ("bed",)),
        PublishedNumber("silence_s", "gauge", "Since the newest sample of the session", ("bed",)),
        PublishedNumber("late_samples", "gauge", "Came after their page was closed", ("bed",)),
        PublishedNumber("stream_drift_ppm", "gauge", "Of the amplifier's clock", ("bed", "stream")),
        PublishedNumber("stream_jitter_ms", "gauge", "Of the stamps", ("bed", "stream")),
        PublishedNumber(
            "stream_overlapping", "gauge", "Samples dropped: stamped twice", ("bed", "stream")
        ),
        PublishedNumber(
            "stream_unusable", "gauge", "Samples dropped: no time at all", ("bed", "stream")
        ),
        PublishedNumber(
            "stream_refused", "gauge", "Samples dropped: from the future", ("bed", "stream")
        ),
        PublishedNumber("stream_samples", "gauge", "Read since it was opened", ("bed", "stream")),
        PublishedNumber("stream_openings", "gauge", "Times it was opened", ("bed", "stream")),
        PublishedNumber(
            "limits_met", "counter", "Times a stream met a limit", ("limit",), "limits_met"
        ),
        PublishedNumber("sink_errors", "counter", "Arrivals nobody could take", (), "sink_errors"),
        PublishedNumber("tape_bytes", "counter", "Written to tapes", (), "tape_bytes"),
        PublishedNumber("tape_lost", "counter", "Arrivals no tape took", (), "tape_lost"),
        PublishedNumber("tapes_running", "gauge", "Beds whose tape is being written"),
        PublishedNumber("tapes_given_up", "counter", "Tapes whose write or sync was refused"),
        PublishedNumber("pictures_left_out", "counter", "Pages not kept: the disk was behind"),
        PublishedNumber("lsl_not_sent", "counter", "Stages that could not be sent over LSL"),
        PublishedNumber("clock_steps", "counter", "Times the host's clock was set"),
        PublishedNumber("judged", "counter", "Pages judged", (), "judged"),
        PublishedNumber("judge_failed", "counter", "Pages the model failed on", (), "failed"),
        PublishedNumber(
            "judge_given_up", "counter", "Looks at pages without an opinion in time", (), "given_up"
        ),
        PublishedNumber(
            "judge_rebuilt", "counter", "Times the model was built anew", (), "rebuilt"
        ),
        PublishedNumber("judge_waiting", "gauge", "Pages that wait for the model"),
        PublishedNumber("judge_busy_s", "gauge", "How long the present batch has run"),
        PublishedNumber("journal_durable", "gauge", "1 while what is committed is durable"),
        PublishedNumber("outbox_waiting", "gauge", "Events the broker has not acknowledged"),
        PublishedNumber("outbox_oldest_s", "gauge", "Age of the oldest of them"),
        PublishedNumber("sent", "counter", "Events the broker has acknowledged"),
        PublishedNumber("broker_connected", "gauge", "1 while the broker is there"),
        PublishedNumber(
            "connections", "counter", "Connections to the broker made", (), "connections"
        ),
        PublishedNumber("mqtt_dropped", "counter", "Incoming messages dropped", (), "mqtt_dropped"),
        PublishedNumber(
            "commands_ignored", "counter", "Not even looked at, by why", ("why",), "ignored"
        ),
        PublishedNumber(
            "worker_failures", "counter", "Failures caught", ("worker",), "worker_failures"
        ),
        PublishedNumber(
            "worker_restarts", "counter", "Restarts after one", ("worker",), "worker_restarts"
        ),
        PublishedNumber("workers", "gauge", "Threads, pools and tasks that run"),
        PublishedNumber("queue_depth", "gauge", "What waits now", ("queue",)),
        PublishedNumber("queue_bound", "gauge", "At most so much may wait", ("queue",)),
        PublishedNumber("queue_shed", "counter", "What had no room", ("queue",)),
        PublishedNumber("degraded", "gauge", "Things that are not as they should be"),
    )
}


def value(name: str, number: float, **labels: str) -> MetricValue:
    """Return a number of the table."""
    metric = METRICS[name]
    assert metric.labels == tuple(labels), name  # noqa: S101 - the table says which labels
    return MetricValue(name, metric.help, number, metric.kind, labels)


def numbers_of(ward: Ward) -> Iterator[MetricValue]:
    """Give every number of a ward as it is now."""
    judge, outbox, link = ward.judge.state(), ward.outbox, ward.link
    for bed, publisher in ward.publishers.items():
        yield from _of_bed(bed, publisher)
    yield value("judged", judge.judged)
    yield value("judge_failed", judge.failed)
    yield value("judge_given_up", judge.given_up)
    yield value("judge_rebuilt", judge.rebuilt)
    yield value("judge_waiting", judge.waiting)
    yield value("judge_busy_s", judge.busy_s)
    yield value("journal_durable", ward.journal.condition.health != "degraded")
    yield value("outbox_waiting", outbox.waiting)
    yield value("outbox_oldest_s", outbox.oldest_s or 0.0)
    yield value("sent", outbox.sent)
    yield value("broker_connected", isinstance(link.state, Connected))
    yield value("connections", link.connections)
    yield value("mqtt_dropped", link.dropped)
    for why, count in sorted(link.commands_ignored.items()):
        yield value("commands_ignored", count, why=why)
    for worker, (failures, restarts) in sorted(ward.supervisor.counts().items()):
        yield value("worker_failures", failures, worker=worker)
        yield value("worker_restarts", restarts, worker=worker)
    yield value("workers", len(ward.supervisor.health()))
    yield value("degraded", len(ward.degraded()))
    yield value("clock_steps", ward.host_clock.steps)
    yield from ward.source_numbers()
    for queue, state in queues_of(ward).items():
        yield value("queue_depth", state.depth, queue=queue)
        if state.bound is not None:
            yield value("queue_bound", state.bound, queue=queue)
        yield value("queue_shed", state.shed, queue=queue)


def _of_bed(bed: str, publisher: BedPublisher) -> Iterator[MetricValue]:
    for status, count in sorted(publisher.counts.items()):
        yield value("pages", count, bed=bed, status=status)
    if publisher.latency_ms is not None:
        yield value("page_latency_ms", publisher.latency_ms, bed=bed)
    yield value("in_session", publisher.session is not None, bed=bed)
    seen = publisher.signals
    if seen is None:
        return
    yield value("late_samples", seen.late_samples, bed=bed)
    if publisher.session is not None:
        yield value("silence_s", silence_of(seen), bed=bed)
    for header, stream in seen.streams:
        if stream is not None:
            labels = {"bed": bed, "stream": header.key}
            yield value("stream_drift_ppm", stream.drift_ppm, **labels)
            yield value("stream_jitter_ms", stream.jitter_ms, **labels)
            yield value("stream_overlapping", stream.overlapping, **labels)
            yield value("stream_unusable", stream.unusable, **labels)
            yield value("stream_refused", stream.refused, **labels)


def queues_of(ward: Ward) -> dict[str, QueueState]:
    """Return every queue on the way of a page: what waits, what may, what had no room."""
    shed = Counter(judge=ward.judge.state().shed)
    for publisher in ward.publishers.values():
        for what in ("rolling_shed", "explanations_shed"):
            shed[what] += publisher.counts[what]
    queues = {
        "judge": QueueState(ward.judge.state().waiting, questions.MAX_WAITING, shed["judge"]),
        "rolling": QueueState(0, questions.MAX_GLANCES, shed["rolling_shed"]),
        "explanations": QueueState(0, len(ward.publishers), shed["explanations_shed"]),
        "commands": QueueState(ward.link.commands_waiting, None, ward.link.commands_refused),
        "retained states": QueueState(ward.link.states_waiting, None, 0),
        "outbox": QueueState(ward.outbox.waiting, None, 0),
    }
    for bed, bed_worker in ward.workers.items():
        queues[f"bed {bed}"] = QueueState(bed_worker.waiting, None, 0)
    source = ward.source
    if isinstance(source, sources.LiveSource):
        queues["arrivals"] = QueueState(source.waiting, sources.MAX_WAITING, source.dropped)
    return queues


def live_numbers(
    lsl: LslSource,
    tapes: TapeRecorder | None,
    pictures: PictureStore,
    outlets: StageOutlets | None,
) -> Iterable[MetricValue]:
    """Return what only a ward on a network has: streams in and out, tapes, pictures."""
    yield value("pictures_left_out", pictures.left_out)
    if outlets is not None:
        yield value("lsl_not_sent", outlets.failures)
    yield value("sink_errors", lsl.sink_errors)
    for limit, times in sorted(lsl.limits_met.copy().items()):
        yield value("limits_met", times, limit=limit)
    for slot in lsl.health():
        yield value("stream_samples", slot.samples, bed=slot.bed, stream=slot.stream)
        yield value("stream_openings", slot.openings, bed=slot.bed, stream=slot.stream)
    if tapes is not None:
        counted = tapes.statistics()
        yield value("tape_bytes", counted.bytes_written)
        yield value("tape_lost", counted.arrivals_lost)
        yield value("tapes_given_up", counted.given_up)
        yield value("tapes_running", counted.running)


def counters_of(values: Iterable[MetricValue]) -> dict[str, int]:
    """Return the counters that ``daemon/state`` shows, summed over their labels."""
    counters: dict[str, int] = {}
    for one in values:
        key = METRICS[one.name].in_state
        if one.name == "pages":
            key = one.labels["status"]
        if key:
            counters[key] = counters.get(key, 0) + int(one.value)
    return counters


def table() -> str:
    """Return the table in Markdown, as the documentation has it."""
    lines = ["| Prometheus | kind | labels | `counters` of `daemon/state` | meaning |"]
    lines.append("|---|---|---|---|---|")
    for metric in METRICS.values():
        suffix = "_total" if metric.kind == "counter" else ""
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        key = (
            "by `status`" if metric.name == "pages" else metric.in_state and f"`{metric.in_state}`"
        )
        name = f"`hypnocast_{metric.name}{suffix}`"
        lines.append(f"| {name} | {metric.kind} | {labels} | {key} | {metric.help} |")
    return "\n".join(lines) + "\n"
