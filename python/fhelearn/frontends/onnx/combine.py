"""Operators on two encrypted tensors: sums, products, maxima and what follows from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from fhelearn.frontends.onnx.quantizer import Quantizer
from fhelearn.frontends.onnx.settings import WIDEST_LOOKUP
from fhelearn.frontends.onnx.values import Clear, Encrypted, Function, Pole, compact, of_rank, steps_of, varies_along
from fhelearn.ir import DeclaredBounds
from fhelearn.quantization.grids import Grid
from fhelearn.typing import FloatArray, IntArray, Provenance

_SPARE_BITS = 4
"""A sum without a lookup may be this much wider than its operands if a lookup will read it."""

_FACTOR_BITS = 7
"""Of factors whose product is at most as wide as a lookup can read, signs included."""

_WIDEST_SUM = 40
"""Bits of the widest sum without a lookup that only the client will read."""


def scaled(x: Encrypted, factor: FloatArray | float, shift: FloatArray | float = 0.0) -> Encrypted:
    """``factor * x + shift`` of an affine tensor, nothing emitted; the arrays broadcast to the tensor's shape."""
    scale, offset = np.broadcast_arrays(x.scale * factor, x.offset * factor + shift)
    return replace(x, scale=compact(np.array(scale)), offset=compact(np.array(offset)))


def add(z: Quantizer, x: Encrypted, y: Encrypted, *, feeds_lookup: bool = True) -> Encrypted:
    """``x + y`` of tensors of one shape.

    A sum of two affine tensors needs no lookup where the coarser scale is close to a multiple of the finer one: the
    coarse integers are multiplied by it, as if the skip connection were one more weight of the accumulator. It may cost
    at most half a step of a grid of ``op_inputs`` bits on the sum.
    """
    if x.affine != y.affine:  # the lookup is due in any case, and a linear operator may share it
        x, y = (tensor if tensor.affine else z.operand(tensor) for tensor in (x, y))
    if x.affine and y.affine:
        if x.node == y.node:
            scale, offset = np.broadcast_arrays(x.scale + y.scale, x.offset + y.offset)
            return replace(x, scale=compact(np.array(scale)), offset=compact(np.array(offset)))
        merged = _merged(z, x, y, feeds_lookup=feeds_lookup)
        if merged is not None:
            return merged
    x, y = on_common_grid(z, x, y)
    return _sum(z, x, y, 1, x.scale, x.offset + y.offset)


def subtract(z: Quantizer, x: Encrypted, y: Encrypted, *, feeds_lookup: bool = True) -> Encrypted:
    """``x - y`` of tensors of one shape."""
    if not y.affine:
        x, y = on_common_grid(z, x, y)
    return add(z, x, scaled(y, -1.0), feeds_lookup=feeds_lookup)


def multiply(z: Quantizer, x: Encrypted, y: Encrypted, *, feeds_lookup: bool = True) -> Encrypted:
    """``x * y`` of tensors of one shape: two lookups per element.

    If a lookup that follows could not read the product, it is cut to what was seen, or has coarser factors.
    """
    product = _product(z, *(without_offset(z, factor) for factor in (x, y)))
    if feeds_lookup and z.bits(product.node) > WIDEST_LOOKUP:
        product = z.narrowed(product)
    if feeds_lookup and z.bits(product.node) > WIDEST_LOOKUP:
        bits = min(z.settings.n_bits.op_inputs, _FACTOR_BITS)
        product = z.narrowed(_product(z, *(without_offset(z, z.lookup(factor, bits)) for factor in (x, y))))
    return product


def _product(z: Quantizer, x: Encrypted, y: Encrypted) -> Encrypted:
    """``x * y`` of tensors without offsets."""
    bounds = z.builder.inferred("multiply", x.node, y.node).bounds
    reason = "a product lies in the product of its factors' bounds"
    declared = DeclaredBounds(bounds.lo, bounds.hi, _provenance(z), reason)
    quarters = [z.tabulated(z.emit(op, x.node, y.node), lambda v: np.floor(v * v / 4)) for op in ("add", "sub")]
    node = z.emit("sub", *quarters, declared=declared)
    return Encrypted(node, x.shape, x.scale * y.scale, np.zeros_like(x.scale), x.kind)


def maximum(z: Quantizer, x: Encrypted, y: Encrypted) -> Encrypted:
    """The greater of `x` and `y`, tensors of one shape: one lookup per element."""
    return _greater(z, *on_common_grid(z, x, y))


def minimum(z: Quantizer, x: Encrypted, y: Encrypted) -> Encrypted:
    """The smaller of `x` and `y`, tensors of one shape: one lookup per element."""
    x, y = (negated(z, tensor) for tensor in on_common_grid(z, x, y))
    return scaled(_greater(z, x, y), -1.0)


