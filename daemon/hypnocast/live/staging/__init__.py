"""From drawn pages to stage events in the journal."""
