"""Uniform encoders and decoders: one scale and one offset per column.

``q = clip(rint((x - offset) / scale), lo, hi)`` and ``x ~ q * scale + offset``; the error inside the range is at most
``scale / 2``. The loops run in the C++ core.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhelearn import _core
from fhelearn.exceptions import QuantizationError
from fhelearn.typing import FloatArray, IntArray

MIN_BITS, MAX_BITS = 2, 16
"""Widths of a quantized input. Above 16 bits nothing is gained: the step is then 1.5e-5 of the feature's range."""

_EXACT_INTEGERS = 2.0**53
"""Magnitude below which every integer is a float64."""


def _frozen(values: Any, dtype: type[np.generic], name: str) -> NDArray[Any]:
    array = np.array(values, dtype=dtype, order="C")
    if array.ndim != 1:
        raise QuantizationError(f"{name} must have one entry per column (shape (n,)), got shape {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise QuantizationError(
            f"{name} must be finite, got {array[~np.isfinite(array)][0]} in column "
            f"{int(np.flatnonzero(~np.isfinite(array))[0])}"
        )
    array.setflags(write=False)
    return array


def _check_columns(array: NDArray[Any], columns: int, what: str) -> None:
    if array.ndim != 2 or array.shape[1] != columns:
        raise ValueError(f"{what} must have shape (n, {columns}), got {array.shape}")


def _check_scales(scale: FloatArray, *others: NDArray[Any]) -> None:
    if any(other.shape != scale.shape for other in others):
        raise QuantizationError(f"scale, offset and bounds differ in length: {[len(a) for a in (scale, *others)]}")
    if not (scale > 0).all():
        column = int(np.argmin(scale))
        raise QuantizationError(f"scale must be positive, got {scale[column]} in column {column}")


@dataclass(frozen=True, eq=False)
class ColumnRange:
    """What an encoder must cover, column by column.

    Attributes
    ----------
    low, high : ndarray of float64, shape (n_features,)
        Ends of the range, margin included; ``high - low`` is finite.
    integers : ndarray of bool, shape (n_features,)
        Whether the column held integers only.
    mean, deviation : ndarray of float64, shape (n_features,)
        Of the data; the deviation is the standard one.
    """

    low: FloatArray
    high: FloatArray
    integers: NDArray[np.bool_]
    mean: FloatArray
    deviation: FloatArray

    @classmethod
    def of(cls, x: FloatArray, *, margin: float = 0.0) -> ColumnRange:
        """The range of each column of `x`, widened by a margin.

        Parameters
        ----------
        x : ndarray of float64, shape (n, n_features), n >= 1
            Finite.
        margin : float
            Each column's range is widened at both ends by ``margin * (max - min)``; a constant column by
            ``margin * abs(value)``, and one that is always 0 by `margin`. Finite, not negative.

        Raises
        ------
        QuantizationError
            If `x` is empty or not finite, `margin` is not allowed, or a range overflows float64.
        """
        if x.ndim != 2 or x.shape[0] == 0:
            raise QuantizationError(f"x must have shape (n, n_features) with at least one row, got {x.shape}")
        if isinstance(margin, bool) or not isinstance(margin, int | float | np.number) or not 0 <= margin < np.inf:
            raise QuantizationError(f"the range's margin must be a finite float >= 0, got {margin!r}")
        low, high = x.min(axis=0).astype(np.float64), x.max(axis=0).astype(np.float64)
        bad = np.flatnonzero(~(np.isfinite(low) & np.isfinite(high)))
        if bad.size:
            raise QuantizationError(f"x holds NaN or infinity in column {int(bad[0])}; a range needs finite values")
        integers = (np.rint(x) == x).all(axis=0) & (np.maximum(-low, high) < _EXACT_INTEGERS)
        with np.errstate(over="ignore", invalid="ignore"):  # told apart below, by the range that is not finite
            mean = np.clip(x.mean(axis=0), low, high)  # rounding may push a mean out of its range
            deviation = np.minimum(x.std(axis=0), high - low)  # the square of a huge deviation overflows
            span = high - low
            span = np.where(span > 0, span, np.where(low == 0, 1.0, np.abs(low)))
            low, high = low - margin * span, high + margin * span
            bad = np.flatnonzero(~np.isfinite(high - low))
        if bad.size:
            raise QuantizationError(f"the range of column {int(bad[0])} is too wide for float64; rescale it")
        return cls(low, high, integers, mean, deviation)


