"""What the passes share: the parts a model is cut into, and questions about one graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx_ir as ir

LINEAR_REDUCTIONS = frozenset({"ReduceMean", "ReduceSum"})
OTHER_REDUCTIONS = frozenset(
    {
        *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMin", "ReduceProd"),
        "ReduceSumSquare",
    }
)
REDUCTIONS = LINEAR_REDUCTIONS | OTHER_REDUCTIONS
NORMALIZATIONS = frozenset(
    {
        *("GroupNormalization", "Hardmax", "InstanceNormalization", "LayerNormalization", "LogSoftmax"),
        *("LpNormalization", "LRN", "MeanVarianceNormalization", "Normalizer", "RMSNormalization", "Softmax"),
    }
)
"""Operators that keep the shape and combine the elements of a row."""


@dataclass
class Parts:
    """A model cut at up to two borders; equal names are equal values.

    Attributes
    ----------
    body : onnx_ir.Model
        What will be encrypted.
    before, after : onnx_ir.Model or None
        What the client runs on clear values before encryption and after decryption; None is nothing.
    """

    body: ir.Model
    before: ir.Model | None = None
    after: ir.Model | None = None


@dataclass(frozen=True)
class Pass:
    """A named step of the clean-up.

    Attributes
    ----------
    name : str
        The name that the report shows.
    run : callable
        Changes the parts in place and returns one line per change: none if and only if it changed nothing.
    """

    name: str
    run: Callable[[Parts], list[str]]


def on_body(name: str, run: Callable[[ir.Model], list[str]]) -> Pass:
    """The pass `name` that runs `run` on the body alone."""
    return Pass(name, lambda parts: run(parts.body))


def label(node: ir.Node) -> str:
    """The node in a message, for instance ``Softmax 'probabilities'``."""
    return f"{node.op_type} {node.name!r}"


def is_float(value: ir.Value) -> bool:
    """Whether the elements of `value` are floats that NumPy computes with: 16, 32 or 64 bits."""
    return value.dtype is not None and value.dtype.name in ("FLOAT16", "FLOAT", "DOUBLE")


def is_constant(value: ir.Value | None) -> bool:
    """Whether `value` is an initializer that no caller can override."""
    return value is not None and value.is_initializer() and value.const_value is not None and not value.is_graph_input()


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """The array of a constant, None for other values."""
    if value is None or value.const_value is None or not is_constant(value):
        return None
    return value.const_value.numpy()


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape of `value`, None unless every dimension is known."""
    if value is None or value.shape is None:
        return None
    dims = tuple(dim for dim in value.shape if isinstance(dim, int))
    return dims if len(dims) == len(value.shape) else None


def operands(node: ir.Node) -> list[ir.Value]:
    """The distinct inputs of `node` that are no constants, in order."""
    return list(dict.fromkeys(value for value in node.inputs if value is not None and not is_constant(value)))


# Attribute and default axes of what combines elements along axes; reductions without axes combine all.
_AXES: dict[str, tuple[str, tuple[int, ...] | None]] = {
    **dict.fromkeys(REDUCTIONS, ("axes", None)),
    **dict.fromkeys(
        ("Hardmax", "LayerNormalization", "LogSoftmax", "LpNormalization", "RMSNormalization", "Softmax"),
        ("axis", (-1,)),
    ),
    "MeanVarianceNormalization": ("axes", (0, 2, 3)),
}


def has_rows(value: ir.Value) -> bool:
    """Whether the answers to several rows can be concatenated on axis 0: it has extent 1 for one row.

    Any value of a graph without such an axis at its inputs does: a row is all of it there.
    """
    if (static_shape(value) or ())[:1] == (1,):
        return True
    producer = value.producer()
    inputs = producer.graph.inputs if producer is not None and producer.graph is not None else ()
    return any((static_shape(source) or ())[:1] != (1,) for source in inputs)


