"""Features as two digits each, for clients that are not given a model's thresholds.

A feature is counted on a uniform grid: ``q = number of grid points below x``, 0 to 2**bit_width - 1, so that
``x <= grid[i]`` is ``q <= i``. The number is sent as a high and a low digit, each in thermometer code: the bits
``digit <= 0, digit <= 1, ...`` up to all but the last. That is ``2**(bit_width - h) + 2**h - 2`` bits per feature with
a low digit of h bits, whatever the model, where the thermometer code of q itself would take ``2**bit_width - 1``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fhelearn.exceptions import QuantizationError
from fhelearn.typing import FloatArray, IntArray

MIN_BITS, MAX_BITS = 2, 8
"""Bits of a feature: two digits of 1 to 4 bits. With 8 a feature takes 30 ciphertexts."""


@dataclass(frozen=True, eq=False)
class DigitEncoder:
    """Float columns to the thermometer bits of two digits each.

    Attributes
    ----------
    grid : ndarray of float64, shape (n_features, 2**bit_width - 1)
        Ascending; equal points are allowed.
    bit_width : int
        2 to 8.
    precision : {"float32", "float64"}
        What features are rounded to before they are compared with the grid.
    """

    grid: FloatArray
    bit_width: int
    precision: Literal["float32", "float64"]

    def __post_init__(self) -> None:
        if self.grid.shape[1:] != (2**self.bit_width - 1,) or (np.diff(self.grid, axis=1) < 0).any():
            raise QuantizationError(
                f"grid must hold {2**self.bit_width - 1} ascending points per feature, got shape {self.grid.shape}"
            )

    @property
    def low_bits(self) -> int:
        """Bits of the low digit."""
        return self.bit_width // 2

    @property
    def n_high(self) -> int:
        """Thermometer bits of the high digit."""
        return int(2 ** (self.bit_width - self.low_bits)) - 1

    @property
    def n_low(self) -> int:
        """Thermometer bits of the low digit."""
        return int(2**self.low_bits) - 1

    @property
    def n_columns(self) -> int:
        """Bits of a row: per feature those of the high digit, then those of the low digit."""
        return len(self.grid) * digit_columns(self.bit_width)

    def encode(self, x: FloatArray) -> IntArray:
        """The bits of rows.

        Parameters
        ----------
        x : ndarray of float, shape (n, n_features)
            Without NaN.

        Returns
        -------
        bits : ndarray of int64, shape (n, n_columns)

        Raises
        ------
        ValueError
            If `x` holds NaN or has another number of columns.
        """
        with np.errstate(over="ignore"):
            x = np.asarray(x).astype(self.precision).astype(np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.grid):
            raise ValueError(f"x must have shape (n, {len(self.grid)}), got {x.shape}")
        if np.isnan(x).any():
            row, column = np.argwhere(np.isnan(x))[0]
            raise ValueError(f"x holds NaN in row {row}, column {column}, which digits do not encode")
        bits = np.empty((len(x), len(self.grid), self.n_high + self.n_low), dtype=np.int64)
        for column, points in enumerate(self.grid):
            high, low = divmod(np.searchsorted(points, x[:, column], side="left"), self.n_low + 1)
            bits[:, column, : self.n_high] = high[:, np.newaxis] <= np.arange(self.n_high)
            bits[:, column, self.n_high :] = low[:, np.newaxis] <= np.arange(self.n_low)
        return bits.reshape(len(x), -1)

    def position(self, feature: int, threshold: float) -> int:
        """The i with ``threshold == grid[feature, i]``: the last, where points are equal.

        Raises
        ------
        QuantizationError
            If `threshold` is no point of the grid.
        """
        points = self.grid[feature]
        index = int(np.searchsorted(points, threshold, side="right")) - 1
        if index < 0 or points[index] != threshold:
            raise QuantizationError(f"{threshold} is no point of the grid of feature {feature}")
        return index


def digit_columns(bit_width: int) -> int:
    """Thermometer bits of a feature of `bit_width` bits: those of its high digit, then those of its low one."""
    low = bit_width // 2
    return int(2 ** (bit_width - low) + 2**low - 2)
