"""Sums and maxima over windows. An average's divisor is part of the scale, so averages need no lookup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from fhelearn.frontends.onnx import combine
from fhelearn.frontends.onnx.operators.linear import pad_with_zero, padding, spatial_attribute
from fhelearn.frontends.onnx.operators.maxima import Window, maxima
from fhelearn.frontends.onnx.quantizer import Quantizer
from fhelearn.frontends.onnx.registry import GraphNode, imports
from fhelearn.frontends.onnx.values import Encrypted, Tensor, compact
from fhelearn.ir import OPS
from fhelearn.typing import FloatArray, IntArray


@dataclass(frozen=True)
class Pooled:
    """Windows along one spatial axis of `extent` elements, `before` and `after` padding that the node declares.

    Attributes
    ----------
    count : int
        Number of windows.
    """

    extent: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    count: int

    @property
    def positions(self) -> IntArray:
        """Indices of the elements, shape (count, kernel); those beside the axis are padding."""
        first = np.arange(self.count, dtype=np.int64) * self.stride - self.before
        return first[:, np.newaxis] + np.arange(self.kernel) * self.dilation

    @property
    def missing(self) -> int:
        """Elements that the windows reach behind the axis; negative if they leave some out."""
        return int(self.positions.max()) + 1 - self.extent

    def windows(self) -> list[Window]:
        """The elements of each window, without padding."""
        return [tuple(int(i) for i in row if 0 <= i < self.extent) for row in self.positions]

    def elements(self, *, padding_counts: bool) -> FloatArray:
        """Number of elements of each window; of the padding, only what the node declares may count."""
        low, high = (-self.before, self.extent + self.after) if padding_counts else (0, self.extent)
        counts: FloatArray = ((self.positions >= low) & (self.positions < high)).sum(axis=1).astype(np.float64)
        return counts


@imports("AveragePool")
def average_pool(z: Quantizer, node: GraphNode) -> Tensor:
    """Sums over windows, divided by their number of elements."""
    x, axes = _pooled(node)
    counts = [axis.elements(padding_counts=bool(node.attributes.get("count_include_pad", 0))) for axis in axes]
    divisor = counts[0] if len(counts) == 1 else np.outer(*counts)
    return combine.scaled(window_sums(z, node, x, axes), 1.0 / divisor)


@imports("LpPool")
def lp_pool(z: Quantizer, node: GraphNode) -> Tensor:
    """The p-th root of sums of p-th powers."""
    x, axes = _pooled(node)
    if any(axis.before or axis.missing > 0 for axis in axes):
        raise node.unsupported("the windows reach into padding", "pad by the operator Pad before")
    p = int(node.attributes.get("p", 2))
    return _root(window_sums(z, node, _power(x, p), axes), p)


@imports("MaxPool")
def max_pool(z: Quantizer, node: GraphNode) -> Tensor:
    """Maxima along one axis after the other."""
    if len(node.proto.output) > 1 and node.proto.output[1]:
        raise node.unsupported("the second output, Indices, is used", "use the maxima only")
    x, axes = _pooled(node)
    return maxima(z, x, {number: axis.windows() for number, axis in enumerate(axes, start=2)})


@imports("GlobalAveragePool")
def global_average_pool(z: Quantizer, node: GraphNode) -> Tensor:
    """The mean over all spatial axes."""
    x, axes = _spatial(node)
    total = z.total(x, axes, keepdims=True, feeds_lookup=node.feeds_lookup)
    return combine.scaled(total, 1.0 / prod(x.shape[2:]))


@imports("GlobalMaxPool")
def global_max_pool(z: Quantizer, node: GraphNode) -> Tensor:
    """The maximum over all spatial axes."""
    x, axes = _spatial(node)
    flat = z.reshape(x, (*x.shape[:2], prod(x.shape[2:])))
    return z.reshape(maxima(z, flat, {2: [tuple(range(flat.shape[2]))]}), (*x.shape[:2], *(1 for _ in axes)))


def window_sums(z: Quantizer, node: GraphNode, x: Encrypted, axes: Sequence[Pooled]) -> Encrypted:
    """Sums over the windows of x (N, C, *extents); padding is 0."""
    kernel, strides, dilations = ([getattr(a, name) for a in axes] for name in ("kernel", "stride", "dilation"))
    channels = prod(x.shape[:2])
    if max(dilations) > 1:
        ones = np.ones((channels, 1, *kernel), dtype=np.int64)
        geometry: dict[str, Any] = {"strides": tuple(strides), "dilations": tuple(dilations), "groups": channels}
        op, attributes = f"conv{len(axes)}d", {"weights": ones, **geometry}
    else:
        flat = [1] * (2 - len(axes))
        op, attributes = "sum_pool2d", {"kernel": (*kernel, *flat), "strides": (*strides, *flat)}

    def sums(x: Encrypted) -> Encrypted:
        padded = pad_with_zero(z, x, [a.before for a in axes], [max(a.missing, 0) for a in axes])
        trailing = (1,) if op == "sum_pool2d" and len(axes) == 1 else ()
        planes = z.reshape(padded, (channels, *padded.shape[2:], *trailing))
        pooled = z.emit(op, planes.node, **attributes)
        offsets = np.broadcast_to(planes.offset, planes.shape)[np.newaxis]
        offset = np.asarray(OPS[op].evaluate([offsets], attributes), dtype=np.float64)[0]
        result = Encrypted(pooled, offset.shape, planes.scale, compact(offset))
        return z.reshape(result, (*x.shape[:2], *(a.count for a in axes)))

    return z.summed(x, tuple(range(2, len(x.shape))), sums, feeds_lookup=node.feeds_lookup)


def _pooled(node: GraphNode) -> tuple[Encrypted, list[Pooled]]:
    x, spatial = _spatial(node)
    if len(spatial) > 2:
        raise node.unsupported(f"the data has {len(spatial)} spatial axes", "pool over one or two axes at a time")
    extents = x.shape[2:]
    kernel, strides, dilations = (
        spatial_attribute(node, name, len(extents)) for name in ("kernel_shape", "strides", "dilations")
    )
    before, after = padding(node, extents, kernel, strides, dilations)
    explicit = node.attributes.get("auto_pad", "NOTSET") in ("NOTSET", "VALID", "")
    ceil = explicit and bool(node.attributes.get("ceil_mode", 0))
    axes = []
    for extent, k, stride, dilation, first, last in zip(
        extents, kernel, strides, dilations, before, after, strict=True
    ):
        count = _count(extent, stride, dilation * (k - 1) + 1, first, last, ceil=ceil)
        axes.append(Pooled(extent, k, stride, dilation, first, last, count))
    if any(not all(axis.windows()) for axis in axes):
        raise node.unsupported("a window has padding only", "pad by less than the window's extent")
    return x, axes


def _count(extent: int, stride: int, span: int, before: int, after: int, *, ceil: bool) -> int:
    room = extent + before + after - span
    if not ceil:
        return room // stride + 1
    count = -(-room // stride) + 1
    # No window may start in the padding at the end.
    return count - 1 if (count - 1) * stride >= extent + before else count


def _spatial(node: GraphNode) -> tuple[Encrypted, tuple[int, ...]]:
    x = node.encrypted(0, "data")
    return x, tuple(range(2, len(x.shape)))


def _power(x: Encrypted, p: int) -> Encrypted:
    return x.mapped(lambda values: np.abs(values) ** p)


def _root(x: Encrypted, p: int) -> Encrypted:
    return x if p == 1 else x.mapped(lambda values: np.maximum(values, 0.0) ** (1.0 / p))
