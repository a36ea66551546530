"""Which conditions a client is asked to encrypt: those of the model, hidden among others, or none of the model's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from fhelearn.exceptions import LoweringError, QuantizationError
from fhelearn.frontends.tree.comparisons import canonical_threshold
from fhelearn.frontends.tree.conditions import Conditions
from fhelearn.frontends.tree.forest import Forest, Precision, TreeNodes
from fhelearn.quantization.conditions import ConditionEncoder
from fhelearn.typing import FloatArray, IntArray

Grid: TypeAlias = Literal["hidden", "thresholds", "uniform"]

HIDDEN_POINTS = 63
"""Conditions that the client gets per feature, at least, with ``grid="hidden"``: as many as 64 bins have edges. A
ciphertext bit costs 24 bytes and about 0.16 ms of the server."""


@dataclass(frozen=True)
class Encoding:
    """What the client encrypts, and where the model's conditions are in it.

    Attributes
    ----------
    encoder : ConditionEncoder
    columns : ndarray of int64, shape (n_conditions,)
        Position of each of the model's conditions among the encoder's bits.
    """

    encoder: ConditionEncoder
    columns: IntArray


def encode_thresholds(forest: Forest, conditions: Conditions) -> Encoding:
    """The model's own conditions and nothing else."""
    return _encoding(forest, conditions, [np.empty(0)] * forest.n_features)


def encode_hidden(forest: Forest, conditions: Conditions, x: FloatArray) -> Encoding:
    """The model's conditions among decoys.

    Every feature gets at least :data:`HIDDEN_POINTS` thresholds, and at least as many decoys as it has thresholds of
    the model, as far as `x` has places for them. Decoys are evenly spaced among the places between neighbouring values
    of `x` where the model asks nothing. They are of the kind that most of the model's thresholds are: midpoints (of
    scikit-learn's or LightGBM's kind), values of `x` (as ``x <= v``), or the numbers just below (``x < v``: XGBoost).

    Parameters
    ----------
    forest : Forest
    conditions : Conditions
        Of the forest.
    x : ndarray of float, shape (n, n_features)
        Rows like those to come. Features that are constant in it get no decoys.
    """
    own = _own_points(forest, conditions)
    values = [np.unique(column[np.isfinite(column)]) for column in forest.missing(x).T]
    kinds = [[places(v, forest.precision) for v in values] for places in KINDS]
    alike = [sum(int(np.isin(p, v).sum()) for p, v in zip(own, places, strict=True)) for places in kinds]
    decoys = []
    for points, places in zip(own, kinds[int(np.argmax(alike))], strict=True):
        free = np.setdiff1d(places, points)
        count = min(max(HIDDEN_POINTS - len(points), len(points)), len(free))
        decoys.append(free[np.linspace(0, len(free) - 1, count).round().astype(np.int64)] if count else free[:0])
    return _encoding(forest, conditions, decoys)


def encode_grid(forest: Forest, conditions: Conditions, grid: FloatArray) -> Encoding:
    """All points of a grid; `forest` is one that was snapped to it. grid: shape (n_features, points)."""
    own = _own_points(forest, conditions)
    decoys = [np.setdiff1d(points, asked) for points, asked in zip(grid, own, strict=True)]
    return _encoding(forest, conditions, decoys)


def _own_points(forest: Forest, conditions: Conditions) -> list[FloatArray]:
    """Per feature, the thresholds that the model asks."""
    numerical = np.array([members is None for members in conditions.members], dtype=np.bool_)
    return [np.unique(conditions.threshold[numerical & (conditions.feature == j)]) for j in range(forest.n_features)]


def _values(values: FloatArray, precision: Precision) -> FloatArray:
    return values[:-1]


def _just_below(values: FloatArray, precision: Precision) -> FloatArray:
    lower = np.nextafter(values[1:].astype(precision), np.array(-np.inf, dtype=precision))
    return lower.astype(np.float64)


def _midpoints(values: FloatArray, precision: Precision) -> FloatArray:
    """Points between neighbours as scikit-learn computes them, rounded down to the model's precision."""
    return np.unique(canonical_threshold(values[:-1] / 2 + values[1:] / 2, False, precision))


def _above_midpoints(values: FloatArray, precision: Precision) -> FloatArray:
    """Points between neighbours as LightGBM computes them: the numbers just above the middle."""
    middle = np.nextafter((values[:-1] + values[1:]) / 2, np.inf)
    return np.unique(canonical_threshold(middle, False, precision))


KINDS = (_midpoints, _above_midpoints, _values, _just_below)
"""Where a library puts thresholds, given the sorted different values of a feature."""


