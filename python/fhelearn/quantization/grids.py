"""Quantization grids of tensors, chosen from calibration data by an observer.

A grid stands for the floats ``scale * q + offset`` with integers q in [lo, hi]. Zero lies on every grid (perhaps beyond
its ends): padding with zeros is then exact. The offset is a multiple of the scale, and 0 unless that would make the
integers large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from fhelearn.exceptions import QuantizationError
from fhelearn.typing import FloatArray, IntArray

ObserverName: TypeAlias = Literal["minmax", "percentile", "mse"]

PERCENTILE = 99.9
"""Percent of the values between the ends that the percentile observer takes; half of the rest lies beyond each."""

_MSE_SHRINKS = np.linspace(1.0, 0.3, 29)
"""Parts of the full range that the mean-squared-error observer tries."""

_MSE_SAMPLE = 20_000
"""Values per channel that the mean-squared-error observer looks at: evenly spaced ones if there are more."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Evenly spaced floats ``scale * q + offset``, lo <= q <= hi.

    Attributes
    ----------
    scale, offset : ndarray of float64
        Positive, and a multiple of it; shaped to broadcast against the tensor.
    lo, hi : ndarray of int64
        Of the same shape; ``hi - lo < 2**bits``.
    """

    scale: FloatArray
    offset: FloatArray
    lo: IntArray
    hi: IntArray

    def quantize(self, x: FloatArray) -> IntArray:
        """The nearest point, half to even, clipped to the ends. x: any shape that the grid broadcasts to, no NaN."""
        q = np.rint((np.asarray(x, dtype=np.float64) - self.offset) / self.scale)
        clipped: IntArray = np.clip(q, self.lo, self.hi).astype(np.int64)
        return clipped


def observe(
    values: FloatArray,
    bits: int,
    axes: Sequence[int] = (),
    *,
    observer: ObserverName = "minmax",
    margin: float = 0.0,
) -> Grid:
    """A grid for values like those given.

    Parameters
    ----------
    values : ndarray of float64, shape (n, *shape), n >= 1
        Finite.
    bits : int, 1 to 16
        The grid has at most ``2**bits`` points.
    axes : sequence of int
        Axes of `shape` along which the grid may vary; others share it.
    observer : {"minmax", "percentile", "mse"}
        What the ends are: those of the data; the ends between which 99.9 % of it lie; or those of least mean squared
        error of ``x - quantized(x)``, clipping included.
    margin : float
        Part of the range by which it is widened at both ends.

    Returns
    -------
    Grid
        Its arrays have the rank of `shape`. If all values are integers and ``2**bits`` points suffice, its step is 1.

    Raises
    ------
    QuantizationError
        If there is no value, one is not finite, or the range overflows float64.
    """
    if observer not in get_args(ObserverName):
        raise QuantizationError(f"observer must be one of {', '.join(get_args(ObserverName))}, got {observer!r}")
    if not 1 <= bits <= 16:
        raise QuantizationError(f"bits must be from 1 to 16, got {bits}")
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0:
        raise QuantizationError("calibration needs at least one row")
    kept = [axis + 1 for axis in sorted(axes)]
    shape = [n if axis in kept else 1 for axis, n in enumerate(values.shape)][1:]
    channels = np.moveaxis(values, kept, range(len(kept))).reshape(int(np.prod(shape)), -1)
    if not np.isfinite(channels).all():
        raise QuantizationError(f"calibration values must be finite, got {channels[~np.isfinite(channels)][0]}")
    low, high = _ends(channels, bits, observer)
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = low - margin * (high - low), high + margin * (high - low)
    if not np.isfinite(high - low).all():
        raise QuantizationError("the range of the values overflows float64; rescale the data")
    integers = (np.rint(channels) == channels).all(axis=1)
    scale, offset, lo, hi = _grid(low, high, bits, integers)
    return Grid(scale.reshape(shape), offset.reshape(shape), lo.reshape(shape), hi.reshape(shape))


def _ends(channels: FloatArray, bits: int, observer: ObserverName) -> tuple[FloatArray, FloatArray]:
    low, high = channels.min(axis=1), channels.max(axis=1)
    if observer == "percentile":
        tail = (100.0 - PERCENTILE) / 2
        low, high = np.percentile(channels, (tail, 100.0 - tail), axis=1)
    if observer == "mse":
        step = -(-channels.shape[1] // _MSE_SAMPLE)
        return _least_squares(channels[:, ::step], low, high, bits)
    return low, high


def _least_squares(channels: FloatArray, low: FloatArray, high: FloatArray, bits: int) -> tuple[FloatArray, FloatArray]:
    best = np.full(len(low), np.inf)
    ends = low.copy(), high.copy()
    integers = (np.rint(channels) == channels).all(axis=1)
    for part in _MSE_SHRINKS:
        scale, offset, lo, hi = _grid(low * part, high * part, bits, integers)
        column = (slice(None), np.newaxis)
        grid = Grid(scale[column], offset[column], lo[column], hi[column])
        error = ((grid.quantize(channels) * grid.scale + grid.offset - channels) ** 2).mean(axis=1)
        better = error < best
        best = np.where(better, error, best)
        ends = np.where(better, low * part, ends[0]), np.where(better, high * part, ends[1])
    return ends


def _grid(
    low: FloatArray, high: FloatArray, bits: int, integers: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray, IntArray, IntArray]:
    """Scale, offset, lo and hi per channel."""
    codes = 2**bits - 1
    magnitude = np.maximum(np.abs(low), np.abs(high))
    scale = np.maximum((high - low) / codes, 4 * np.spacing(magnitude))
    single = high == low
    scale = np.where(single, np.where(magnitude > 0, magnitude, 1.0), scale)
    whole = integers & (np.ceil(high) - np.floor(low) <= codes) & (magnitude < 2.0**31)
    scale = np.where(whole, 1.0, scale)
    first = np.where(whole, np.floor(low), np.rint(low / scale))
    steps = np.where(whole, np.ceil(high) - np.floor(low), np.minimum(np.rint(high / scale) - first, codes))
    away = (first > 0) | (first + steps < 0)  # zero lies outside: count from the low end, so that integers stay small
    centre = np.where(away, first, 0.0)
    lo = (first - centre).astype(np.int64)
    return scale, scale * centre, lo, lo + steps.astype(np.int64)
