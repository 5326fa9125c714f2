"""From a trained model to the graphs of a pack, with parity proven at every export."""
