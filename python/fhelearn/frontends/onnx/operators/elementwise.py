"""Operators that work element by element.

A function of one encrypted integer, however long the chain of operators, is composed and becomes one table when a linear
operator (or an output) asks for it. The functions themselves are ONNX's reference implementations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fhelearn.frontends.onnx import combine
from fhelearn.frontends.onnx.quantizer import Quantizer
from fhelearn.frontends.onnx.registry import GraphNode, imports
from fhelearn.frontends.onnx.values import Clear, Encrypted, Function, Tensor, of_rank
from fhelearn.onnx.forward import node_function
from fhelearn.typing import IntArray

UNARY = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Cos", "Cosh",
    "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish",
    "Not", "PRelu", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus",
    "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu",
)  # fmt: skip
"""Operators whose first input alone may be encrypted."""

_ENCRYPTED_PAIRS: dict[str, Callable[[Quantizer, GraphNode, Encrypted, Encrypted], Encrypted]] = {}
_BOOLEAN = ("And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not", "Or", "Xor")


@imports(*UNARY)
def unary(z: Quantizer, node: GraphNode) -> Tensor:
    """Any function of one encrypted tensor with constant parameters."""
    for position in range(1, len(node.inputs)):
        if node.has(position) and node.op_type != "CastLike":
            node.clear(position, f"input {position}")
    return compose(z, node)


@imports("Identity", "Dropout")
def identity(z: Quantizer, node: GraphNode) -> Tensor:
    """The tensor itself."""
    return node.encrypted(0, "data")


@imports("Neg")
def negative(z: Quantizer, node: GraphNode) -> Tensor:
    """A scale of the other sign."""
    x = node.encrypted(0, "data")
    return combine.scaled(x, -1.0) if x.affine and x.kind != "b" else compose(z, node)


@imports("Add", "Sub", "Mul", "Div")
def arithmetic(z: Quantizer, node: GraphNode) -> Tensor:
    """Sums and products: by constants they change the scale or the offset only."""
    x, y = node.inputs
    if not (isinstance(x, Encrypted) and isinstance(y, Encrypted)):
        affine = _affine(z, node, x, y)
        return compose(z, node) if affine is None else affine
    return binary(z, node)


@imports("Max", "Min", "Sum", "Mean")
def variadic(z: Quantizer, node: GraphNode) -> Tensor:
    """Folds pairwise; a mean is a sum, divided."""
    if _one_base(node.inputs):
        return compose(z, node)
    pair = {"Max": _max, "Min": _min, "Sum": _add, "Mean": _add}[node.op_type]
    shape = np.broadcast_shapes(*(t.shape for t in node.inputs if t is not None))
    total: Tensor | None = None
    for tensor in node.inputs:
        assert tensor is not None
        total = tensor if total is None else _pairwise(z, node, pair, total, tensor, shape)
    assert isinstance(total, Encrypted)
    return combine.scaled(total, 1.0 / len(node.inputs)) if node.op_type == "Mean" else total


@imports("Pow", "Mod", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "BitShift")
def binary(z: Quantizer, node: GraphNode) -> Tensor:
    """A function of one encrypted tensor, or one of the operators that two encrypted tensors may meet in."""
    if _one_base(node.inputs):
        return compose(z, node)
    combined = _ENCRYPTED_PAIRS.get(node.op_type)
    if combined is None:
        raise node.unsupported("both operands are encrypted", "make one of them a constant")
    x, y = node.encrypted(0, "the first operand"), node.encrypted(1, "the second operand")
    shape = np.broadcast_shapes(x.shape, y.shape)
    return combined(z, node, z.broadcast(_ranked(z, x, len(shape)), shape), z.broadcast(_ranked(z, y, len(shape)), shape))


@imports("Where")
def where(z: Quantizer, node: GraphNode) -> Tensor:
    """``b + condition * (a - b)`` where more than one encrypted tensor decides."""
    if _one_base(node.inputs):
        return compose(z, node)
    condition, a, b = (_as_encrypted(z, node, t) for t in _broadcast(z, node.inputs))
    chosen = combine.multiply(z, condition, combine.subtract(z, a, b))
    return combine.add(z, chosen, b)


@imports("BatchNormalization")
def batch_normalization(z: Quantizer, node: GraphNode) -> Tensor:
    """A scale and an offset per channel (axis 1)."""
    if node.attributes.get("training_mode", 0):
        raise node.unsupported("training_mode is 1", "export the model in evaluation mode")
    x = node.encrypted(0, "data")
    shape = [-1 if axis == 1 else 1 for axis in range(len(x.shape))]
    names = ("scale", "bias", "mean", "variance")
    gamma, beta, mean, variance = (
        node.clear(i + 1, name).astype(np.float64).reshape(shape) for i, name in enumerate(names)
    )
    factor = gamma / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
    shift = beta - mean * factor
    if x.affine:
        return combine.scaled(x, factor, shift)
    return _composed(z, [x], lambda values: values[0] * factor + shift, "f")


def compose(z: Quantizer, node: GraphNode) -> Encrypted:
    """The node as a function of the one integer that all its encrypted operands are functions of."""
    function = node_function(node.proto, node.opset)
    kind = _result_kind(node)
    return _composed(z, node.inputs, lambda values: function(*values)[0], kind)


def _composed(
    z: Quantizer, inputs: Sequence[Tensor | None], function: Callable[[list[Clear | None]], Clear], kind: str
) -> Encrypted:
    tensors = _broadcast(z, inputs)
    base = next(t for t in tensors if isinstance(t, Encrypted))

    def call(q: IntArray) -> Clear:
        with np.errstate(all="ignore"):
            return function([t.at(q) if isinstance(t, Encrypted) else t for t in tensors])

    uniform = all(t is None or (t.uniform if isinstance(t, Encrypted) else t.size == 1) for t in tensors)
    one = np.ones((1,) * len(base.shape))
    return Encrypted(base.node, base.shape, one, 0 * one, kind, Function(call, uniform))


def _result_kind(node: GraphNode) -> str:
    if node.op_type in _BOOLEAN:
        return "b"
    if node.op_type == "Cast":
        import onnx

        dtype = onnx.helper.tensor_dtype_to_np_dtype(node.attributes["to"])
        return {"u": "i"}.get(dtype.kind, dtype.kind)
    like = node.inputs[{"CastLike": 1, "Where": 1}.get(node.op_type, 0)]
    return like.kind if isinstance(like, Encrypted) else {"u": "i"}.get(like.dtype.kind, like.dtype.kind)  # type: ignore[union-attr]


def _broadcast(z: Quantizer, inputs: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The tensors, encrypted ones in their common shape, constants of the model's precision as float64."""
    shape = np.broadcast_shapes(*(t.shape for t in inputs if t is not None))
    result: list[Tensor | None] = []
    moved: dict[int, Encrypted] = {}
    for tensor in inputs:
        if isinstance(tensor, Encrypted):
            if id(tensor) not in moved:
                moved[id(tensor)] = z.broadcast(_ranked(z, tensor, len(shape)), shape)
            result.append(moved[id(tensor)])
        elif tensor is not None and tensor.dtype.kind == "f":
            result.append(tensor.astype(np.float64))
        else:
            result.append(tensor)
    return result


