"""Options that several commands share, and how answers are printed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

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
