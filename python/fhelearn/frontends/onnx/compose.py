"""Functions of one encrypted integer, composed: however long the chain of operators, it is one table in the end.

The functions themselves are ONNX's reference implementations: in float64, in the graph's integer types, on booleans.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fhelearn.frontends.onnx.quantizer import Quantizer
from fhelearn.frontends.onnx.registry import GraphNode
from fhelearn.frontends.onnx.values import Clear, Encrypted, Function, Pole, Tensor, any_rank, kind_of
from fhelearn.onnx.forward import node_function
from fhelearn.typing import IntArray

if TYPE_CHECKING:
    from onnx import NodeProto

_BOOLEAN = frozenset(
    ("And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not", "Or", "Xor")
)
"""Operators whose result is boolean whatever their operands are."""


def one_base(inputs: Sequence[Tensor | None]) -> bool:
    """Whether all encrypted tensors are functions of the same integers, element by element."""
    return len({tensor.node for tensor in inputs if isinstance(tensor, Encrypted)}) == 1


def together(z: Quantizer, inputs: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The tensors, encrypted ones in their common shape, clear floats as float64."""
    shape = np.broadcast_shapes(*(t.shape for t in inputs if t is not None))
    return [z.broadcast(t, shape) if isinstance(t, Encrypted) else precise(t) for t in inputs]


def precise(tensor: Clear | None) -> Clear | None:
    """Floats as float64, everything else as it is."""
    return tensor.astype(np.float64) if tensor is not None and tensor.dtype.kind == "f" else tensor


def compose(z: Quantizer, node: GraphNode, inputs: Sequence[Tensor | None] | None = None) -> Encrypted:
    """The node on `inputs` (its own unless given), all encrypted ones of which are functions of the same integers."""
    inputs = node.inputs if inputs is None else inputs
    return composed(
        z,
        inputs,
        evaluator(node.proto, node.opset, node.input_types),
        result_kind(node),
        _poles(node, inputs),
    )


def evaluator(
    proto: NodeProto, opset: int, types: Sequence[np.dtype[Any] | None] = ()
) -> Callable[[list[Clear | None]], Clear]:
    """The node's first result as a function of its operands; integers wrap around as those of the graph's types do."""
    function = node_function(proto, opset)

    def evaluate(values: list[Clear | None]) -> Clear:
        known = [*types, *(None,) * len(values)]
        typed = [
            v.astype(t) if v is not None and t is not None and v.dtype.kind == "i" and t.kind in "iu" else v
            for v, t in zip(values, known, strict=False)
        ]
        return function(*typed)[0]

    return evaluate


def composed(
    z: Quantizer,
    inputs: Sequence[Tensor | None],
    function: Callable[[list[Clear | None]], Clear],
    kind: str,
    poles: Sequence[Pole] = (),
) -> Encrypted:
    """``function(inputs)``, elementwise; what it closes over must be the same for every element."""
    tensors = together(z, inputs)
    encrypted = [t for t in tensors if isinstance(t, Encrypted)]

    def call(q: IntArray) -> Clear:
        with np.errstate(all="ignore"):
            return function([None if t is None else _elements(t, q) for t in tensors])

    uniform = all(t is None or (t.uniform if isinstance(t, Encrypted) else t.size == 1) for t in tensors)
    inherited = [pole for tensor in encrypted for pole in tensor.poles]
    base = encrypted[0]
    one = np.ones((1,) * len(base.shape))
    made = Function(call, uniform, (*inherited, *poles))
    return replace(base, scale=one, offset=0 * one, kind=kind, function=made, source="")


def _elements(tensor: Tensor, q: IntArray) -> Clear:
    return tensor.at(q) if isinstance(tensor, Encrypted) else any_rank(tensor)


def pole(node: GraphNode, divisor: Encrypted) -> Pole:
    """Where an encrypted divisor of the node is zero."""
    return Pole(str(node), divisor.at, divisor.kind == "i")


def _poles(node: GraphNode, inputs: Sequence[Tensor | None]) -> list[Pole]:
    if node.op_type == "Reciprocal":
        divisor = inputs[0]
    elif node.op_type in ("Div", "Mod"):
        divisor = inputs[1]
    elif node.op_type == "Pow":
        base, exponent = (np.zeros(()) if tensor is None else tensor for tensor in inputs)
        return [Pole(str(node), lambda q: np.where(_elements(exponent, q) < 0, _elements(base, q), 1), False)]
    else:
        return []
    return [pole(node, divisor)] if isinstance(divisor, Encrypted) else []


def result_kind(node: GraphNode) -> str:
    """What the elements of the node's result are: "f", "i" or "b"."""
    if node.op_type in _BOOLEAN:
        return "b"
    return tensor_kind(node.inputs[1 if node.op_type == "Where" else 0])


def tensor_kind(tensor: Tensor | None) -> str:
    """What the elements of a clear or encrypted tensor are: "f", "i" or "b"."""
    return tensor.kind if isinstance(tensor, Encrypted) else kind_of(np.asarray(tensor).dtype)
