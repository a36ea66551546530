"""The envelope in which keys and ciphertexts travel and are stored.

Layout: magic (8 bytes), header length (u32), payload length (u64), header (JSON, sorted keys, UTF-8), payload, SHA-256
of everything before. All numbers are little-endian.

The checksum guards against damage and mix-ups before bytes reach native code, which would crash or return garbage. It
is no signature: whoever forges an envelope can make a valid checksum, and the payload then reaches the native
deserializer. A forged input or evaluation key can crash the server process only, which runs apart and is started again;
a forged result or key file reaches the decryption in the client's own process. Accept results and key files from those
you trust.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fhelearn.exceptions import FhelearnError

MAGIC = b"FHELEARN"
FORMAT_VERSION = 1
_SIZES = struct.Struct("<IQ")
_BLOB = struct.Struct("<Q")
_DIGEST_BYTES = 32
_LARGEST_HEADER = 2**24


def seal(kind: str, header: dict[str, Any], blobs: Sequence[bytes]) -> bytes:
    """Envelope of `kind` with a JSON-compatible header and payload blobs."""
    text = json.dumps({**header, "format_version": FORMAT_VERSION, "kind": kind}, sort_keys=True).encode()
    payload = b"".join(_BLOB.pack(len(blob)) + blob for blob in blobs)
    content = MAGIC + _SIZES.pack(len(text), len(payload)) + text + payload
    return content + hashlib.sha256(content).digest()


def unseal(data: bytes, kind: str, error: type[FhelearnError], where: str) -> tuple[dict[str, Any], list[bytes]]:
    """Check an envelope and take it apart.

    Parameters
    ----------
    data : bytes
    kind : str
        What it must hold.
    error : exception class
        What to raise.
    where : str
        How messages call the data.

    Returns
    -------
    header : dict
    blobs : list of bytes

    Raises
    ------
    error
        If `data` is no envelope, truncated, altered, of another format version, or of another kind.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise error(f"{where}: must be bytes, got {type(data).__name__}")
    data = bytes(data)
    start = len(MAGIC) + _SIZES.size
    if not data.startswith(MAGIC) or len(data) < start:
        raise error(
            f"{where}: not an fhelearn envelope ({len(data)} bytes, first 8 are {data[:8]!r}, expected {MAGIC!r})"
        )
    text_size, payload_size = _SIZES.unpack_from(data, len(MAGIC))
    expected = start + text_size + payload_size + _DIGEST_BYTES
    if text_size > _LARGEST_HEADER or len(data) != expected:
        raise error(
            f"{where}: has {len(data)} bytes, its header says {expected}; it was truncated or altered in transit"
        )
    if hashlib.sha256(data[:-_DIGEST_BYTES]).digest() != data[-_DIGEST_BYTES:]:
        raise error(f"{where}: the checksum does not match; it was altered or damaged, fetch it again")
    try:
        header = json.loads(data[start : start + text_size])
        version, found = header["format_version"], header["kind"]
        blobs = _blobs(data[start + text_size : -_DIGEST_BYTES])
    except (ValueError, KeyError, TypeError, RecursionError, struct.error) as problem:
        raise error(f"{where}: the header or payload is malformed ({problem})") from None
    if version != FORMAT_VERSION:
        raise error(f"{where}: has format version {version!r}, this fhelearn reads {FORMAT_VERSION}")
    if found != kind:
        raise error(f"{where}: holds {found!r}, expected {kind!r}")
    return header, blobs


def _blobs(payload: bytes) -> list[bytes]:
    blobs = []
    position = 0
    while position < len(payload):
        (size,) = _BLOB.unpack_from(payload, position)
        position += _BLOB.size
        if size > len(payload) - position:
            raise ValueError("a part is longer than the payload")
        blobs.append(payload[position : position + size])
        position += size
    return blobs


def text_field(header: dict[str, Any], name: str, error: type[FhelearnError], where: str) -> str:
    """A string of the header. Raises `error` if it is missing or no string."""
    value = header.get(name)
    if not isinstance(value, str):
        raise error(f"{where}: header field {name!r} must be text, got {value!r}")
    return value


def write_private(path: str | os.PathLike[str], data: bytes, *, overwrite: bool) -> None:
    """Write a file of mode 0600 atomically: readers see the old content or the new, never a part.

    Raises
    ------
    FileExistsError
        If there is a file and not `overwrite`.
    OSError
        If the directory is missing or not writable; an existing file is then unchanged.
    """
    target = Path(path)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # created with mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            os.replace(temporary, target)
        else:
            os.link(temporary, target)  # fails if the target exists, whoever made it in between
            os.unlink(temporary)
    except BaseException:
        os.unlink(temporary)
        raise
