"""Graphs that are one linear map are quantized as linear models: at 12 to 16 bits, with every bound proved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fhelearn.frontends.linear import BitWidths, LinearMap, quantize_linear
from fhelearn.frontends.onnx.importer import import_network
from fhelearn.frontends.onnx.network import Probe, QuantizedNetwork, TensorDecoder, TensorEncoder
from fhelearn.frontends.onnx.settings import Settings
from fhelearn.quantization.uniform import ColumnRange
from fhelearn.typing import FloatArray

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_Rows = FloatArray
"""A tensor of shape (1, k) as affine function of the n inputs: row 0 is its constant, row 1 + j what input j adds."""


def linear_map(body: ModelProto) -> LinearMap | None:
    """The linear map that a graph computes, or None if it is not seen to be one.

    Parameters
    ----------
    body : onnx.ModelProto
        As `fhelearn.onnx.cleanup.clean` leaves it.

    Returns
    -------
    LinearMap or None
        In float64, from the graph's weights as they are stored: a single `Gemm` gives its very weights. None unless the
        graph has one input and one output, of shapes (1, n_features) and (1, n_scores), and every node is `Gemm` or
        `MatMul` with constant weights, `Add`, `Sub`, `Mul` or `Div` with a constant, `Neg`, `Identity`, `Gather`,
        `Slice` or `Concat` of columns, or a `Cast` to float32 or float64 (integers have no such rounding).
    """
    import onnx

    graph = body.graph
    extents = [_extents(value) for value in (*graph.input, *graph.output)]
    if len(extents) != 2 or any(len(shape) != 2 or shape[0] != 1 for shape in extents) or not extents[0][1]:
        return None
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    constants = {name: a.astype(np.float64 if a.dtype.kind == "f" else a.dtype) for name, a in stored.items()}
    n = extents[0][1]
    known: dict[str, _Rows] = {graph.input[0].name: np.eye(n + 1)[:, 1:]}
    for node in graph.node:
        rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        rows = None if rule is None else rule(node, known, constants)
        if rows is None:
            return None
        known[node.output[0]] = rows
    rows = known.get(graph.output[0].name)
    if rows is None or rows.shape != (n + 1, extents[1][1]):
        return None
    return LinearMap(rows[1:], rows[0])


def import_linear_or_network(
    body: ModelProto, samples: Sequence[FloatArray], settings: Settings, *, bits: BitWidths | None = None
) -> QuantizedNetwork:
    """Quantize a graph: exactly as a linear model if :func:`linear_map` finds one in it, else as a network.

    Parameters
    ----------
    body, samples, settings
        As for `import_network`; of a linear map, `settings` tell ``range_margin`` only.
    bits : BitWidths or None
        Of a linear map. None: the widest that fit.

    Raises
    ------
    UnsupportedOperatorError, QuantizationError
        As `import_network` and `quantize_linear`.
    """
    linear = linear_map(body)
    if linear is None:
        return import_network(body, samples, settings)
    quantized = quantize_linear(linear, ColumnRange.of(samples[0], margin=settings.range_margin), bits)
    encoder, decoder, program = quantized.encoder, quantized.decoder, quantized.program
    (x,), (y,) = program.inputs, program.outputs
    names = body.graph.input[0].name, body.graph.output[0].name
    return QuantizedNetwork(
        (TensorEncoder(names[0], (encoder.n_features,), (encoder.n_features,), encoder),),
        program,
        (TensorDecoder(names[1], (decoder.n_outputs,), decoder),),
        {program.nodes[y].name: quantized.bits.weights},
        program,
        (Probe(names[0], x, encoder.scale, encoder.offset), Probe(names[1], y, decoder.scale, decoder.offset)),
    )


def _extents(value: Any) -> tuple[int, ...]:
    return tuple(extent.dim_value for extent in value.type.tensor_type.shape.dim)


# -- one rule per operator: the result, or None if the node is no affine function of the input -------------------------

_Rule = Callable[["NodeProto", dict[str, _Rows], dict[str, FloatArray]], "_Rows | None"]


def _gemm(node: NodeProto, known: dict[str, _Rows], constants: dict[str, FloatArray]) -> _Rows | None:
    given = _attributes(node)
    x, weights = known.get(node.input[0]), constants.get(node.input[1])
    if x is None or weights is None or not _is_matrix(weights) or given.get("transA", 0):
        return None
    product: _Rows = (x @ (weights.T if given.get("transB", 0) else weights)) * given.get("alpha", 1.0)
    if len(node.input) < 3 or not node.input[2]:
        return product
    bias = constants.get(node.input[2])
    return None if bias is None else _plus(product, bias * given.get("beta", 1.0))


def _matmul(node: NodeProto, known: dict[str, _Rows], constants: dict[str, FloatArray]) -> _Rows | None:
    x, weights = known.get(node.input[0]), constants.get(node.input[1])
    return None if x is None or weights is None or not _is_matrix(weights) else x @ weights


def _add(node: NodeProto, known: dict[str, _Rows], constants: dict[str, FloatArray]) -> _Rows | None:
    first, second = node.input
    x, constant = known.get(first), constants.get(second)
    if x is None:
        x, constant = known.get(second), constants.get(first)
    return None if x is None or constant is None else _plus(x, constant)


def _subtract(node: NodeProto, known: dict[str, _Rows], constants: dict[str, FloatArray]) -> _Rows | None:
    first, second = node.input
    if first in known and second in constants:
        return _plus(known[first], -constants[second])
    return _plus(-known[second], constants[first]) if first in constants and second in known else None


def _multiply(node: NodeProto, known: dict[str, _Rows], constants: dict[str, FloatArray]) -> _Rows | None:
    first, second = node.input
    x, constant = known.get(first), constants.get(second)
    if x is None:
        x, constant = known.get(second), constants.get(first)
    return None if x is None or constant is None or not _is_row(x, constant) else x * constant.reshape(-1)


def _divide(node: NodeProto, known: dict[str, _Rows], constants: dict[str, FloatArray]) -> _Rows | None:
    x, constant = known.get(node.input[0]), constants.get(node.input[1])
    if x is None or constant is None or not _is_row(x, constant) or not constant.all():
        return None
    return x / constant.reshape(-1)


def _negate(node: NodeProto, known: dict[str, _Rows], _: dict[str, FloatArray]) -> _Rows | None:
    return -known[node.input[0]] if node.input[0] in known else None


def _same(node: NodeProto, known: dict[str, _Rows], _: dict[str, FloatArray]) -> _Rows | None:
    return known.get(node.input[0])


def _to_float(node: NodeProto, known: dict[str, _Rows], _: dict[str, FloatArray]) -> _Rows | None:
    import onnx

    wide = _attributes(node)["to"] in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
    return known.get(node.input[0]) if wide else None


def _attributes(node: NodeProto) -> dict[str, Any]:
    import onnx

    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _gather(node: NodeProto, known: dict[str, _Rows], constants: dict[str, FloatArray]) -> _Rows | None:
    x, indices = known.get(node.input[0]), constants.get(node.input[1])
    if x is None or indices is None or indices.ndim != 1 or _attributes(node).get("axis", 0) not in (1, -1):
        return None
    return np.take(x, indices.astype(np.int64), axis=1)


def _slice(node: NodeProto, known: dict[str, _Rows], constants: dict[str, FloatArray]) -> _Rows | None:
    x, given = known.get(node.input[0]), [constants.get(name) for name in node.input[1:]]
    if x is None or len(given) < 3 or any(array is None or array.size != 1 for array in given):
        return None
    start, stop, axis, step = [int(array.item()) for array in given if array is not None] + [1] * (4 - len(given))
    return x[:, start:stop:step] if axis in (1, -1) and step > 0 else None


def _concatenate(node: NodeProto, known: dict[str, _Rows], _: dict[str, FloatArray]) -> _Rows | None:
    if not all(name in known for name in node.input) or _attributes(node)["axis"] not in (1, -1):
        return None
    return np.concatenate([known[name] for name in node.input], axis=1)


def _is_matrix(constant: FloatArray) -> bool:
    return constant.dtype.kind == "f" and constant.ndim == 2


def _plus(x: _Rows, constant: FloatArray) -> _Rows | None:
    if not _is_row(x, constant):
        return None
    added = x.copy()
    added[0] += constant.reshape(-1)
    return added


def _is_row(x: _Rows, constant: FloatArray) -> bool:
    """Whether a constant broadcasts against (1, k) without making it larger."""
    return (
        constant.dtype.kind == "f"
        and constant.ndim <= 2
        and constant.size in (1, x.shape[1])
        and constant.shape[-1:] in ((), (constant.size,))
    )


_RULES: dict[str, _Rule] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Add": _add,
    "Sub": _subtract,
    "Mul": _multiply,
    "Div": _divide,
    "Neg": _negate,
    "Identity": _same,
    "Cast": _to_float,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concatenate,
}
