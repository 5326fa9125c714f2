"""From a model's opinions to verdicts: calibration, and what the pages before imply."""
