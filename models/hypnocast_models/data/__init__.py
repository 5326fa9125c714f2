"""What there is to learn from: scored recordings, and nights that a scorer corrected."""

from hypnocast_models.data.corrected import CorrectedNight, open_corrected, open_material
from hypnocast_models.data.recordings import (
    Recording,
    database_files,
    open_recording,
    open_recordings,
)

__all__ = [
    "CorrectedNight",
    "Recording",
    "database_files",
    "open_corrected",
    "open_material",
    "open_recording",
    "open_recordings",
]
