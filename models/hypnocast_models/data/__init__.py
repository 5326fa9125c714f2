"""Scored recordings: the databases that the small pack is trained and judged on."""

from hypnocast_models.data.recordings import (
    Recording,
    database_files,
    open_recording,
    open_recordings,
)

__all__ = ["Recording", "database_files", "open_recording", "open_recordings"]
