"""Exact lookup tables from functions on floats.

"Bit-identical with NumPy" has one honest meaning: ``np.exp`` and the C library's ``exp`` differ in the last bit of
4.6 % of inputs, and NumPy's own results differ between CPUs with and without AVX-512. So NumPy evaluates the function,
the C++ core does what IEEE 754 fixes (dequantize, round half to even, clip), and the *integers* that result are stored
in the program.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fhelearn import _core
from fhelearn.exceptions import QuantizationError
from fhelearn.typing import FloatArray, IntArray

MAX_ENTRIES = 2**28
"""Largest number of entries, all channels together, of a table: 2 GiB of int64."""

_INDEX_LIMIT = 2**53 - 1
_QUANTIZED_LIMIT = 2**50


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
    int64 array, shape (hi - lo + 1,) if all parameters are scalars, else (channels, hi - lo + 1)

    Raises
    ------
    QuantizationError
        If a parameter is out of range or of another kind, the channels disagree, the table is too large, or `function`
        gives NaN, complex numbers or another shape.
    """
    lo, hi = (_integer(v, name, -_INDEX_LIMIT, _INDEX_LIMIT) for name, v in (("lo", lo), ("hi", hi)))
    num_threads = _integer(num_threads, "num_threads", 0, 2**31 - 1)
    scale_in, scale_out = _Parameter.of("input_scale", input_scale), _Parameter.of("output_scale", output_scale)
    zero_in = _Parameter.of("input_zero_point", input_zero_point)
    zero_out = _Parameter.of("output_zero_point", output_zero_point)
    low, high = _Parameter.of("output_lo", output_lo), _Parameter.of("output_hi", output_hi)
    channels = _channels((scale_in, zero_in, scale_out, zero_out, low, high))
    count = 1 if channels is None else channels
    size = _size(lo, hi, count)
    lows, highs = low.integers(count), high.integers(count)
    _check_order(low, lows, highs)
    target = (scale_out.scales(count), zero_out.integers(count), lows, highs)
    x = _core.dequantize_range(lo, size, scale_in.scales(count), zero_in.integers(count), num_threads)
    try:
        table: IntArray = _core.requantize(_evaluate(function, x), *target, num_threads)
    except ValueError as error:
        raise QuantizationError(f"lookup table over [{lo}, {hi}]: {error}") from None
    return table[0] if channels is None else table


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _integer(value: Any, name: str, low: int, high: int) -> int:
    if not _is_integer(value) or not low <= int(value) <= high:
        raise QuantizationError(f"{name} is {value!r}, must be an integer in [{low}, {high}]")
    return int(value)


class _Parameter(NamedTuple):
    """A parameter as it was given: Python objects, checked before any cast."""

    name: str
    values: Any

    @classmethod
    def of(cls, name: str, value: Any) -> _Parameter:
        return cls(name, np.asarray(value, dtype=object))

    def entry(self, i: int) -> str:
        """How messages call entry `i`."""
        return f"{self.name}[{i}]" if self.values.ndim else self.name

    def integers(self, channels: int) -> IntArray:
        for i, value in enumerate(self.values.flat):
            _integer(value, self.entry(i), -_QUANTIZED_LIMIT, _QUANTIZED_LIMIT)
        return np.ascontiguousarray(np.broadcast_to(self.values.astype(np.int64), (channels,)))

    def scales(self, channels: int) -> FloatArray:
        for i, value in enumerate(self.values.flat):
            real = _is_integer(value) or isinstance(value, float | np.floating)
            if not real or not 0 < value <= np.finfo(np.float64).max or float(value) == 0:
                raise QuantizationError(f"{self.entry(i)} is {value!r}, must be a finite positive number")
        return np.ascontiguousarray(np.broadcast_to(self.values.astype(np.float64), (channels,)))


def _check_order(low: _Parameter, lows: IntArray, highs: IntArray) -> None:
    wrong = np.flatnonzero(lows > highs)
    if wrong.size:
        i = int(wrong[0])
        raise QuantizationError(f"{low.entry(i)} is {lows[i]}, must be <= output_hi, which is {highs[i]}")


def _channels(parameters: tuple[_Parameter, ...]) -> int | None:
    """The number of channels, None if every parameter is a scalar."""
    shapes = {parameter.values.shape for parameter in parameters}
    lengths = {shape[0] for shape in shapes if len(shape) == 1}
    if any(len(shape) > 1 for shape in shapes) or len(lengths) > 1 or lengths == {0}:
        raise QuantizationError(
            f"parameters must be scalars or have one entry per channel, got shapes {sorted(shapes)}"
        )
    return int(lengths.pop()) if lengths else None


def _size(lo: int, hi: int, channels: int) -> int:
    if lo > hi:
        raise QuantizationError(f"the table's bounds are empty: lo={lo} > hi={hi}")
    size = hi - lo + 1
    if size * channels > MAX_ENTRIES:
        raise QuantizationError(
            f"a table over [{lo}, {hi}] for {channels} channels has {size * channels} entries, at most {MAX_ENTRIES}; "
            "round the accumulator first"
        )
    return size


def _evaluate(function: Callable[[FloatArray], Any], x: FloatArray) -> FloatArray:
    y = np.asarray(function(x))
    if y.dtype.kind not in "biuf":
        raise QuantizationError(f"function returned dtype {y.dtype}, must return real numbers")
    try:
        return np.ascontiguousarray(np.broadcast_to(y.astype(np.float64), x.shape))
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
            If `table` is not int64 of one or two axes, or empty, or an index of its entries is no int64.
        """
        known = isinstance(table, np.ndarray)
        if not known or table.dtype != np.int64 or table.ndim not in (1, 2) or not table.size:
            got = f"{table.dtype}{table.shape}" if known else type(table).__name__
            raise QuantizationError(f"table must be a non-empty int64 array (size,) or (channels, size), got {got}")
        rows = np.ascontiguousarray(np.atleast_2d(table))
        lo = _integer(lo, "lo", -(2**63), 2**63 - 1 - rows.shape[1])
        starts, thresholds, values = _core.table_thresholds(rows, lo)
        return cls(lo, rows.shape[1], starts, thresholds, values)

    @property
    def channels(self) -> int:
        """Number of tables."""
        return len(self.starts) - 1

    def to_table(self) -> IntArray:
        """The tables again: int64, shape (channels, size)."""
        ends = np.append(self.thresholds[1:], self.lo + self.size)
        ends[self.starts[1:] - 1] = self.lo + self.size
        return np.repeat(self.values, ends - self.thresholds).reshape(self.channels, self.size)
