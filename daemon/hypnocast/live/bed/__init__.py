"""One bed, from its streams to drawn pages."""
