"""Packs: a model with everything needed to run and to judge it."""
