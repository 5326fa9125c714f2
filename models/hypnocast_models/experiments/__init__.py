"""Experiments as data: a TOML file says what is varied, one command runs it and writes a report."""
