"""Hypnocast: live sleep staging with a vision-language model, from LSL streams to MQTT events.

In a program, three lines lead from a recording to its hypnogram; no daemon is started::

    import hypnocast

    staged = hypnocast.stage("night.edf")
    print(staged.hypnogram)

:func:`draw`, :func:`stage`, :func:`explain` and :func:`open_night`, with the types that they give,
are all of the public face; every other module may change from version to version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypnocast.api.hypnogram import StagedHypnogram
    from hypnocast.api.night import (
        ExplainedPage,
        OpenNight,
        PagePicture,
        StagedRecording,
        draw,
        explain,
        open_night,
        stage,
    )

__version__ = "0.1.0"
__all__ = [
    "ExplainedPage",
    "OpenNight",
    "PagePicture",
    "StagedHypnogram",
    "StagedRecording",
    "__version__",
    "draw",
    "explain",
    "open_night",
    "stage",
]


def __getattr__(name: str) -> Any:
    """Load the public face when it is asked for: the daemon does without it."""
    if name in __all__:
        from hypnocast.api import hypnogram, night

        return getattr(hypnogram if name == "StagedHypnogram" else night, name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    """List what is public."""
    return sorted(__all__)
