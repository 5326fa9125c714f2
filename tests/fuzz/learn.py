"""Fuzzing that learns: inputs that reach new code are kept and built upon (atheris, libFuzzer).

``python -m fuzz.learn TARGET SECONDS`` (with ``tests`` and ``daemon`` on the path, and atheris
installed: ``pip install atheris``) goes on from ``tests/fuzz/corpus/TARGET`` and adds what it finds
there. Anything but an answer or a :class:`~hypnocast.errors.HypnocastError` is a fault: it is
printed, and its input is kept beside as ``crash-…``.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
LONGEST = 16_384
"""Bytes of an input."""


def main() -> None:
    """Fuzz one target for some seconds."""
    import atheris  # installed by who fuzzes

    name, seconds = sys.argv[1], int(sys.argv[2])
    with atheris.instrument_imports(include=["hypnocast"]):
        from fuzz.learned import TARGETS
        from hypnocast.errors import HypnocastError
    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    target = TARGETS[name]()
    corpus = CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)

    def one(data: bytes) -> None:
        try:
            target.read(data)
        except HypnocastError:
            return

    with tempfile.TemporaryDirectory() as seeds:
        for number, seed in enumerate(target.seeds):
            (Path(seeds) / f"seed{number}").write_bytes(seed)
        options = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", "-timeout=5",
                   "-rss_limit_mb=2048", f"-artifact_prefix={corpus}/"]  # fmt: skip
        atheris.Setup([sys.argv[0], *options, str(corpus), seeds], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