@dataclass(frozen=True, eq=False)
class UniformEncoder:
    """Float columns to integers, each column with its own step.

    Attributes
    ----------
    scale : ndarray of float64, shape (n_features,)
        The step of each column, positive.
    offset : ndarray of float64, shape (n_features,)
        The float that becomes 0.
    lo, hi : ndarray of int64, shape (n_features,)
        The smallest and the largest integer of each column.
    """

    scale: FloatArray
    offset: FloatArray
    lo: IntArray
    hi: IntArray

    def __post_init__(self) -> None:
        for name, dtype in (("scale", np.float64), ("offset", np.float64), ("lo", np.int64), ("hi", np.int64)):
            object.__setattr__(self, name, _frozen(getattr(self, name), dtype, name))
        _check_scales(self.scale, self.offset, self.lo, self.hi)
        if (self.lo > self.hi).any():
            column = int(np.argmax(self.lo > self.hi))
            raise QuantizationError(
                f"lo must not exceed hi, got {self.lo[column]} > {self.hi[column]} in column {column}"
            )

    @classmethod
    def from_range(cls, columns: ColumnRange, bit_width: int) -> UniformEncoder:
        """Signed codes of `bit_width` bits that cover a range.

        Parameters
        ----------
        columns : ColumnRange
        bit_width : int
            2 to 16.

        Returns
        -------
        UniformEncoder
            A column that holds integers only gets a power of two as its step whenever the bits allow (at most one bit
            of resolution is lost), so that integers are represented exactly; any other column uses all codes. A range
            of zero width has the single code 0.

        Raises
        ------
        QuantizationError
            If `bit_width` is not allowed.
        """
        _check_bit_width(bit_width)
        codes = 2**bit_width - 1
        low, high = columns.low, columns.high
        # A step below float64's own would let the rounding of the offset push the ends of the range out of it.
        scale = np.maximum((high - low) / codes, 4 * np.spacing(np.maximum(np.abs(low), np.abs(high))))
        single = (high == low) | (scale < np.finfo(np.float64).tiny)
        scale = np.where(single, 1.0, scale)
        steps = np.where(single, 0, np.minimum(np.ceil((high - low) / scale), codes)).astype(np.int64)
        lo = -((steps + 1) // 2)
        hi = lo + steps
        offset = low - lo * scale
        exact, step, first, last = _integer_lattice(low, high, codes)
        exact &= columns.integers & ~single
        centre = (first + last + 1) // 2
        scale = np.where(exact, step, scale)
        offset = np.where(exact, centre * step, offset)
        lo = np.where(exact, first - centre, lo)
        hi = np.where(exact, last - centre, hi)
        return cls(scale, offset, lo, hi)

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return len(self.scale)

    @property
    def bit_width(self) -> int:
        """Bits of the widest column, in two's complement."""
        return int(
            max((int(max(hi, -lo - 1)).bit_length() + 1 for lo, hi in zip(self.lo, self.hi, strict=True)), default=1)
        )

    @property
    def minimum(self) -> FloatArray:
        """The float that the smallest code stands for, shape (n_features,)."""
        return self.offset + self.scale * self.lo

    @property
    def maximum(self) -> FloatArray:
        """The float that the largest code stands for, shape (n_features,)."""
        return self.offset + self.scale * self.hi

    def quantize(self, x: FloatArray) -> IntArray:
        """Round `x` to the nearest step (half to even) and clip to [lo, hi].

        x: float64, shape (n, n_features), without NaN. Returns int64, same shape. Raises ValueError on NaN or on
        another shape.
        """
        return self.quantize_counting(x)[0]

    def quantize_counting(self, x: FloatArray) -> tuple[IntArray, IntArray, IntArray]:
        """As :meth:`quantize`, and per column how many values were clipped from below and from above.

        Returns
        -------
        q : ndarray of int64, shape (n, n_features)
        below, above : ndarray of int64, shape (n_features,)
        """
        x = np.ascontiguousarray(x, dtype=np.float64)
        _check_columns(x, self.n_features, "x")
        return _core.quantize(x, self.scale, self.offset, self.lo, self.hi)

    def dequantize(self, q: IntArray) -> FloatArray:
        """Floats that the codes stand for, ``q * scale + offset``. q: int64, shape (n, n_features)."""
        return _dequantize(q, self.scale, self.offset)


@dataclass(frozen=True, eq=False)
class UniformDecoder:
    """Integer columns to floats: ``q * scale + offset`` in float64.

    Attributes
    ----------
    scale : ndarray of float64, shape (n_outputs,)
        Positive.
    offset : ndarray of float64, shape (n_outputs,)
    """

    scale: FloatArray
    offset: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", _frozen(self.scale, np.float64, "scale"))
        object.__setattr__(self, "offset", _frozen(self.offset, np.float64, "offset"))
        _check_scales(self.scale, self.offset)

    @property
    def n_outputs(self) -> int:
        """Number of columns."""
        return len(self.scale)

    def dequantize(self, q: IntArray) -> FloatArray:
        """``q * scale + offset``. q: integers, shape (n, n_outputs). Returns float64, same shape."""
        return _dequantize(q, self.scale, self.offset)


def _dequantize(q: IntArray, scale: FloatArray, offset: FloatArray) -> FloatArray:
    q = np.asarray(q)
    if q.dtype.kind not in "iu":
        raise ValueError(f"q must hold integers, got dtype {q.dtype}")
    q = np.ascontiguousarray(q, dtype=np.int64)
    _check_columns(q, len(scale), "q")
    return _core.dequantize(q, scale, offset)


def _check_bit_width(bit_width: int) -> None:
    if (
        isinstance(bit_width, bool)
        or not isinstance(bit_width, int | np.integer)
        or not MIN_BITS <= bit_width <= MAX_BITS
    ):
        raise QuantizationError(f"bit_width must be an int from {MIN_BITS} to {MAX_BITS}, got {bit_width!r}")


def _integer_lattice(
    low: FloatArray, high: FloatArray, codes: int
) -> tuple[NDArray[np.bool_], FloatArray, FloatArray, FloatArray]:
    """Per column the smallest step 2**-m <= 1 of which `codes` steps cover [low, high].

    Returns
    -------
    found : ndarray of bool
        False where integers need more codes than there are; the other arrays mean nothing there.
    step, first, last : ndarray of float64
        The step, and the first and the last multiple of it.
    """
    magnitude = np.maximum(np.maximum(np.abs(low), np.abs(high)), 1.0)
    finest = 52 - np.ceil(np.log2(magnitude))  # every multiple must be an exact float64
    with np.errstate(divide="ignore", over="ignore"):  # columns of no width, which have no lattice
        widest = np.minimum(np.floor(np.log2(codes / (high - low))), finest)
    found = np.zeros(low.shape, dtype=np.bool_)
    step, first, last = np.ones_like(low), np.zeros_like(low), np.zeros_like(low)
    for exponent in (widest, widest - 1, widest - 2):  # rounding both ends outwards may need one more halving
        scale = np.exp2(-np.maximum(exponent, 0.0))
        below, above = np.floor(low / scale), np.ceil(high / scale)
        new = ~found & (exponent >= 0) & (above - below <= codes)
        step, first, last = np.where(new, scale, step), np.where(new, below, first), np.where(new, above, last)
        found |= new
    return found, step, first, last
