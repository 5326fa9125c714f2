"""The ward page: an MQTT client that shows the public topics in a browser."""
