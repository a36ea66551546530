"""The libraries' comparisons with a threshold, in the one form that a forest has."""

from __future__ import annotations

import numpy as np

from fhelearn.frontends.tree.forest import BoolArray, Precision
from fhelearn.typing import FloatArray


def canonical_threshold(threshold: FloatArray, strict: BoolArray | bool, precision: Precision) -> FloatArray:
    """The largest numbers of `precision` that satisfy a comparison with a threshold.

    Parameters
    ----------
    threshold : ndarray of float64, shape (n,)
    strict : ndarray of bool, shape (n,), or bool
        True for ``x < threshold``, False for ``x <= threshold``.
    precision : {"float32", "float64"}

    Returns
    -------
    threshold : ndarray of float64, shape (n,)
        For every x of `precision`, ``x <= threshold`` as the comparison; only ``x < -inf`` has no such form.
    """
    with np.errstate(over="ignore"):  # a threshold beyond float32 becomes infinite, and is then stepped back
        rounded = threshold.astype(precision)
    exceeds = (rounded > threshold) | (strict & (rounded == threshold))
    down = np.nextafter(rounded, rounded.dtype.type(-np.inf))
    return np.where(exceeds, down, rounded).astype(np.float64)
