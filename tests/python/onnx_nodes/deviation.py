"""How far a program's integers may be from what they would be if nothing was rounded, derived from the program alone.

A lookup rounds by half a step, and sees an operand that may be off itself. Weights were rounded by half of the largest
integer that divides all of a channel, if they use all their bits; smaller ones must be exact, as far as float32 goes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fhelearn.ir import OPS, Node, Program, evaluate

_WEIGHTED = ("matmul", "conv1d", "conv2d")
_LARGEST_WEIGHT = 127
_FLOAT32 = 2.0**-20
"""Of a channel's largest weight: the graph's weights are float32, whose own errors and sums differ by some 2**-23."""


def deviations(program: Program, inputs: Sequence[NDArray]) -> list[NDArray]:
    """Per output, in steps, float64 (n, *shape); inputs as for `evaluate`, and exact."""
    every = Program(program.nodes, tuple(range(len(program.nodes))))
    values = evaluate(every, inputs, on_overflow="error")
    found: list[NDArray] = []
    for node, value in zip(program.nodes, values, strict=True):
        found.append(_deviation(node, value, [values[i] for i in node.operands], [found[i] for i in node.operands]))
    return [found[i] for i in program.outputs]


def _deviation(node: Node, value: NDArray, x: list[NDArray], off: list[NDArray]) -> NDArray:
    spec, attributes = OPS[node.op], node.attributes
    if spec.kind == "source":
        return np.zeros(value.shape)
    if node.op in _WEIGHTED:
        return _weighted(node, x[0], off[0])
    if node.op == "table_lookup":
        return 0.5 + _window(node, x[0], off[0])
    if node.op in ("add", "sub"):
        return off[0] + off[1]
    if node.op == "multiply":
        return np.abs(x[0]) * off[1] + np.abs(x[1]) * off[0] + off[0] * off[1]
    if node.op == "maximum":
        return np.maximum(off[0], off[1])
    if node.op == "multiply_constant":
        return off[0] * np.abs(attributes["value"])
    if node.op in ("negate", "add_constant"):
        return off[0]
    if node.op == "round":
        return off[0] + np.abs(value - x[0])
    if node.op == "pad":
        attributes = {**attributes, "value": 0}
    if spec.kind == "static" or node.op in ("sum", "sum_pool2d"):
        return np.asarray(OPS[node.op].evaluate(off, attributes), dtype=np.float64)
    raise NotImplementedError(node.op)


def _weighted(node: Node, x: NDArray, off: NDArray) -> NDArray:
    weights = node.attributes["weights"]
    axis = 1 if node.op == "matmul" else 0
    rest = tuple(a for a in range(weights.ndim) if a != axis)
    channels = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)
    unit, largest = np.gcd.reduce(channels, axis=1), np.abs(channels).max(axis=1)
    unit = np.where(largest < _LARGEST_WEIGHT * unit, 2 * largest * _FLOAT32, unit)
    rounded = np.broadcast_to(np.expand_dims(unit / 2, rest), weights.shape)
    apply = OPS[node.op].evaluate
    return apply([off], {**node.attributes, "weights": np.abs(weights).astype(np.float64)}) + apply(
        [np.abs(x) + off], {**node.attributes, "weights": rounded}
    )


def _window(node: Node, x: NDArray, off: NDArray) -> NDArray:
    """The greatest change of the table around x, as far as its operand may be off."""
    table = node.attributes["table"]
    size = table.shape[-1]
    index = x - node.attributes["lo"]
    tables = np.broadcast_to(table, (*index.shape, size))
    reach = np.ceil(off - 1e-9).astype(np.int64)
    here = np.take_along_axis(tables, index[..., np.newaxis], -1)[..., 0]
    worst = np.zeros(index.shape)
    for distance in range(1, min(int(reach.max(initial=0)), size) + 1):
        for step in (-distance, distance):
            there = np.take_along_axis(tables, np.clip(index + step, 0, size - 1)[..., np.newaxis], -1)[..., 0]
            worst = np.maximum(worst, np.where(reach >= distance, np.abs(there - here), 0))
    return worst