def _usual_side(conditions: Conditions, feature: int) -> bool:
    """Where most of a feature's conditions send missing values, so that decoys do the same."""
    sides = conditions.nan_true[conditions.feature == feature]
    return bool(2 * int(sides.sum()) > len(sides))


def _encoding(forest: Forest, conditions: Conditions, decoys: Sequence[FloatArray]) -> Encoding:
    """The encoder of all conditions, sorted by feature and threshold so that the order tells nothing.

    `decoys` holds thresholds per feature.
    """
    counts = [len(points) for points in decoys]
    features = np.concatenate([conditions.feature, np.repeat(np.arange(forest.n_features), counts)])
    thresholds = np.concatenate([conditions.threshold, *decoys])
    usual = [_usual_side(conditions, feature) for feature in range(forest.n_features)]
    sides = np.concatenate([conditions.nan_true, np.repeat(usual, counts)])
    members = (*conditions.members, *[None] * sum(counts))
    categorical = np.array([m is not None for m in members], dtype=np.bool_)
    order = np.lexsort((sides, thresholds, categorical, features))
    assert forest.zero_is_missing is not None
    encoder = ConditionEncoder(
        n_features=forest.n_features,
        precision=forest.precision,
        feature=features[order],
        threshold=thresholds[order],
        members=tuple(members[i] for i in order),
        nan_true=sides[order],
        zero_is_missing=forest.zero_is_missing,
        known_categories=forest.known_categories,
    )
    return Encoding(encoder, np.argsort(order)[: len(conditions)].astype(np.int64))


def uniform_grid(forest: Forest, x: FloatArray, bit_width: int) -> FloatArray:
    """Evenly spaced points of each feature.

    Parameters
    ----------
    forest : Forest
    x : ndarray of float, shape (n, n_features)
        Rows like those to come; missing values are left out.
    bit_width : int

    Returns
    -------
    grid : ndarray of float64, shape (n_features, 2**bit_width - 1)
        From the smallest to the largest value of `x`, in the forest's precision, ascending.

    Raises
    ------
    QuantizationError
        If a feature has no finite value in `x`.
    """
    points = 2**bit_width - 1
    columns = []
    for feature, column in enumerate(forest.missing(x).T):
        values = column[np.isfinite(column)]
        if not values.size:
            raise QuantizationError(
                f"feature {feature} has no finite value in the data given to compile, so it has no grid; use "
                'grid="thresholds" or grid="hidden"'
            )
        columns.append(np.linspace(values.min(), values.max(), points).astype(forest.precision).astype(np.float64))
    return np.stack(columns)


def snap(forest: Forest, grid: FloatArray, x: FloatArray) -> Forest:
    """The forest with every threshold moved to a point of `grid`.

    Of the two points around a threshold the one is taken that moves no value of `x` to its other side; if that is true
    of both or of none, the nearer one, or the lower of two as near.

    Parameters
    ----------
    forest : Forest
    grid : ndarray of float64, shape (n_features, points)
        Ascending.
    x : ndarray of float, shape (n, n_features)
        Rows like those to come.

    Raises
    ------
    LoweringError
        If the forest asks for categories, which have no place on a grid.
    """
    if forest.category_sets:
        raise LoweringError(
            'this model asks for categories, which have no place on a uniform grid; use grid="thresholds" or '
            'grid="hidden" with encoding="bits"'
        )
    values = [np.unique(column[np.isfinite(column)]) for column in forest.missing(x).T]
    return replace(forest, trees=tuple(_snap_tree(tree, grid, values) for tree in forest.trees))


def _snap_tree(tree: TreeNodes, grid: FloatArray, values: Sequence[FloatArray]) -> TreeNodes:
    threshold = tree.threshold.copy()
    for feature in np.unique(tree.feature[tree.feature >= 0]):
        nodes, points, seen = tree.feature == feature, grid[feature], values[feature]
        asked = threshold[nodes]
        above = np.clip(np.searchsorted(points, asked), 1, len(points) - 1)
        lower, upper = points[above - 1], points[above]
        on_left = np.searchsorted(seen, asked, side="right")  # how many values a threshold has on its left
        keeps_lower = np.searchsorted(seen, lower, side="right") == on_left
        keeps_upper = np.searchsorted(seen, upper, side="right") == on_left
        nearer = asked - lower <= upper - asked
        threshold[nodes] = np.where(np.where(keeps_lower == keeps_upper, nearer, keeps_lower), lower, upper)
    return replace(tree, threshold=threshold)
