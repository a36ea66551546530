"""Products with clear weights, and of two encrypted matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import TypeAlias

import numpy as np

from fhelearn.frontends.onnx import combine
from fhelearn.frontends.onnx import linear as accumulators
from fhelearn.frontends.onnx.quantizer import Quantizer
from fhelearn.frontends.onnx.registry import GraphNode, imports
from fhelearn.frontends.onnx.values import Encrypted, Tensor, compact, kind_of, steps_of, varies_along
from fhelearn.typing import FloatArray

Extents: TypeAlias = tuple[int, ...]
"""A number per spatial axis."""


@imports("Gemm")
def gemm(z: Quantizer, node: GraphNode) -> Tensor:
    """``alpha op(A) op(B) + beta C``."""
    alpha, beta = (float(node.attributes.get(name, 1.0)) for name in ("alpha", "beta"))
    a, b = (
        _transposed(z, tensor) if node.attributes.get(name, 0) else tensor
        for tensor, name in zip(node.inputs[:2], ("transA", "transB"), strict=True)
    )
    product = combine.scaled(_product(z, node, a, b), alpha)
    c = node.inputs[2] if node.has(2) else None
    if c is None or beta == 0:
        return product
    if not isinstance(c, Encrypted):
        return combine.scaled(product, 1.0, beta * np.asarray(c, dtype=np.float64))
    addend = combine.scaled(c if c.affine else z.operand(c), beta)
    ranked = z.reshape(addend, (1,) * (2 - len(c.shape)) + c.shape)
    return combine.add(z, product, z.broadcast(ranked, product.shape), feeds_lookup=node.feeds_lookup)


@imports("MatMul")
def matmul(z: Quantizer, node: GraphNode) -> Tensor:
    """NumPy's matrix product, batches included."""
    return _product(z, node, node.inputs[0], node.inputs[1])


@imports("Conv")
def conv(z: Quantizer, node: GraphNode) -> Tensor:
    """Convolution over one or two extents, with groups, dilations and any padding."""
    x, weights, strides, dilations = _convolved(z, node)
    before, after = padding(node, x.shape[2:], weights.shape[2:], strides, dilations)
    x = _at_zero(z, node, z.operand(x, (1,))) if any(before) or any(after) else z.operand(x, (1,))
    x = pad_with_zero(z, x, before, after)
    return _convolution(z, node, x, weights, strides, dilations, node.attributes.get("group", 1))


