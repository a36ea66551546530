"""Read ONNX models, checked so far that everything behind may trust them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fhelearn.exceptions import ModelFormatError, UnsupportedOperatorError

if TYPE_CHECKING:
    import onnx

#: Operator domains of a loaded model; "ai.onnx" is another name of the default domain "".
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
#: The oldest version of the default domain in a loaded model.
OLDEST_OPSET = 13

_FLOAT_FIELDS = ("value_float", "value_floats")


def load_model(
    model: onnx.ModelProto | bytes | str | os.PathLike[str], *, domains: Collection[str] = ()
) -> onnx.ModelProto:
    """Parse, check and normalize an ONNX model.

    Parameters
    ----------
    model : onnx.ModelProto, bytes, or path of a file
        A model, its serialized bytes, or a file; external data is read from the file's folder. A ModelProto is copied,
        never changed.
    domains : collection of str, default=()
        Operator domains allowed in addition to "", "ai.onnx" and "ai.onnx.ml".

    Returns
    -------
    onnx.ModelProto
        A private copy: of an opset from 13 to the newest that the installed onnx knows (others are converted), without
        external data, without model-local functions (they are inlined), with the default domain written as "", and
        with initializers that are no inputs.

    Raises
    ------
    ModelFormatError
        If the model is corrupt, breaks a rule of ONNX, misses external data, has no outputs, has NaN among its
        constants, or cannot be converted to a known opset. Infinite constants are allowed (as bounds of Clip).
    UnsupportedOperatorError
        If nodes are of other operator domains; all of them are listed.
    FileNotFoundError
        If there is no such file.
    TypeError
        If `model` is none of the allowed.
    """
    import onnx
    import onnx.inliner

    loaded = _parsed(model)
    _check_has_graph(loaded)
    _use_default_domain_name(loaded)
    _check_opsets(loaded)
    _checked(loaded, lambda: onnx.checker.check_model(loaded))
    if loaded.functions:
        loaded = _checked(loaded, lambda: onnx.inliner.inline_local_functions(loaded, convert_version=True))
        _use_default_domain_name(loaded)
    _check_domains(loaded, DOMAINS | set(domains))
    _check_constants(loaded)
    initialized = {tensor.name for tensor in loaded.graph.initializer}
    for value in [value for value in loaded.graph.input if value.name in initialized]:
        loaded.graph.input.remove(value)
    loaded.ir_version = max(loaded.ir_version, 4)  # the first that has initializers which are no inputs
    return _in_known_opset(loaded)


def static_shapes(model: onnx.ModelProto, batch_size: int = 1) -> onnx.ModelProto:
    """Fix axis 0 of every input and infer the shape of every value.

    Parameters
    ----------
    model : onnx.ModelProto
        A loaded model; it is not changed.
    batch_size : int, default=1
        Extent, at least 1, for axis 0 of the inputs where it is symbolic or unknown; fixed extents stay.

    Returns
    -------
    onnx.ModelProto
        A copy whose ``graph.value_info`` holds the type and shape of every value that ONNX can infer.

    Raises
    ------
    ModelFormatError
        If an input is not a tensor of known rank, another axis of an input is symbolic or unknown, or the shapes
        contradict each other.
    ValueError
        If `batch_size` is less than 1.
    """
    import onnx

    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    initialized = {tensor.name for tensor in fixed.graph.initializer}
    for value in fixed.graph.input:
        if value.name not in initialized:
            _fix_input(value, batch_size)
    del fixed.graph.value_info[:]  # extents of the symbolic axes may be written there
    for value in fixed.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            dim.ClearField("dim_param")
    try:
        return onnx.shape_inference.infer_shapes(fixed, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:  # InferenceError; ValueError above 2 GiB
        raise ModelFormatError(
            f"the shapes of the model contradict each other with {batch_size} rows on axis 0 of the inputs: "
            f"{_in_one_line(error)}"
        ) from error


def _fix_input(value: onnx.ValueInfoProto, batch_size: int) -> None:
    kind = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type" or not kind.HasField("shape"):
        raise ModelFormatError(
            f"input {value.name!r} must be a tensor of known rank; declare its shape when exporting the model"
        )
    for axis, dim in enumerate(kind.shape.dim):
        if dim.HasField("dim_value"):
            continue
        if axis:
            raise ModelFormatError(
                f"input {value.name!r}: axis {axis} is {dim.dim_param or 'unknown'!r}, but only axis 0 (the rows) "
                "may be left open; export the model with fixed extents on all other axes"
            )
        dim.dim_value = batch_size


def _parsed(model: Any) -> onnx.ModelProto:
    import onnx

    if not isinstance(model, (onnx.ModelProto, bytes, str, os.PathLike)):
        raise TypeError(f"model must be an onnx.ModelProto, bytes or a path, got {type(model).__name__}")
    loaded = onnx.ModelProto()
    if isinstance(model, onnx.ModelProto):
        loaded.CopyFrom(model)
    else:
        path = None if isinstance(model, bytes) else Path(model)
        source = "the bytes" if path is None else f"file {str(path)!r}"
        data = model if isinstance(model, bytes) else Path(model).read_bytes()
        try:
            loaded.ParseFromString(data)
        except Exception as error:  # protobuf's DecodeError, from a library without type information
            raise ModelFormatError(f"{source} cannot be parsed as an ONNX model: {_in_one_line(error)}") from error
        if path is not None:
            _load_external_data(loaded, path)
    if external := [tensor.name for tensor in _tensors(loaded) if tensor.data_location == onnx.TensorProto.EXTERNAL]:
        raise ModelFormatError(
            f"tensors {_listed(external)} are stored in files beside the model; pass the path of the model's file"
        )
    return loaded


def _load_external_data(model: onnx.ModelProto, path: Path) -> None:
    import onnx

    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # FileNotFoundError, ValidationError (paths that leave the folder), ValueError, ...
        raise ModelFormatError(
            f"external data of {str(path)!r} cannot be read from folder {str(path.parent)!r}: {_in_one_line(error)}; "
            "keep the data files beside the model's file"
        ) from error


def _check_has_graph(model: onnx.ModelProto) -> None:
    if not model.HasField("graph"):
        raise ModelFormatError("the model has no graph: the data is empty or not an ONNX model")
    if not model.graph.output:
        raise ModelFormatError(f"graph {model.graph.name!r} has no outputs, so there is nothing to compute")


def _use_default_domain_name(model: onnx.ModelProto) -> None:
    imports = {("" if entry.domain == "ai.onnx" else entry.domain): entry.version for entry in model.opset_import}
    del model.opset_import[:]
    for domain, version in imports.items():
        model.opset_import.add(domain=domain, version=version)
    for graph in _graphs(model):
        for node in graph.node:
            if node.domain == "ai.onnx":
                node.domain = ""


def _default_opset(model: onnx.ModelProto) -> int | None:
    return next((entry.version for entry in model.opset_import if entry.domain == ""), None)


def _check_opsets(model: onnx.ModelProto) -> None:
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if (version := _default_opset(model)) is not None and not 1 <= version <= newest:
        raise ModelFormatError(
            f"the model is of opset {version}, but onnx {onnx.__version__} knows 1 to {newest} and converts no others; "
            f"export the model with opset {newest} or older, or update onnx"
        )


def _checked(model: onnx.ModelProto, step: Any) -> Any:
    try:
        return step()
    except Exception as error:  # ValidationError and InferenceError have no common base; ValueError above 2 GiB
        raise ModelFormatError(f"graph {model.graph.name!r} is not valid ONNX: {_in_one_line(error)}") from error


def _check_domains(model: onnx.ModelProto, allowed: Collection[str]) -> None:
    foreign = [
        f"{node.domain}.{node.op_type} {(node.name or ', '.join(node.output))!r}"
        for graph in _graphs(model)
        for node in graph.node
        if node.domain not in allowed
    ]
    if foreign:
        raise UnsupportedOperatorError(
            f"nodes of unknown operator domains: {_listed(foreign, quoted=False)}; allowed are "
            f"{', '.join(map(repr, sorted(allowed)))}; export the model with standard operators"
        )


def _check_constants(model: onnx.ModelProto) -> None:
    from onnx.numpy_helper import to_array

    bad = []
    for tensor in _tensors(model):
        try:
            array = to_array(tensor)
        except Exception as error:  # sizes that contradict the declared shape
            raise ModelFormatError(f"tensor {tensor.name!r} cannot be read: {_in_one_line(error)}") from error
        if _has_nan(array):
            bad.append(tensor.name)
    for graph in _graphs(model):
        for node in graph.node:
            for attribute in node.attribute:
                if node.op_type == "Constant" and attribute.name in _FLOAT_FIELDS:
                    values = [*attribute.floats, *([attribute.f] if attribute.HasField("f") else [])]
                    bad += node.output if np.isnan(values).any() else []
    if bad:
        raise ModelFormatError(
            f"tensors {_listed(list(dict.fromkeys(bad)))} hold NaN; train or export the model again without it"
        )


def _has_nan(array: Any) -> bool:
    if array.dtype.kind == "f":
        return bool(np.isnan(array).any())
    # The 16-bit and smaller floats of machine learning are no kind of NumPy's own, but become float32 exactly.
    return "float" in array.dtype.name and bool(np.isnan(array.astype(np.float32)).any())


def _in_known_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnx

    version = _default_opset(model)
    if version is None or version >= OLDEST_OPSET:
        return model
    try:
        converted = onnx.version_converter.convert_version(model, OLDEST_OPSET)
        onnx.checker.check_model(converted)
    except Exception as error:  # operators without an adapter, operators of other domains, ...
        raise ModelFormatError(
            f"the model is of opset {version} and cannot be converted to {OLDEST_OPSET}: {_in_one_line(error)}; export "
            f"it with opset {OLDEST_OPSET} or newer"
        ) from error
    return converted


def _graphs(model: onnx.ModelProto) -> Iterator[Any]:
    """The graph, its subgraphs at every depth, and the bodies of functions: what has nodes."""
    stack: list[Any] = [model.graph, *model.functions]
    while stack:
        graph = stack.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                stack += [attribute.g] if attribute.HasField("g") else []
                stack += attribute.graphs


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every constant; a tensor in an attribute is named after the node's first output if it has no name."""
    import onnx

    for graph in _graphs(model):
        if isinstance(graph, onnx.GraphProto):
            yield from graph.initializer
            yield from (tensor.values for tensor in graph.sparse_initializer)
        for node in graph.node:
            for attribute in node.attribute:
                found = [attribute.t] if attribute.HasField("t") else []
                found += [*attribute.tensors]
                found += [attribute.sparse_tensor.values] if attribute.HasField("sparse_tensor") else []
                for tensor in found:
                    named = onnx.TensorProto()
                    named.CopyFrom(tensor)
                    named.name = tensor.name or (node.output[0] if node.output else node.name)
                    yield named


def _listed(names: list[str], quoted: bool = True, most: int = 10) -> str:
    shown = ", ".join(repr(name) if quoted else name for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def _in_one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
