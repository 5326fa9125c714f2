"""What crosses the wire: payloads, commands, topics, and the schemas made from them."""
