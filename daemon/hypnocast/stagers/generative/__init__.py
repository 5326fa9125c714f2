"""Models that answer in words: prompt, decoder, constrained answers."""
