"""Operators that work element by element.

A function of one encrypted integer is composed and becomes a table when a linear operator (or an output) asks for it;
sums and products with constants change the scale or the offset only. Integers and booleans are never mixed with floats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fhelearn.frontends.onnx import combine
from fhelearn.frontends.onnx.compose import (
    compose,
    composed,
    evaluator,
    one_base,
    pole,
    precise,
    result_kind,
    tensor_kind,
    together,
)
from fhelearn.frontends.onnx.quantizer import Quantizer
from fhelearn.frontends.onnx.registry import GraphNode, imports
from fhelearn.frontends.onnx.values import Clear, Encrypted, Tensor, any_rank, kind_of, of_rank
from fhelearn.onnx.forward import node_function

UNARY = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Ceil", "Celu", "Clip", "Cos", "Cosh",
    "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish",
    "Not", "PRelu", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus",
    "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu",
)  # fmt: skip
"""Operators whose first input alone may be encrypted."""

Pair = Callable[[Quantizer, GraphNode, Encrypted, Encrypted], Encrypted]
"""What becomes of two encrypted tensors of one shape that are not functions of the same integers."""


@imports(*UNARY)
def unary(z: Quantizer, node: GraphNode) -> Tensor:
    """Any function of one encrypted tensor with constant parameters."""
    for position in range(1, len(node.inputs)):
        if node.has(position):
            node.clear(position, f"input {position}")
    return compose(z, node)


@imports("Identity", "Dropout")
def identity(z: Quantizer, node: GraphNode) -> Sequence[Tensor]:
    """The tensor itself; nothing is dropped from a model that predicts."""
    x = node.encrypted(0, "data")
    if node.op_type == "Dropout" and node.has(2) and node.clear(2, "training_mode").any():
        raise node.unsupported("training_mode is true", "export the model in evaluation mode")
    return x, np.ones(x.shape, dtype=np.bool_)


@imports("Cast", "CastLike")
def cast(z: Quantizer, node: GraphNode) -> Tensor:
    """Another type: free where every element fits it as it is. Float types are all the same here."""
    import onnx

    target = _target_type(node)
    kind = kind_of(target)
    if kind not in ("f", "i", "b") or not target.isnative or target.name not in _NUMPY_TYPES:
        raise node.unsupported(f"the target type is {target}", "cast to a type of NumPy's numbers or booleans")
    to = onnx.helper.np_dtype_to_tensor_dtype(target)
    proto = onnx.helper.make_node("Cast", ["x"], ["y"], name=node.name, to=to)
    x = node.inputs[0]
    if not isinstance(x, Encrypted):
        return node_function(proto, node.opset)(x)[0]
    if kind == x.kind == "f":
        return x
    if x.affine and kind != "b" and _is_whole(z, x) and (kind == "f" or _fits(z, x, target)):
        return replace(x, kind=kind)
    return composed(z, [x], evaluator(proto, node.opset, node.input_types), kind)


@imports("Neg")
def negative(z: Quantizer, node: GraphNode) -> Tensor:
    """A scale of the other sign."""
    x = node.encrypted(0, "data")
    return combine.scaled(x, -1.0) if x.affine and x.kind == "f" else compose(z, node)


@imports("Add", "Sub", "Mul", "Div")
def arithmetic(z: Quantizer, node: GraphNode) -> Tensor:
    """Sums and products: by constants they change the scale or the offset only."""
    x, y = _of_one_kind(node, "fi")
    if node.op_type == "Div":
        _refuse_zero(node, y)
    if isinstance(x, Encrypted) and isinstance(y, Encrypted):
        return binary(z, node)
    affine = _affine(z, node, x, y)
    return compose(z, node) if affine is None else affine


@imports("Max", "Min", "Sum", "Mean")
def variadic(z: Quantizer, node: GraphNode) -> Tensor:
    """Folds pairwise, first what is a function of the same integers; constants last. A mean is a sum, divided."""
    inputs = together(z, _of_one_kind(node, "f" if node.op_type in ("Sum", "Mean") else "fi"))
    pair, function = _FOLDS[node.op_type]
    encrypted = [t for t in inputs if isinstance(t, Encrypted)]
    bases = list(dict.fromkeys(t.node for t in encrypted))
    total, *rest = sorted(encrypted, key=lambda t: bases.index(t.node))
    for tensor in rest:
        total = _folded(z, node, pair, function, total, tensor)
    constant: Clear | None = None
    for value in (t for t in inputs if t is not None and not isinstance(t, Encrypted)):
        constant = value if constant is None else function(constant, value)
    if constant is not None:
        total = _with_constant(z, function, total, constant)
    return _divided(z, total, len(inputs)) if node.op_type == "Mean" else total


@imports(
    "Pow", "Mod", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "BitShift",
    "BitwiseAnd", "BitwiseOr", "BitwiseXor",
)  # fmt: skip
def binary(z: Quantizer, node: GraphNode) -> Encrypted:
    """A function of one encrypted tensor, or one of the operators that two encrypted tensors may meet in."""
    kinds = {"And": "b", "Or": "b", "Xor": "b", "Equal": "fib"}.get(node.op_type, "fi")
    x, y = node.inputs if node.op_type == "Pow" else _of_one_kind(node, kinds)
    if node.op_type == "Mod":
        _refuse_zero(node, y)
        if result_kind(node) == "f" and not node.attributes.get("fmod", 0):
            raise node.unsupported("fmod is 0 and the operands are floats", "set fmod to 1, as ONNX demands")
    if node.op_type == "Pow":
        _refuse_negative_power_of_integer(node, x, y)
    if one_base(node.inputs):
        same = node.op_type in ("Add", "Sub") and result_kind(node) == "f"
        if not same or not all(isinstance(t, Encrypted) and t.affine for t in (x, y)):
            return compose(z, node)
    pair = _PAIRS.get(node.op_type)
    if pair is None:
        raise node.unsupported("both operands are encrypted", "make one of them a constant")
    first, second = together(z, (x, y))
    assert isinstance(first, Encrypted)
    assert isinstance(second, Encrypted)
    return _in_type(z, node, pair(z, node, first, second))


@imports("Where")
def where(z: Quantizer, node: GraphNode) -> Tensor:
    """A choice by the server is free; one by an encrypted condition is a lookup of the condition beside the value."""
    condition, a, b = together(z, node.inputs)
    assert a is not None
    assert b is not None
    if isinstance(condition, Encrypted):
        return _where_encrypted(z, node, condition, a, b)
    encrypted, constant = (a, b) if isinstance(a, Encrypted) else (b, a)
    assert isinstance(encrypted, Encrypted)
    mask = np.broadcast_to(np.asarray(condition, dtype=np.bool_), encrypted.shape)
    if isinstance(constant, Encrypted):
        return combine.selected(z, mask, a, b)  # type: ignore[arg-type]
    if not encrypted.affine or encrypted.kind == "b" or not np.isfinite(constant).all():
        return compose(z, node)
    keep = mask if encrypted is a else ~mask
    return combine.scaled(encrypted, keep.astype(np.float64), np.where(keep, 0.0, constant))


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
    return composed(z, [x, factor, shift], lambda values: _of(values, 0) * _of(values, 1) + _of(values, 2), "f")


@imports("OneHot")
def one_hot(z: Quantizer, node: GraphNode) -> Tensor:
    """A comparison of every index with every class: one lookup for each."""
    x = node.encrypted(0, "the indices")
    depth = int(node.clear(1, "the depth").item())
    off, on = precise(node.clear(2, "the values"))  # type: ignore[misc]
    rank = len(x.shape) + 1
    axis = node.attributes.get("axis", -1) % rank
    classes = np.arange(depth).reshape([depth if a == axis else 1 for a in range(rank)])
    copies = z.reshape(x, (*x.shape[:axis], 1, *x.shape[axis:]))

    def chosen(values: Sequence[Clear | None]) -> Clear:
        index = np.trunc(_of(values, 0))
        return np.where(np.where(index < 0, index + depth, index) == _of(values, 1), on, off)

    return composed(z, [copies, classes], chosen, tensor_kind(node.inputs[2]))


# -- checks ------------------------------------------------------------------------------------------------------------

_NUMPY_TYPES = frozenset(
    ("bool", "float16", "float32", "float64", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
)


def _target_type(node: GraphNode) -> np.dtype[Any]:
    import onnx

    if node.op_type == "Cast":
        return onnx.helper.tensor_dtype_to_np_dtype(node.attributes["to"])
    like = node.inputs[1]
    known = node.input_types[1] if len(node.input_types) > 1 else None
    if known is not None or not isinstance(like, Encrypted):
        return np.asarray(like).dtype if known is None else known
    return np.dtype({"f": np.float64, "i": np.int64, "b": np.bool_}[like.kind])


def _of_one_kind(node: GraphNode, allowed: str) -> Sequence[Tensor]:
    """The operands, which ONNX wants to be of one type."""
    operands = [tensor for tensor in node.inputs if tensor is not None]
    kinds = {tensor_kind(tensor) for tensor in operands}
    if len(kinds) > 1 or not kinds <= set(allowed):
        names = {"f": "floats", "i": "integers", "b": "booleans"}
        met = " and ".join(sorted(names[kind] for kind in kinds))
        want = " or ".join(names[kind] for kind in allowed)
        raise node.unsupported(f"the operands are {met}, ONNX allows {want}, all of one type", "insert a Cast")
    return operands


def _refuse_zero(node: GraphNode, divisor: Tensor | None) -> None:
    if not isinstance(divisor, Encrypted) and not np.asarray(divisor).all():
        raise node.unsupported("the divisor holds 0", "divide by numbers other than 0")


def _refuse_negative_power_of_integer(node: GraphNode, base: Tensor | None, exponent: Tensor | None) -> None:
    if tensor_kind(base) == "i" and not isinstance(exponent, Encrypted) and (np.asarray(exponent) < 0).any():
        raise node.unsupported("an integer has a negative exponent", "cast the base to a float type")


def _is_whole(z: Quantizer, x: Encrypted) -> bool:
    """Whether an affine tensor holds integers, by its scale and offset (booleans: only 0 and 1)."""
    if not (np.rint(x.scale) == x.scale).all() or not (np.rint(x.offset) == x.offset).all():
        return False
    return x.kind != "b" or _fits(z, x, np.dtype(np.bool_))


def _fits(z: Quantizer, x: Encrypted, dtype: np.dtype[Any] | None) -> bool:
    """Whether all values that the bounds allow an affine tensor are in the range of an integer type, int64 if None."""
    ends = z.builder.value(x.node).bounds.broadcast(x.shape).to_int64()
    values = [x.scale * np.asarray(end, dtype=np.float64) + x.offset for end in ends]
    if dtype is not None and dtype.kind == "b":
        low, high = 0.0, 1.0
    else:
        limits = np.iinfo(np.int64 if dtype is None else dtype)
        low, high = float(limits.min), float(limits.max)
    return all(bool(((v >= low) & (v <= high)).all()) for v in values)


def _in_type(z: Quantizer, node: GraphNode, x: Encrypted) -> Encrypted:
    """The result of integer arithmetic, wrapped around where the graph's type cannot hold it."""
    dtype = node.input_types[0] if node.input_types else None
    if x.kind != "i" or dtype is None or (x.affine and _fits(z, x, dtype)):
        return x
    return x.mapped(lambda values: values.astype(dtype), "i")