def mixes_rows(node: ir.Node) -> bool:
    """Whether a reduction or normalization combines different rows, or it is not known not to."""
    if node.op_type not in _AXES:
        return False
    source = node.inputs[0]
    shape = static_shape(source)
    if not shape:
        return True
    name, axes = _AXES[node.op_type]
    given = node.attributes.get(name)
    if given is not None:
        axes = tuple(np.ravel(given.value).tolist())
    elif len(node.inputs) > 1 and node.op_type in REDUCTIONS:
        listed = constant(node.inputs[1])
        axes = None if listed is None else tuple(listed.ravel().tolist())
    return shape[0] == 1 and (not axes or 0 in {axis % len(shape) for axis in axes})


def has_subgraphs(node: ir.Node) -> bool:
    """Whether `node` is control flow, which may read any value of the graph."""
    return any(attribute.type.name in ("GRAPH", "GRAPHS") for attribute in node.attributes.values())


def unique_name(graph: ir.Graph, stem: str) -> str:
    """`stem`, with a number if a value of `graph` has that name already."""
    taken = {value.name for value in (*graph.inputs, *graph.initializers.values())}
    taken.update(value.name for node in graph.all_nodes() for value in node.outputs)
    return free_name(stem, taken)


def free_name(stem: str, taken: Collection[str | None]) -> str:
    """`stem`, with the first number that makes it different from all `taken`."""
    name, number = stem, 0
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    return name


def name_nodes(graph: ir.Graph) -> None:
    """Give nodes without a name, or with the name of an earlier one, a name from their type and first output."""
    taken: set[str | None] = set()
    for node in graph:
        if not node.name or node.name in taken:
            node.name = free_name(f"{node.op_type}_{node.outputs[0].name}", taken)
        taken.add(node.name)


def bypass(node: ir.Node, source: ir.Value) -> bool:
    """Let everybody who reads the only output of `node` read `source` instead and remove the node, if names allow.

    A graph output keeps its name: `source` takes it over, which it cannot if it is named by the model's caller itself
    (as an input or another output). Returns whether the node is gone.
    """
    out, graph = node.outputs[0], node.graph
    if graph is None:
        return False
    if out.is_graph_output():
        if source.producer() is None or source.is_graph_output():
            return False
        name = out.name
        out.replace_all_uses_with(source, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        source.name = name
    else:
        out.replace_all_uses_with(source)
        graph.remove(node, safe=True)
    return True


def extract(model: ir.Model, inputs: Iterable[ir.Value], outputs: Iterable[ir.Value]) -> ir.Model:
    """A copy of what computes `outputs` from `inputs`, as a model with the same names."""
    import onnx_ir as ir

    graph = ir.convenience.extract(model.graph, tuple(inputs), tuple(outputs))
    return ir.Model(graph, ir_version=model.ir_version, producer_name=model.producer_name)


def float64(array: NDArray[Any]) -> NDArray[np.float64]:
    """`array` in the precision in which weights are folded."""
    return np.asarray(array, dtype=np.float64)


@dataclass(frozen=True)
class Maker:
    """Makes values in front of a node, named after its output."""

    model: ir.Model
    node: ir.Node

    def _name(self, suffix: str) -> str:
        return unique_name(self.model.graph, f"{self.node.outputs[0].name}_{suffix}")

    def constant(self, suffix: str, array: NDArray[Any]) -> ir.Value:
        """An initializer."""
        import onnx_ir as ir

        name = self._name(suffix)
        dtype = ir.DataType.from_numpy(array.dtype)
        value = ir.Value(
            name=name,
            type=ir.TensorType(dtype),
            shape=ir.Shape(array.shape),
            const_value=ir.tensor(array, name=name),
        )
        self.model.graph.register_initializer(value)
        return value

    def value(
        self,
        op_type: str,
        suffix: str,
        inputs: list[ir.Value],
        dtype: ir.DataType,
        shape: tuple[int, ...],
        **attributes: int,
    ) -> ir.Value:
        """The output of a new node."""
        import onnx_ir as ir

        name = self._name(suffix)
        new = ir.node(op_type, inputs, attributes, name=f"{op_type}_{name}")
        value = new.outputs[0]
        value.name, value.type, value.shape = name, ir.TensorType(dtype), ir.Shape(shape)
        self.model.graph.insert_before(self.node, new)
        return value
