"""Certificates that tests make for themselves, with the system's own openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.needs import need_program


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for ``localhost`` that only its own file vouches for; and its key."""
    subprocess.run(
        [need_program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt",
         "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return folder / "cert.pem", folder / "key.pem"
