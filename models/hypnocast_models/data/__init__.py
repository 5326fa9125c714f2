"""What there is to learn from: scored recordings, and nights that are kept as pictures."""

from hypnocast_models.data.pictures import PictureNight, open_corrected, open_drawn
from hypnocast_models.data.recordings import (
    ScoredRecording,
    database_files,
    open_recording,
    open_recordings,
)

__all__ = [
    "PictureNight",
    "ScoredRecording",
    "database_files",
    "open_corrected",
    "open_drawn",
    "open_recording",
    "open_recordings",
]
