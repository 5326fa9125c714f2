"""Writes ``docs/third-party.md``: other people's software, its version, purpose and anomalies.

``python tests/support/third_party.py`` writes the page from ``requirements/`` and the notes below;
a test fails where it is not up to date.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "third-party.md"
PINNED = ROOT / "requirements" / "cpu.txt"


@dataclass(frozen=True)
class Anomaly:
    """Something known to go wrong in other people's software."""

    where: str
    what: str
    done: str
    """What Hypnocast does about it."""


PURPOSE = {
    "aiomqtt": "MQTT client",
    "amqtt": "broker inside the demo and some tests; never in production",
    "edfio": "reads EDF and BDF",
    "llguidance": "answers of generative models constrained to a schema",
    "msgspec": "configuration, events, JSON Schema",
    "numpy": "signals and pictures",
    "onnxruntime": "runs models",
    "paho-mqtt": "MQTT protocol under aiomqtt",
    "pillow": "PNG files and labels around pictures",
    "prometheus-client": "metrics",
    "pylsl": "Lab Streaming Layer; brings the native liblsl",
    "pyxdf": "reads other people's XDF",
    "rich": "terminal output",
    "scipy": "filters",
    "starlette": "ward page",
    "structlog": "logs",
    "tokenizers": "tokens of generative models",
    "typer": "command line",
    "uvicorn": "serves the ward page",
}

NOT_PYTHON = (
    ("liblsl", "1.18, in the pylsl wheel", "streams from amplifiers"),
    ("SQLite", "3.40 or newer, Python's own", "the journal"),
    ("mosquitto", "2.0", "broker in production and in fault tests"),
    ("systemd", "252 or newer", "runs the service"),
    ("NVIDIA driver, CUDA 13, cuDNN 9", "as the GPU needs", "models on a GPU, optional"),
    ("uPlot", "vendored, `dashboard/static/vendor/uplot`", "curves of the ward page"),
)

ANOMALIES = (
    Anomaly(
        where="liblsl",
        what=(
            "Its recovery: a stream that ends leaves no error, the inlet falls silent, `info()` "
            "keeps the old uid and may block. Closing an inlet whose connection has just broken "
            "engages the recovery, whose cancellation races with the inlet's destruction and can "
            "abort the process (sccn/liblsl#220, mended by #289)"
        ),
        done=(
            "inlets are opened with `recover=False`; outages are seen and mended by Hypnocast's "
            "own supervisor (`ports/lsl/source.py`); inlets are closed on a thread of their own; "
            "and systemd restarts what aborts all the same, into the night that runs"
        ),
    ),
    Anomaly(
        where="liblsl",
        what="A full buffer drops the oldest samples without a word",
        done=(
            "streams are read every few milliseconds on a thread that waits for nothing; "
            "holes show in coverage"
        ),
    ),
    Anomaly(
        where="liblsl",
        what="Its clock is the host's steady clock: a reboot begins it anew",
        done=("the journal keeps boot id and both clocks; after a reboot the grid is found by UTC"),
    ),
    Anomaly(
        where="liblsl",
        what="No authentication and no encryption",
        done="a network of its own for amplifiers; see [security.md](security.md)",
    ),
    Anomaly(
        where="pylsl",
        what="Wheels without a liblsl install without complaint and fail at import",
        done="the error is caught and names the remedy (`PYLSL_LIB`)",
    ),
    Anomaly(
        where="aiomqtt",
        what=(
            "Does not reconnect; swallows cancellations at times; leaves a socket open after "
            "a failed handshake"
        ),
        done=(
            "an outer loop over the outbox, cancellation repeated until it works, sockets "
            "closed by us (`ports/mqtt/link.py`)"
        ),
    ),
    Anomaly(
        where="msgspec",
        what="Deeply nested JSON and TOML raise `RecursionError`, not an error of its own",
        done="caught wherever input comes from outside; found by `tests/fuzz`",
    ),
    Anomaly(
        where="onnxruntime, onnxruntime-gpu",
        what=(
            "Installed together they overwrite each other silently; a provider that cannot be"
            " had is replaced by the CPU without an error"
        ),
        done=("neither or both is refused; the session's own provider is reported and published"),
    ),
    Anomaly(
        where="onnxruntime",
        what="A call that hangs in a driver cannot be interrupted",
        done="its thread is left behind and the model built anew after 25 s; then the watchdog",
    ),
    Anomaly(
        where="amqtt",
        what="MQTT 3.1.1 only, no persistence",
        done="used on loopback for the demo and tests only",
    ),
    Anomaly(
        where="SQLite",
        what="A failed `fsync` may leave pages marked clean that never reached the disk",
        done=(
            "after any failed write the connection is thrown away and opened anew before it is used"
        ),
    ),
    Anomaly(
        where="mosquitto",
        what="A PUBACK says that the broker has the message, not that a subscriber got it",
        done="`sequence` and `catch_up` let a consumer close its own gaps",
    ),
)


def packages() -> list[tuple[str, str, str]]:
    """Return name, version and what for, of everything a CPU installation gets."""
    text = PINNED.read_text(encoding="utf-8")
    merged: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", text, re.MULTILINE):
        versions = merged.setdefault(name, [])
        if version not in versions:
            versions.append(version)
    return [
        (name, " or ".join(versions), PURPOSE.get(name, "needed by one of the others"))
        for name, versions in merged.items()
    ]


def page() -> str:
    """Return the page."""
    lines = [
        "# Third-party software",
        "",
        "Made from `requirements/cpu.txt` and hand-kept notes by",
        "`python tests/support/third_party.py`; a test keeps it up to date. The licences are",
        "those of the packages.",
        "",
        "| package | version | what for |",
        "|---|---|---|",
        *(f"| {name} | {version} | {what} |" for name, version, what in packages()),
        "",
        "## Beside Python",
        "",
        "| software | version | what for |",
        "|---|---|---|",
        *(f"| {name} | {version} | {what} |" for name, version, what in NOT_PYTHON),
        "",
        "## Known anomalies, and what Hypnocast does about them",
        "",
        "| where | what happens | what is done |",
        "|---|---|---|",
        *(f"| {one.where} | {one.what} | {one.done} |" for one in ANOMALIES),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}: {len(packages())} packages\n")
