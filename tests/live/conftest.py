"""The tiny pack and the broker that these tests share."""

from support.ward_fixtures import broker, pack

__all__ = ["broker", "pack"]
