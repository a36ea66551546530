"""Operators on two encrypted tensors: sums, products, maxima and what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from fhelearn.frontends.onnx.quantizer import Quantizer
from fhelearn.frontends.onnx.values import Clear, Encrypted, Function, compact, varies_along
from fhelearn.quantization.grids import Grid
from fhelearn.typing import FloatArray


def scaled(x: Encrypted, factor: FloatArray | float, shift: FloatArray | float = 0.0) -> Encrypted:
    """``factor * x + shift`` of an affine tensor, nothing emitted; the arrays broadcast to the tensor's shape."""
    scale, offset = np.broadcast_arrays(x.scale * factor, x.offset * factor + shift)
    return replace(x, scale=compact(np.array(scale)), offset=compact(np.array(offset)))


def add(z: Quantizer, x: Encrypted, y: Encrypted) -> Encrypted:
    """``x + y`` of tensors of one shape.

    A sum of two affine tensors needs no lookup where the coarser scale is close to a multiple of the finer one: the
    coarse integers are multiplied by it, as if the skip connection were one more weight of the accumulator. It may cost
    at most half a step of a grid of ``op_inputs`` bits on the sum.
    """
    merged = _merged(z, x, y) if x.affine and y.affine else None
    if merged is None:
        x, y = on_common_grid(z, x, y)
        merged = _sum(z, x, y, 1, x.scale, x.offset + y.offset)
    return merged


def subtract(z: Quantizer, x: Encrypted, y: Encrypted) -> Encrypted:
    """``x - y`` of tensors of one shape."""
    if not y.affine:
        x, y = on_common_grid(z, x, y)
    return add(z, x, scaled(y, -1.0))


def multiply(z: Quantizer, x: Encrypted, y: Encrypted) -> Encrypted:
    """``x * y`` of tensors of one shape: two lookups per element."""
    x, y = (_without_offset(z, factor) for factor in (x, y))
    node = z.emit("multiply", x.node, y.node)
    return Encrypted(node, x.shape, x.scale * y.scale, np.zeros_like(x.scale))


def maximum(z: Quantizer, x: Encrypted, y: Encrypted) -> Encrypted:
    """The greater of `x` and `y`, tensors of one shape: one lookup per element."""
    x, y = on_common_grid(z, x, y)
    if not np.array_equal(x.offset, y.offset):
        y = replace(y, node=z.emit("add_constant", y.node, value=_steps(y.offset - x.offset, x.scale)), offset=x.offset)
    return replace(x, node=z.emit("maximum", x.node, y.node), source="")


def of_difference(z: Quantizer, x: Encrypted, y: Encrypted, function: Callable[[Clear], Clear]) -> Encrypted:
    """``function(x - y)``, booleans, of tensors of one shape: a comparison. Exact on the tensors' common grid."""
    x, y = on_common_grid(z, x, y)
    difference = _sum(z, x, y, -1, x.scale, x.offset - y.offset)
    return replace(
        difference, kind="b", function=Function(lambda q: function(difference.at(q)), difference.uniform), source=""
    )


def on_common_grid(z: Quantizer, x: Encrypted, y: Encrypted) -> tuple[Encrypted, Encrypted]:
    """Both tensors as affine ones of one scale, whose offsets differ by a multiple of it."""
    x, y = (negated_twice(z, t) if t.affine and t.scale.size == 1 and t.scale.item() < 0 else t for t in (x, y))
    if _fits_grid(z, x) and _fits_grid(z, y) and np.array_equal(x.scale, y.scale):
        return x, y
    for tensor in (x, y):
        if tensor.source and varies_along(tensor.scale):
            z.operand(tensor)  # asks for a uniform scale
    bits = z.settings.n_bits.op_inputs
    values = [np.asarray(z.floats(tensor), dtype=np.float64) for tensor in (x, y)]
    coarse = next((t for t in (x, y) if _fits_grid(z, t) and _wide_enough(t, values, bits)), None)
    whole = all(tensor.kind != "f" for tensor in (x, y))
    if coarse is not None:
        scale = coarse.scale
    elif whole:
        scale = np.ones((1,) * len(x.shape))
    else:
        span = max(float(np.ptp(v)) for v in values)
        scale = np.full((1,) * len(x.shape), span / (2**bits - 1) if span > 0 else 1.0)
    return tuple(  # type: ignore[return-value]
        tensor if tensor is coarse else z.lookup_on(tensor, _grid(z, tensor, scale))
        for tensor in (x, y)
    )


