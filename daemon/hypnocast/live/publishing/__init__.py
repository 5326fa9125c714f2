"""From events and states to the broker."""
