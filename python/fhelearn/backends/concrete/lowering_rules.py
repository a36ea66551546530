"""How each op becomes FHELinalg text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from fhelearn.backends.concrete.lowering import FunctionLowering, messages
from fhelearn.backends.concrete.mlir import Wire, dense_i64, ints
from fhelearn.exceptions import LoweringError
from fhelearn.ir import Node
from fhelearn.typing import IntArray

Rule = Callable[[FunctionLowering, int, Node], Wire]


def _constant(f: FunctionLowering, index: int, node: Node) -> Wire:
    like = f.like(index)
    value = node.array("value")
    value = value.reshape((1, *(value.shape or (1,))))
    zeros = f.text.zeros(replace(like, shape=(like.shape[0], *value.shape[1:])))
    return f.text.reshape(f.text.add_clear(zeros, value), like.shape)


def _matmul(f: FunctionLowering, index: int, node: Node) -> Wire:
    x, weights = f.wide(node), node.array("weights")
    rows = int(np.prod(x.shape[:-1]))
    matrix = f.text.reshape(x, (rows, x.shape[-1]))
    flat = replace(f.like(index), shape=(rows, weights.shape[1]))
    result = f.text.emit("FHELinalg.matmul_eint_int", (matrix, f.text.constant(weights)), flat)
    return f.text.reshape(result, f.like(index).shape)


def _conv2d(f: FunctionLowering, index: int, node: Node) -> Wire:
    x = f.wide(node)
    return _convolve(
        f,
        x,
        node.array("weights"),
        f.like(index),
        node.integers("strides"),
        node.integers("dilations"),
        node.integer("groups"),
    )


def _conv1d(f: FunctionLowering, index: int, node: Node) -> Wire:
    """A convolution over an image of height one."""
    x, like, weights = f.wide(node), f.like(index), node.array("weights")
    image = f.text.reshape(x, (*x.shape[:2], 1, x.shape[2]))
    result = replace(like, shape=(*like.shape[:2], 1, like.shape[2]))
    strides, dilations = (1, *node.integers("strides")), (1, *node.integers("dilations"))
    convolved = _convolve(f, image, weights[:, :, np.newaxis], result, strides, dilations, node.integer("groups"))
    return f.text.reshape(convolved, like.shape)


def _sum_pool2d(f: FunctionLowering, index: int, node: Node) -> Wire:
    """A convolution of each channel with ones."""
    x = f.wide(node)
    channels = x.shape[1]
    ones = np.ones((channels, 1, *node.integers("kernel")), dtype=np.int64)
    return _convolve(f, x, ones, f.like(index), node.integers("strides"), (1, 1), channels)


def _convolve(
    f: FunctionLowering,
    x: Wire,
    weights: IntArray,
    like: Wire,
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    groups: int,
) -> Wire:
    attributes = (
        f"padding = {dense_i64((0, 0, 0, 0))}, strides = {dense_i64(strides)}, "
        f"dilations = {dense_i64(dilations)}, group = {groups} : i64"
    )
    return f.text.emit("FHELinalg.conv2d", (x, f.text.constant(weights)), like, attributes)


def _add(f: FunctionLowering, index: int, node: Node) -> Wire:
    return f.text.emit("FHELinalg.add_eint", (f.wide(node, 0), f.wide(node, 1)), f.like(index))


def _sub(f: FunctionLowering, index: int, node: Node) -> Wire:
    return f.text.emit("FHELinalg.sub_eint", (f.wide(node, 0), f.wide(node, 1)), f.like(index))


def _negate(f: FunctionLowering, index: int, node: Node) -> Wire:
    return f.text.emit("FHELinalg.neg_eint", (f.wide(node),), f.like(index))


def _add_constant(f: FunctionLowering, index: int, node: Node) -> Wire:
    return f.text.add_clear(f.wide(node), _aligned(f, index, node))


def _multiply_constant(f: FunctionLowering, index: int, node: Node) -> Wire:
    factor = f.text.constant(_aligned(f, index, node))
    return f.text.emit("FHELinalg.mul_eint_int", (f.wide(node), factor), f.like(index))


def _aligned(f: FunctionLowering, index: int, node: Node) -> IntArray:
    """The attribute ``value`` with as many axes as the batch."""
    value = node.array("value")
    return value.reshape((1,) * (len(f.like(index).shape) - value.ndim) + value.shape)


def _sum(f: FunctionLowering, index: int, node: Node) -> Wire:
    attributes = f"axes = {ints([a + 1 for a in node.integers('axes')])}, keep_dims = false"
    like = f.like(index)
    x = f.wide(node)
    kept = tuple(d for i, d in enumerate(x.shape) if i - 1 not in node.integers("axes"))
    result = f.text.emit("FHELinalg.sum", (x,), replace(like, shape=kept), attributes)
    return f.text.reshape(result, like.shape)


def _table_lookup(f: FunctionLowering, index: int, node: Node) -> Wire:
    x, table = f.operand(node), node.array("table")
    f.check_lookup(index, x)
    positions = np.clip((messages(x) << x.shift) - node.integer("lo"), 0, table.shape[-1] - 1)
    entries = table[..., positions].reshape(-1, len(positions))
    numbers: dict[bytes, int] = {}  # equal tables are emitted once
    which = [numbers.setdefault(row.tobytes(), len(numbers)) for row in entries]
    if len(numbers) == 1:
        return f.lookup(index, x, f.like(index), entries[0])
    different = np.stack([np.frombuffer(row, dtype=np.int64) for row in numbers])
    choice = np.broadcast_to(np.array(which, dtype=np.int64).reshape(table.shape[:-1]), x.shape)
    return f.lookup(index, x, f.like(index), different, np.ascontiguousarray(choice))


def _round(f: FunctionLowering, index: int, node: Node) -> Wire:
    """Exact rounding clears the low bits with lookups, approximate rounding relabels them; both narrow the encoding."""
    x, lsbs = f.operand(node), node.integer("lsbs")
    if lsbs <= x.shift:  # already a multiple
        return x
    if x.shift and not x.exact:
        x = f.wide(node)
    drop = lsbs - x.shift
    like = f.like(index)
    if x.bit_width - drop < 1:  # every value rounds to zero
        return f.text.zeros(like)
    narrow = replace(like, bit_width=x.bit_width - drop, shift=lsbs, exact=not f.must_refresh(index))
    if node.attributes["method"] == "approximate":
        return f.text.emit("FHELinalg.reinterpret_precision", (x,), narrow)
    if x.bit_width > 16:
        raise LoweringError(
            f"{f.program.label(index)}: rounds {x.bit_width}-bit values exactly, at most 16 bits can be; "
            "use method='approximate', or fewer bits for inputs and weights"
        )
    for removed in range(drop):
        f.lookups[x.bit_width - removed] += int(np.prod(x.shape))
    return f.text.emit("FHELinalg.round", (x,), narrow)


def _reshape(f: FunctionLowering, index: int, node: Node) -> Wire:
    return f.text.reshape(f.operand(node), f.like(index).shape)


def _transpose(f: FunctionLowering, index: int, node: Node) -> Wire:
    x, axes = f.operand(node), node.integers("axes")
    result = replace(x, shape=f.like(index).shape)
    if not axes:
        return x
    return f.text.emit("FHELinalg.transpose", (x,), result, f"axes = {ints([0, *(a + 1 for a in axes)])}")


def _concatenate(f: FunctionLowering, index: int, node: Node) -> Wire:
    """Pieces written into zeros: ``FHELinalg.concat`` of many pieces takes the compiler minutes."""
    pieces = [f.operand(node, i) for i in range(len(node.operands))]
    if len({(p.shift, p.bit_width) for p in pieces}) > 1:
        pieces = [f.wide(node, i) for i in range(len(node.operands))]
    if len(pieces) == 1:
        return pieces[0]
    axis = node.integer("axis") + 1
    exact = all(p.exact for p in pieces)
    result = f.text.zeros(replace(pieces[0], shape=f.like(index).shape))
    start = 0
    for piece in pieces:
        offsets = [0] * len(piece.shape)
        offsets[axis] = start
        result = f.text.insert(piece, result, offsets)
        start += piece.shape[axis]
    return replace(result, exact=exact)


def _slice(f: FunctionLowering, index: int, node: Node) -> Wire:
    x = f.operand(node)
    if not node.value.shape:
        return x
    starts, steps = (0, *node.integers("starts")), (1, *node.integers("steps"))
    return f.text.extract(x, starts, f.like(index).shape, steps)


def _gather(f: FunctionLowering, index: int, node: Node) -> Wire:
    x = f.operand(node)
    return _take(f, x, np.take(_positions(x), node.array("indices"), axis=node.integer("axis") + 1))


def _broadcast(f: FunctionLowering, index: int, node: Node) -> Wire:
    x, shape = f.operand(node), f.like(index).shape
    aligned = _positions(x).reshape(x.shape[0], *(1,) * (len(shape) - len(x.shape)), *x.shape[1:])
    return _take(f, x, np.broadcast_to(aligned, shape))


def _positions(x: Wire) -> IntArray:
    return np.arange(int(np.prod(x.shape)), dtype=np.int64).reshape(x.shape)


def _take(f: FunctionLowering, x: Wire, positions: IntArray) -> Wire:
    if positions.size == int(np.prod(x.shape)) and np.array_equal(positions.ravel(), _positions(x).ravel()):
        return f.text.reshape(x, positions.shape)
    return f.text.take(x, positions)


def _pad(f: FunctionLowering, index: int, node: Node) -> Wire:
    x, before, value = f.operand(node), node.integers("before"), node.integer("value")
    if not any(before) and not any(node.integers("after")):
        return x
    if value % (1 << x.shift):
        x = f.wide(node)
    shape = f.like(index).shape
    frame = f.text.zeros(replace(x, shape=shape))
    if value:
        frame = f.text.add_clear(frame, np.full((1,) * len(shape), value >> x.shift, dtype=np.int64))
    return replace(f.text.insert(x, frame, (0, *before)), exact=x.exact)


RULES: Mapping[str, Rule] = {
    "constant": _constant,
    "matmul": _matmul,
    "conv2d": _conv2d,
    "conv1d": _conv1d,
    "sum_pool2d": _sum_pool2d,
    "add": _add,
    "sub": _sub,
    "negate": _negate,
    "add_constant": _add_constant,
    "multiply_constant": _multiply_constant,
    "sum": _sum,
    "table_lookup": _table_lookup,
    "round": _round,
    "reshape": _reshape,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "slice": _slice,
    "gather": _gather,
    "broadcast": _broadcast,
    "pad": _pad,
}
