"""Which conditions a client is asked to encrypt: those of the model, hidden among others, or none of the model's."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from fhelearn.exceptions import LoweringError, QuantizationError
from fhelearn.frontends.tree.conditions import Conditions
from fhelearn.frontends.tree.decoys import likely_places
from fhelearn.frontends.tree.forest import Forest, TreeNodes
from fhelearn.quantization.conditions import ConditionEncoder
from fhelearn.typing import FloatArray, IntArray

Grid: TypeAlias = Literal["hidden", "thresholds", "uniform"]

HIDDEN_POINTS = 63
"""Conditions that the client gets per feature, at least, with ``grid="hidden"``: as many as 64 bins have edges. A
ciphertext bit costs 24 bytes and about 0.16 ms of the server."""


@dataclass(frozen=True, eq=False)
class Encoding:
    """What the client encrypts, and where the model's conditions are in it.

    Among decoys no bit is 1 for a missing value. A condition that holds for missing values too is the sum of its bit
    and of "the feature is missing", which is 1 less the bit "the feature is present" (``x <= inf``): so what is sent
    does not tell where the model's nodes send missing values.

    Attributes
    ----------
    encoder : ConditionEncoder
    columns : ndarray of int64, shape (n_conditions,)
        Position of each of the model's conditions among the encoder's bits.
    present : ndarray of int64, shape (n_conditions,)
        Position of the bit that says whether its feature is present, to be subtracted from 1 and added; -1 where
        nothing is to be added.
    """

    encoder: ConditionEncoder
    columns: IntArray
    present: IntArray


def native_encoder(forest: Forest, conditions: Conditions) -> ConditionEncoder:
    """The conditions as the nodes ask them, for evaluation in the clear."""
    assert forest.zero_is_missing is not None
    return ConditionEncoder(
        n_features=forest.n_features,
        precision=forest.precision,
        feature=conditions.feature,
        threshold=conditions.threshold,
        members=conditions.members,
        nan_true=conditions.nan_true,
        zero_is_missing=forest.zero_is_missing,
        known_categories=forest.known_categories,
    )


def encode_thresholds(forest: Forest, conditions: Conditions) -> Encoding:
    """The model's own conditions and nothing else, each with its side of missing values."""
    nowhere = np.full(len(conditions), -1, dtype=np.int64)
    return Encoding(native_encoder(forest, conditions), np.arange(len(conditions)), nowhere)


def encode_hidden(forest: Forest, conditions: Conditions, x: FloatArray) -> Encoding:
    """The model's conditions among decoys.

    Every feature gets at least :data:`HIDDEN_POINTS` thresholds, and at least as many decoys as it has thresholds of
    the model, as far as `x` has places for them. Decoys are drawn at random (from the operating system's entropy:
    another compilation draws others) where such a library puts thresholds; see :mod:`.decoys`.

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
    rng = np.random.default_rng(secrets.randbits(256))
    places = likely_places(own, values, forest.precision, rng)
    decoys = []
    for points, likely in zip(own, places, strict=True):
        free = np.setdiff1d(likely, points)
        count = min(max(HIDDEN_POINTS - len(points), len(points)), len(free))
        decoys.append(rng.choice(free, count, replace=False))
    return _encoding(forest, conditions, decoys, np.arange(forest.n_features if forest.accepts_nan else 0))


def encode_grid(forest: Forest, conditions: Conditions, grid: FloatArray) -> Encoding:
    """All points of a grid; `forest` is one that was snapped to it. grid: shape (n_features, points)."""
    own = _own_points(forest, conditions)
    decoys = [np.setdiff1d(points, asked) for points, asked in zip(grid, own, strict=True)]
    return _encoding(forest, conditions, decoys, np.empty(0, dtype=np.int64))


def _own_points(forest: Forest, conditions: Conditions) -> list[FloatArray]:
    """Per feature, the thresholds that the model asks."""
    numerical = np.array([members is None for members in conditions.members], dtype=np.bool_)
    return [np.unique(conditions.threshold[numerical & (conditions.feature == j)]) for j in range(forest.n_features)]


def _encoding(forest: Forest, conditions: Conditions, decoys: Sequence[FloatArray], may_miss: IntArray) -> Encoding:
    """The encoder of all conditions, in an order that tells nothing: by feature and threshold, then by categories.

    `decoys` holds thresholds per feature; the features `may_miss` get a bit that says whether they are present.
    """
    keys = {
        *zip(conditions.feature.tolist(), conditions.threshold.tolist(), map(_sorted, conditions.members), strict=True),
        *((feature, threshold, None) for feature, points in enumerate(decoys) for threshold in points.tolist()),
        *((feature, np.inf, None) for feature in may_miss.tolist()),
    }
    order = sorted(keys, key=lambda key: (key[0], key[2] is not None, key[1], key[2] or ()))
    position = {key: index for index, key in enumerate(order)}
    columns = [
        position[key]
        for key in zip(
            conditions.feature.tolist(), conditions.threshold.tolist(), map(_sorted, conditions.members), strict=True
        )
    ]
    present = [
        position[feature, np.inf, None] if nan else -1
        for feature, nan in zip(conditions.feature.tolist(), conditions.nan_true.tolist(), strict=True)
    ]
    assert forest.zero_is_missing is not None
    encoder = ConditionEncoder(
        n_features=forest.n_features,
        precision=forest.precision,
        feature=np.array([feature for feature, _, _ in order], dtype=np.int64),
        threshold=np.array([threshold for _, threshold, _ in order], dtype=np.float64),
        members=tuple(None if members is None else frozenset(members) for _, _, members in order),
        nan_true=np.zeros(len(order), dtype=np.bool_),
        zero_is_missing=forest.zero_is_missing,
        known_categories=forest.known_categories,
    )
    return Encoding(encoder, np.array(columns, dtype=np.int64), np.array(present, dtype=np.int64))


def _sorted(members: frozenset[int] | None) -> tuple[int, ...] | None:
    return None if members is None else tuple(sorted(members))


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
        with np.errstate(over="ignore"):
            span = values.max() - values.min()
        if not np.isfinite(span):
            raise QuantizationError(f"the range of feature {feature} is too wide for a grid in float64; rescale it")
        columns.append(np.linspace(values.min(), values.max(), points).astype(forest.precision).astype(np.float64))
    return np.stack(columns)


def snap(forest: Forest, grid: FloatArray, x: FloatArray) -> Forest:
    """The forest with every threshold moved to a point of `grid`; it takes no missing values.

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
        If the forest asks for categories or takes zeros for missing, which have no place on a grid.
    """
    assert forest.zero_is_missing is not None
    asks = "asks for categories" if forest.category_sets else "takes zeros for missing values"
    if forest.category_sets or forest.zero_is_missing.any():
        raise LoweringError(
            f'this model {asks}, which have no place on a uniform grid; use grid="thresholds" or grid="hidden" with '
            'encoding="bits"'
        )
    values = [np.unique(column[np.isfinite(column)]) for column in forest.missing(x).T]
    trees = tuple(_snap_tree(tree, grid, values) for tree in forest.trees)
    return replace(forest, trees=trees, accepts_nan=False)


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
