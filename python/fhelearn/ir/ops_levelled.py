"""Operations that are linear in encrypted values: no lookups, nearly free when encrypted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np

from fhelearn.exceptions import ProgramError
from fhelearn.ir.interval import Bounds, linear_bounds
from fhelearn.ir.op_spec import Attributes, OpSpec
from fhelearn.ir.program import Value


def same_shape(operands: Sequence[Value], _: Attributes) -> tuple[int, ...]:
    """Shape rule of elementwise operations on two values."""
    x, y = operands
    if x.shape != y.shape:
        raise ProgramError(f"operands must have one shape, got {x.shape} and {y.shape}; insert a broadcast or reshape")
    return x.shape


def like_operand(operands: Sequence[Value], _: Attributes) -> tuple[int, ...]:
    """Shape rule of elementwise operations on one value."""
    return operands[0].shape


def broadcasts_to(source: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether an array of shape `source` broadcasts to exactly `target` by NumPy's rule."""
    if len(source) > len(target):
        return False
    return all(s in (1, t) for s, t in zip(source[::-1], target[::-1], strict=False))


def _matmul_shape(operands: Sequence[Value], a: Attributes) -> tuple[int, ...]:
    x, weights = operands[0], a["weights"]
    if weights.ndim != 2 or not weights.size:
        raise ProgramError(f"weights must be a non-empty matrix (k, m), got shape {weights.shape}")
    if not x.shape or x.shape[-1] != weights.shape[0]:
        raise ProgramError(f"last axis of operand shape {x.shape} must be weights.shape[0] = {weights.shape[0]}")
    return (*x.shape[:-1], int(weights.shape[1]))


def _matmul(operands: Sequence[Any], a: Attributes) -> Any:
    return operands[0] @ a["weights"]


def _matmul_bounds(operands: Sequence[Value], a: Attributes) -> Bounds:
    x, weights = operands[0], a["weights"]
    if x.bounds.lo.ndim == 0:  # one box for all: the rows of x need not be told apart
        x = Value(x.shape[-1:], x.bounds)
    products = x.size * weights.shape[1]
    return linear_bounds(x.bounds.broadcast(x.shape), weights, weights.shape[0], products, lambda b, w: b @ w)


