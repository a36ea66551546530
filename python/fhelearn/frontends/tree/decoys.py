"""Where a library puts thresholds, so that decoys can lie there too.

A decoy in a place where the library never puts a threshold is seen to be one. Libraries put them

* between neighbouring values of the data: in the middle (boosters of scikit-learn with few values), just above it
  (LightGBM), on a value, or just below one (XGBoost);
* in the middle of two values that are neighbours among the rows of a node only (scikit-learn's trees);
* anywhere between the least and the greatest value (extra trees, isolation forests).

Which one a model's thresholds are is seen from themselves. This makes guessing harder and proves nothing: who knows the
training data, or gets two grids of one model, can tell more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fhelearn.frontends.tree.comparisons import canonical_threshold
from fhelearn.frontends.tree.forest import Precision
from fhelearn.typing import FloatArray

_NEIGHBOURS, _PAIRS = 0.9, 0.5
"""Share of a model's thresholds that must lie in a kind of places for the decoys to be drawn from it."""

_TESTED = 200
"""Thresholds, and values of a feature, that are tested for being midpoints of two values."""

_DRAWN = 1024
"""Places of a feature that are drawn where they are not counted."""


def likely_places(
    own: Sequence[FloatArray], values: Sequence[FloatArray], precision: Precision, rng: np.random.Generator
) -> list[FloatArray]:
    """Per feature, places for thresholds of the kind that the model's thresholds are.

    Parameters
    ----------
    own : sequence of ndarray of float64
        Per feature, the model's thresholds.
    values : sequence of ndarray of float64
        Per feature, different values of the data, ascending.
    precision : {"float32", "float64"}
    rng : numpy.random.Generator
    """
    asked = max(sum(len(points) for points in own), 1)
    for between in (_middle, _above_middle, _values, _just_below):
        places = [between(v, precision) for v in values]
        if sum(int(np.isin(p, v).sum()) for p, v in zip(own, places, strict=True)) >= _NEIGHBOURS * asked:
            return places
    tested = [p[:_TESTED] for p in own]
    halves = sum(_midpoints_of_pairs(p, v) for p, v in zip(tested, values, strict=True))
    if halves >= _PAIRS * max(sum(len(p) for p in tested), 1):
        return [_middle_of_some(v, precision, rng) for v in values]
    return [_anywhere(v, precision, rng) for v in values]


def _middle(values: FloatArray, precision: Precision) -> FloatArray:
    """As scikit-learn computes it, rounded down to the model's precision."""
    return np.unique(canonical_threshold(values[:-1] / 2 + values[1:] / 2, False, precision))


def _above_middle(values: FloatArray, precision: Precision) -> FloatArray:
    with np.errstate(over="ignore"):
        middle = (values[:-1] + values[1:]) / 2
    return np.unique(canonical_threshold(np.nextafter(middle[np.isfinite(middle)], np.inf), False, precision))


def _values(values: FloatArray, precision: Precision) -> FloatArray:
    return values[:-1]


def _just_below(values: FloatArray, precision: Precision) -> FloatArray:
    return canonical_threshold(values[1:], True, precision)


def _midpoints_of_pairs(points: FloatArray, values: FloatArray) -> int:
    """How many of `points` are the middle of two of `values`, up to their own rounding."""
    if len(values) < 2:
        return 0
    if len(values) > _TESTED:
        near = np.searchsorted(values, points)[:, np.newaxis] + np.arange(-_TESTED, _TESTED)
        candidates = values[np.clip(near, 0, len(values) - 1)]
    else:
        candidates = np.broadcast_to(values, (len(points), len(values)))
    mirrored = 2 * points[:, np.newaxis] - candidates
    place = np.clip(np.searchsorted(values, mirrored), 1, len(values) - 1)
    distance = np.minimum(np.abs(values[place] - mirrored), np.abs(values[place - 1] - mirrored))
    rounding = 4 * np.finfo(np.float32).eps * np.abs(points)[:, np.newaxis]
    return int((distance <= rounding).any(axis=1).sum())


def _middle_of_some(values: FloatArray, precision: Precision, rng: np.random.Generator) -> FloatArray:
    """Middles of neighbours in random parts of the values, as large as the nodes of a tree: halved again and again."""
    places: FloatArray = np.empty(0)
    size = len(values)
    while size >= 2:
        part = np.sort(rng.choice(values, size, replace=False))
        places = np.union1d(places, rng.permutation(_middle(part, precision))[: _DRAWN // 8])
        size //= 2
    return places


def _anywhere(values: FloatArray, precision: Precision, rng: np.random.Generator) -> FloatArray:
    if len(values) < 2:
        return np.empty(0)
    with np.errstate(over="ignore"):
        span = values[-1] - values[0]
    drawn = values[0] + rng.random(_DRAWN) * span if np.isfinite(span) else rng.choice(values, _DRAWN)
    return np.unique(canonical_threshold(drawn, False, precision))
