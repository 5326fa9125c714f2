"""The world outside: LSL, tape, files, journal, MQTT, the operating system."""
