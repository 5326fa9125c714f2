"""Experiments as data: a TOML file lists what varies, one command runs it and writes a report."""
