"""Sums and maxima over whole axes, and running sums."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TypeAlias

import numpy as np

from fhelearn.frontends.onnx import combine
from fhelearn.frontends.onnx.operators.linear import times_weights
from fhelearn.frontends.onnx.operators.maxima import maxima
from fhelearn.frontends.onnx.quantizer import Quantizer
from fhelearn.frontends.onnx.registry import GraphNode, imports
from fhelearn.frontends.onnx.values import Clear, Encrypted, Tensor

_Map: TypeAlias = Callable[[Clear], Clear]

_AROUND_SUMS: dict[str, tuple[_Map | None, _Map | None]] = {
    "ReduceSum": (None, None),
    "ReduceMean": (None, None),
    "ReduceL1": (np.abs, None),
    "ReduceL2": (np.square, lambda total: np.sqrt(np.maximum(total, 0.0))),
    "ReduceSumSquare": (np.square, None),
    "ReduceLogSum": (None, np.log),
    "ReduceLogSumExp": (np.exp, np.log),
}
"""What is done to the elements before they are summed, and to the sum."""


@imports(*_AROUND_SUMS)
def reduce_sum(z: Quantizer, node: GraphNode) -> Tensor:
    """Sums over axes, of the elements or a function of them; a mean's divisor is part of the scale."""
    x = node.encrypted(0, "data")
    axes = _axes(node, x)
    before, after = _AROUND_SUMS[node.op_type]
    if x.kind != "f" and (after is not None or node.op_type == "ReduceMean"):
        raise node.unsupported("the data is integers", "cast it to floats before")
    kind = x.kind
    x = x if before is None else x.mapped(before, kind)
    if axes:
        keepdims = bool(node.attributes.get("keepdims", 1))
        count = prod(x.shape[a] for a in axes)
        x = z.total(x, axes, keepdims=keepdims, feeds_lookup=node.feeds_lookup or after is not None)
        x = combine.scaled(x, 1.0 / count) if node.op_type == "ReduceMean" else x
    return x if after is None else x.mapped(after)


@imports("ReduceMax", "ReduceMin")
def reduce_max(z: Quantizer, node: GraphNode) -> Tensor:
    """Maxima over axes; a minimum is that of the negated elements."""
    x = node.encrypted(0, "data")
    axes = _axes(node, x)
    if not axes:
        return x
    kept = [a for a in range(len(x.shape)) if a not in axes]
    order = (*kept, *axes)
    shape = tuple(x.shape[a] for a in kept)
    moved = z.static(x, "transpose", lambda a: np.transpose(a, order), axes=order)
    flat = z.reshape(moved, (*shape, prod(x.shape[a] for a in axes)))
    window = {len(shape): [tuple(range(flat.shape[-1]))]}
    if node.op_type == "ReduceMax":
        result = maxima(z, flat, window)
    else:
        result = combine.scaled(maxima(z, combine.scaled(_narrow(z, flat), -1.0), window), -1.0)
    if node.attributes.get("keepdims", 1):
        shape = tuple(1 if a in axes else n for a, n in enumerate(x.shape))
    return z.reshape(result, shape)


@imports("CumSum")
def cumulative_sum(z: Quantizer, node: GraphNode) -> Tensor:
    """A product with a triangle of ones."""
    x = node.encrypted(0, "data")
    last = len(x.shape) - 1
    axis = int(node.clear(1, "the axis").item())
    axis += len(x.shape) if axis < 0 else 0
    triangle = np.triu(np.ones((x.shape[axis],) * 2), k=int(bool(node.attributes.get("exclusive", 0))))
    if node.attributes.get("reverse", 0):
        triangle = triangle.T
    order = (*(a for a in range(last + 1) if a != axis), axis)
    back = tuple(np.argsort(order).tolist())
    kind = x.kind
    x = z.static(x, "transpose", lambda a: np.transpose(a, order), axes=order)
    x = times_weights(z, node, x, triangle)
    x = z.static(x, "transpose", lambda a: np.transpose(a, back), axes=back)
    return Encrypted(x.node, x.shape, x.scale, x.offset, kind)


def _narrow(z: Quantizer, x: Encrypted) -> Encrypted:
    """`x` as an affine tensor."""
    return x if x.affine else z.operand(x, range(len(x.shape) - 1))


def _axes(node: GraphNode, x: Encrypted) -> tuple[int, ...]:
    """The axes that are reduced, ascending; none if an empty list means none."""
    rank = len(x.shape)
    given = node.integers(1, "axes")
    if not given:
        return () if node.attributes.get("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted({a + rank if a < 0 else a for a in given}))
