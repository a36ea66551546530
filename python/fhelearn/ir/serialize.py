"""The program file: a zip of JSON and ``.npy`` tensors, one byte sequence per program, never trusted when read."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from fhelearn.exceptions import ProgramError, ProgramFormatError
from fhelearn.ir.builder import ProgramBuilder
from fhelearn.ir.program import Program
from fhelearn.ir.verify import DeclaredBounds
from fhelearn.typing import IntArray

FORMAT_VERSION = 1
"""Version of the file format; readers refuse newer ones."""

npy: Any = np.lib.format  # NumPy publishes no types for it

_PROGRAM, _CHECKSUM = "program.json", "sha256"
_TENSOR_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '<i8', 'fortran_order': False, 'shape': \(([0-9, ]*)\), \} *\n", re.DOTALL
)
_MAX_SHAPE_TEXT = 400  # 17 axes of 19 digits, as int64 allows, are shorter


def content_digest(program: Program) -> str:
    """SHA-256 (hex) over the names and bytes of the file's entries, in order."""
    return _digest(_entries(program))


def to_bytes(program: Program) -> bytes:
    """The file of a program: equal programs give equal bytes (no timestamps, sorted keys, no compression)."""
    entries = _entries(program)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {**entries, _CHECKSUM: _digest(entries).encode()}.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # ZipInfo's default time is 1980-01-01: no clock in the bytes
    return buffer.getvalue()


def from_bytes(data: bytes) -> Program:
    """Read a program file; everything is checked, verified and inferred again.

    Parameters
    ----------
    data : bytes

    Raises
    ------
    ProgramFormatError
        If the bytes are not exactly what :func:`to_bytes` writes for some valid program: truncated, altered, of a newer
        format, or hostile. No object is unpickled and no path is touched.
    """
    entries = _read_entries(data)
    document = _read_document(entries)
    program = _rebuild(document, entries)
    if to_bytes(program) != data:  # one program, one file: nothing can hide beside what was read
        raise ProgramFormatError("program file: not in canonical form; write it again with to_bytes")
    return program


def _entries(program: Program) -> dict[str, bytes]:
    tensors: dict[str, bytes] = {}
    nodes = []
    for index, node in enumerate(program.nodes):
        attributes = {k: _store(f"tensors/{index}.{k}.npy", v, tensors) for k, v in node.attributes.items()}
        row: dict[str, Any] = {"op": node.op, "operands": list(node.operands), "attributes": attributes}
        if node.name:
            row["name"] = node.name
        if node.value.provenance != "proved":
            box = node.value.bounds.compact()
            ends = dict(zip(("lo", "hi"), box.to_int64(), strict=True))
            row["declared"] = {
                "provenance": node.value.provenance,
                "reason": node.value.reason,
                **{k: _store(f"tensors/{index}.declared.{k}.npy", _scalar(v), tensors) for k, v in ends.items()},
            }
        nodes.append(row)
    document = {"format_version": FORMAT_VERSION, "nodes": nodes, "outputs": list(program.outputs)}
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return {_PROGRAM: text.encode(), **tensors}


def _scalar(value: IntArray) -> int | IntArray:
    return int(value) if value.ndim == 0 else value


def _store(name: str, value: Any, tensors: dict[str, bytes]) -> Any:
    if not isinstance(value, np.ndarray):
        return list(value) if isinstance(value, tuple) else value
    buffer = io.BytesIO()
    npy.write_array(buffer, np.asarray(value, dtype="<i8", order="C"), version=(1, 0), allow_pickle=False)
    tensors[name] = buffer.getvalue()
    return {"tensor": name}


def _digest(entries: Mapping[str, bytes]) -> str:
    state = hashlib.sha256()
    for name, data in entries.items():
        state.update(f"{name}:{len(data)}\n".encode())
        state.update(data)
    return state.hexdigest()


