"""Linear operators with clear weights as integer accumulators.

Notation: the operand is ``x = s q + o`` with a scale per input channel, output channel k is
``y_k = sum_j w_jk x_j + b_k``. With integer weights ``W_jk = rint(w_jk s_j / t_k)`` and one step t_k per output
channel,

    y_k = t_k sum_j W_jk q_j + (sum_j w_jk o_j + b_k).

The second part stays a float: the next lookup, or the client's decoder, adds it, so no bias is ever rounded. Where
the weights of a channel are multiples of a coarser step (masks, ternary weights, weights quantized in training), that
is the step: the integers are then exact and small.

If a lookup follows and accumulators are to be rounded to P bits, the integers should fill all ``2**P`` cells of
every channel. The channel's weights are then quantized a bit coarser (by a factor of at most 2), and multiplied by an
integer, such that its range fills an accumulator of one width for all channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fhelearn.exceptions import QuantizationError
from fhelearn.frontends.onnx.quantizer import Quantizer, weighted
from fhelearn.frontends.onnx.settings import WIDEST_LOOKUP
from fhelearn.frontends.onnx.values import Encrypted, compact
from fhelearn.ir import OPS
from fhelearn.typing import FloatArray, IntArray

_SAME = 2.0**-21
"""Weights within this part of the largest are equal: float32 rounds by as much."""

_ATTEMPTS = 8
"""Rescaled weights are rounded anew, which may widen the range they were scaled for; so scaling is repeated, each time
by a bit more than seems needed."""


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A linear op of the program with float weights, on a node of the program.

    Attributes
    ----------
    op : str
        "matmul", "conv1d" or "conv2d".
    node : int
        The operand's integers, in the shape that the op takes.
    weights : ndarray of float64
        With the operand's scales folded in.
    weight_axis, output_axis : int
        Where the output channels are: of `weights`, and of the op's result.
    constant : ndarray of float64
        What the operand's offsets and the bias add; broadcastable to the op's result.
    attributes : dict
        Of the op, without its weights.
    outer : ndarray of float64
        A scale that is not in the weights, because it varies along other axes of the result; broadcastable to it.
    """

    op: str
    node: int
    weights: FloatArray
    weight_axis: int
    output_axis: int
    constant: FloatArray
    attributes: dict[str, Any]
    outer: FloatArray = field(default_factory=lambda: np.ones(()))

    def per_channel(self, values: Any) -> Any:
        """An array (channels,) shaped to broadcast against `weights`."""
        return np.reshape(values, [-1 if a == self.weight_axis else 1 for a in range(self.weights.ndim)])


def matmul(x: Encrypted, weights: FloatArray, bias: FloatArray | float) -> LinearMap:
    """``x @ weights + bias``; x (..., k) with a scale along its last axis only, or not along it; weights are (k, m)."""
    k = weights.shape[0]
    offset = np.broadcast_to(x.offset, (*x.offset.shape[:-1], k))
    constant = compact(offset @ weights + bias)
    rank = len(x.shape)
    if x.scale.shape[-1] == 1:
        return LinearMap("matmul", x.node, weights, 1, rank - 1, constant, {}, x.scale)
    return LinearMap("matmul", x.node, weights * x.scale.reshape(k, 1), 1, rank - 1, constant, {})


def convolution(
    z: Quantizer,
    x: Encrypted,
    weights: FloatArray,
    bias: FloatArray,
    *,
    strides: Sequence[int],
    dilations: Sequence[int],
    groups: int,
) -> LinearMap:
    """Convolution of x (1, C, *extents), one or two extents, without padding; x has a scale per channel at most."""
    out, per_group = weights.shape[:2]
    spatial = weights.ndim - 2
    scale = np.broadcast_to(x.scale.reshape(-1), (per_group * groups,)).reshape(groups, 1, per_group)
    by_group = weights.reshape(groups, out // groups, per_group, *weights.shape[2:])
    folded = (by_group * scale.reshape(*scale.shape, *(1,) * spatial)).reshape(weights.shape)
    attributes = {"strides": tuple(strides), "dilations": tuple(dilations), "groups": groups}
    op = f"conv{spatial}d"
    offset = x.offset
    if offset.shape[2:] == (1,) * spatial:  # one window tells them all
        extents = [d * (k - 1) + 1 for d, k in zip(dilations, weights.shape[2:], strict=True)]
    else:
        extents = list(x.shape[2:])
    full = np.broadcast_to(offset, (1, per_group * groups, *extents))
    constant = OPS[op].evaluate([full], {**attributes, "weights": weights}) + bias.reshape(-1, *(1,) * spatial)
    node = z.reshape(x, x.shape[1:]).node
    return LinearMap(op, node, folded, 0, 0, compact(np.asarray(constant[0], dtype=np.float64)), attributes)


def accumulate(z: Quantizer, linear: LinearMap, *, feeds_lookup: bool) -> Encrypted:
    """Quantize the weights and emit the accumulator; `feeds_lookup` tells whether its width is a lookup's price."""
    largest = _channel_maximum(np.abs(linear.weights), linear.weight_axis)
    if not np.isfinite(largest).all():
        raise QuantizationError(f"{z.name}: weights times the range of its input overflow float64; rescale them")
    step = _steps(linear, 2 ** (z.settings.n_bits.op_weights - 1) - 1, per_tensor=z.settings.weights == "per_tensor")
    weights, factor, top = _fit(z, linear, step) if feeds_lookup else (_round(linear, step), None, 0)
    node = z.emit(linear.op, linear.node, weights=weights, **linear.attributes)
    node, centre = z.settle(node, (linear.output_axis,), top)
    z.weight_bits[node] = _used_bits(linear, weights)
    rank = len(z.builder.value(node).shape)
    scale = (step if factor is None else factor).reshape([-1 if a == linear.output_axis else 1 for a in range(rank)])
    scale = scale * linear.outer
    constant = linear.constant.reshape((1,) * (rank - linear.constant.ndim) + linear.constant.shape)
    shape = z.builder.value(node).shape
    return Encrypted(node, shape, compact(scale), compact(constant + scale * centre))


def _steps(linear: LinearMap, most: int, *, per_tensor: bool) -> FloatArray:
    """The step of each output channel's weights: the coarsest that they are multiples of, or a part of the largest."""
    channels = np.moveaxis(np.abs(linear.weights), linear.weight_axis, 0)
    rows = channels.reshape(1 if per_tensor else len(channels), -1)
    largest = rows.max(axis=1)
    largest = np.where(largest > 0, largest, 1.0)
    multiples = np.rint(largest / np.maximum(_common_divisors(rows, largest), largest / (2 * most)))
    common = largest / multiples
    quotients = rows / common[:, np.newaxis]
    exact = (np.abs(quotients - np.rint(quotients)) <= multiples[:, np.newaxis] * _SAME).all(axis=1)
    steps = np.where(exact & (multiples <= most), common, largest / most)
    return np.broadcast_to(steps, (len(channels),))


def _common_divisors(rows: FloatArray, largest: FloatArray) -> FloatArray:
    """Greatest common divisor of each row of positive numbers, by Euclid's algorithm in pairs; tiny if none."""
    zero = (largest * _SAME)[:, np.newaxis]
    while rows.shape[1] > 1:
        rows = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2)))
        a, b = rows[:, ::2], rows[:, 1::2]
        while (goes_on := b > zero).any():
            divisor = np.where(goes_on, b, 1.0)
            a, b = np.where(goes_on, b, a), np.where(goes_on, np.abs(a - divisor * np.rint(a / divisor)), 0.0)
        rows = a
    divisors: FloatArray = rows[:, 0]
    return divisors


