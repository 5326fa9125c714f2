"""Time: the senders' clocks, the local clock, UTC, and what was decided about them."""
