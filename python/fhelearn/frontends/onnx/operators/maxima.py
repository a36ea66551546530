"""Maxima of many windows of encrypted elements, with few lookups.

A maximum of two tensors costs one lookup per element. That of a window is put together from maxima of parts of it,
which windows share; parts may overlap, because ``max(x, x) = x``. Elements beside the tensor are in no window, so
padding costs nothing and has no value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from math import prod
from typing import TypeAlias

import numpy as np

from fhelearn.frontends.onnx import combine
from fhelearn.frontends.onnx.quantizer import Quantizer
from fhelearn.frontends.onnx.settings import WIDEST_LOOKUP
from fhelearn.frontends.onnx.values import Encrypted, steps_of, varies_along

Window: TypeAlias = tuple[int, ...]
"""Indices along one axis, ascending, at least one."""

_LONGEST_TAIL = 16
"""Windows of more elements are always halved."""


@dataclass(frozen=True)
class _Cut:
    """How a window becomes two: its last element apart from a size of `tail` down, else halves."""

    tail: int
    overlapping: bool

    def parts(self, window: Window) -> tuple[Window, Window]:
        if len(window) <= self.tail:
            return window[:-1], window[-1:]
        half = (len(window) + 1) // 2
        return window[:half], window[-half:] if self.overlapping else window[half:]

    def needed(self, windows: Sequence[Window]) -> dict[int, list[Window]]:
        """By size, from 2 up, the windows whose maxima must be computed."""
        found: dict[int, set[Window]] = {size: set() for size in range(1, max(map(len, windows)) + 1)}
        for window in windows:
            found[len(window)].add(window)
        for size in range(len(found), 1, -1):
            for window in found[size]:
                for part in self.parts(window):
                    found[len(part)].add(part)
        return {size: sorted(found[size]) for size in found if size > 1 and found[size]}


def maxima(z: Quantizer, x: Encrypted, windows: Mapping[int, Sequence[Window]]) -> Encrypted:
    """Maxima over windows that are products of windows along some axes; exact on the grid of `x`.

    Parameters
    ----------
    windows : mapping of int to sequence of Window
        By axis, one window per element of the result.

    Returns
    -------
    Encrypted
        Affine; its extent along each of the axes is the number of windows there.
    """
    x = _comparable(z, x, tuple(windows))
    reduced = {}
    for axis, along in windows.items():
        used = sorted({index for window in along for index in window})
        x = _taken(z, x, axis, used)
        reduced[axis] = [tuple(used.index(index) for index in window) for window in along]
    cuts = {axis: _best_cut(along) for axis, along in reduced.items()}
    order = min(permutations(reduced), key=lambda axes: _price(x.shape, axes, reduced, cuts))
    for axis in order:
        x = _along(z, x, axis, reduced[axis], cuts[axis])
    if any(len(window) > 1 for along in reduced.values() for window in along):
        z.maxima.add(x.node)
    return x


def _best_cut(windows: Sequence[Window]) -> _Cut:
    """Fewest lookups, then fewest of them one after the other."""
    longest = min(max(map(len, windows)), _LONGEST_TAIL)
    cuts = [_Cut(tail, overlapping) for tail in range(2, max(longest, 2) + 1) for overlapping in (False, True)]
    return min(cuts, key=lambda cut: (_lookups(cut, windows), len(cut.needed(windows))))


def _lookups(cut: _Cut, windows: Sequence[Window]) -> int:
    return sum(len(each) for each in cut.needed(windows).values())


def _price(
    shape: Sequence[int], axes: Sequence[int], windows: Mapping[int, Sequence[Window]], cuts: Mapping[int, _Cut]
) -> int:
    extents, total = list(shape), 0
    for axis in axes:
        extents[axis] = 1
        total += _lookups(cuts[axis], windows[axis]) * prod(extents)
        extents[axis] = len(windows[axis])
    return total


def _along(z: Quantizer, x: Encrypted, axis: int, windows: Sequence[Window], cut: _Cut) -> Encrypted:
    singles: list[Window] = [(index,) for index in range(x.shape[axis])]
    known: dict[int, tuple[Encrypted, list[Window]]] = {1: (x, singles)}
    for size, needed in sorted(cut.needed(windows).items()):
        left, right = (_found(z, known, axis, part) for part in zip(*map(cut.parts, needed), strict=True))
        node = combine.greater(z, left.node, right.node)
        known[size] = (replace(left, node=node, source=""), needed)
    return _found(z, known, axis, windows)


def _found(
    z: Quantizer, known: Mapping[int, tuple[Encrypted, list[Window]]], axis: int, windows: Sequence[Window]
) -> Encrypted:
    """The maxima of `windows`, in their order, from those known by size."""
    sizes = sorted({len(window) for window in windows})
    order = [window for size in sizes for window in known[size][1]]
    place = {window: i for i, window in enumerate(order)}
    x = known[sizes[0]][0]
    if len(sizes) > 1:
        node = z.emit("concatenate", *(known[size][0].node for size in sizes), axis=axis)
        x = replace(x, node=node, shape=z.builder.value(node).shape, source="")
    return _taken(z, x, axis, [place[window] for window in windows])


def _taken(z: Quantizer, x: Encrypted, axis: int, indices: Sequence[int]) -> Encrypted:
    """Elements along an axis, as a slice where they are evenly spaced."""
    extent, step = x.shape[axis], indices[1] - indices[0] if len(indices) > 1 else 1
    if list(indices) == list(range(extent)):
        return x
    if step > 0 and list(indices) == list(range(indices[0], indices[-1] + 1, step)):
        starts, stops, steps = [0] * len(x.shape), list(x.shape), [1] * len(x.shape)
        starts[axis], stops[axis], steps[axis] = indices[0], indices[-1] + 1, step
        bounds = {"starts": tuple(starts), "stops": tuple(stops), "steps": tuple(steps)}
        return z.static(x, "slice", lambda a: np.take(a, indices, axis=axis), **bounds)
    return z.static(
        x, "gather", lambda a: np.take(a, indices, axis=axis), axis=axis, indices=np.array(indices, dtype=np.int64)
    )


def _comparable(z: Quantizer, x: Encrypted, axes: tuple[int, ...]) -> Encrypted:
    """`x` such that along `axes` greater integers are greater elements."""
    kept = tuple(a for a in range(len(x.shape)) if a not in axes)
    grid_axes = kept if z.settings.activations == "per_channel" else ()
    x = z.operand(x, kept)
    bits = z.settings.n_bits.op_inputs
    if set(varies_along(x.offset)) & set(axes):
        steps = steps_of(x.offset, x.scale)
        if steps is None:
            x = z.lookup(x, bits, grid_axes)
        else:
            node = z.emit("add_constant", x.node, value=steps)
            x = Encrypted(node, x.shape, x.scale, np.zeros((1,) * len(x.shape)), x.kind)
    if z.bits(x.node) >= WIDEST_LOOKUP:  # a difference has one bit more
        x = z.lookup(x, min(bits, WIDEST_LOOKUP - 2), grid_axes)
    sign = np.where(x.scale < 0, -1, 1)
    if (sign == 1).all():
        return x
    return replace(x, node=z.emit("multiply_constant", x.node, value=sign), scale=np.abs(x.scale), source="")