def _read_entries(data: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            if sum(info.file_size for info in infos) > len(data):
                raise ProgramFormatError("program file: entries overlap or are compressed")
            if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
                raise ProgramFormatError("program file: entries must be stored without compression")
            if len({info.filename for info in infos}) != len(infos):
                raise ProgramFormatError("program file: an entry occurs twice")
            entries = {info.filename: archive.read(info) for info in infos}
    except ProgramFormatError:
        raise
    except Exception as error:  # zipfile raises a dozen kinds (struct.error, RuntimeError, NotImplementedError ...)
        raise ProgramFormatError(f"program file: not a readable zip of a program ({error})") from error
    stated = entries.pop(_CHECKSUM, b"")
    if stated != _digest(entries).encode():
        raise ProgramFormatError("program file: SHA-256 does not match its content; the file was altered or cut")
    return entries


def _read_document(entries: Mapping[str, bytes]) -> dict[str, Any]:
    try:
        document = json.loads(entries.get(_PROGRAM, b""), parse_float=_no_number, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ProgramFormatError(f"program file: {_PROGRAM} is missing or is not JSON of integers ({error})") from error
    version = _field(document, "format_version", int)
    if version != FORMAT_VERSION:
        raise ProgramFormatError(
            f"program file: format version {version}, this library reads {FORMAT_VERSION}; "
            + ("upgrade fhelearn" if version > FORMAT_VERSION else "no older version was ever written")
        )
    return document  # type: ignore[no-any-return]


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not an integer")


def _field(document: Any, name: str, kind: type) -> Any:
    value = document.get(name) if isinstance(document, dict) else None
    if type(value) is not kind:
        raise ProgramFormatError(f"program file: field {name!r} must be {kind.__name__}, got {type(value).__name__}")
    return value


def _rebuild(document: dict[str, Any], entries: Mapping[str, bytes]) -> Program:
    builder = ProgramBuilder()
    try:
        for row in _field(document, "nodes", list):
            attributes = {str(k): _load(v, entries) for k, v in _field(row, "attributes", dict).items()}
            name = _field(row, "name", str) if "name" in row else ""
            declared = _declared(_field(row, "declared", dict), entries) if "declared" in row else None
            operands = [_integer(i) for i in _field(row, "operands", list)]
            op = _field(row, "op", str)
            if {"name", "declared"} & set(attributes):
                raise ProgramFormatError(f"program file: {op} has no such attribute")
            builder.emit(op, *operands, name=name, declared=declared, **attributes)
        return builder.build(*(_integer(i) for i in _field(document, "outputs", list)))
    except ProgramFormatError:
        raise
    except ProgramError as error:
        raise ProgramFormatError(f"program file: {error}") from error
    except (TypeError, ValueError, OverflowError, MemoryError) as error:
        raise ProgramFormatError(f"program file: node {len(builder.nodes)} is malformed ({error})") from error


def _declared(row: dict[str, Any], entries: Mapping[str, bytes]) -> DeclaredBounds:
    lo, hi = _load(row.get("lo"), entries), _load(row.get("hi"), entries)
    provenance: Any = _field(row, "provenance", str)
    return DeclaredBounds(lo, hi, provenance, _field(row, "reason", str))


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise ProgramFormatError(f"program file: expected a node index, got {type(value).__name__}")
    return value


def _load(value: Any, entries: Mapping[str, bytes]) -> Any:
    if isinstance(value, dict):
        name = _field(value, "tensor", str)
        if name not in entries:
            raise ProgramFormatError(f"program file: tensor {name!r} is missing")
        return _tensor(name, entries[name])
    if isinstance(value, list):
        return tuple(_integer(v) for v in value)
    return value


def _tensor(name: str, data: bytes) -> IntArray:
    """The array of a ``.npy`` file with exactly NumPy's header for int64 in C order; nothing is evaluated."""
    header = _TENSOR_HEADER.match(data)
    if header is None or len(header.group(1)) > _MAX_SHAPE_TEXT:
        raise ProgramFormatError(
            f"program file: tensor {name!r} is malformed (not a .npy 1.0 file of '<i8' in C order)"
        )
    shape = tuple(int(extent) for extent in header.group(1).split(b",") if extent.strip())
    if prod(shape) * 8 != len(data) - header.end():
        raise ProgramFormatError(f"program file: tensor {name!r} of shape {shape} does not fit its {len(data)} bytes")
    return np.frombuffer(data, dtype="<i8", offset=header.end()).reshape(shape).astype(np.int64)
