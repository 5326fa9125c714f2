"""The ward page: a web view of the beds, and nothing but an MQTT client of the public topics."""
