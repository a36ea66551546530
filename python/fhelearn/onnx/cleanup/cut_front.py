"""Move the start of a graph to the client, to run before encryption."""

from __future__ import annotations

from collections.abc import Collection
from math import prod
from typing import TYPE_CHECKING

from fhelearn.onnx.cleanup.graphs import (
    NORMALIZATIONS,
    REDUCTIONS,
    Parts,
    constant,
    extract,
    has_rows,
    is_float,
    label,
    mixes_rows,
    operands,
    static_shape,
    unique_name,
)

if TYPE_CHECKING:
    import onnx_ir as ir

_ARITHMETIC = frozenset(
    {
        *("Abs", "Add", "Ceil", "Clip", "Div", "Erf", "Exp", "Floor", "Log", "Max", "Mean", "Min", "Mod", "Mul", "Neg"),
        *("Pow", "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sqrt", "Sub", "Sum", "Tanh", "Sin", "Cos", "Tan"),
        *("Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Celu", "Elu", "Gelu", "HardSigmoid"),
        *("HardSwish", "LeakyRelu", "Mish", "PRelu", "Selu", "Shrink", "Softplus", "Softsign", "Swish"),
        *("ThresholdedRelu", "Scaler", "Imputer"),
    }
)
# These may grow their operand: a category becomes as many columns as it has values.
_ENCODERS = frozenset(
    {
        *("And", "Binarizer", "Cast", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "LabelEncoder", "Less"),
        *("LessOrEqual", "Not", "OneHot", "OneHotEncoder", "Or", "Where", "Xor"),
    }
)
_MOVING = frozenset(
    {
        *("ArrayFeatureExtractor", "Concat", "FeatureVectorizer", "Flatten", "Gather", "Reshape", "Slice", "Split"),
        *("Squeeze", "Transpose", "Unsqueeze"),
    }
)


def cut_front(parts: Parts) -> list[str]:
    """Cut off the largest start of the body that works on the client's clear inputs, up to its last arithmetic.

    ``body = rest o before``; nodes only move, so the result is exactly equal. Integers and truth values that cross the
    border do so as floats: `before` ends with a `Cast`, which the rest undoes (exact below 2**24 in float32).

    Parameters
    ----------
    parts : Parts
        Without `before`. Changed in place.

    Returns
    -------
    list of str
        One line per node.
    """
    model = parts.body
    cut = front_nodes(model)
    if parts.before is not None or not cut:
        return []
    lines = [f"{label(node)} runs on the client before encryption" for node in cut]
    given = model.graph.inputs
    border = [value for value in given if _leaves(value, cut)]
    for value in [out for node in cut for out in node.outputs if _leaves(out, cut)]:
        border.append(value if is_float(value) else _as_float(model, value, cut))
    parts.before = extract(model, given, border)
    parts.body = extract(model, border, model.graph.outputs)
    return lines


def front_nodes(model: ir.Model) -> dict[ir.Node, None]:
    """The nodes that `cut_front` moves, in order: those of `leading_nodes` that arithmetic or an encoder follows.

    None if all nodes work on clear inputs: nothing would be left to encrypt. Nor a node whose result the rest would
    read without rows on axis 0: the parts are run on many rows.
    """
    if len(leading_nodes(model, with_outputs=True)) == len(model.graph):
        return {}
    refused: set[ir.Node] = set()
    while True:
        cut = _worth(leading_nodes(model, refused=refused))
        leaving = {node for node in cut for out in node.outputs if _leaves(out, cut) and not has_rows(out)}
        if not leaving:
            return cut
        refused |= leaving


def _worth(leading: dict[ir.Node, None]) -> dict[ir.Node, None]:
    worth: set[ir.Node] = set()
    for node in reversed(leading):
        followed = any(reader in worth for out in node.outputs for reader in out.consumers())
        if followed or _is_worth(node):
            worth.add(node)
    return dict.fromkeys(node for node in leading if node in worth)


def leading_nodes(
    model: ir.Model, *, with_outputs: bool = False, refused: Collection[ir.Node] = ()
) -> dict[ir.Node, None]:
    """The nodes, in order, that clear inputs are enough for; without those that make an output of the graph.

    Elementwise nodes of values that come from one input, nodes that move elements, and reductions and normalizations of
    rows. Arithmetic that broadcasts its operand to more elements is none of them: it would be more to encrypt. None of
    `refused`, or behind them.
    """
    found: dict[ir.Node, None] = {}
    # By value, the inputs of the graph that it comes from.
    origins = {value: frozenset({value}) for value in model.graph.inputs}
    for node in model.graph:
        read = operands(node)
        if node in refused or not read or any(value not in origins for value in read):
            continue
        if not with_outputs and any(out.is_graph_output() for out in node.outputs):
            continue
        origin = frozenset().union(*(origins[value] for value in read))
        if node.domain not in ("", "ai.onnx", "ai.onnx.ml") or not _may_lead(node, read, origin):
            continue
        found[node] = None
        origins.update(dict.fromkeys(node.outputs, origin))
    return found


def _may_lead(node: ir.Node, read: list[ir.Value], origin: frozenset[ir.Value]) -> bool:
    if _is_table(node):
        return True
    if node.op_type in _MOVING:
        return all(value in read for value in node.inputs[:1])
    if len(origin) != 1:
        return False
    if node.op_type == "Expand":  # what a norm is divided by; no larger than the input that will be encrypted
        return _size(node.outputs[0]) <= max(map(_size, origin))
    if node.op_type in REDUCTIONS | NORMALIZATIONS:
        return not mixes_rows(node)
    if node.op_type in _ARITHMETIC:
        return _size(node.outputs[0]) <= max(map(_size, read))
    return node.op_type in _ENCODERS


def _is_table(node: ir.Node) -> bool:
    """Whether the node looks scalars up: `Gather` from a constant of rank 1."""
    table = constant(node.inputs[0]) if node.op_type == "Gather" else None
    return table is not None and table.ndim == 1


def _is_worth(node: ir.Node) -> bool:
    return node.op_type in _ARITHMETIC | _ENCODERS | NORMALIZATIONS or _is_table(node)


def _size(value: ir.Value) -> int:
    shape = static_shape(value)
    return 0 if shape is None else prod(shape)


def _leaves(value: ir.Value, cut: dict[ir.Node, None]) -> bool:
    return value.is_graph_output() or any(reader not in cut for reader in value.consumers())


def _as_float(model: ir.Model, value: ir.Value, cut: dict[ir.Node, None]) -> ir.Value:
    """`value` as float32, for all readers that are not cut."""
    import onnx_ir as ir

    readers = [(node, index) for node, index in value.uses() if node not in cut]
    stem = f"{value.name}_as_float"
    to = ir.node("Cast", [value], {"to": ir.DataType.FLOAT.value}, name=f"Cast_{stem}")
    as_float = to.outputs[0]
    as_float.name, as_float.shape, as_float.dtype = unique_name(model.graph, stem), value.shape, ir.DataType.FLOAT
    maker = value.producer()
    if maker is None or value.dtype is None:
        return value
    model.graph.insert_after(maker, to)
    stem = f"{value.name}_again"
    back = ir.node("Cast", [as_float], {"to": value.dtype.value}, name=f"Cast_{stem}")
    again = back.outputs[0]
    again.name, again.shape, again.dtype = unique_name(model.graph, stem), value.shape, value.dtype
    model.graph.insert_after(to, back)
    for node, index in readers:
        node.replace_input_with(index, again)
    return as_float
