"""Makes bad inputs out of good ones: bytes, numbers, words and whole pieces gone wrong."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Final

NUMBERS: Final = (
    b"0", b"-1", b"1", b"65536", b"4294967296", b"9223372036854775808", b"1e999", b"-1e-999",
    b"nan", b"inf", b"0x41", b"00000000000000000000000000001", b"999999999999999999999999",
    b"3.5", b"true", b"", b"1_000", "٣".encode(),
)  # fmt: skip
RAW: Final = (
    b"\x00", b"\xff" * 4, b"\xff" * 8, b"\x80\x00\x00\x00", b"\x00" * 16, b"\x7f\xff\xff\xff",
    b"\x08\x04\x01", b"\xc3\x28", b"\xed\xa0\x80", "\u202e".encode(), "𝕏".encode(), b"\r\n\r\n",
)  # fmt: skip
WORDS: Final = (
    b"../../etc/passwd", b"/etc/shadow", b"<!ENTITY x SYSTEM 'file:///etc/passwd'>", b"&x;",
    b"<![CDATA[", b"%s%s%s%n", b"{{7*7}}", b"hypnocast/#", b"+", b"A" * 70_000, b"[" * 3000,
    b"<a>" * 3000, b'{"a":' * 3000, b"'", b'"', b"\\", b"\\u0000", b"[[bed]]", b"null",
)  # fmt: skip


def mutated(seeds: Sequence[bytes], chance: random.Random) -> bytes:
    """Return a good input with one to six things done to it."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice([1, 1, 1, 2, 3, 6])):
        data = _one(data, seeds, chance)
    return bytes(data)


def _one(data: bytearray, seeds: Sequence[bytes], chance: random.Random) -> bytearray:
    harm = chance.choice((_bytes, _bit, _cut, _end, _repeat, _swap_number, _raw, _word))
    if chance.random() < 0.1:
        other = chance.choice(seeds)
        data[chance.randrange(len(data) + 1) :] = other[chance.randrange(len(other) + 1) :]
    else:
        harm(data, chance.randrange(len(data) + 1), chance)
    return data[: 1 << 20]


def _bytes(data: bytearray, at: int, chance: random.Random) -> None:
    for place in range(at, min(at + chance.choice([1, 1, 4, 16]), len(data))):
        data[place] = chance.randrange(256)


def _bit(data: bytearray, at: int, chance: random.Random) -> None:
    if at < len(data):
        data[at] ^= 1 << chance.randrange(8)


def _cut(data: bytearray, at: int, chance: random.Random) -> None:
    del data[at : at + chance.choice([1, 2, 8, 64, 4096])]


def _end(data: bytearray, at: int, _: random.Random) -> None:
    del data[at:]


def _repeat(data: bytearray, at: int, chance: random.Random) -> None:
    data[at:at] = data[at : at + chance.choice([1, 8, 64, 1024])] * chance.choice([1, 2, 50])


def _raw(data: bytearray, at: int, chance: random.Random) -> None:
    data[at : at + chance.choice([0, 0, 4, 8])] = chance.choice(RAW)


def _word(data: bytearray, at: int, chance: random.Random) -> None:
    data[at:at] = chance.choice(WORDS)


def _swap_number(data: bytearray, _: int, chance: random.Random) -> None:
    """Put a number where a number was: formats with fields are hit where it hurts."""
    found = list(re.finditer(rb"-?\d+(?:\.\d+)?", bytes(data[:100_000])))
    if found:
        place = chance.choice(found)
        data[place.start() : place.end()] = chance.choice(NUMBERS)