def _ranked(z: Quantizer, x: Encrypted, rank: int) -> Encrypted:
    return z.reshape(x, (1,) * (rank - len(x.shape)) + x.shape)


def _one_base(inputs: Sequence[Tensor | None]) -> bool:
    """Whether all encrypted tensors are functions of the same integers, element by element."""
    encrypted = [t for t in inputs if isinstance(t, Encrypted)]
    return len({(t.node, t.shape) for t in encrypted}) == 1


def _affine(z: Quantizer, node: GraphNode, x: Tensor | None, y: Tensor | None) -> Encrypted | None:
    """The result of a sum or product with a constant as an affine tensor, or None if it is none."""
    tensor, constant = (x, y) if isinstance(x, Encrypted) else (y, x)
    assert isinstance(tensor, Encrypted)
    if not tensor.affine or tensor.kind != "f" or (node.op_type == "Div" and tensor is y):
        return None
    shape = np.broadcast_shapes(tensor.shape, np.shape(constant))
    tensor = z.broadcast(_ranked(z, tensor, len(shape)), shape)
    value = of_rank(constant, len(shape))
    if node.op_type == "Add":
        return combine.scaled(tensor, 1.0, value)
    if node.op_type == "Sub":
        return combine.scaled(tensor, 1.0, -value) if isinstance(x, Encrypted) else combine.scaled(tensor, -1.0, value)
    if node.op_type == "Div" and not value.all():
        raise node.unsupported("the divisor holds 0", "divide by numbers other than 0")
    return combine.scaled(tensor, 1.0 / value if node.op_type == "Div" else value)


