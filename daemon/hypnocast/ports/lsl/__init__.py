"""Lab Streaming Layer: streams found, opened and read."""
