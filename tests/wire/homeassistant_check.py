"""Holds a discovery document against Home Assistant's own schemas; run by a Python that has it.

``python homeassistant_check.py < document.json`` prints Home Assistant's version and what it
refuses, as JSON. It is a program of its own because Home Assistant needs another Python.
"""

import importlib
import json
import sys
from typing import Any


def main() -> None:
    """Validate the document on standard input as Home Assistant does."""
    import voluptuous as vol
    from homeassistant.components.mqtt.discovery import DEVICE_DISCOVERY_SCHEMA
    from homeassistant.const import __version__

    faults: list[str] = []
    text = sys.stdin.read()
    try:
        whole = DEVICE_DISCOVERY_SCHEMA(json.loads(text))
    except vol.Invalid as error:
        faults.append(str(error))
        whole = json.loads(text)
    # What all components share is merged into each before its platform looks at it.
    shared = {key: value for key, value in whole.items() if key not in ("components", "device")}
    for name, component in json.loads(text)["components"].items():
        platform = importlib.import_module(
            f"homeassistant.components.mqtt.{component.get('platform', 'none')}"
        )
        config: dict[str, Any] = dict(component)
        config.pop("platform")
        config |= {"device": json.loads(text)["device"]}
        config |= {key: value for key, value in shared.items() if key not in config}
        try:
            platform.DISCOVERY_SCHEMA(config)
        except vol.Invalid as error:
            faults.append(f"{name}: {error}")
    print(json.dumps({"version": __version__, "faults": faults}))


if __name__ == "__main__":
    main()
