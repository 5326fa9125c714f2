"""Public live stagers, converted into packs on the user's own machine."""
