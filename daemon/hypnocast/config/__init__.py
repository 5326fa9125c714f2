"""What can be configured, read strictly from a file."""