def _greater(z: Quantizer, x: Encrypted, y: Encrypted) -> Encrypted:
    """The greater of two tensors on a common grid."""
    steps = _steps(y.offset, x.scale) - _steps(x.offset, x.scale)
    other = z.emit("add_constant", y.node, value=steps) if steps.any() else y.node
    return replace(x, node=greater(z, x.node, other), source="")


def greater(z: Quantizer, x: int, y: int) -> int:
    """The greater of two nodes' integers, ``y + max(x - y, 0)``: one lookup per element."""
    bounds = z.builder.inferred("maximum", x, y).bounds
    reason = "a maximum lies between the greater of its operands' bounds"
    declared = DeclaredBounds(bounds.lo, bounds.hi, _provenance(z), reason)
    excess = z.tabulated(z.emit("sub", x, y), lambda v: np.maximum(v, 0))
    return z.emit("add", y, excess, declared=declared)


def _provenance(z: Quantizer) -> Provenance:
    """Of bounds that follow from those of operands, which calibration may have set."""
    return "structural" if z.settings.bounds == "proved" else "calibrated"


def of_difference(z: Quantizer, x: Encrypted, y: Encrypted, function: Callable[[Clear], Clear]) -> Encrypted:
    """``function(x - y)``, booleans, of tensors of one shape: a comparison. Exact on the tensors' common grid.

    `function` sees the difference in steps of that grid, an integer: its sign is exact.
    """
    x, y = on_common_grid(z, x, y)
    steps = _steps(x.offset, x.scale) - _steps(y.offset, x.scale)
    return _exactly(z, z.emit("sub", x.node, y.node), steps).mapped(function, "b")


def of_count(z: Quantizer, x: Encrypted, y: Encrypted, function: Callable[[Clear], Clear]) -> Encrypted:
    """A function, with booleans as values, of how many of two booleans are true; exact."""
    x, y = on_common_grid(z, x, y)
    steps = _steps(x.offset + y.offset, x.scale)
    return _exactly(z, z.emit("add", x.node, y.node), steps).mapped(function, "b")


def _exactly(z: Quantizer, node: int, steps: IntArray) -> Encrypted:
    """Integers of few bits plus `steps`, to be looked up as they are: neither rounded nor cut to what was seen."""
    z.exact.add(node)
    shape = z.builder.value(node).shape
    return Encrypted(node, shape, np.ones((1,) * len(shape)), steps.astype(np.float64))


