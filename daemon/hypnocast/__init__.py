"""Hypnocast: live sleep staging with a vision-language model, from LSL streams to MQTT events."""

__version__ = "0.1.0"
