"""Hypnograms as files: what scorers wrote, and what other software reads."""
