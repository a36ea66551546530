"""Operators that pick, join, pad and resample elements."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from fhelearn.frontends.onnx import combine, moves
from fhelearn.frontends.onnx import linear as accumulators
from fhelearn.frontends.onnx.operators.shapes import moved_positions, positions, reference
from fhelearn.frontends.onnx.quantizer import Quantizer
from fhelearn.frontends.onnx.registry import GraphNode, imports
from fhelearn.frontends.onnx.values import Encrypted, Tensor

_LARGEST_MATRIX = 2**24
"""Elements of the largest interpolation matrix: as many as a program's value may have."""


@imports("Concat")
def concat(z: Quantizer, node: GraphNode) -> Tensor:
    """Encrypted and constant tensors side by side."""
    tensors = [t for t in node.inputs if t is not None and 0 not in t.shape]
    axis = int(node.attributes["axis"])
    return tensors[0] if len(tensors) == 1 else moves.join(z, tensors, axis % len(tensors[0].shape))


@imports("Gather")
def gather(z: Quantizer, node: GraphNode) -> Tensor:
    """Slices along one axis: constant indices of any rank."""
    x = node.encrypted(0, "data")
    axis = node.attributes.get("axis", 0) % len(x.shape)
    (targets,) = moved_positions(node, positions(x))
    picked = moves.select(z, x, targets.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :]))
    return z.reshape(picked, targets.shape)


@imports("ScatterElements", "ScatterND")
def scatter(z: Quantizer, node: GraphNode) -> Tensor:
    """Some elements of a tensor replaced by those of another."""
    if node.attributes.get("reduction", "none") != "none":
        raise node.unsupported(f"reduction is {node.attributes['reduction']!r}", "scatter without reduction")
    data, updates = node.inputs[0], node.inputs[2]
    assert data is not None
    assert updates is not None
    size, more = prod(data.shape), prod(updates.shape)
    if not more:
        return data
    numbers = np.arange(size + more, dtype=np.float64)
    indices = node.clear(1, "the indices")
    (targets,) = moved_positions(
        node, numbers[:size].reshape(data.shape), indices, numbers[size:].reshape(updates.shape)
    )
    flat = [z.reshape(t, (prod(t.shape),)) if isinstance(t, Encrypted) else t.ravel() for t in (data, updates)]
    return moves.select(z, moves.join(z, flat, 0), targets)


@imports("CenterCropPad", "Trilu")
def zeros_among(z: Quantizer, node: GraphNode) -> Tensor:
    """Elements of the first input, and zeros."""
    x = node.encrypted(0, "data")
    (targets,) = moved_positions(node, positions(x) + 1)
    return moves.place(z, x, targets - 1, 0.0)


@imports("Pad")
def pad(z: Quantizer, node: GraphNode) -> Tensor:
    """Elements put around, or taken away where the number of them is negative."""
    x = node.encrypted(0, "data")
    if node.attributes.get("mode", "constant") != "constant":
        return moves.select(z, x, moved_positions(node, positions(x))[0])
    value = float(node.clear(2, "the padding's value", 0.0))
    if not np.isfinite(value):
        raise node.unsupported(f"the padding's value is {value}", "pad with a finite number")
    zero = [np.zeros(())] if len(node.inputs) > 2 else []
    (targets,) = moved_positions(node, positions(x) + 1, node.clear(1, "the pads"), *zero)
    return moves.place(z, x, targets - 1, value)


@imports("Resize", "Upsample")
def resize(z: Quantizer, node: GraphNode) -> Tensor:
    """Nearest elements are moved; linear and cubic interpolation are a matrix product."""
    x = node.encrypted(0, "data")
    return _nearest(z, node, x) if node.attributes.get("mode", "nearest") == "nearest" else _interpolated(z, node, x)


def _nearest(z: Quantizer, node: GraphNode, x: Encrypted) -> Encrypted:
    """Where ONNX's own implementation moves the positions; those beyond the tensor are marked by -1."""
    import onnx

    marked = onnx.NodeProto()
    marked.CopyFrom(node.proto)
    del marked.attribute[:]
    marked.attribute.extend(a for a in node.proto.attribute if a.name != "extrapolation_value")
    if node.op_type == "Resize":
        marked.attribute.append(onnx.helper.make_attribute("extrapolation_value", -1.0))
    (targets,) = moved_positions(replace(node, proto=marked), positions(x))
    return moves.place(z, x, targets, node.attributes.get("extrapolation_value", 0.0))


def _interpolated(z: Quantizer, node: GraphNode, x: Encrypted) -> Encrypted:
    """The matrix of the interpolation is found by resampling unit vectors."""
    if x.kind != "f":
        raise node.unsupported("the data are integers, to which interpolation would round", "use mode 'nearest'")
    kept, changed = _resampled_axes(node, x)
    rows, m = prod(x.shape[a] for a in kept), prod(x.shape[a] for a in changed)
    order = (*kept, *changed)
    back = tuple(int(a) for a in np.argsort(order))
    extents = tuple(x.shape[a] for a in order)
    (constant,) = reference(node, np.zeros(x.shape))
    out = tuple(constant.shape[a] for a in order)
    if m * (constant.size // rows) > _LARGEST_MATRIX:
        raise node.unsupported(f"interpolation from {x.shape} to {constant.shape} is too large", "use mode 'nearest'")
    shift = constant.transpose(order).reshape(rows, -1)[:1]
    weights = np.concatenate(
        [
            reference(node, np.resize(part, (rows, m)).reshape(extents).transpose(back))[0]
            .transpose(order)
            .reshape(rows, -1)
            for part in np.split(np.eye(m), range(rows, m, rows))
        ]
    )[:m]
    x = z.operand(x, kept if (x.scale != 0).all() else ())
    flat = z.reshape(moves.transpose(z, x, order), (rows, m))
    unit = replace(flat, scale=np.ones((1, 1)), offset=flat.offset / flat.scale)
    linear = accumulators.matmul(unit, weights - shift, 0.0)
    result = accumulators.accumulate(z, linear, feeds_lookup=node.feeds_lookup)
    return moves.transpose(z, z.reshape(combine.scaled(result, flat.scale, shift), out), back)


def _resampled_axes(node: GraphNode, x: Encrypted) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes along which nothing is resampled, and the others."""
    kept: list[int] = []
    changed: list[int] = []
    for axis, extent in enumerate(x.shape):
        ramp = np.arange(1.0, extent + 1).reshape([-1 if a == axis else 1 for a in range(len(x.shape))])
        (moved,) = reference(node, np.broadcast_to(ramp, x.shape))
        same = moved.shape[axis] == extent and np.array_equal(moved, np.broadcast_to(ramp, moved.shape))
        (kept if same else changed).append(axis)
    return tuple(kept), tuple(changed)
