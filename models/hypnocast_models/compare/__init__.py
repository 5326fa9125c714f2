"""Comparing scorers: any two of packs, files, experts and journals, over any nights."""
