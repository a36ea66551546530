"""Products with clear weights, and of two encrypted matrices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fhelearn.frontends.onnx import combine
from fhelearn.frontends.onnx import linear as accumulators
from fhelearn.frontends.onnx.quantizer import Quantizer
from fhelearn.frontends.onnx.registry import GraphNode, imports
from fhelearn.frontends.onnx.values import Clear, Encrypted, Tensor
from fhelearn.typing import FloatArray


@imports("Gemm")
def gemm(z: Quantizer, node: GraphNode) -> Tensor:
    """``alpha op(A) op(B) + beta C``."""
    alpha, beta = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    a, b = (
        _transposed(z, tensor) if node.attributes.get(name, 0) else tensor
        for tensor, name in zip(node.inputs[:2], ("transA", "transB"), strict=True)
    )
    bias = node.inputs[2] if node.has(2) else np.zeros(())
    if isinstance(bias, Encrypted):
        product = combine.scaled(_product(z, node, a, b, np.zeros(())), alpha)
        addend = z.operand(z.broadcast(z.reshape(bias, (1,) * (2 - len(bias.shape)) + bias.shape), product.shape))
        return combine.add(z, product, combine.scaled(addend, beta))
    scaled = np.asarray(bias, dtype=np.float64) * (beta / alpha if alpha else 0.0)
    return combine.scaled(_product(z, node, a, b, scaled), alpha)


@imports("MatMul")
def matmul(z: Quantizer, node: GraphNode) -> Tensor:
    """NumPy's matrix product, batches included."""
    return _product(z, node, node.inputs[0], node.inputs[1], np.zeros(()))


@imports("Conv")
def conv(z: Quantizer, node: GraphNode) -> Tensor:
    """Convolution over one or two extents, with groups, dilations and any padding."""
    weights = node.clear(1, "the weights").astype(np.float64)
    spatial = weights.ndim - 2
    if spatial not in (1, 2):
        raise node.unsupported(f"the weights have {spatial} spatial axes", "use Conv1d or Conv2d")
    x = node.encrypted(0, "data")
    if x.shape[0] != 1:
        raise node.unsupported(f"the data has {x.shape[0]} rows", "export the model with a batch of 1")
    strides = tuple(node.attributes.get("strides", (1,) * spatial))
    dilations = tuple(node.attributes.get("dilations", (1,) * spatial))
    before, after = padding(node, x.shape[2:], weights.shape[2:], strides, dilations)
    x = pad_with_zero(z, z.operand(x, (1,)), (0, 0, *before), (0, 0, *after))
    bias = node.clear(2, "the bias", np.zeros(weights.shape[0])).astype(np.float64)
    linear = accumulators.convolution(
        z, x, weights, bias, strides=strides, dilations=dilations, groups=node.attributes.get("group", 1)
    )
    result = accumulators.accumulate(z, linear, feeds_lookup=node.feeds_lookup)
    return z.reshape(result, (1, *result.shape))