def of_pair(
    z: Quantizer,
    x: Encrypted,
    y: Encrypted,
    function: Callable[[Clear, Clear], Clear],
    kind: str,
    *,
    uniform: bool,
) -> Encrypted:
    """Any ``function(x, y)``, elementwise, of tensors of one shape: a function of one integer that holds both codes.

    Exact on the tensors' own grids. Its table has as many bits as both tensors together: one of them should have few.
    `uniform` tells whether the function is the same for every element.
    """
    x, y = (_with_few_bits(z, tensor) for tensor in (x, y))
    (low_x, high_x), (low_y, _) = (_ends(z, tensor) for tensor in (x, y))
    base = high_x - low_x + 1
    node = z.emit("add", x.node, z.emit("multiply_constant", y.node, value=np.full((1,) * len(x.shape), base)))
    z.exact.add(node)

    def call(q: IntArray) -> Clear:
        codes = q - (low_x + base * low_y)
        return function(x.at(codes % base + low_x), y.at(codes // base + low_y))

    one = np.ones((1,) * len(x.shape))
    return Encrypted(node, x.shape, one, 0 * one, kind, Function(call, uniform and x.uniform and y.uniform))


def selected(z: Quantizer, mask: NDArray[np.bool_], x: Encrypted, y: Encrypted) -> Encrypted:
    """`x` where the clear mask holds, else `y`: tensors of the mask's shape. Free, and exact."""
    node = x.node
    if node != y.node:
        size = prod(mask.shape)
        both = z.emit("concatenate", *(z.emit("reshape", t.node, shape=(size,)) for t in (x, y)), axis=0)
        indices = np.arange(size) + np.where(mask.ravel(), 0, size)
        node = z.emit("reshape", z.emit("gather", both, axis=0, indices=indices), shape=mask.shape)
    if x.affine and y.affine:
        scale, offset = (compact(np.where(mask, a, b)) for a, b in ((x.scale, y.scale), (x.offset, y.offset)))
        return Encrypted(node, mask.shape, scale, offset, x.kind)
    one = np.ones((1,) * mask.ndim)
    poles = tuple(_where(mask, pole) for pole in x.poles) + tuple(_where(~mask, pole) for pole in y.poles)
    function = Function(lambda q: np.where(mask, x.at(q), y.at(q)), uniform=False, poles=poles)
    return Encrypted(node, mask.shape, one, 0 * one, x.kind, function)


def _where(mask: NDArray[np.bool_], pole: Pole) -> Pole:
    return replace(pole, divisor=lambda q: np.where(mask, pole.divisor(q), 1))


def on_common_grid(z: Quantizer, x: Encrypted, y: Encrypted) -> tuple[Encrypted, Encrypted]:
    """Both tensors as affine ones of one positive scale, with offsets that are multiples of it."""
    x, y = (negated_twice(z, t) if t.affine and t.scale.size == 1 and t.scale.item() < 0 else t for t in (x, y))
    if _fits_grid(z, x) and _fits_grid(z, y) and np.array_equal(x.scale, y.scale):
        return x, y
    for tensor in (x, y):
        if tensor.source and tensor.affine and varies_along(tensor.scale):
            z.operand(tensor)  # asks for a uniform scale
    scale = of_rank(_common_scale(z, x, y), len(x.shape))
    first, second = (
        tensor
        if _fits_grid(z, tensor) and np.array_equal(tensor.scale, scale)
        else z.lookup_on(tensor, _grid(z, tensor, scale))
        for tensor in (x, y)
    )
    return first, second


def negated(z: Quantizer, x: Encrypted) -> Encrypted:
    """``-x`` with integers of the other sign and the same scale; `x` is affine."""
    return replace(x, node=z.emit("negate", x.node), offset=-x.offset, source="")


def negated_twice(z: Quantizer, x: Encrypted) -> Encrypted:
    """The affine tensor `x` with a scale of the other sign."""
    return scaled(negated(z, x), -1.0)


def without_offset(z: Quantizer, x: Encrypted) -> Encrypted:
    """`x` as ``scale * q`` with one scale for all elements."""
    x = z.operand(x)
    if steps_of(x.offset, x.scale) is None:
        x = z.lookup(x, z.settings.n_bits.op_inputs)
    if not x.offset.any():
        return x
    node = z.emit("add_constant", x.node, value=_steps(x.offset, x.scale))
    return replace(x, node=node, offset=np.zeros_like(x.scale), source="")


def _with_few_bits(z: Quantizer, x: Encrypted) -> Encrypted:
    """An affine tensor that is as it is if it is narrow, whatever its scales."""
    narrow = x.affine and (bool(x.source) or z.bits(x.node) <= z.settings.n_bits.op_inputs + 1)
    return x if narrow else z.lookup(x, z.settings.n_bits.op_inputs)


def _ends(z: Quantizer, x: Encrypted) -> tuple[int, int]:
    bounds = z.builder.value(x.node).bounds
    return bounds.minimum, bounds.maximum


def _fits_grid(z: Quantizer, x: Encrypted) -> bool:
    """Whether a tensor has few bits, one scale, and an offset that is a multiple of it."""
    if not x.affine or x.scale.size != 1 or not (x.scale != 0).all():
        return False
    narrow = bool(x.source) or z.bits(x.node) <= z.settings.n_bits.op_inputs + 1
    return narrow and steps_of(x.offset, x.scale) is not None


def _common_scale(z: Quantizer, x: Encrypted, y: Encrypted) -> float:
    """That of one of the tensors, if both have neither too few nor too many steps of it; else that of a new grid.

    Integers and booleans keep steps of 1 as long as their range has few of them.
    """
    bits = z.settings.n_bits.op_inputs
    values = [z.finite(tensor) for tensor in (x, y)]
    span = max(float(np.ptp(v)) for v in values)
    if span == 0:  # both are constant on the calibration rows: tell them from each other
        span = float(np.ptp([v.flat[0] for v in values])) or abs(float(values[0].flat[0])) or 1.0
    fresh = max(span / (2.0**bits - 1), 4 * float(np.spacing(max(np.abs(v).max() for v in values))))
    whole = all(tensor.kind != "f" for tensor in (x, y))
    if whole:
        fresh = float(np.ceil(fresh))
    for tensor in (x, y):
        if _fits_grid(z, tensor):
            scale = float(tensor.scale.item())
            small = scale == np.rint(scale) and scale <= fresh if whole else scale <= 2 * fresh
            if small and span <= scale * 2 ** (bits + 1):
                return scale
    return fresh


def _steps(offset: FloatArray, scale: FloatArray) -> IntArray:
    steps: IntArray = np.rint(offset / scale).astype(np.int64)
    return steps


def _grid(z: Quantizer, x: Encrypted, scale: FloatArray) -> Grid:
    """The multiples of a scale among which the tensor was seen, counted from 0 or, if 0 is outside, from their end."""
    values = z.finite(x)
    low, high = np.floor(values.min() / scale), np.ceil(values.max() / scale)
    if x.kind == "b":
        low, high = np.zeros_like(scale), np.ceil(1 / scale)
    first = np.where((low > 0) | (high < 0), low, 0.0)
    return Grid(scale, scale * first, (low - first).astype(np.int64), (high - first).astype(np.int64))


def _merged(z: Quantizer, x: Encrypted, y: Encrypted, *, feeds_lookup: bool) -> Encrypted | None:
    """The sum without a lookup, or None if the scales do not allow it."""
    fine, coarse = (x, y) if np.abs(x.scale).max() <= np.abs(y.scale).max() else (y, x)
    if not (fine.scale != 0).all():
        return None
    own = np.broadcast_to(fine.scale, np.broadcast_shapes(fine.scale.shape, coarse.scale.shape))
    bounds = z.builder.value(coarse.node).bounds.broadcast(coarse.shape)
    axes = varies_along(compact(own))
    shared = tuple(axis for axis in range(len(x.shape)) if axis not in axes)  # one offset per scale: one table for all
    ends = zip(bounds.to_int64(), (np.min, np.max), strict=True)
    low, high = (end(b.astype(np.float64), axis=shared, keepdims=True) for b, end in ends)
    bits = [z.bits(tensor.node) for tensor in (x, y)]
    widest = max(*bits, z.settings.n_bits.op_inputs) + _SPARE_BITS if feeds_lookup else _WIDEST_SUM
    reach, far = _reach(z, fine), np.maximum(np.abs(low), np.abs(high))
    total = np.asarray(z.floats(x), dtype=np.float64) + z.floats(y)
    allowed = np.ptp(total) / (2**z.settings.n_bits.op_inputs - 1) / 2
    for times in range(1, 2**_SPARE_BITS + 1):  # how much finer the sum is than the finer operand
        scale = own / times
        multiple = np.rint(coarse.scale / scale)
        if (np.abs(multiple) * far >= 2.0**widest).any():
            return None
        proved = 2 * (times * reach + float((np.abs(multiple) * far).max()))
        seen = _span(z, total, scale) if z.settings.bounds == "calibrated" else proved
        if feeds_lookup and min(seen, proved) >= _room(z):
            return None
        if (np.abs(coarse.scale - multiple * scale) * (high - low) / 2 <= allowed).all():
            break
    else:
        return None
    if times > 1:
        factor = np.full((1,) * len(x.shape), times)
        fine = replace(fine, node=z.emit("multiply_constant", fine.node, value=factor))
    middle = (low + high) / 2
    offset = fine.offset + coarse.offset + (coarse.scale - multiple * scale) * middle
    return _sum(z, fine, coarse, multiple.astype(np.int64), scale, offset)


def _span(z: Quantizer, values: FloatArray, scale: FloatArray) -> float:
    """Steps of `scale` in the widest range of values (n, *shape), margin included, of those that share a step."""
    axes = varies_along(compact(scale))
    shared = tuple(a for a in range(values.ndim) if a - 1 not in axes)
    return float((np.ptp(values, axis=shared, keepdims=True)[0] / np.abs(scale)).max()) * (1 + 2 * z.settings.margin)


def _reach(z: Quantizer, x: Encrypted) -> float:
    """The greatest magnitude of a tensor's integers."""
    return float(max(map(abs, _ends(z, x))))


def _room(z: Quantizer) -> float:
    """Steps that a sum may span if lookups are to read it; approximate rounding reads it however wide it is."""
    rounding = z.settings.rounding
    if rounding is None:
        return 2.0**WIDEST_LOOKUP
    return 2.0**WIDEST_LOOKUP - 2.0 ** (WIDEST_LOOKUP - rounding.n_bits) if rounding.method == "exact" else np.inf


def _sum(
    z: Quantizer, x: Encrypted, y: Encrypted, multiple: IntArray | int, scale: FloatArray, offset: FloatArray
) -> Encrypted:
    """``scale (q_x + multiple q_y) + offset``, its integers centred and no wider than they must be."""
    factor = np.asarray(multiple, dtype=np.int64)
    other = y.node if (factor == 1).all() else z.emit("multiply_constant", y.node, value=factor)
    node = z.emit("add", x.node, other)
    scale = np.broadcast_to(scale, np.broadcast_shapes(scale.shape, offset.shape))
    kind = x.kind if x.kind == y.kind == "i" else "f"
    return z.narrowed(Encrypted(node, x.shape, compact(scale), compact(np.asarray(offset)), kind))
