"""The journal: what must not be lost, durable before it is sent."""
