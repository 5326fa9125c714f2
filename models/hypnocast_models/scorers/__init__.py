"""Other scorers, for comparison: gradient boosting, YASA."""