def padding(
    node: GraphNode,
    extents: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Zeros before and after each spatial axis, from the attributes `pads` and `auto_pad`."""
    mode = node.attributes.get("auto_pad", "NOTSET")
    count = len(extents)
    if mode in ("NOTSET", "VALID", ""):
        pads = node.attributes.get("pads") if mode != "VALID" else None
        pads = [0] * (2 * count) if pads is None else [int(p) for p in pads]
        return tuple(pads[:count]), tuple(pads[count:])
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise node.unsupported(f"auto_pad is {mode!r}", "use explicit pads")
    before, after = [], []
    for extent, k, stride, dilation in zip(extents, kernel, strides, dilations, strict=True):
        total = max((-(-extent // stride) - 1) * stride + dilation * (k - 1) + 1 - extent, 0)
        small = total // 2
        before.append(small if mode == "SAME_UPPER" else total - small)
        after.append(total - before[-1])
    return tuple(before), tuple(after)


def pad_with_zero(z: Quantizer, x: Encrypted, before: Sequence[int], after: Sequence[int]) -> Encrypted:
    """`x` with zeros around: exact, because zero is on every grid. `x` is affine, with a scale per channel at most."""
    if not any(before) and not any(after):
        return x
    steps = np.divide(x.offset, x.scale, out=np.zeros(np.broadcast_shapes(x.offset.shape, x.scale.shape)), where=x.scale != 0)
    if not np.array_equal(np.rint(steps) * x.scale, np.broadcast_to(x.offset, steps.shape)):
        x = z.lookup(x, z.settings.n_bits.op_inputs)
        steps = np.rint(x.offset / x.scale)
    if steps.any():
        node = z.emit("add_constant", x.node, value=np.rint(steps).astype(np.int64))
        x = Encrypted(node, x.shape, x.scale, np.zeros((1,) * len(x.shape)), x.kind)
    widths = list(zip(before, after, strict=True))
    return z.static(
        x, "pad", lambda a: np.pad(a, widths, mode="edge"), before=tuple(before), after=tuple(after), value=0
    )


def _transposed(z: Quantizer, tensor: Tensor | None) -> Tensor | None:
    if isinstance(tensor, Encrypted):
        return z.static(tensor, "transpose", lambda a: np.asarray(a).T, axes=(1, 0))
    return None if tensor is None else tensor.T


def _product(z: Quantizer, node: GraphNode, a: Tensor | None, b: Tensor | None, bias: FloatArray) -> Encrypted:
    if isinstance(a, Encrypted) and isinstance(b, Encrypted):
        product = _encrypted_product(z, node, a, b)
        return combine.scaled(product, 1.0, np.asarray(bias)) if bias.any() else product
    if isinstance(a, Encrypted):
        assert b is not None
        return _by_weights(z, node, a, np.asarray(b, dtype=np.float64), bias)
    assert isinstance(b, Encrypted)
    assert a is not None
    if len(b.shape) == 1:
        return _by_weights(z, node, b, np.swapaxes(np.asarray(a, dtype=np.float64), -1, -2), np.zeros(()))
    # (A B)' = B' A'
    flipped = _by_weights(z, node, _swapped(z, b), np.swapaxes(np.asarray(a, dtype=np.float64), -1, -2), np.zeros(()))
    result = _swapped(z, flipped)
    return combine.scaled(result, 1.0, np.asarray(bias)) if bias.any() else result


def _swapped(z: Quantizer, x: Encrypted) -> Encrypted:
    axes = (*range(len(x.shape) - 2), len(x.shape) - 1, len(x.shape) - 2)
    return z.static(x, "transpose", lambda a: np.transpose(a, axes), axes=axes)


def _by_weights(z: Quantizer, node: GraphNode, x: Encrypted, weights: FloatArray, bias: FloatArray) -> Encrypted:
    if weights.ndim == 1:
        result = _by_weights(z, node, x, weights[:, np.newaxis], bias)
        return z.reshape(result, result.shape[:-1])
    if weights.ndim > 2:
        return _batched(z, node, x, weights)
    vector = len(x.shape) == 1
    x = z.operand(z.reshape(x, (1, *x.shape)) if vector else x, (len(x.shape) - (0 if vector else 1),))
    linear = accumulators.matmul(x, weights, bias)
    result = accumulators.accumulate(z, linear, feeds_lookup=node.feeds_lookup)
    return z.reshape(result, result.shape[1:]) if vector else result


def _batched(z: Quantizer, node: GraphNode, x: Encrypted, weights: Clear) -> Encrypted:
    raise node.unsupported(f"the weights have {weights.ndim} axes", "use weights of two axes")


def _encrypted_product(z: Quantizer, node: GraphNode, a: Encrypted, b: Encrypted) -> Encrypted:
    """Products of all pairs, summed: two lookups for each of them."""
    vectors = len(a.shape) == 1, len(b.shape) == 1
    a = z.reshape(a, (1, *a.shape)) if vectors[0] else a
    b = z.reshape(b, (*b.shape, 1)) if vectors[1] else b
    a, b = z.operand(a), z.operand(b)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    rows, inner, columns = a.shape[-2], a.shape[-1], b.shape[-1]
    rank = len(batch)
    a = z.reshape(a, (1,) * (rank + 2 - len(a.shape)) + a.shape)
    b = z.reshape(b, (1,) * (rank + 2 - len(b.shape)) + b.shape)
    wide = (*batch, rows, inner, columns)
    left = z.broadcast(z.reshape(a, (*a.shape, 1)), wide)
    right = z.broadcast(z.reshape(b, (*b.shape[:-2], 1, *b.shape[-2:])), wide)
    product = combine.multiply(z, left, right)
    total = z.total(product, (rank + 1,), keepdims=False)
    shape = list(total.shape)
    if vectors[1]:
        shape.pop(-1)
    if vectors[0]:
        shape.pop(rank)
    return z.reshape(total, shape)