# -- sums and products with constants ----------------------------------------------------------------------------------


def _affine(z: Quantizer, node: GraphNode, x: Tensor, y: Tensor) -> Encrypted | None:
    """The result of a sum or product with a constant as an affine tensor, or None if it is none."""
    tensor, constant = (x, y) if isinstance(x, Encrypted) else (y, x)
    assert isinstance(tensor, Encrypted)
    assert not isinstance(constant, Encrypted)
    if not tensor.affine or (node.op_type == "Div" and (tensor is y or tensor.kind == "i")):
        return None
    if not np.isfinite(constant).all() or (tensor.kind == "i" and not _is_whole(z, tensor)):
        return None
    shape = np.broadcast_shapes(tensor.shape, np.shape(constant))
    tensor = z.broadcast(tensor, shape)
    value = of_rank(constant, len(shape))
    if node.op_type == "Add":
        result = combine.scaled(tensor, 1.0, value)
    elif node.op_type == "Sub":
        result = combine.scaled(tensor, *((1.0, -value) if isinstance(x, Encrypted) else (-1.0, value)))
    else:
        result = combine.scaled(tensor, 1.0 / value if node.op_type == "Div" else value)
    dtype = node.input_types[0] if node.input_types else None
    return result if tensor.kind == "f" or _fits(z, result, dtype) else None


