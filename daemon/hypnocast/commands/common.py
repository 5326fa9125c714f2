"""Options that several commands share, and how answers are printed."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from hypnocast.errors import HypnocastError

_UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""Click's own, wherever typer keeps its copy of click."""
_FULL = (errno.ENOSPC, errno.EDQUOT)

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Configuration file; without one the defaults serve."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


def print_json(answer: Any) -> None:
    """Print an answer for programs."""
    sys.stdout.write(json.dumps(answer, indent=2, ensure_ascii=False) + "\n")


def print_line(line: str = "") -> None:
    """Print a line for people."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def run_app(app: typer.Typer, name: str, arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; an error is one line on standard error."""
    try:
        result = app(args=arguments, standalone_mode=False, prog_name=name)
    except HypnocastError as error:
        _complain(name, str(error))
        return error.exit_code
    except _UsageError as error:
        _complain(name, f"{_message(error)} (see {name} --help)")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except SystemExit as end:
        # Click ends with 1 where nobody reads on, as in `hypnocast nights | head`.
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        return 0
    except OSError as error:
        if error.filename is None and error.errno not in _FULL:
            raise  # not a path that somebody named: whoever mends it needs the traceback
        where = "" if error.filename is None else f"{error.filename}: "
        remedy = "Name another path, or check its rights and the disk."
        _complain(name, f"{where}{error.strerror}. {remedy}")
        return 1
    return int(result or 0)


def _message(error: Exception) -> str:
    """Return what click says of a misuse, and of which parameter."""
    say = getattr(error, "format_message", None)
    return str(say()) if callable(say) else str(error)


def _complain(name: str, line: str) -> None:
    sys.stderr.write(f"{name}: {' '.join(line.split())}\n")
