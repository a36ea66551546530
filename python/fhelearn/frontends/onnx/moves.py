"""Operations that only move elements, as the cheapest static operations of a program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from fhelearn.frontends.onnx.quantizer import Quantizer
from fhelearn.frontends.onnx.values import Clear, Encrypted, Tensor, compact
from fhelearn.typing import FloatArray, IntArray


def select(z: Quantizer, x: Encrypted, positions: IntArray) -> Encrypted:
    """``x.ravel()[positions]``; positions: int64, at least one, of the result's shape, each in [0, size of x)."""
    size = prod(x.shape)
    x = _affine(z, x) if positions.size > size else x  # a lookup after the copies would pay for each of them
    if positions.size == size and np.array_equal(positions.ravel(), np.arange(size)):
        return z.reshape(x, positions.shape)
    vectors = _vectors(x.shape, positions)
    changed = [a for a, v in enumerate(vectors or ()) if not np.array_equal(v, np.arange(x.shape[a]))]
    if vectors and all(_is_range(v) for v in vectors):
        return _slice(z, x, vectors)
    if vectors and all(x.shape[a] == 1 for a in changed):
        return z.broadcast(x, positions.shape)
    if len(changed) == 1:
        return _gather(z, x, changed[0], vectors[changed[0]])  # type: ignore[index]
    return z.reshape(_gather(z, z.reshape(x, (size,)), 0, positions.ravel()), positions.shape)


def transpose(z: Quantizer, x: Encrypted, axes: Sequence[int]) -> Encrypted:
    """The axes permuted."""
    axes = tuple(axes)
    if axes == tuple(range(len(axes))):
        return x
    return z.static(x, "transpose", lambda a: np.transpose(a, axes), axes=axes)


def place(z: Quantizer, x: Encrypted, positions: IntArray, value: float) -> Encrypted:
    """``x.ravel()[positions]``, and exactly `value` (finite) where a position is -1."""
    outside = positions < 0
    axes = range(positions.ndim)
    found = [np.flatnonzero(~outside.all(axis=tuple(b for b in axes if b != a))) for a in axes]
    box = tuple(slice(int(f[0]), int(f[-1]) + 1) if f.size else slice(0) for f in found)
    inner = positions[box]
    if inner.size and not outside[box].any():
        after = [n - cut.stop for n, cut in zip(positions.shape, box, strict=True)]
        return _pad(z, select(z, x, inner), [cut.start for cut in box], after, value)
    both = join(z, [z.reshape(_affine(z, x), (prod(x.shape),)), np.full(1, value)], 0)
    return select(z, both, np.where(outside, prod(x.shape), positions))


def _pad(z: Quantizer, x: Encrypted, before: Sequence[int], after: Sequence[int], value: float) -> Encrypted:
    """`x` with a frame of exactly `value`, on the grid of `x` if it holds that."""
    if not any(before) and not any(after):
        return x
    x = _affine(z, x)
    widths = list(zip(before, after, strict=True))
    scale, offset = (np.pad(np.broadcast_to(a, x.shape), widths, mode="edge") for a in (x.scale, x.offset))
    frame = np.pad(np.zeros(x.shape, dtype=np.bool_), widths, constant_values=True)
    q, own_offset = _on_grid(z, x, np.full(scale.shape, value), scale, offset)
    codes = np.unique(q[frame])
    if len(codes) > 1:  # one integer pads all: an offset of its own makes it the value
        codes, own_offset = np.zeros(1, dtype=np.int64), np.full(offset.shape, value)
    node = z.emit("pad", x.node, before=tuple(before), after=tuple(after), value=int(codes[0]))
    return replace(
        x, node=node, shape=scale.shape, scale=compact(scale), offset=compact(np.where(frame, own_offset, offset))
    )


def join(z: Quantizer, tensors: Sequence[Tensor], axis: int) -> Encrypted:
    """The tensors, at least one of them encrypted, side by side along an axis; every element keeps its scale."""
    affine = [_affine(z, t) if isinstance(t, Encrypted) else t for t in tensors]
    guide = next(t for t in affine if isinstance(t, Encrypted))
    parts = [t if isinstance(t, Encrypted) else _beside(z, t, guide, axis) for t in affine]
    node = z.emit("concatenate", *(part.node for part in parts), axis=axis)
    scale, offset = (
        compact(np.concatenate([np.broadcast_to(a, part.shape) for a, part in pairs], axis=axis))
        for pairs in ([(p.scale, p) for p in parts], [(p.offset, p) for p in parts])
    )
    sources = {t.source for t in affine if isinstance(t, Encrypted)}
    source = sources.pop() if len(sources) == 1 else ""
    return Encrypted(node, z.builder.value(node).shape, scale, offset, guide.kind, source=source)


def _affine(z: Quantizer, x: Encrypted) -> Encrypted:
    return x if x.affine else z.lookup(x, z.settings.n_bits.op_inputs)


def _beside(z: Quantizer, value: Clear, guide: Encrypted, axis: int) -> Encrypted:
    """A constant as a tensor of the program, exactly, and with the scales of its neighbour's first elements."""
    values = np.asarray(value, dtype=np.float64)
    scale, offset = (np.broadcast_to(np.take(a, [0], axis=axis), values.shape) for a in (guide.scale, guide.offset))
    q, offset = _on_grid(z, guide, values, scale, offset)
    return Encrypted(z.constant(q), values.shape, compact(scale), compact(offset), guide.kind)


def _on_grid(
    z: Quantizer, x: Encrypted, values: FloatArray, scale: FloatArray, offset: FloatArray
) -> tuple[IntArray, FloatArray]:
    """Integers that `x` may have and offsets that give exactly `values`: the offsets as they are, where that is so."""
    bounds = z.builder.value(x.node).bounds
    with np.errstate(all="ignore"):
        q = np.rint((values - offset) / scale)
        held = (q >= bounds.minimum) & (q <= bounds.maximum) & (q * scale + offset == values)
    return np.where(held, q, 0).astype(np.int64), np.where(held, offset, values)


def _vectors(shape: Sequence[int], positions: IntArray) -> list[IntArray] | None:
    """Per axis the indices i, j, ... such that the positions are ``x[i, :, ...][:, j, ...]...``, or None."""
    if positions.ndim != len(shape) or not shape:
        return None
    lines = [np.moveaxis(positions, axis, 0).reshape(n, -1)[:, 0] for axis, n in enumerate(positions.shape)]
    vectors = [np.unravel_index(line, shape)[axis] for axis, line in enumerate(lines)]
    return vectors if np.array_equal(np.ravel_multi_index(np.ix_(*vectors), shape), positions) else None


def _is_range(vector: IntArray) -> bool:
    steps = np.diff(vector)
    return not steps.size or bool(steps[0] > 0 and (steps == steps[0]).all())


def _slice(z: Quantizer, x: Encrypted, vectors: Sequence[IntArray]) -> Encrypted:
    starts, stops = (tuple(int(v[i]) + i * i for v in vectors) for i in (0, -1))
    steps = tuple(int(v[1] - v[0]) if len(v) > 1 else 1 for v in vectors)
    cuts = tuple(map(slice, starts, stops, steps))
    return z.static(x, "slice", lambda a: a[cuts], starts=starts, stops=stops, steps=steps)


def _gather(z: Quantizer, x: Encrypted, axis: int, indices: IntArray) -> Encrypted:
    return z.static(x, "gather", lambda a: np.take(a, indices, axis=axis), axis=axis, indices=indices)