def _window_shape(size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Any:
    """Output extents of a valid (unpadded) window operation."""
    rank = len(size)
    for what, given in (("strides", strides), ("dilations", dilations), ("kernel", kernel)):
        if len(given) != rank or any(type(v) is not int or v < 1 for v in given):
            raise ProgramError(f"{what} must be {rank} positive integers, got {tuple(given)}")
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    if any(span > extent for span, extent in zip(spans, size, strict=True)):
        raise ProgramError(f"window of extent {tuple(spans)} does not fit operand extents {tuple(size)}; pad first")
    return tuple((extent - span) // s + 1 for extent, span, s in zip(size, spans, strides, strict=True))


def _conv_shape(rank: int, operands: Sequence[Value], a: Attributes) -> tuple[int, ...]:
    x, weights, groups = operands[0], a["weights"], a["groups"]
    if len(x.shape) != rank + 1 or weights.ndim != rank + 2 or not weights.size:
        raise ProgramError(
            f"operand must have shape (channels, {rank} extents) and weights (out, in/groups, {rank} extents), "
            f"got {x.shape} and {weights.shape}"
        )
    if groups < 1 or x.shape[0] % groups or weights.shape[0] % groups or x.shape[0] // groups != weights.shape[1]:
        raise ProgramError(
            f"groups={groups} must divide {x.shape[0]} input and {weights.shape[0]} output channels, "
            f"and weights.shape[1]={weights.shape[1]} must be input channels / groups"
        )
    extents = _window_shape(x.shape[1:], weights.shape[2:], a["strides"], a["dilations"])
    return (int(weights.shape[0]), *extents)


def windows(x: Any, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Any:
    """Views of all windows: (n, C, *extents) -> (n, C, *out, *kernel)."""
    rank = len(kernel)
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    axes = tuple(range(2, 2 + rank))
    views = np.lib.stride_tricks.sliding_window_view(x, spans, axis=axes)  # type: ignore[call-overload]
    steps = tuple(slice(None, None, s) for s in strides)
    return views[(slice(None), slice(None), *steps, *(slice(None, None, d) for d in dilations))]


def _convolve(x: Any, weights: Any, a: Attributes) -> Any:
    groups, rank = a["groups"], len(a["strides"])
    views = windows(x, weights.shape[2:], a["strides"], a["dilations"])
    n, out_extents = views.shape[0], views.shape[2 : 2 + rank]
    grouped = views.reshape(n, groups, views.shape[1] // groups, *views.shape[2:])
    moved = np.moveaxis(grouped, 2, 2 + rank)  # (n, groups, *out, C/groups, *kernel)
    columns = moved.reshape(n, groups, int(np.prod(out_extents)), int(np.prod(weights.shape[1:])))
    kernels = weights.reshape(groups, weights.shape[0] // groups, -1)
    result = columns @ np.swapaxes(kernels, 1, 2)  # (n, groups, positions, O/groups)
    return np.swapaxes(result, 2, 3).reshape(n, weights.shape[0], *out_extents)


def _conv(operands: Sequence[Any], a: Attributes) -> Any:
    return _convolve(operands[0], a["weights"], a)


def _conv_bounds(operands: Sequence[Value], a: Attributes) -> Bounds:
    x, weights = operands[0], a["weights"]
    if x.bounds.lo.ndim == 0:  # one box for all: every window is like the first
        spans = (d * (k - 1) + 1 for k, d in zip(weights.shape[2:], a["dilations"], strict=True))
        x = Value((x.shape[0], *spans), x.bounds)
    full = x.bounds.broadcast(x.shape).map(lambda b: b[np.newaxis])
    terms = weights.size // weights.shape[0]
    products = terms * int(np.prod(_conv_shape(len(a["strides"]), [x], a)))
    return linear_bounds(full, weights, terms, products, lambda b, w: _convolve(b, w, a)).map(lambda b: b[0])


def _pool_shape(operands: Sequence[Value], a: Attributes) -> tuple[int, ...]:
    x = operands[0]
    if len(x.shape) != 3:
        raise ProgramError(f"operand must have shape (channels, height, width), got {x.shape}")
    return (x.shape[0], *_window_shape(x.shape[1:], a["kernel"], a["strides"], (1, 1)))


def _pool(operands: Sequence[Any], a: Attributes) -> Any:
    rows = windows(operands[0], (1, a["kernel"][1]), (1, a["strides"][1]), (1, 1)).sum(axis=(-2, -1))
    return windows(rows, (a["kernel"][0], 1), (a["strides"][0], 1), (1, 1)).sum(axis=(-2, -1))


def _scaled_bounds(evaluate: Any, terms: Callable[[Value, Attributes], int]) -> Any:
    """Bound rule of a plain sum: one box for all gives that box times the number of terms."""
    full = monotone_bounds(evaluate)

    def bounds(operands: Sequence[Value], a: Attributes) -> Bounds:
        x = operands[0]
        return x.bounds.map(lambda b: b * terms(x, a)) if x.bounds.lo.ndim == 0 else full(operands, a)

    return bounds


def monotone_bounds(evaluate: Any) -> Any:
    """Bound rule of an operation that is monotone in every operand: evaluate it on both ends."""

    def bounds(operands: Sequence[Value], a: Attributes) -> Bounds:
        full = [x.bounds.broadcast(x.shape) for x in operands]
        lo = evaluate([b.lo[np.newaxis] for b in full], a)
        hi = evaluate([b.hi[np.newaxis] for b in full], a)
        return Bounds(lo[0], hi[0])

    return bounds


def common_boxes(operands: Sequence[Value]) -> tuple[Bounds, ...]:
    """The operands' bounds, of one shape; scalars where every operand has one box for all its elements."""
    if all(v.bounds.lo.ndim == 0 for v in operands):
        return tuple(v.bounds for v in operands)
    return tuple(v.bounds.broadcast(v.shape) for v in operands)


def _add_bounds(operands: Sequence[Value], _: Attributes) -> Bounds:
    x, y = common_boxes(operands)
    return Bounds(x.lo + y.lo, x.hi + y.hi)


def _sub_bounds(operands: Sequence[Value], _: Attributes) -> Bounds:
    x, y = common_boxes(operands)
    return Bounds(x.lo - y.hi, x.hi - y.lo)


def _negate_bounds(operands: Sequence[Value], _: Attributes) -> Bounds:
    x = operands[0].bounds
    return Bounds(-x.hi, -x.lo)


def _constant_shape(operands: Sequence[Value], a: Attributes) -> tuple[int, ...]:
    x, value = operands[0], a["value"]
    if not broadcasts_to(value.shape, x.shape):
        raise ProgramError(f"value of shape {value.shape} must broadcast to the operand's shape {x.shape}")
    return x.shape


def _multiply_constant_bounds(operands: Sequence[Value], a: Attributes) -> Bounds:
    x = operands[0].bounds.broadcast(operands[0].shape)
    value = a["value"].astype(object)
    ends = [b * value for b in (x.lo, x.hi)]
    return Bounds(np.minimum(*ends), np.maximum(*ends))


def _sum_shape(operands: Sequence[Value], a: Attributes) -> tuple[int, ...]:
    shape, axes = operands[0].shape, a["axes"]
    if not axes or len(set(axes)) != len(axes) or any(not 0 <= axis < len(shape) for axis in axes):
        raise ProgramError(f"axes must be distinct axes of shape {shape} (the batch axis does not count), got {axes}")
    if a["keepdims"]:
        return tuple(1 if i in axes else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in axes)


def _terms(x: Value, a: Attributes) -> int:
    return prod(x.shape[axis] for axis in a["axes"])


def _sum(operands: Sequence[Any], a: Attributes) -> Any:
    return np.sum(operands[0], axis=tuple(axis + 1 for axis in a["axes"]), keepdims=a["keepdims"])


def _add(operands: Sequence[Any], _: Attributes) -> Any:
    return operands[0] + operands[1]


def _sub(operands: Sequence[Any], _: Attributes) -> Any:
    return operands[0] - operands[1]


def _negate(operands: Sequence[Any], _: Attributes) -> Any:
    return -operands[0]


def _add_constant(operands: Sequence[Any], a: Attributes) -> Any:
    return operands[0] + a["value"]


def _multiply_constant(operands: Sequence[Any], a: Attributes) -> Any:
    return operands[0] * a["value"]


_CONV: Any = {"weights": "array", "strides": "ints", "dilations": "ints", "groups": "int"}
_POOL: Any = {"kernel": "ints", "strides": "ints"}

SPECS: tuple[OpSpec, ...] = (
    OpSpec("matmul", "levelled", (1, 1), {"weights": "array"}, _matmul_shape, _matmul_bounds, _matmul),
    OpSpec("conv2d", "levelled", (1, 1), _CONV, partial(_conv_shape, 2), _conv_bounds, _conv),
    OpSpec("conv1d", "levelled", (1, 1), _CONV, partial(_conv_shape, 1), _conv_bounds, _conv),
    OpSpec(
        "sum_pool2d",
        "levelled",
        (1, 1),
        _POOL,
        _pool_shape,
        _scaled_bounds(_pool, lambda x, a: prod(a["kernel"])),
        _pool,
    ),
    OpSpec("add", "levelled", (2, 2), {}, same_shape, _add_bounds, _add),
    OpSpec("sub", "levelled", (2, 2), {}, same_shape, _sub_bounds, _sub),
    OpSpec("negate", "levelled", (1, 1), {}, like_operand, _negate_bounds, _negate),
    OpSpec(
        "add_constant",
        "levelled",
        (1, 1),
        {"value": "array"},
        _constant_shape,
        monotone_bounds(_add_constant),
        _add_constant,
    ),
    OpSpec(
        "multiply_constant",
        "levelled",
        (1, 1),
        {"value": "array"},
        _constant_shape,
        _multiply_constant_bounds,
        _multiply_constant,
    ),
    OpSpec(
        "sum", "levelled", (1, 1), {"axes": "ints", "keepdims": "bool"}, _sum_shape, _scaled_bounds(_sum, _terms), _sum
    ),
)
