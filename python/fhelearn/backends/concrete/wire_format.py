"""Frames between this process and its server process: a JSON header and blobs, each with its length before it."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Sequence
from typing import Any

_PREFIX = struct.Struct("<II")
_LENGTH = struct.Struct("<Q")


def write_frame(descriptor: int, header: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
    """Write one frame. Raises BrokenPipeError if the other side is gone."""
    text = json.dumps(header).encode()
    _write_all(descriptor, _PREFIX.pack(len(text), len(blobs)) + text)
    for blob in blobs:
        _write_all(descriptor, _LENGTH.pack(len(blob)))
        _write_all(descriptor, blob)


def read_frame(descriptor: int) -> tuple[dict[str, Any], list[bytes]] | None:
    """Read one frame, or None at the end of the stream (also in the middle of a frame: the writer died)."""
    prefix = _read_exactly(descriptor, _PREFIX.size)
    if prefix is None:
        return None
    text_size, count = _PREFIX.unpack(prefix)
    text = _read_exactly(descriptor, text_size)
    blobs: list[bytes] = []
    for _ in range(count):
        length = _read_exactly(descriptor, _LENGTH.size)
        blob = None if length is None else _read_exactly(descriptor, _LENGTH.unpack(length)[0])
        if blob is None:
            return None
        blobs.append(blob)
    return None if text is None else (json.loads(text), blobs)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _read_exactly(descriptor: int, size: int) -> bytes | None:
    buffer = bytearray(size)
    view = memoryview(buffer)
    filled = 0
    while filled < size:
        piece = os.readv(descriptor, [view[filled:]])
        if not piece:
            return None
        filled += piece
    return bytes(buffer)
