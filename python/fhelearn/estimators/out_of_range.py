"""What is said, or refused, when features lie outside the range that an encoder covers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from fhelearn.estimators.compiled import NAMED_FEATURES, CompileOptions
from fhelearn.exceptions import OutOfRangeError, OutOfRangeWarning
from fhelearn.quantization.uniform import UniformEncoder
from fhelearn.typing import IntArray


def report_clipped(
    encoder: UniformEncoder,
    names: Sequence[str],
    below: IntArray,
    above: IntArray,
    rows: int,
    options: CompileOptions,
    stacklevel: int,
) -> None:
    """Warn of values that were clipped, or refuse them, as `options` say.

    Parameters
    ----------
    encoder : UniformEncoder
    names : sequence of str
        Of its columns.
    below, above : ndarray of int64, shape (n_features,)
        How many values were clipped; not all 0.
    rows : int
    options : CompileOptions
    stacklevel : int
        Frames from the caller up to the user's.

    Raises
    ------
    OutOfRangeError
    """
    columns = np.flatnonzero(below + above)
    parts = [
        f"{names[j]} ({below[j]} below {encoder.minimum[j]:.6g}, {above[j]} above {encoder.maximum[j]:.6g})"
        for j in columns[:NAMED_FEATURES]
    ]
    if len(columns) > NAMED_FEATURES:
        parts.append(f"{len(columns) - NAMED_FEATURES} more features")
    message = (
        f"{int((below + above).sum())} of {rows * encoder.n_features} values in {len(columns)} "
        f"{'feature' if len(columns) == 1 else 'features'} lie outside the range seen at compile: {', '.join(parts)}"
    )
    remedy = "compile(X) with data of the full range, or a larger range_margin"
    if options.on_out_of_range == "error":
        raise OutOfRangeError(f"{message}; {remedy}")
    warnings.warn(
        f"{message} and were clipped to it; to accept them, {remedy}", OutOfRangeWarning, stacklevel=stacklevel + 1
    )