def _round(linear: LinearMap, step: FloatArray) -> IntArray:
    rounded: IntArray = np.rint(linear.weights / linear.per_channel(step)).astype(np.int64)
    return rounded


def _used_bits(linear: LinearMap, weights: IntArray) -> int:
    """Signed width of the weights, less what all of a channel share: what fitting the sums left of those asked for."""
    channels = np.moveaxis(weights, linear.weight_axis, 0).reshape(weights.shape[linear.weight_axis], -1)
    unit = np.maximum(np.gcd.reduce(channels, axis=1), 1)
    return int((np.abs(channels).max(axis=1) // unit).max()).bit_length() + 1


def _fit(z: Quantizer, linear: LinearMap, step: FloatArray) -> tuple[IntArray, FloatArray | None, int]:
    """Integer weights whose sums fit what a lookup can read, the step of the sums, and the room for rounding up."""
    span = _span(z, linear, _round(linear, step))
    natural = int(np.ceil(np.log2(span.max() + 1.0)))
    rounding = z.settings.rounding
    target = rounding.n_bits if rounding else WIDEST_LOOKUP
    if natural <= target:
        return _round(linear, step), None, 0
    if rounding:
        width = min(max(target, int(np.floor(np.log2(span.max() + 1.0)))), WIDEST_LOOKUP)
        top = 2 ** (width - target) if width > target else 0
    else:
        width, top = WIDEST_LOOKUP, 0
    room = 2.0**width - top - 1
    return *_filled(z, linear, step, span, room, fill=rounding is not None), top


def _filled(
    z: Quantizer, linear: LinearMap, step: FloatArray, span: FloatArray, room: float, *, fill: bool
) -> tuple[IntArray, FloatArray]:
    """Weights whose accumulators span at most `room` (if `fill`, about that much in every channel), and their step."""
    wanted = room / np.maximum(span, 1.0)
    wanted = np.where(span > 0, wanted if fill else np.minimum(wanted, 1.0), 1.0)
    for attempt in range(_ATTEMPTS):
        multiple = np.maximum(np.ceil(wanted), 1.0)
        finer = step * multiple / wanted
        weights = _round(linear, finer) * linear.per_channel(multiple).astype(np.int64)
        got = _span(z, linear, weights)
        if (got <= room).all():
            break
        wanted = np.where(got > room, wanted * room / np.maximum(got, 1.0) * (1 - 2.0 ** (attempt - 10)), wanted)
    return weights, finer / multiple


def _span(z: Quantizer, linear: LinearMap, weights: IntArray) -> FloatArray:
    """Width of the range of each output channel's sums: seen on calibration rows with the margin, or proved."""
    attributes = {"weights": weights, **linear.attributes}
    bounds = z.builder.inferred(linear.op, linear.node, **attributes)
    low, high = (
        _by_channel(np.asarray(b), linear, np.minimum if i == 0 else np.maximum)
        for i, b in enumerate(bounds.bounds.broadcast(bounds.shape).to_int64())
    )
    if z.settings.bounds == "calibrated":
        sums = weighted(linear.op, z.integers(linear.node), attributes)
        seen_low, seen_high = (array.ravel() for array in z.observed(sums, (linear.output_axis,)))
        low, high = np.maximum(low, seen_low), np.minimum(high, seen_high)
    return np.asarray(high - low, dtype=np.float64)


def _by_channel(array: IntArray, linear: LinearMap, extreme: Callable[..., Any]) -> IntArray:
    rest = tuple(a for a in range(array.ndim) if a != linear.output_axis)
    result: IntArray = extreme.reduce(array, axis=rest) if rest else array  # type: ignore[attr-defined]
    return result


def _channel_maximum(array: FloatArray, axis: int) -> FloatArray:
    result: FloatArray = array.max(axis=tuple(a for a in range(array.ndim) if a != axis))
    return result