def _as_encrypted(z: Quantizer, node: GraphNode, tensor: Tensor | None) -> Encrypted:
    """A constant as a tensor of the program, whose integers are all 0."""
    if isinstance(tensor, Encrypted):
        return tensor
    assert tensor is not None
    value = np.asarray(tensor, dtype=np.float64)
    zero = z.constant(np.zeros(value.shape, dtype=np.int64))
    return Encrypted(zero, value.shape, np.ones((1,) * value.ndim), value, "f")


def _pairwise(
    z: Quantizer,
    node: GraphNode,
    pair: Callable[[Quantizer, GraphNode, Encrypted, Encrypted], Encrypted],
    x: Tensor,
    y: Tensor,
    shape: tuple[int, ...],
) -> Tensor:
    if not isinstance(x, Encrypted) and not isinstance(y, Encrypted):
        return {"Max": np.maximum, "Min": np.minimum}.get(node.op_type, np.add)(x, y)
    tensors = [t if isinstance(t, Encrypted) else np.broadcast_to(t, shape) for t in (x, y)]
    constant = next((t for t in tensors if not isinstance(t, Encrypted)), None)
    if constant is not None or tensors[0].node == tensors[1].node:  # type: ignore[union-attr]
        function = {"Max": np.maximum, "Min": np.minimum}.get(node.op_type, np.add)
        return _composed(z, tensors, lambda values: function(values[0], values[1]), _result_kind(node))
    first, second = _broadcast(z, tensors)
    assert isinstance(first, Encrypted)
    assert isinstance(second, Encrypted)
    return pair(z, node, first, second)


def _add(z: Quantizer, node: GraphNode, x: Encrypted, y: Encrypted) -> Encrypted:
    return combine.add(z, x, y)


def _max(z: Quantizer, node: GraphNode, x: Encrypted, y: Encrypted) -> Encrypted:
    return combine.maximum(z, x, y)


def _min(z: Quantizer, node: GraphNode, x: Encrypted, y: Encrypted) -> Encrypted:
    x, y = combine.on_common_grid(z, x, y)
    return combine.scaled(combine.maximum(z, *(combine.negated(z, t) for t in (x, y))), -1.0)


def _divide(z: Quantizer, node: GraphNode, x: Encrypted, y: Encrypted) -> Encrypted:
    """``x * (1 / y)``; the reciprocal is a table."""
    denominator = z.lookup(y, z.settings.n_bits.op_inputs)
    q = np.arange(z.builder.value(denominator.node).bounds.minimum, z.builder.value(denominator.node).bounds.maximum + 1)
    if (denominator.at(q.reshape(-1, *(1,) * len(y.shape))) == 0).any():
        raise node.unsupported(
            "the encrypted denominator can be 0", "keep it away from 0, for instance by Clip or by adding a constant"
        )
    reciprocal = _composed(z, [denominator], lambda values: 1.0 / np.asarray(values[0]), "f")
    return combine.multiply(z, x, reciprocal)


def _comparison(function: Callable[[Clear], Clear]) -> Callable[[Quantizer, GraphNode, Encrypted, Encrypted], Encrypted]:
    return lambda z, node, x, y: combine.of_difference(z, x, y, function)


def _logical(function: Callable[[Clear], Clear]) -> Callable[[Quantizer, GraphNode, Encrypted, Encrypted], Encrypted]:
    """A function of the number of true operands."""

    def combined(z: Quantizer, node: GraphNode, x: Encrypted, y: Encrypted) -> Encrypted:
        total = combine.add(z, *(z.operand(t, bits=1) for t in (x, y)))
        return _composed(z, [total], lambda values: function(np.rint(np.asarray(values[0], dtype=np.float64))), "b")

    return combined


_ENCRYPTED_PAIRS |= {
    "Add": _add,
    "Sub": lambda z, node, x, y: combine.subtract(z, x, y),
    "Mul": lambda z, node, x, y: combine.multiply(z, x, y),
    "Div": _divide,
    "Equal": _comparison(lambda d: d == 0),
    "Greater": _comparison(lambda d: d > 0),
    "GreaterOrEqual": _comparison(lambda d: d >= 0),
    "Less": _comparison(lambda d: d < 0),
    "LessOrEqual": _comparison(lambda d: d <= 0),
    "And": _logical(lambda count: count > 1),
    "Or": _logical(lambda count: count > 0),
    "Xor": _logical(lambda count: count == 1),
}
