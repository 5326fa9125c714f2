"""A client for programs that follow a site over MQTT: events without gaps, states, commands.

async with HypnocastClient("broker.lab") as site:
async for event in site.events():
print(event.bed, event.epoch, event.stage or event.reason)
"""

from hypnocast.client.site import HypnocastClient

__all__ = ["HypnocastClient"]
