"""A queue of messages in which a flood on one topic pushes nothing out that came on another."""

from __future__ import annotations

import asyncio
from collections import Counter, deque

import aiomqtt


class FairQueue(asyncio.Queue[aiomqtt.Message]):
    """Messages in the order in which they came. Where there is no room, a flood gives way.

    Dropped is the newest message of the topic that has most of them waiting; which may be the one
    that comes.
    """

    _queue: deque[aiomqtt.Message]
    """asyncio's own room for what waits."""
    dropped = 0
    """Messages for which there was no room."""

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        self._waiting: Counter[str] = Counter()

    def _put(self, item: aiomqtt.Message) -> None:
        super()._put(item)
        self._waiting[str(item.topic)] += 1

    def _get(self) -> aiomqtt.Message:
        item: aiomqtt.Message = super()._get()
        self._less(str(item.topic))
        return item

    def _less(self, topic: str) -> None:
        self._waiting[topic] -= 1
        if not self._waiting[topic]:
            del self._waiting[topic]

    def put_nowait(self, item: aiomqtt.Message) -> None:
        """Add a message; ``asyncio.QueueFull`` where that one itself has no room."""
        if self.full():
            self.dropped += 1
            topic = str(item.topic)
            greedy, most = self._waiting.most_common(1)[0]
            if self._waiting[topic] + 1 >= most:
                raise asyncio.QueueFull
            place = max(n for n, one in enumerate(self._queue) if str(one.topic) == greedy)
            del self._queue[place]
            self._less(greedy)
        super().put_nowait(item)
