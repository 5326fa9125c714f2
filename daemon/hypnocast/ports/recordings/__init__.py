"""Recordings: our own tapes, XDF, EDF and BDF files."""
