"""Packs on an inference server: the client, and what the server loads."""
