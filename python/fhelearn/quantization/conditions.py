"""The encoder of tree models: every question that some node asks, answered yes or no.

A *condition* asks one feature. The value is first rounded to `precision`; then it counts as missing (NaN) if the
feature is one of `zero_is_missing` and the magnitude is at most ``float32(1e-35)``, or if `known_categories` lists the
feature's categories without it. A missing value answers `nan_true`; any other answers ``x <= threshold``, or whether it
is one of the condition's `members`. The loops run in the C++ core.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fhelearn import _core
from fhelearn.exceptions import QuantizationError
from fhelearn.typing import FloatArray, IntArray

_NATIVE = "native"


@dataclass(frozen=True, eq=False)
class ConditionEncoder:
    """Float rows to bits, one per condition.

    Attributes
    ----------
    n_features : int
        Columns of the rows.
    precision : {"float32", "float64"}
        What values are rounded to before they are compared.
    feature : ndarray of int64, shape (m,)
        The feature that each condition asks.
    threshold : ndarray of float64, shape (m,)
        Of numerical conditions (infinities allowed, NaN not); ignored of categorical ones.
    members : tuple of (frozenset of int) or None, length m
        The categories, in [0, 2**24), of a categorical condition; None makes it numerical.
    nan_true : ndarray of bool, shape (m,)
        The answer of a missing value.
    zero_is_missing : ndarray of bool, shape (n_features,)
        Features of which a value of at most ``float32(1e-35)`` in magnitude is missing.
    known_categories : mapping of int to frozenset of int
        Per feature (not every feature must be listed) the categories that are not missing.

    Raises
    ------
    QuantizationError
        If arrays differ in length or dtype, an index or a category is out of range, or a threshold is NaN.
    """

    n_features: int
    precision: Literal["float32", "float64"]
    feature: IntArray
    threshold: FloatArray
    members: tuple[frozenset[int] | None, ...]
    nan_true: NDArray[np.bool_]
    zero_is_missing: NDArray[np.bool_]
    known_categories: Mapping[int, frozenset[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "float64"):
            raise QuantizationError(f"precision must be 'float32' or 'float64', got {self.precision!r}")
        for name, dtype in (
            ("feature", np.int64),
            ("threshold", np.float64),
            ("nan_true", np.bool_),
            ("zero_is_missing", np.bool_),
        ):
            object.__setattr__(self, name, _frozen(getattr(self, name), dtype, name))
        object.__setattr__(self, "members", tuple(self.members))
        object.__setattr__(self, "known_categories", dict(self.known_categories))
        if len(self.members) != len(self.feature):
            raise QuantizationError(f"members has {len(self.members)} entries, must have {len(self.feature)}")
        for feature in self.known_categories:
            if not 0 <= feature < self.n_features:
                raise QuantizationError(f"known_categories names feature {feature} of {self.n_features}")
        _ = self.native  # the core checks the rest

    @property
    def n_conditions(self) -> int:
        """Number of conditions."""
        return len(self.feature)

    @cached_property
    def native(self) -> _core.Conditions:
        """The core's form of the conditions, made when first needed; copies and pickles make their own."""
        category_start, categories = _lists(self.members)
        known = [self.known_categories.get(f) for f in range(self.n_features)]
        known_start, known_values = _lists(known)
        try:
            return _core.Conditions(
                n_features=self.n_features,
                float32=self.precision == "float32",
                feature=self.feature,
                threshold=self.threshold,
                categorical=np.array([m is not None for m in self.members], dtype=np.bool_),
                nan_true=self.nan_true,
                category_start=category_start,
                categories=categories,
                zero_is_missing=self.zero_is_missing,
                has_known=np.array([k is not None for k in known], dtype=np.bool_),
                known_start=known_start,
                known=known_values,
            )
        except ValueError as error:
            raise QuantizationError(f"conditions: {error}") from None

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != _NATIVE}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def encode(self, x: Any, *, num_threads: int = 0) -> IntArray:
        """The answers to all conditions.

        Parameters
        ----------
        x : array-like of float, shape (n, n_features)
            May hold NaN and infinities.
        num_threads : int, default=0
            0 is the default number of the C++ core.

        Returns
        -------
        ndarray of int64, shape (n, n_conditions)
            1 where a condition holds, else 0.

        Raises
        ------
        ValueError
            If `x` has another shape, or a feature that a categorical condition asks holds a number that is no integer.
        """
        return self.native.encode(float_rows(x, self.n_features), num_threads=num_threads)


def float_rows(x: Any, n_features: int) -> NDArray[Any]:
    """`x` as C-contiguous float32 (if it is float32, or exactly fits) or float64 rows, without a copy where possible.

    x: array-like, shape (n, n_features). Raises ValueError if the shape is another.
    """
    array = np.asarray(x)
    if array.ndim != 2 or array.shape[1] != n_features:
        raise ValueError(f"x must have shape (n, {n_features}), got {array.shape}")
    narrow = array.dtype in (np.float32, np.float16)
    return np.require(array, np.float32 if narrow else np.float64, ["C", "ALIGNED"])


def _frozen(values: Any, dtype: type[np.generic], name: str) -> NDArray[Any]:
    array = np.array(values, order="C")
    if array.ndim != 1:
        raise QuantizationError(f"{name} must have one axis, got shape {array.shape}")
    if array.size and not np.can_cast(array.dtype, dtype, "same_kind"):
        raise QuantizationError(f"{name} must hold {np.dtype(dtype)}, got {array.dtype}")
    array = array.astype(dtype)
    array.setflags(write=False)
    return array


def _lists(sets: Sequence[frozenset[int] | None]) -> tuple[IntArray, IntArray]:
    """Where each set starts among all sets' elements, and those, ascending in each set."""
    values = [sorted(s) if s is not None else [] for s in sets]
    starts = np.cumsum([0, *map(len, values)], dtype=np.int64)
    try:
        return starts, np.array([v for ordered in values for v in ordered], dtype=np.int64)
    except OverflowError:
        raise QuantizationError("categories must be in [0, 2**24)") from None
