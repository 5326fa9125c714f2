"""What the command line offers. These modules hold the options and the printing, no more."""
