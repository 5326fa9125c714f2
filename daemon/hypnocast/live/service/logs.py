"""Logs: readable on a terminal, JSON otherwise, always on standard error."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading

import structlog

_writing = threading.Lock()


class StandardError:
    """Writes lines to standard error; where that is closed they are lost, and nothing else is."""

    def msg(self, line: str) -> None:
        """Write a line."""
        with _writing, contextlib.suppress(OSError, ValueError):
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    debug = info = warning = error = critical = exception = msg


def set_up_logs(*, quiet: bool = False) -> None:
    """Log to standard error; ``quiet`` keeps all but warnings to itself."""
    terminal = sys.stderr.isatty()
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if terminal
        else structlog.processors.JSONRenderer()
    )
    processors: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not terminal:
        processors.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.WARNING if quiet else logging.INFO
        ),
        logger_factory=lambda *_: StandardError(),
        cache_logger_on_first_use=False,
    )
