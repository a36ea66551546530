"""Exact integer intervals, one per element of a value, in Python integers that cannot wrap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fhelearn.exceptions import ProgramError
from fhelearn.typing import IntArray, ObjectArray

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


def as_integers(values: Any, what: str) -> ObjectArray:
    """Return `values` as an array of Python integers.

    Parameters
    ----------
    values : int or array-like of int
        Any shape. Booleans and floats are refused, even integral ones.
    what : str
        Name used in the error.

    Raises
    ------
    ProgramError
        If an element is not an integer.
    """
    array = np.asarray(values)
    if array.dtype.kind in "iu":
        return array.astype(object)
    if array.dtype != object or not all(type(v) is int or isinstance(v, np.integer) for v in array.flat):
        raise ProgramError(f"{what} must be integers, got dtype {array.dtype}; round and cast them to int64 first")
    return np.frompyfunc(int, 1, 1)(array) if array.ndim else np.asarray(int(array.item()), dtype=object)


def bit_width(lo: int, hi: int) -> int:
    """Bits of the smallest integer type that holds [lo, hi]: two's complement if lo < 0, else unsigned (at least 1)."""
    return max(max(hi, 0).bit_length(), (-lo - 1).bit_length()) + 1 if lo < 0 else max(hi.bit_length(), 1)


def _python_integers(values: Any) -> ObjectArray:
    """An object array; arithmetic on 0-d object arrays gives bare integers, and np.minimum of those even int64."""
    array = np.asarray(values, dtype=object)
    return array if array.ndim else np.asarray(int(array.item()), dtype=object)


@dataclass(frozen=True, eq=False)
class Bounds:
    """Inclusive bounds of every element of a value.

    Attributes
    ----------
    lo, hi : ndarray of Python int (dtype=object), one common shape
        Broadcastable to the value's shape. Built with :meth:`Bounds.of`, which checks.
    """

    lo: ObjectArray
    hi: ObjectArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "lo", _python_integers(self.lo))
        object.__setattr__(self, "hi", _python_integers(self.hi))

    @staticmethod
    def of(lo: Any, hi: Any) -> Bounds:
        """Check and normalize: integers, one shape, ``lo <= hi`` everywhere.

        Raises
        ------
        ProgramError
            If a bound is not an integer, the shapes do not broadcast, or some ``lo > hi``.
        """
        low, high = as_integers(lo, "lo"), as_integers(hi, "hi")
        if low.shape != high.shape:
            try:
                low, high = np.broadcast_arrays(low, high)
            except ValueError:
                raise ProgramError(f"lo has shape {low.shape} but hi has shape {high.shape}") from None
        wrong = np.asarray(low > high, dtype=bool)
        if wrong.any():
            first = int(np.argmax(wrong.ravel()))
            raise ProgramError(f"empty bounds at element {first}: lo={low.ravel()[first]} > hi={high.ravel()[first]}")
        return Bounds(low, high)

    @property
    def minimum(self) -> int:
        """The least lower bound over all elements."""
        return int(self.lo.min())

    @property
    def maximum(self) -> int:
        """The greatest upper bound over all elements."""
        return int(self.hi.max())

    @property
    def signed(self) -> bool:
        """Whether some element may be negative."""
        return self.minimum < 0

    @property
    def bit_width(self) -> int:
        """Bits that hold every element: two's complement if signed, else unsigned; at least 1."""
        return bit_width(self.minimum, self.maximum)

    @property
    def fits_int64(self) -> bool:
        """Whether every element fits 64-bit two's complement."""
        return self.minimum >= INT64_MIN and self.maximum <= INT64_MAX

    def broadcast(self, shape: tuple[int, ...]) -> Bounds:
        """The same bounds as read-only views of `shape`. Raises ProgramError where they do not broadcast."""
        try:
            return Bounds(np.broadcast_to(self.lo, shape), np.broadcast_to(self.hi, shape))
        except ValueError:
            raise ProgramError(f"bounds of shape {self.lo.shape} do not broadcast to shape {shape}") from None

    def compact(self) -> Bounds:
        """The same bounds as two scalars where all elements agree: the canonical form that files store."""
        if self.lo.ndim == 0:
            return self
        lo, hi = self.lo.ravel(), self.hi.ravel()
        uniform = lo.size > 0 and bool((lo == lo[0]).all()) and bool((hi == hi[0]).all())
        return Bounds(lo[0], hi[0]) if uniform else self

    def meet(self, other: Bounds, shape: tuple[int, ...]) -> Bounds | None:
        """What both allow, element by element over `shape`; None if some element is left without a value."""
        mine, its = self.broadcast(shape), other.broadcast(shape)
        lo, hi = np.maximum(mine.lo, its.lo), np.minimum(mine.hi, its.hi)
        return None if np.any(lo > hi) else Bounds(lo, hi)

    def map(self, function: Callable[[ObjectArray], ObjectArray]) -> Bounds:
        """Apply a monotone (or element-moving) function to both ends."""
        return Bounds(function(self.lo), function(self.hi))

    def to_int64(self) -> tuple[IntArray, IntArray]:
        """(lo, hi) as int64 arrays; the caller has checked :attr:`fits_int64`."""
        return self.lo.astype(np.int64), self.hi.astype(np.int64)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Bounds):
            return NotImplemented
        try:
            return bool(np.all(self.lo == other.lo) and np.all(self.hi == other.hi))
        except ValueError:  # shapes that do not broadcast
            return False

    __hash__ = None  # type: ignore[assignment]  # holds arrays; equality is by value


MAX_WIDE_PRODUCTS = 2**24
"""Most products that are summed in Python integers: a few seconds' work."""


def linear_bounds(
    bounds: Bounds,
    weights: IntArray,
    terms: int,
    products: int,
    apply: Callable[[ObjectArray, ObjectArray], ObjectArray],
) -> Bounds:
    """Exact bounds of a linear map: ``lo' = W+ lo + W- hi`` and ``hi' = W+ hi + W- lo``.

    Interval arithmetic is tight here because every input element occurs once per output (Moore, Kearfott and
    Cloud, *Introduction to Interval Analysis*, SIAM 2009, section 5). `apply(x, w)` evaluates the map; it is
    called on int64 where no partial sum of `terms` products can leave 63 bits, and on Python integers otherwise.
    `products` is the number of products in all.

    Raises
    ------
    ProgramError
        If that needs more than 2**24 products in Python integers.
    """
    largest = max(abs(bounds.minimum), abs(bounds.maximum), 1)
    heaviest = max((abs(int(weights.min())), abs(int(weights.max()))), default=0) if weights.size else 0
    safe = 2 * largest * heaviest * max(terms, 1) < 2**62
    if not safe and products > MAX_WIDE_PRODUCTS:
        raise ProgramError(f"sums of {terms} products may leave 62 bits; use fewer bits for inputs or weights")
    kind = np.int64 if safe else object
    lo, hi = bounds.lo.astype(kind), bounds.hi.astype(kind)
    w = weights.astype(object)
    positive, negative = np.maximum(w, 0).astype(kind), np.minimum(w, 0).astype(kind)
    low = apply(lo, positive) + apply(hi, negative)
    high = apply(hi, positive) + apply(lo, negative)
    return Bounds(np.asarray(low).astype(object), np.asarray(high).astype(object))
