"""What ``daemon/state`` shows: how the daemon does, and what is not as it should be."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from hypnocast import __version__
from hypnocast.core.timing.utc import instant
from hypnocast.core.wire import payloads
from hypnocast.live.service.numbers import counters_of, numbers_of, queues_of

if TYPE_CHECKING:
    from hypnocast.live.service.ward import Ward, WardParts

SILENT_S: Final = 5.0
"""A bed in a session without samples for so long is named in the daemon's state."""


def degraded_of(ward: Ward, more: tuple[str, ...]) -> tuple[str, ...]:
    """Return what is not as it should be, a line each; waits for nothing.

    ``more``: what else is wrong, empty where nothing is.
    """
    condition = ward.journal.condition
    lines = (
        *ward.judge.state().degraded,
        "journal_degraded" if condition.health == "degraded" else "",
        condition.why,
        condition.lost,
        ward.journal.slow,
        *more,
        *ward.link.problems,
        *ward.supervisor.problems(),
        ward.host_clock.problem,
        *(
            f"{bed}: no samples for more than {SILENT_S:g} s"
            for bed, publisher in ward.publishers.items()
            if publisher.session and publisher.silent_s > SILENT_S
        ),
    )
    return tuple(dict.fromkeys(line for line in lines if line))


def state_of(ward: Ward, plan: WardParts, *, uptime_s: float) -> payloads.DaemonState:
    """Return the daemon's state; waits for nothing, so that it can be read at any time."""
    return payloads.DaemonState(
        at=instant(time.time()),
        site=plan.topics.site,
        node=plan.node,
        version=__version__,
        pack=plan.pack.manifest.name,
        pack_version=plan.pack.manifest.version,
        pack_digest=plan.pack.digest,
        recipe=plan.pack.recipe.name,
        provider=ward.judge.state().provider,
        degraded=ward.degraded(),
        uptime_s=round(uptime_s, 1),
        beds=tuple(ward.publishers),
        counters=counters_of(numbers_of(ward)),
        queues=queues_of(ward),
        outbox=ward.outbox,
    )
