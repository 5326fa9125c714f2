"""MQTT: the link to the broker, the outbox, retained states, commands."""