def _with_constant(z: Quantizer, function: Callable[[Clear, Clear], Clear], x: Encrypted, constant: Clear) -> Encrypted:
    if function is np.add and x.affine and np.isfinite(constant).all():
        return combine.scaled(x, 1.0, of_rank(constant, len(x.shape)))
    return composed(z, [x, constant], lambda values: function(_of(values, 0), _of(values, 1)), x.kind)


def _divided(z: Quantizer, x: Encrypted, count: int) -> Encrypted:
    return combine.scaled(x, 1.0 / count) if x.affine else x.mapped(lambda values: values / count)


def _of(values: Sequence[Clear | None], position: int) -> Clear:
    value = values[position]
    assert value is not None
    return value


# -- two encrypted tensors ---------------------------------------------------------------------------------------------


def _folded(
    z: Quantizer, node: GraphNode, pair: Pair, function: Callable[[Clear, Clear], Clear], x: Encrypted, y: Encrypted
) -> Encrypted:
    if x.node == y.node and not (function is np.add and x.affine and y.affine):
        return composed(z, [x, y], lambda values: function(_of(values, 0), _of(values, 1)), x.kind)
    return pair(z, node, x, y)


def _divide(z: Quantizer, node: GraphNode, x: Encrypted, y: Encrypted) -> Encrypted:
    """``x * (1 / y)``; the reciprocal is a table."""
    if x.kind == "i":
        raise node.unsupported("both operands are encrypted integers", "make the divisor a constant, or cast to floats")
    reciprocal = composed(z, [y], lambda values: 1.0 / _of(values, 0), "f", [pole(node, y)])
    return combine.multiply(z, x, reciprocal, feeds_lookup=node.feeds_lookup)


