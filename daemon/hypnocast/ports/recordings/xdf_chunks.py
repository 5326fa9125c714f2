"""The chunks of an XDF file: length, tag, content; and where to read on after damage."""

from __future__ import annotations

from typing import BinaryIO

from hypnocast.ports.recordings.xdf_encode import BOUNDARY_MARK, FILE_HEADER, STREAM_FOOTER

MAX_CHUNK = 64 * 1024 * 1024
_BLOCK = 1024 * 1024
_FIRST_BLOCK = 4096


class Malformed(Exception):  # noqa: N818 - becomes a Damage event
    """What is wrong with the content of one chunk."""


def read_chunk(file: BinaryIO, size: int) -> tuple[int, bytes] | None:
    """Return tag and content of the next chunk, or None at the end of the file."""
    head = file.read(1)
    if not head:
        return None
    length = _frame_length(head[0], file.read(head[0]) if head[0] in (1, 4, 8) else b"")
    raw = file.read(2)
    tag = int.from_bytes(raw, "little")
    if len(raw) < 2 or not FILE_HEADER <= tag <= STREAM_FOOTER:
        raise Malformed(f"unknown chunk tag {tag}")
    # Looked at before it is read: a length that lies costs nothing.
    content = file.read(length - 2) if file.tell() + length - 2 <= size else b""
    if len(content) < length - 2:
        raise Malformed("the file ends in the middle of a chunk")
    return tag, content


def _frame_length(size: int, raw: bytes) -> int:
    if size not in (1, 4, 8):
        raise Malformed(f"{size} is no number of length bytes")
    if len(raw) < size:
        raise Malformed("the file ends in the middle of a chunk")
    length = int.from_bytes(raw, "little")
    if not 2 <= length <= MAX_CHUNK:
        raise Malformed(f"a chunk of {length} bytes")
    return length


def go_on(file: BinaryIO, start: int) -> bool:
    """Find a place to read on after damage: behind the chunk if that holds, else a boundary."""
    after = file.tell()
    try:
        probe = file.read(16)
        size = probe[0] if probe else 0
        if after > start + 2 and size in (1, 4, 8) and len(probe) >= size + 3:
            _frame_length(size, probe[1 : 1 + size])
            tag = int.from_bytes(probe[1 + size : 3 + size], "little")
            if FILE_HEADER <= tag <= STREAM_FOOTER:
                file.seek(after)
                return True
    except Malformed:
        pass
    return _scan(file, start + 1)


def _scan(file: BinaryIO, start: int) -> bool:
    file.seek(start)
    kept, length = b"", _FIRST_BLOCK
    while block := file.read(length):
        length = min(2 * length, _BLOCK)
        window = kept + block
        found = window.find(BOUNDARY_MARK)
        if found >= 0:
            file.seek(found + len(BOUNDARY_MARK) - len(window), 1)
            return True
        kept = window[-(len(BOUNDARY_MARK) - 1) :]
    return False
