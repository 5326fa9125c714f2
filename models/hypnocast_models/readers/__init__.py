"""Readers of scored recordings, each in its true format, behind one small protocol."""
