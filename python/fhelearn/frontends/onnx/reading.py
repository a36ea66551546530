"""What a lookup reads of a value: as few bits as the value has, or as the settings allow.

A value's encoding is as wide as its whole linear region. Multiplied by a power of two to that width it can be rounded
to its own width for nothing, and exactly, because nothing lies between the multiples (so the method does not matter,
and the free one is taken). Rounding to fewer bits than the value has is the user's choice, and is done by their
method. It drops the same low bits of all elements, so narrow ones among wide ones (a concatenation has them) are
multiplied by a power of two first, lest nothing be left of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fhelearn.frontends.onnx.settings import Rounding
from fhelearn.ir import RegionType, Value
from fhelearn.ir.interval import bit_width
from fhelearn.typing import IntArray

if TYPE_CHECKING:
    from fhelearn.frontends.onnx.quantizer import Quantizer


@dataclass(frozen=True)
class Reading:
    """How a value is read by lookups.

    Attributes
    ----------
    node : int
        What is looked up: ``rounded((q * 2**grown - centre) * 2**spare)`` of the value's integers q.
    grown : ndarray of int64
        Of the value's rank, broadcastable to it.
    centre, spare : int
    dropped : int
        Low bits of the encoding that the lookup need not read.
    bits : int
        Bits that it is meant to read.
    widest : int
        Bits of the widest lookup on the way: `bits`, or those of the value if it is rounded exactly.
    """

    node: int
    grown: IntArray
    centre: int
    spare: int
    dropped: int
    bits: int
    widest: int

    def original(self, looked_up: IntArray) -> IntArray:
        """The value's integers for those that are looked up, shape (..., *broadcastable to the value)."""
        return ((looked_up >> self.spare) + self.centre) >> self.grown


def narrow(z: Quantizer, node: int, region: RegionType | None, rounding: Rounding | None) -> Reading:
    """Emit what lookups of `node` read.

    Parameters
    ----------
    region : RegionType or None
        Of the node, as far as an earlier import told.
    rounding : Rounding or None
    """
    value = z.builder.value(node)
    dropped = max(value.bit_width - rounding.n_bits, 0) if rounding else 0
    base, grown = node, _slack(value, dropped)
    if grown.any():
        node = z.emit("multiply_constant", node, value=2**grown)
    bounds = z.builder.value(node).bounds
    lo, hi, width = bounds.minimum, bounds.maximum, bounds.bit_width
    if dropped and hi - lo + 2**dropped >= 2**width:  # rounding up needs room at the top
        width, dropped = width + 1, dropped + 1
    signed = lo < 0 or (region is not None and region.signed)
    centre = _centre(lo, hi, width, dropped, signed=signed)
    spare = max(region.bit_width - width, 0) if region else 0
    if centre:
        node = z.emit("add_constant", node, value=np.array(-centre))
    if spare:
        node = z.emit("multiply_constant", node, value=np.array(2**spare))
    if spare and (not dropped or (rounding and rounding.method == "exact")):
        node = z.emit("round", node, lsbs=spare, method="approximate")
    if dropped and rounding:
        node = z.emit("round", node, lsbs=spare + dropped, method=rounding.method)
    bits = width - dropped
    widest = width if dropped and rounding and rounding.method == "exact" else bits
    return Reading(node, grown, centre, spare, spare + dropped if node != base else 0, bits, widest)


def _slack(value: Value, dropped: int) -> IntArray:
    """Bits that slices along one axis may grow by, if low ones are dropped: the axis where they are most, else none.

    What is rounded up still fits. One bit is not worth tables that differ.
    """
    signed, top = value.bounds.minimum < 0, 2**dropped - 1
    lo, hi = value.bounds.broadcast(value.shape).to_int64()
    best = np.zeros((1,) * len(value.shape), dtype=np.int64)
    for axis, extent in enumerate(value.shape if dropped else ()):
        rest = tuple(a for a in range(len(value.shape)) if a != axis)
        low, high = lo.min(axis=rest), hi.max(axis=rest)
        ends = zip(low.tolist(), high.tolist(), strict=True)
        widths = np.array([bit_width(min(a, -1 if signed else 0), b) for a, b in ends], dtype=np.int64)
        slack = np.maximum(value.bit_width - widths, 0)
        fits = high * 2**slack + top < 2 ** (value.bit_width - signed)
        slack = np.where(fits, slack, np.maximum(slack - 1, 0))
        if slack.max() > 1 and slack.sum() * best.size > best.sum() * extent:
            best = np.where(slack > 1, slack, 0).reshape([-1 if a == axis else 1 for a in range(len(value.shape))])
    return best


def _centre(lo: int, hi: int, width: int, dropped: int, *, signed: bool) -> int:
    """What to subtract so that [lo, hi], rounded up by at most ``2**dropped - 1``, fits `width` bits; 0 if it does."""
    least = -(2 ** (width - 1)) if signed else 0
    most = least + 2**width - 1
    top = -(-hi // 2**dropped) * 2**dropped
    return 0 if lo >= least and top <= most else lo - least
