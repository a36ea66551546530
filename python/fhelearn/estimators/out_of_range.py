"""What is said, or refused, when features lie outside the range that an encoder covers."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fhelearn.estimators.compiled import NAMED_FEATURES, CompileOptions
from fhelearn.exceptions import OutOfRangeError, OutOfRangeWarning
from fhelearn.frontends.onnx.network import TensorEncoder
from fhelearn.quantization.uniform import UniformEncoder
from fhelearn.typing import FloatArray, IntArray

FEWEST_ROWS = 10
"""Calibration rows below which the ranges they span say little of rows to come."""

_PACKAGE = str(Path(__file__).resolve().parents[1])


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


def clipped_values(encoder: TensorEncoder, x: FloatArray) -> tuple[int, int]:
    """How many values lie below and above what an encoder covers, by more than the half step of any rounding.

    x: float64, shape (n, *row).
    """
    columns, rows = encoder.columns, x.reshape(len(x), -1)
    half = columns.scale / 2
    return int((rows < columns.minimum - half).sum()), int((rows > columns.maximum + half).sum())


def warn_of_rows(encoders: Sequence[TensorEncoder], inputs: Sequence[FloatArray], overflowing: int) -> None:
    """Warn once, if there is reason to, of values that were clipped and of rows whose accumulators wrapped around.

    Parameters
    ----------
    encoders : sequence of TensorEncoder
    inputs : sequence of float64 arrays, shape (n, *row)
        One per encoder.
    overflowing : int
        Rows that leave calibrated bounds.
    """
    parts = []
    for encoder, x in zip(encoders, inputs, strict=True):
        below, above = clipped_values(encoder, x)
        if below + above:
            low, high = encoder.columns.minimum.min(), encoder.columns.maximum.max()
            parts.append(
                f"{below + above} of {x.size} values of input {encoder.name!r} lie outside the range seen in "
                f"calibration ({below} below {low:.6g}, {above} above {high:.6g}) and were clipped to it"
            )
    if overflowing:
        parts.append(
            f"{overflowing} of {len(inputs[0])} rows leave the calibrated bounds of accumulators, which wrap around: "
            "their answers mean nothing (overflowing_rows lists them)"
        )
    if parts:
        remedy = "calibrate with more rows, like those to come"
        if overflowing:
            remedy += ', with a larger margin, or with bounds="proved"'
        warnings.warn(f"{'; '.join(parts)}; to accept them, {remedy}", OutOfRangeWarning, stacklevel=_outside())


def warn_of_few_rows(rows: int) -> None:
    """Warn if the ranges of so few calibration rows say little."""
    if rows < FEWEST_ROWS:
        warnings.warn(
            f"the calibration data have {rows} {'row' if rows == 1 else 'rows'}: their ranges hardly tell those of "
            "rows to come, which are clipped and wrap around outside of them; calibrate with a few hundred rows",
            OutOfRangeWarning,
            stacklevel=_outside(),
        )


def _outside() -> int:
    """The `stacklevel`, for the caller, of the first frame that is not of this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level
