"""Channel labels, units, and which derivation takes which role."""
