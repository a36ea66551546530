"""The file of a quantized network: an envelope of JSON, program files and ONNX graphs. Never trusted when read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fhelearn.backends.concrete import envelope
from fhelearn.backends.concrete.options import CircuitOptions
from fhelearn.estimators.compiled import CompileOptions
from fhelearn.estimators.compiled_network import NetworkModel
from fhelearn.estimators.module_inputs import ENCRYPTION_STATUSES
from fhelearn.exceptions import ModelFormatError
from fhelearn.frontends.onnx import NBits, QuantizedNetwork, Rounding, Settings
from fhelearn.frontends.onnx.network import Probe, TensorDecoder, TensorEncoder
from fhelearn.frontends.onnx.values import compact
from fhelearn.ir import Program, from_bytes, to_bytes
from fhelearn.onnx.cleanup import CleanModel, Step
from fhelearn.onnx.load import load_model
from fhelearn.quantization.uniform import UniformDecoder, UniformEncoder

if TYPE_CHECKING:
    import onnx

FORMAT_VERSION = 1
"""Version of the content; the envelope has a version of its own."""

_KIND = "network"
_REQUIRED, _OPTIONAL = ("rim", "program", "model", "body"), ("raw", "before", "after")


@dataclass(frozen=True, eq=False)
class NetworkFile:
    """What a file holds: never keys.

    Attributes
    ----------
    network : NetworkModel
    options : CompileOptions
    is_compiled : bool
        Whether a circuit was asked for; it is made again from the program, with new keys.
    inputs_encryption_status : tuple of str
        Per input of the model, "encrypted" or "clear".
    """

    network: NetworkModel
    options: CompileOptions
    is_compiled: bool
    inputs_encryption_status: tuple[str, ...]


def write_network(content: NetworkFile, path: str | os.PathLike[str]) -> None:
    """Write a file; an existing one is replaced at once or not at all. Raises FileNotFoundError without its folder."""
    if not Path(path).absolute().parent.is_dir():
        raise FileNotFoundError(f"cannot save to {os.fspath(path)!r}: its folder does not exist; create it first")
    envelope.write_private(path, network_bytes(content), overwrite=True)


def read_network(path: str | os.PathLike[str]) -> NetworkFile:
    """Read a file. Raises as :func:`network_from_bytes`, and FileNotFoundError."""
    return network_from_bytes(Path(path).read_bytes(), f"file {os.fspath(path)!r}")


def network_bytes(content: NetworkFile) -> bytes:
    """The bytes of a file: equal contents give equal bytes."""
    network = content.network
    clean, quantized = network.clean, network.quantized
    graphs = {"model": network.model, "body": clean.body, "before": clean.before, "after": clean.after}
    rim = json.dumps(_rim(content), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    parts = {"rim": rim, "program": to_bytes(quantized.program)}
    parts |= {} if quantized.raw is None else {"raw": to_bytes(quantized.raw)}
    parts |= {name: graph.SerializeToString(deterministic=True) for name, graph in graphs.items() if graph is not None}
    return envelope.seal(_KIND, {"content_version": FORMAT_VERSION, "parts": list(parts)}, list(parts.values()))


def network_from_bytes(data: bytes, where: str = "network file") -> NetworkFile:
    """Check everything and rebuild the network.

    Parameters
    ----------
    data : bytes
    where : str
        How messages call the data.

    Raises
    ------
    ModelFormatError
        If the bytes are damaged, of a newer format, or their parts do not fit each other.
    ProgramFormatError
        If a program in it is malformed.
    UnsupportedOperatorError
        If a graph holds operators of unknown domains.
    """
    header, blobs = envelope.unseal(data, _KIND, ModelFormatError, where)
    parts = _parts(header, blobs, where)
    program = from_bytes(parts["program"])
    raw = from_bytes(parts["raw"]) if "raw" in parts else None
    graphs = {name: _graph(parts[name]) for name in ("model", "body", "before", "after") if name in parts}
    try:
        rim = json.loads(parts["rim"])
        steps = tuple(Step(*_texts(step, 2)) for step in rim["steps"])
        quantized = _quantized(rim, program, raw)
        clean = CleanModel(graphs.get("before"), graphs["body"], graphs.get("after"), steps)
        network = NetworkModel(graphs["model"], clean, quantized, _settings(rim["settings"]))
        status = _statuses(rim["inputs_encryption_status"], len(network.model.graph.input))
        content = NetworkFile(network, _options(rim["options"]), _boolean(rim["is_compiled"]), status)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError, AttributeError) as error:
        raise ModelFormatError(f"{where}: its description is malformed ({type(error).__name__}: {error})") from error
    _check_borders(network, where)
    return content


def _parts(header: Mapping[str, Any], blobs: Sequence[bytes], where: str) -> dict[str, bytes]:
    version, names = header.get("content_version"), header.get("parts", ())
    if version != FORMAT_VERSION:
        raise ModelFormatError(
            f"{where}: has content version {version!r}, this library reads {FORMAT_VERSION}; save it again, or upgrade "
            "fhelearn"
        )
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    fits = texts and len(set(names)) == len(names) == len(blobs)
    if not fits or not set(_REQUIRED) <= set(names) <= {*_REQUIRED, *_OPTIONAL}:
        raise ModelFormatError(f"{where}: must hold the parts {', '.join(_REQUIRED)}, got {names!r}")
    return dict(zip(names, blobs, strict=True))


def _graph(data: bytes) -> onnx.ModelProto:
    import onnx

    load_model(data)  # refuses what is no valid model
    graph = onnx.ModelProto()
    graph.ParseFromString(data)
    return graph


# -- the rim -----------------------------------------------------------------------------------------------------------


def _rim(content: NetworkFile) -> dict[str, Any]:
    quantized, settings = content.network.quantized, content.network.settings
    return {
        "is_compiled": content.is_compiled,
        "inputs_encryption_status": list(content.inputs_encryption_status),
        "options": asdict(content.options),
        "settings": None if settings is None else asdict(settings),
        "steps": [[step.name, step.detail] for step in content.network.clean.steps],
        "encoders": [_encoder_row(encoder) for encoder in quantized.encoders],
        "decoders": [
            {"name": d.name, "row": list(d.row), "scale": _stored(d.columns.scale), "offset": _stored(d.columns.offset)}
            for d in quantized.decoders
        ],
        "weight_bits": quantized.weight_bits,
        "probes": [
            {"tensor": p.tensor, "node": p.node, "scale": _stored(p.scale), "offset": _stored(p.offset)}
            for p in quantized.probes
        ],
    }


def _encoder_row(encoder: TensorEncoder) -> dict[str, Any]:
    arrays = {name: _stored(getattr(encoder.columns, name)) for name in ("scale", "offset", "lo", "hi")}
    return {"name": encoder.name, "row": list(encoder.row), "shape": list(encoder.shape), **arrays}


def _stored(array: NDArray[Any]) -> dict[str, Any]:
    """An array as its shape and numbers; axes along which it is constant have extent 1."""
    small = compact(array)
    return {"shape": list(small.shape), "values": small.ravel().tolist()}


def _loaded(row: Any, kind: type) -> NDArray[Any]:
    """What :func:`_stored` wrote. Raises ValueError on other types, and on NaN and infinities."""
    shape = _extents(row["shape"])
    values = row["values"]
    if type(values) is not list or any(type(value) is not kind for value in values):
        raise ValueError(f"numbers must be {kind.__name__}s")
    array = np.array(values, dtype=np.float64 if kind is float else np.int64).reshape(shape)
    if not np.isfinite(array).all():
        raise ValueError("numbers must be finite")
    return array


def _column(row: Any, kind: type, size: int) -> NDArray[Any]:
    array = _loaded(row, kind)
    if array.shape not in ((1,), (size,)):
        raise ValueError(f"expected one number, or {size}, got shape {array.shape}")
    return np.broadcast_to(array, (size,))


def _quantized(rim: Mapping[str, Any], program: Program, raw: Program | None) -> QuantizedNetwork:
    inputs, outputs = ([program.nodes[i].value for i in indices] for indices in (program.inputs, program.outputs))
    encoders = [_encoder(row, value) for row, value in zip(rim["encoders"], inputs, strict=True)]
    decoders = [_decoder(row, value.size) for row, value in zip(rim["decoders"], outputs, strict=True)]
    weight_bits = {name: _integer(bits) for name, bits in rim["weight_bits"].items()}
    whole = raw or program
    if [whole.nodes[i].value.shape for i in whole.inputs] != [value.shape for value in inputs]:
        raise ValueError("the program as it was imported has other inputs")
    if [whole.nodes[i].value.shape for i in whole.outputs] != [value.shape for value in outputs]:
        raise ValueError("the program as it was imported has other outputs")
    probes = tuple(_probe(row, whole) for row in rim["probes"])
    return QuantizedNetwork(tuple(encoders), program, tuple(decoders), weight_bits, raw, probes)


def _encoder(row: Mapping[str, Any], value: Any) -> TensorEncoder:
    shape, rows = _extents(row["shape"]), _extents(row["row"])
    if shape != value.shape or prod(rows) != value.size:
        raise ValueError(f"an input of the program has shape {value.shape}, its encoder {shape} and rows {rows}")
    scale, offset = (_column(row[name], float, value.size) for name in ("scale", "offset"))
    lo, hi = (_column(row[name], int, value.size) for name in ("lo", "hi"))
    low, high = (np.broadcast_to(end, shape).ravel() for end in value.bounds.to_int64())
    if (lo < low).any() or (hi > high).any():
        raise ValueError("an encoder leaves the bounds of its input")
    return TensorEncoder(_text(row["name"]), rows, shape, UniformEncoder(scale, offset, lo, hi))


def _decoder(row: Mapping[str, Any], size: int) -> TensorDecoder:
    rows = _extents(row["row"])
    if prod(rows) != size:
        raise ValueError(f"an output of the program has {size} elements, its decoder rows of {rows}")
    columns = UniformDecoder(*(_column(row[name], float, size) for name in ("scale", "offset")))
    return TensorDecoder(_text(row["name"]), rows, columns)


def _probe(row: Mapping[str, Any], program: Program) -> Probe:
    node = _integer(row["node"])
    if not 0 <= node < len(program.nodes):
        raise ValueError(f"a probe looks at node {node} of {len(program.nodes)}")
    shape = program.nodes[node].value.shape
    scale, offset = (_loaded(row[name], float) for name in ("scale", "offset"))
    if np.broadcast_shapes(scale.shape, offset.shape, shape) != shape:
        raise ValueError(f"a probe does not fit the shape {shape}")
    return Probe(_text(row["tensor"]), node, scale, offset)


def _settings(row: Mapping[str, Any] | None) -> Settings | None:
    if row is None:
        return None
    rounding = row["rounding"]
    return Settings(
        **{**row, "n_bits": NBits.of(row["n_bits"]), "rounding": None if rounding is None else Rounding.of(rounding)}
    )


def _statuses(value: Any, count: int) -> tuple[str, ...]:
    statuses = tuple(_texts(value, count))
    if not set(statuses) <= set(ENCRYPTION_STATUSES) or "encrypted" not in statuses:
        raise ValueError(f"inputs are encrypted or clear, and one at least encrypted, got {statuses}")
    return statuses


def _options(row: Mapping[str, Any]) -> CompileOptions:
    options = CompileOptions(**row)
    CircuitOptions(options.p_error, options.global_p_error, options.security_level)  # checks them
    return options


def _check_borders(network: NetworkModel, where: str) -> None:
    """The parts must hand each other what they need, by name."""
    clean, quantized = network.clean, network.quantized
    inputs, outputs = _names(network.model)
    read, made = _names(clean.body)
    before, after = (None if part is None else _names(part) for part in (clean.before, clean.after))
    offered, wanted = before or (inputs, inputs), after or (outputs, outputs)
    values = {*read, *made, *(info.name for info in clean.body.graph.value_info)}
    if (
        read != [encoder.name for encoder in quantized.encoders]
        or made != [decoder.name for decoder in quantized.decoders]
        or (set(offered[0]), set(offered[1])) != (set(inputs), set(read))
        or (set(wanted[0]), wanted[1]) != (set(made), outputs)
        or not {probe.tensor for probe in quantized.probes} <= values
    ):
        raise ModelFormatError(
            f"{where}: its parts do not fit each other: a graph's inputs, outputs or values have other names"
        )


def _names(model: onnx.ModelProto) -> tuple[list[str], list[str]]:
    """Of a graph's inputs and outputs."""
    return [info.name for info in model.graph.input], [info.name for info in model.graph.output]


def _extents(value: Any) -> tuple[int, ...]:
    if type(value) is not list or any(type(n) is not int or n < 1 for n in value):
        raise ValueError(f"a shape must be a list of positive integers, got {value!r}")
    return tuple(value)


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise ValueError(f"expected an integer, got {value!r}")
    return value


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(f"expected true or false, got {value!r}")
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(f"expected text, got {value!r}")
    return value


def _texts(value: Any, count: int) -> list[str]:
    if type(value) is not list or len(value) != count:
        raise ValueError(f"expected {count} texts, got {value!r}")
    return [_text(entry) for entry in value]
