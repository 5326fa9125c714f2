"""Recordings through the daemon's own steps, page by page."""