@imports("ConvTranspose")
def conv_transpose(z: Quantizer, node: GraphNode) -> Tensor:
    """Zeros between the elements and around, then a convolution with flipped, transposed weights."""
    x, weights, strides, dilations = _convolved(z, node)
    groups = node.attributes.get("group", 1)
    kernel = weights.shape[2:]
    by_group = weights.reshape(groups, weights.shape[0] // groups, *weights.shape[1:])
    swapped = np.swapaxes(by_group, 1, 2).reshape(-1, by_group.shape[1], *kernel)
    flipped = np.flip(swapped, axis=tuple(range(2, swapped.ndim)))
    before, after = _transposed_padding(node, x.shape[2:], kernel, strides, dilations)
    x = _at_zero(z, node, z.operand(x, (1,)))
    x = _with_zeros_between(z, x, strides)
    reach = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
    # The last element brought stride - 1 zeros of its own.
    ends = [r - a - (s - 1) for r, a, s in zip(reach, after, strides, strict=True)]
    x = _pad_or_crop(z, x, [r - b for r, b in zip(reach, before, strict=True)], ends)
    return _convolution(z, node, x, flipped, (1,) * len(kernel), dilations, groups)


def spatial_attribute(node: GraphNode, name: str, count: int) -> Extents:
    """An attribute of one integer per spatial axis; ones where it was left out."""
    return tuple(int(n) for n in node.attributes.get(name) or (1,) * count)


def padding(
    node: GraphNode, extents: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[Extents, Extents]:
    """Zeros before and after each spatial axis, from the attributes `pads` and `auto_pad`."""
    mode = node.attributes.get("auto_pad", "NOTSET")
    count = len(extents)
    if mode in ("NOTSET", "VALID", ""):
        pads = node.attributes.get("pads") if mode != "VALID" else None
        pads = [0] * (2 * count) if pads is None else [int(p) for p in pads]
        if min(pads) < 0:
            raise node.unsupported(f"pads is {pads}", "crop by Slice")
        return tuple(pads[:count]), tuple(pads[count:])
    _require_same(node, mode)
    return _halves(
        mode,
        [
            max((-(-extent // stride) - 1) * stride + dilation * (k - 1) + 1 - extent, 0)
            for extent, k, stride, dilation in zip(extents, kernel, strides, dilations, strict=True)
        ],
    )


def pad_with_zero(z: Quantizer, x: Encrypted, before: Sequence[int], after: Sequence[int]) -> Encrypted:
    """`x` with zeros around its last axes, exact: `x` is affine, with one scale along them.

    If 0 is on the grid, the integers are counted from it; else what the zeros stand for has an offset of its own.
    """
    if not any(before) and not any(after):
        return x
    steps = steps_of(x.offset, x.scale)
    if steps is not None:
        node = z.emit("add_constant", x.node, value=steps) if steps.any() else x.node
        x = Encrypted(node, x.shape, x.scale, np.zeros((1,) * len(x.shape)), x.kind)
    rest = [0] * (len(x.shape) - len(before))
    lower, upper = (*rest, *before), (*rest, *after)
    offset = np.pad(np.broadcast_to(x.offset, x.shape), list(zip(lower, upper, strict=True)))
    node = z.emit("pad", x.node, before=lower, after=upper, value=0)
    return Encrypted(node, offset.shape, x.scale, compact(offset), x.kind)


def times_weights(z: Quantizer, node: GraphNode, x: Encrypted, weights: FloatArray) -> Encrypted:
    """``x @ weights``, by NumPy's rule for any ranks from 1."""
    if weights.ndim == 1:
        result = times_weights(z, node, x, weights[:, np.newaxis])
        return z.reshape(result, result.shape[:-1])
    if len(x.shape) == 1:
        result = times_weights(z, node, z.reshape(x, (1, *x.shape)), weights)
        return z.reshape(result, (*result.shape[:-2], result.shape[-1]))
    batch = np.broadcast_shapes(x.shape[:-2], weights.shape[:-2])
    if prod(weights.shape[:-2]) > 1:
        return _batched(z, node, x, weights, batch)
    last = len(x.shape) - 1
    by_row = x.affine and x.scale.shape[-1] == 1 and x.scale.size > 1
    linear = accumulators.matmul(
        z.operand(x, tuple(range(last)) if by_row else (last,)), weights.reshape(weights.shape[-2:]), 0.0
    )
    result = accumulators.accumulate(z, linear, feeds_lookup=node.feeds_lookup)
    return z.reshape(result, (*batch, *result.shape[-2:]))


def _convolved(z: Quantizer, node: GraphNode) -> tuple[Encrypted, FloatArray, Extents, Extents]:
    """Data, weights, strides and dilations."""
    weights = node.clear(1, "the weights").astype(np.float64)
    spatial = weights.ndim - 2
    x = node.encrypted(0, "data")
    if spatial not in (1, 2):
        raise node.unsupported(f"the weights have {spatial} spatial axes", "use a convolution over one or two")
    if x.shape[0] != 1:
        raise node.unsupported(f"the data has {x.shape[0]} rows", "export the model with a batch of 1")
    return x, weights, spatial_attribute(node, "strides", spatial), spatial_attribute(node, "dilations", spatial)


def _convolution(
    z: Quantizer,
    node: GraphNode,
    x: Encrypted,
    weights: FloatArray,
    strides: Sequence[int],
    dilations: Sequence[int],
    groups: int,
) -> Encrypted:
    bias = node.clear(2, "the bias", np.zeros(weights.shape[0])).astype(np.float64)
    linear = accumulators.convolution(z, x, weights, bias, strides=strides, dilations=dilations, groups=groups)
    result = accumulators.accumulate(z, linear, feeds_lookup=node.feeds_lookup)
    return z.reshape(result, (1, *result.shape))


def _transposed_padding(
    node: GraphNode, extents: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[Extents, Extents]:
    """What is taken away from the full result (each element times the whole kernel) before and after each axis."""
    mode = node.attributes.get("auto_pad", "NOTSET")
    count = len(extents)
    extra = tuple(int(n) for n in node.attributes.get("output_padding") or (0,) * count)
    full = [
        stride * (extent - 1) + dilation * (k - 1) + 1
        for extent, k, stride, dilation in zip(extents, kernel, strides, dilations, strict=True)
    ]
    wanted = node.attributes.get("output_shape")
    if wanted:
        wanted = [int(n) for n in wanted[-count:]]
    elif mode in ("NOTSET", "VALID", ""):
        before, after = padding(node, extents, kernel, strides, dilations)
        return before, tuple(a - more for a, more in zip(after, extra, strict=True))
    else:
        _require_same(node, mode)
        wanted = [extent * stride for extent, stride in zip(extents, strides, strict=True)]
    taken = [f + more - w for f, more, w in zip(full, extra, wanted, strict=True)]
    before, _ = _halves("SAME_UPPER" if mode == "SAME_UPPER" else "SAME_LOWER", [max(n, 0) for n in taken])
    return before, tuple(f - w - b for f, w, b in zip(full, wanted, before, strict=True))


def _require_same(node: GraphNode, mode: str) -> None:
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise node.unsupported(f"auto_pad is {mode!r}", "use explicit pads")


def _halves(mode: str, totals: Sequence[int]) -> tuple[Extents, Extents]:
    """Each total in two parts; the second is the greater one for SAME_UPPER."""
    before = tuple(n // 2 if mode == "SAME_UPPER" else n - n // 2 for n in totals)
    return before, tuple(n - b for n, b in zip(totals, before, strict=True))


def _at_zero(z: Quantizer, node: GraphNode, x: Encrypted) -> Encrypted:
    """The affine `x`, with 0 on its grid if a lookup follows.

    Otherwise zeros beside its elements would have an offset of their own, and the lookup a table per element.
    """
    if not node.feeds_lookup or not x.offset.any() or steps_of(x.offset, x.scale) is not None:
        return x
    return z.lookup(x, z.settings.n_bits.op_inputs, (1,) if z.settings.activations == "per_channel" else ())


def _with_zeros_between(z: Quantizer, x: Encrypted, strides: Sequence[int]) -> Encrypted:
    """Every element of the spatial axes, followed by ``stride - 1`` zeros."""
    for axis, stride in enumerate(strides, start=2):
        if stride > 1:
            head, extent, tail = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
            x = z.reshape(x, (*head, extent, 1, *tail))
            zeros = [0] * len(tail)
            x = pad_with_zero(z, x, (0, *zeros), (stride - 1, *zeros))
            x = z.reshape(x, (*head, extent * stride, *tail))
    return x


def _pad_or_crop(z: Quantizer, x: Encrypted, before: Sequence[int], after: Sequence[int]) -> Encrypted:
    """Zeros around the last axes; elements are taken away where their number is negative."""
    x = pad_with_zero(z, x, [max(n, 0) for n in before], [max(n, 0) for n in after])
    rest = [0] * (len(x.shape) - len(before))
    starts = [max(-n, 0) for n in (*rest, *before)]
    stops = [extent + min(n, 0) for extent, n in zip(x.shape, (*rest, *after), strict=True)]
    if not any(starts) and stops == list(x.shape):
        return x
    part = tuple(slice(start, stop) for start, stop in zip(starts, stops, strict=True))
    return z.static(x, "slice", lambda a: a[part], starts=tuple(starts), stops=tuple(stops), steps=(1,) * len(x.shape))


def _transposed(z: Quantizer, tensor: Tensor | None) -> Tensor | None:
    return _swapped(z, tensor) if isinstance(tensor, Encrypted) else np.transpose(np.asarray(tensor))


def _product(z: Quantizer, node: GraphNode, a: Tensor | None, b: Tensor | None) -> Encrypted:
    kinds = {t.kind if isinstance(t, Encrypted) else kind_of(np.asarray(t).dtype) for t in (a, b)}
    if isinstance(a, Encrypted) and isinstance(b, Encrypted):
        result = _encrypted_product(z, node, a, b)
    elif isinstance(a, Encrypted):
        result = times_weights(z, node, a, np.asarray(b, dtype=np.float64))
    else:
        assert isinstance(b, Encrypted)
        result = _weights_times(z, node, np.asarray(a, dtype=np.float64), b)
    return replace(result, kind="i") if kinds == {"i"} else result


def _weights_times(z: Quantizer, node: GraphNode, weights: FloatArray, x: Encrypted) -> Encrypted:
    """``weights @ x``: by ``(A B)' = B' A'``."""
    turned = np.swapaxes(weights, -1, -2) if weights.ndim > 1 else weights
    if len(x.shape) == 1:
        return times_weights(z, node, x, turned)
    result = times_weights(z, node, _swapped(z, x), turned)
    return result if weights.ndim == 1 else _swapped(z, result)


def _swapped(z: Quantizer, x: Encrypted) -> Encrypted:
    """The last two axes exchanged."""
    rank = len(x.shape)
    axes = (*range(rank - 2), rank - 1, rank - 2)
    return z.static(x, "transpose", lambda a: np.transpose(a, axes), axes=axes)


def _batched(z: Quantizer, node: GraphNode, x: Encrypted, weights: FloatArray, batch: Extents) -> Encrypted:
    """A convolution whose groups are the batches: the elements of all their rows are its channels."""
    rank, (k, m), rows = len(batch) + 2, weights.shape[-2:], x.shape[-2]
    x = z.reshape(x, (1,) * (rank - len(x.shape)) + x.shape)
    by_row = {rank - 2} & set(varies_along(x.scale))
    x = z.operand(x, () if by_row else (*range(rank - 2), rank - 1))
    x = _swapped(z, z.broadcast(x, (*batch, rows, k)))
    kernels = np.swapaxes(np.broadcast_to(weights, (*batch, k, m)), -1, -2).reshape(-1, k, 1)
    linear = accumulators.convolution(
        z, z.reshape(x, (1, prod(batch) * k, rows)), kernels, np.zeros(len(kernels)),
        strides=(1,), dilations=(1,), groups=prod(batch),
    )  # fmt: skip
    result = accumulators.accumulate(z, linear, feeds_lookup=node.feeds_lookup)
    return _swapped(z, z.reshape(result, (*batch, m, rows)))


def _encrypted_product(z: Quantizer, node: GraphNode, a: Encrypted, b: Encrypted) -> Encrypted:
    """Products of all pairs, summed: two lookups for each of them."""
    vectors = len(a.shape) == 1, len(b.shape) == 1
    a = z.reshape(a, (1, *a.shape)) if vectors[0] else a
    b = z.reshape(b, (*b.shape, 1)) if vectors[1] else b
    a, b = combine.without_offset(z, a), combine.without_offset(z, b)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    rows, inner, columns = a.shape[-2], a.shape[-1], b.shape[-1]
    rank = len(batch)
    a = z.reshape(a, (1,) * (rank + 2 - len(a.shape)) + a.shape)
    b = z.reshape(b, (1,) * (rank + 2 - len(b.shape)) + b.shape)
    wide = (*batch, rows, inner, columns)
    left = z.broadcast(z.reshape(a, (*a.shape, 1)), wide)
    right = z.broadcast(z.reshape(b, (*b.shape[:-2], 1, *b.shape[-2:])), wide)
    product = combine.multiply(z, left, right)
    total = z.total(product, (rank + 1,), keepdims=False, feeds_lookup=node.feeds_lookup)
    shape = list(total.shape)
    if vectors[1]:
        shape.pop(-1)
    if vectors[0]:
        shape.pop(rank)
    return z.reshape(total, shape)
