"""Somebody on the network who announces streams that are not what they say, in plain sockets.

It speaks LSL's discovery protocol: a query for short infos comes by UDP with the port and the
number to answer to; the answer is the number and the stream's short XML. Nothing here is
Hypnocast's.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

from support import lsl_lab

_INFO = """<?xml version="1.0"?>
<info><name>{name}</name><type>{type}</type><channel_count>{channels}</channel_count>
<channel_format>{format}</channel_format><source_id>{source_id}</source_id>
<nominal_srate>{rate}</nominal_srate><version>1.1</version><created_at>1.0</created_at>
<uid>{uid}</uid><session_id>{session}</session_id><hostname>liar</hostname>
<v4address>{address}</v4address><v4data_port>{tcp}</v4data_port>
<v4service_port>{udp}</v4service_port>
<v6address/><v6data_port>0</v6data_port><v6service_port>0</v6service_port><desc/></info>"""

Behaviour = Literal["hang", "close", "endless", "nobody"]
"""What happens to who connects: nothing ever, an end at once, words without end; or no port."""


@dataclass(frozen=True)
class Lie:
    """One stream that is announced."""

    source_id: str
    name: str = ""
    type: str = "EEG"
    rate: str = "256.0"
    channels: str = "1"
    format: str = "float32"
    address: str = ""
    uid: str = field(default_factory=lambda: str(uuid.uuid4()))


class Liar:
    """Announces lies on threads of this process."""

    def __init__(self, lies: Sequence[Lie], behaviour: Behaviour = "hang") -> None:
        """Take a free port of the test network."""
        self.connections = 0
        self._behaviour = behaviour
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for port in range(lsl_lab.base_port() + lsl_lab.PORT_RANGE, lsl_lab.base_port(), -1):
            with contextlib.suppress(OSError):
                self._udp.bind(("127.0.0.1", port))
                break
        self._tcp = socket.create_server(("127.0.0.1", 0), backlog=1024)
        tcp = self._tcp.getsockname()[1]
        if behaviour == "nobody":
            self._tcp.close()
        self._infos = [
            _INFO.format(
                name=lie.name or lie.source_id,
                type=lie.type,
                channels=lie.channels,
                format=lie.format,
                source_id=lie.source_id,
                rate=lie.rate,
                address=lie.address,
                uid=lie.uid,
                session=lsl_lab.session_id(),
                tcp=tcp,
                udp=self._udp.getsockname()[1],
            )
            for lie in lies
        ]
        self._kept: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._announce, daemon=True)]
        if behaviour != "nobody":
            self._threads.append(threading.Thread(target=self._accept, daemon=True))

    def _announce(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                query, peer = self._udp.recvfrom(65536)
                lines = query.decode().split("\r\n")
                if lines[0] != "LSL:shortinfo":
                    continue
                port, number = lines[2].split()
                for info in self._infos:
                    self._udp.sendto(f"{number}\r\n{info}".encode(), (peer[0], int(port)))

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._tcp.accept()
                self.connections += 1
                if self._behaviour == "close":
                    connection.close()
                    continue
                self._kept.append(connection)
                if self._behaviour == "endless":
                    threading.Thread(target=_talk, args=(connection,), daemon=True).start()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._udp.close()
        if self._behaviour != "nobody":
            with contextlib.suppress(OSError):
                self._tcp.shutdown(socket.SHUT_RDWR)
            self._tcp.close()
        for connection in self._kept:
            connection.close()


def _talk(connection: socket.socket) -> None:
    """Say something without end to whoever listens."""
    with contextlib.suppress(OSError):
        while True:
            connection.sendall(b"<a>" * 20_000)
