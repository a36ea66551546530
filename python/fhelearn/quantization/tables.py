"""Exact lookup tables from functions on floats.

"Bit-identical with NumPy" has one honest meaning: ``np.exp`` and the C library's ``exp`` differ in the last bit of
4.6 % of inputs, and NumPy's own results differ between CPUs with and without AVX-512. So NumPy evaluates the function,
the C++ core does what IEEE 754 fixes (dequantize, round half to even, clip), and the *integers* that result are stored
in the program.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fhelearn import _core
from fhelearn.exceptions import QuantizationError
from fhelearn.typing import FloatArray, IntArray

MAX_ENTRIES = 2**28
"""Largest number of entries, all channels together, of a table: 2 GiB of int64."""


def lookup_table(
    function: Callable[[FloatArray], Any],
    lo: int,
    hi: int,
    *,
    input_scale: Any = 1.0,
    input_zero_point: Any = 0,
    output_scale: Any = 1.0,
    output_zero_point: Any = 0,
    output_lo: Any,
    output_hi: Any,
    num_threads: int = 0,
) -> IntArray:
    """Tabulate `function` between quantized integers.

    Entry ``i`` of channel ``c`` is ``clip(rint(f(x) / output_scale) + output_zero_point, output_lo, output_hi)`` at
    ``x = (lo + i - input_zero_point) * input_scale``, all in float64, rounding half to even.

    Parameters
    ----------
    function : callable
        Maps a float64 array ``(channels, size)`` to an array that broadcasts to that shape; evaluated by NumPy, once.
        For parameters per channel (a batch normalization, say) let it close over arrays ``(channels, 1)``.
    lo, hi : int
        The first and last index: bounds of the value that is looked up. ``|lo|``, ``|hi|`` below 2**53.
    input_scale, output_scale : float or array-like of float, shape (channels,)
        Finite and positive.
    input_zero_point, output_zero_point, output_lo, output_hi : int or array-like of int, shape (channels,)
        Within +-2**50, ``output_lo <= output_hi``.
    num_threads : int, default=0
        0 is the default number of the C++ core.

    Returns
    -------
    int64 array, shape (size,) if all parameters are scalars, else (channels, size)
        ``size = hi - lo + 1``. Attribute ``table`` of a ``table_lookup`` whose ``lo`` is `lo`.

    Raises
    ------
    QuantizationError
        If a parameter is out of range, the channels disagree, the table is too large, or `function` gives NaN or
        another shape.
    """
    parameters = (input_scale, input_zero_point, output_scale, output_zero_point, output_lo, output_hi)
    channels = _channels(parameters)
    count = 1 if channels is None else channels
    size = _size(lo, hi, count)
    scale_in, scale_out = (_floats(v, count) for v in (input_scale, output_scale))
    zero_in = _integers(input_zero_point, count, "input_zero_point")
    zero_out = _integers(output_zero_point, count, "output_zero_point")
    low, high = _integers(output_lo, count, "output_lo"), _integers(output_hi, count, "output_hi")
    try:
        x = _core.dequantize_range(int(lo), size, scale_in, zero_in, num_threads)
        y = _evaluate(function, x)
        table: IntArray = _core.requantize(y, scale_out, zero_out, low, high, num_threads)
    except ValueError as error:
        raise QuantizationError(f"lookup table over [{lo}, {hi}]: {error}") from None
    return table[0] if channels is None else table


def _channels(parameters: tuple[Any, ...]) -> int | None:
    """The number of channels, None if every parameter is a scalar."""
    shapes = {np.shape(v) for v in parameters}
    lengths = {shape[0] for shape in shapes if len(shape) == 1}
    if any(len(shape) > 1 for shape in shapes) or len(lengths) > 1 or lengths == {0}:
        raise QuantizationError(
            f"parameters must be scalars or have one entry per channel, got shapes {sorted(shapes)}"
        )
    return int(lengths.pop()) if lengths else None


def _size(lo: int, hi: int, channels: int) -> int:
    if lo > hi:
        raise QuantizationError(f"the table's bounds are empty: lo={lo} > hi={hi}")
    size = int(hi) - int(lo) + 1
    if size * channels > MAX_ENTRIES:
        raise QuantizationError(
            f"a table over [{lo}, {hi}] for {channels} channels has {size * channels} entries, at most {MAX_ENTRIES}; "
            "round the accumulator first"
        )
    return size


def _floats(value: Any, channels: int) -> FloatArray:
    return np.ascontiguousarray(np.broadcast_to(np.asarray(value, dtype=np.float64), (channels,)))


def _integers(value: Any, channels: int, what: str) -> IntArray:
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise QuantizationError(f"{what} must be integers, got dtype {array.dtype}")
    return np.ascontiguousarray(np.broadcast_to(array.astype(np.int64), (channels,)))


def _evaluate(function: Callable[[FloatArray], Any], x: FloatArray) -> FloatArray:
    y = np.asarray(function(x), dtype=np.float64)
    try:
        return np.ascontiguousarray(np.broadcast_to(y, x.shape))
    except ValueError:
        raise QuantizationError(f"function returned shape {y.shape} for an argument of shape {x.shape}") from None


@dataclass(frozen=True, eq=False)
class Thresholds:
    """Tables in run-length form: few integers where neighbouring entries are mostly equal.

    Attributes
    ----------
    lo, size : int
        First index and number of entries of every table.
    starts : int64 array, shape (channels + 1,)
        Runs of channel ``c`` are ``starts[c]`` to ``starts[c + 1] - 1``.
    thresholds, values : int64 arrays, shape (runs,)
        From index ``thresholds[r]`` up to the next threshold of the channel, entries equal ``values[r]``. The
        thresholds of a channel increase strictly and begin with `lo`; neighbouring values differ.
    """

    lo: int
    size: int
    starts: IntArray
    thresholds: IntArray
    values: IntArray

    @classmethod
    def of(cls, table: IntArray, lo: int) -> Thresholds:
        """The run-length form of int64 `table`, shape (size,) or (channels, size), whose first entry is for index `lo`.

        Raises
        ------
        QuantizationError
            If `table` is not int64 of one or two axes, or empty.
        """
        if table.dtype != np.int64 or table.ndim not in (1, 2) or not table.size:
            raise QuantizationError(
                f"table must be a non-empty int64 array (size,) or (channels, size), got {table.dtype}{table.shape}"
            )
        rows = np.ascontiguousarray(np.atleast_2d(table))
        starts, thresholds, values = _core.table_thresholds(rows, int(lo))
        return cls(int(lo), rows.shape[1], starts, thresholds, values)

    @property
    def channels(self) -> int:
        """Number of tables."""
        return len(self.starts) - 1

    def to_table(self) -> IntArray:
        """The tables again: int64, shape (channels, size)."""
        ends = np.append(self.thresholds[1:], self.lo + self.size)
        ends[self.starts[1:] - 1] = self.lo + self.size
        return np.repeat(self.values, ends - self.thresholds).reshape(self.channels, self.size)
