"""The daemon put together, watched over, checked and shown."""
