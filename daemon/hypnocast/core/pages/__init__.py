"""From the samples of a bed's streams to 30-second pages."""
