"""``python -m support.other_host NAME MODULE …``: a module run on a host of another name.

liblsl announces the name of its host. A process with a UTS namespace of its own has one of its own.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import socket
import sys

_NEW_UTS, _NEW_USER = 0x04000000, 0x10000000


def rename_host(name: str) -> None:
    """Give this process a host name of its own; without privileges in a user namespace."""
    flags = _NEW_UTS if os.geteuid() == 0 else _NEW_UTS | _NEW_USER
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "no namespace of its own")
    socket.sethostname(name)


def run_module(host: str | None, module: str, *words: str) -> list[str]:
    """Return the command that runs a module here, or on a host of another name."""
    there = () if host is None else ("support.other_host", host)
    return [sys.executable, "-m", *there, module, *words]


if __name__ == "__main__":
    _, host, module, *words = sys.argv
    rename_host(host)
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__")