def _where_encrypted(z: Quantizer, node: GraphNode, condition: Encrypted, a: Tensor, b: Tensor) -> Encrypted:
    if one_base(node.inputs):
        return compose(z, node)
    kind, zero = result_kind(node), np.zeros(())
    if not (isinstance(a, Encrypted) and isinstance(b, Encrypted)):
        return _either(z, condition, a, b, kind)
    chosen = (_either(z, condition, a, zero, kind), _either(z, condition, zero, b, kind))
    return replace(combine.add(z, *chosen, feeds_lookup=node.feeds_lookup), kind=kind)


def _comparison(function: Callable[[Clear], Clear]) -> Pair:
    return lambda z, node, x, y: combine.of_difference(z, x, y, function)


def _logical(function: Callable[[Clear], Clear]) -> Pair:
    """A function of the number of true operands."""
    return lambda z, node, x, y: combine.of_count(z, x, y, function)


def _either(z: Quantizer, condition: Encrypted, a: Tensor, b: Tensor, kind: str) -> Encrypted:
    """`a` where the encrypted condition holds, else `b`; one of them is clear."""
    inputs = [condition, a, b]
    if one_base(inputs):
        return composed(z, inputs, lambda values: np.where(_of(values, 0), _of(values, 1), _of(values, 2)), kind)
    x, other = (a, b) if isinstance(a, Encrypted) else (b, a)
    assert isinstance(x, Encrypted)
    assert not isinstance(other, Encrypted)
    truth = condition if condition.affine else z.lookup(condition, 1)
    constant = any_rank(other)

    def choose(value: Clear, holds: Clear) -> Clear:
        return np.where(holds, value, constant) if x is a else np.where(holds, constant, value)

    return combine.of_pair(z, x, truth, choose, kind, uniform=np.size(other) == 1)


_PAIRS: dict[str, Pair] = {
    "Add": lambda z, node, x, y: combine.add(z, x, y, feeds_lookup=node.feeds_lookup),
    "Sub": lambda z, node, x, y: combine.subtract(z, x, y, feeds_lookup=node.feeds_lookup),
    "Mul": lambda z, node, x, y: combine.multiply(z, x, y, feeds_lookup=node.feeds_lookup),
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
_FOLDS: dict[str, tuple[Pair, Callable[[Clear, Clear], Clear]]] = {
    "Max": (lambda z, node, x, y: combine.maximum(z, x, y), np.maximum),
    "Min": (lambda z, node, x, y: combine.minimum(z, x, y), np.minimum),
    "Sum": (_PAIRS["Add"], np.add),
    "Mean": (_PAIRS["Add"], np.add),
}
