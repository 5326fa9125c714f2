"""A peer that announces a stream, accepts connections and then stays silent.

It speaks just enough of LSL's discovery protocol: a query for short infos comes by UDP, with the
port and the number to answer to; the answer is the number and the stream's short XML.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import uuid
from types import TracebackType
from typing import Self

from support import lsl_lab

_INFO = """<?xml version="1.0"?>
<info><name>{name}</name><type>EEG</type><channel_count>1</channel_count>
<channel_format>float32</channel_format><source_id>{name}</source_id>
<nominal_srate>256.0</nominal_srate><version>1.1</version><created_at>1.0</created_at>
<uid>{uid}</uid><session_id>{session}</session_id><hostname>hanging</hostname>
<v4address/><v4data_port>{tcp}</v4data_port><v4service_port>{udp}</v4service_port>
<v6address/><v6data_port>0</v6data_port><v6service_port>0</v6service_port><desc/></info>"""


class HangingPeer:
    """Runs on threads of this process; ``called`` is set once somebody has connected."""

    def __init__(self, name: str) -> None:
        """Reserve a free port of the test network."""
        self.name = name
        self.called = threading.Event()
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for port in range(lsl_lab.base_port() + lsl_lab.PORT_RANGE, lsl_lab.base_port(), -1):
            with contextlib.suppress(OSError):
                self._udp.bind(("127.0.0.1", port))
                break
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self._info = _INFO.format(
            name=name,
            uid=uuid.uuid4(),
            session=lsl_lab.session_id(),
            tcp=self._tcp.getsockname()[1],
            udp=self._udp.getsockname()[1],
        )
        self._kept: list[socket.socket] = []
        self._threads = [
            threading.Thread(target=self._answer, daemon=True),
            threading.Thread(target=self._accept, daemon=True),
        ]

    def _answer(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                query, peer = self._udp.recvfrom(65536)
                lines = query.decode().split("\r\n")
                if lines[0] != "LSL:shortinfo":
                    continue
                port, number = lines[2].split()
                self._udp.sendto(f"{number}\r\n{self._info}".encode(), (peer[0], int(port)))

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._tcp.accept()
                self._kept.append(connection)
                self.called.set()

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
        self._tcp.shutdown(socket.SHUT_RDWR)
        for connection in (*self._kept, self._tcp):
            connection.close()