def negated(z: Quantizer, x: Encrypted) -> Encrypted:
    """``-x`` with integers of the other sign and the same scale; `x` is affine."""
    return replace(x, node=z.emit("negate", x.node), offset=-x.offset, source="")


def negated_twice(z: Quantizer, x: Encrypted) -> Encrypted:
    """The affine tensor `x` with a scale of the other sign."""
    return scaled(negated(z, x), -1.0)


def _fits_grid(z: Quantizer, x: Encrypted) -> bool:
    """Whether a tensor has few bits, one scale, and an offset that is a multiple of it."""
    if not x.affine or x.scale.size != 1 or not (x.scale != 0).all():
        return False
    narrow = bool(x.source) or z.bits(x.node) <= z.settings.n_bits.op_inputs + 1
    return narrow and bool((_steps(x.offset, x.scale) * x.scale == x.offset).all())


def _wide_enough(coarse: Encrypted, values: Sequence[FloatArray], bits: int) -> bool:
    """Whether the ranges of both tensors have few steps of the scale, so that a lookup onto it loses and costs little."""
    scale = abs(float(coarse.scale.ravel()[0]))
    return max(float(np.ptp(v)) for v in values) <= scale * 2 ** (bits + 1)


def _steps(offset: FloatArray, scale: FloatArray) -> np.ndarray:
    return np.rint(offset / scale).astype(np.int64)


def _grid(z: Quantizer, x: Encrypted, scale: FloatArray) -> Grid:
    values = z.finite(x)
    low, high = np.floor(values.min() / scale), np.ceil(values.max() / scale)
    return Grid(scale, np.zeros_like(scale), low.astype(np.int64), high.astype(np.int64))


def _merged(z: Quantizer, x: Encrypted, y: Encrypted) -> Encrypted | None:
    """The sum without a lookup, or None if the scales do not allow it."""
    fine, coarse = (x, y) if np.abs(x.scale).max() <= np.abs(y.scale).max() else (y, x)
    if not (fine.scale != 0).all():
        return None
    scale = np.broadcast_to(fine.scale, np.broadcast_shapes(fine.scale.shape, coarse.scale.shape))
    multiple = np.rint(coarse.scale / scale)
    bounds = z.builder.value(coarse.node).bounds.broadcast(coarse.shape)
    low, high = (np.asarray(b, dtype=np.float64) for b in bounds.to_int64())
    error = np.abs(coarse.scale - multiple * scale)
    total = np.asarray(z.floats(x), dtype=np.float64) + z.floats(y)
    allowed = np.ptp(total) / (2**z.settings.n_bits.op_inputs - 1) / 2
    if not (error * (high - low) / 2 <= allowed).all():
        return None
    middle = compact((low + high) / 2)
    offset = fine.offset + coarse.offset + (coarse.scale - multiple * scale) * middle
    return _sum(z, fine, coarse, multiple.astype(np.int64), scale, offset)


def _sum(
    z: Quantizer, x: Encrypted, y: Encrypted, multiple: np.ndarray | int, scale: FloatArray, offset: FloatArray
) -> Encrypted:
    """``scale (q_x + multiple q_y) + offset``, its integers centred and no wider than they must be."""
    factor = np.asarray(multiple, dtype=np.int64)
    other = y.node if (factor == 1).all() else z.emit("multiply_constant", y.node, value=factor)
    node = z.emit("add", x.node, other)
    scale = np.broadcast_to(scale, np.broadcast_shapes(scale.shape, offset.shape))
    kind = x.kind if x.kind == y.kind == "i" else "f"
    result = Encrypted(node, x.shape, compact(scale), compact(np.broadcast_to(offset, offset.shape)), kind)
    return z.narrowed(result)


def _without_offset(z: Quantizer, x: Encrypted) -> Encrypted:
    """`x` as ``scale * q`` with one scale for all elements."""
    x = z.operand(x)
    if not np.array_equal(_steps(x.offset, x.scale) * x.scale, x.offset):
        x = z.lookup(x, z.settings.n_bits.op_inputs)
    if not x.offset.any():
        return x
    node = z.emit("add_constant", x.node, value=_steps(x.offset, x.scale))
    return replace(x, node=node, offset=np.zeros_like(x.scale), source="")
