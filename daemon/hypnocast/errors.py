"""The tree of errors.

Every error says what is wrong, where, and what to do, in one line:

    HypnocastError
    ├── ConfigError      a configuration file, a key or a value
    ├── StreamError      a live stream: its metadata, its clock, its absence
    ├── TapeError        a tape or recording that cannot be read or written
    ├── PackError        a model pack: damaged, hostile, or not for this daemon
    ├── RecipeError      a recipe that cannot be drawn
    ├── InferenceError   a model that failed while running
    │   └── TooLateError     a page that could not be judged in time
    ├── JournalError     the journal on disk
    ├── BrokerError      the MQTT broker: unreachable, refused, forbidden
    ├── CommandError     a command that cannot be obeyed (MQTT or command line)
    ├── OutputError      what a command was to write, and the disk refused
    └── InstallError     something this installation lacks, or has twice

``exit_code`` is what the command line returns: 2 for misuse, 1 for a fault found while running.
"""

from __future__ import annotations


class HypnocastError(Exception):
    """Anything Hypnocast can explain. ``str()`` of it is one line fit for a person."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        """Keep what is wrong, where, and what to do about it."""
        self.what = what
        self.where = where
        self.remedy = remedy
        super().__init__(what, where, remedy)

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        if self.remedy:
            line = f"{line.rstrip('.')}. {self.remedy}"
        return " ".join(line.split())


class ConfigError(HypnocastError):
    """A configuration file, a key in it or a value of it is wrong."""

    exit_code = 2


class StreamError(HypnocastError):
    """A live stream is absent, ambiguous, or describes itself as it cannot be."""


class TapeError(HypnocastError):
    """A tape or recording cannot be read or written."""


class PackError(HypnocastError):
    """A model pack is damaged, hostile, or not for this daemon."""


class RecipeError(HypnocastError):
    """A recipe cannot be drawn."""

    exit_code = 2


class InferenceError(HypnocastError):
    """A model failed while running."""


class TooLateError(InferenceError):
    """A page could not be judged before its deadline, and was not tried."""


class JournalError(HypnocastError):
    """The journal cannot be read or written."""


class BrokerError(HypnocastError):
    """The MQTT broker cannot be reached, or refuses."""


class CommandError(HypnocastError):
    """A command cannot be obeyed."""

    exit_code = 2


class OutputError(HypnocastError):
    """The disk refused what a command was to write."""


class InstallError(HypnocastError):
    """This installation lacks something, or has something twice."""
