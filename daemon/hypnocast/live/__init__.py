"""The running daemon: from streams to published stage events."""
