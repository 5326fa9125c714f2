"""Runs a link in a process of its own, to be killed: ``link_process.py PORT JOURNAL``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS.parent / "daemon")]

from hypnocast.ports.journal.journal import Journal  # noqa: E402
from hypnocast.ports.mqtt.settings import BrokerSettings  # noqa: E402
from support.mqtt_lab import linked  # noqa: E402
from support.nights import a_batch, a_session, an_event  # noqa: E402
from support.orphans import die_with_parent  # noqa: E402


async def main(port: int, path: Path) -> None:
    """Commit one page after the other until killed."""
    async with Journal.open(path) as journal, linked(BrokerSettings(port=port), journal):
        await journal.commit(a_batch(session=a_session()))
        epoch = len(await journal.read(lambda reader: reader.evidence("bed1-night")))
        while True:
            await journal.commit(a_batch(an_event(epoch)))
            epoch += 1


if __name__ == "__main__":
    die_with_parent()
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
