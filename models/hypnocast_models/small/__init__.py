"""The small pack that ships: its assembly, its training, its cross-validation."""
