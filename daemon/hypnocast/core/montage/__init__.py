"""Channel labels, units, and which derivation fills which role."""
