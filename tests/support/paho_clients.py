"""The end of a paho client with a thread of its own."""

from __future__ import annotations

import paho.mqtt.client as paho


def end_client(client: paho.Client) -> None:
    """Disconnect a client of paho, end its thread and close its sockets.

    paho leaves the pair that wakes its thread to the garbage collector, which may find it open.
    """
    client.disconnect()
    client.loop_stop()
    client.reinitialise()
