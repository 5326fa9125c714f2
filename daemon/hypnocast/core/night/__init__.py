"""A night: its session, its markers, its stages and statistics."""
