"""The one form that every tree model is read into.

A forest is a sum of trees. Each tree asks conditions on single features on the way from its root to a leaf, and the
leaf's values are added to the scores:

    scores[j] = base[j] + sum over trees t of value[leaf of t, j - first_output[t]]   (where 0 <= j - first_output[t])

Conditions. A feature's value is first rounded to `precision` (a library that trains in float32 also compares in it),
then it becomes missing (NaN) if it is infinitely small in the sense of `zero_is_missing`, or a category that
`known_categories` does not list. A node sends

* a missing value to the left if `nan_left`, else to the right;
* any other value to the left if ``x <= threshold`` (numerical node), or if ``x`` is one of
  ``category_sets[members]`` (categorical node), else to the right.

Libraries compare otherwise (``x < t``, categories to the right, thresholds of more digits than the data): the readers
bring that into this form without changing a single decision. ``x < t`` is ``x <= nextafter(t, -inf)`` in `precision`,
and a float64 threshold on float32 data is the largest float32 that does not exceed it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fhelearn.exceptions import LoweringError
from fhelearn.typing import FloatArray, IntArray

Precision: TypeAlias = Literal["float32", "float64"]
BoolArray: TypeAlias = NDArray[np.bool_]

ZERO_THRESHOLD = 1e-35
"""Magnitude up to which LightGBM takes a value for zero (``kZeroThreshold`` in its ``meta.h``, a float32)."""

MAX_CATEGORY = 2**24
"""Categories are integers in [0, 2**24): beyond that float32, in which XGBoost stores them, has gaps."""


@dataclass(frozen=True, eq=False)
class TreeNodes:
    """The nodes of one tree, root first; arrays of one entry per node.

    Attributes
    ----------
    feature : ndarray of int64
        Index of the feature that an inner node asks; -1 at leaves.
    threshold : ndarray of float64
        Of numerical nodes, in the forest's precision (plus or minus infinity allowed); 0 elsewhere.
    members : ndarray of int64
        Of categorical nodes, the index into the forest's `category_sets`; -1 elsewhere.
    nan_left : ndarray of bool
        Whether a missing value goes to the left.
    left, right : ndarray of int64
        Indices of the children within the tree; -1 at leaves.
    value : ndarray of float64, shape (n_nodes, width)
        What a leaf adds to the outputs; 0 at inner nodes.
    first_output : int
        The output that the first column of `value` belongs to.
    library_id : ndarray of int64
        The library's own number of each node, as its ``apply`` or ``pred_leaf`` reports leaves.
    """

    feature: IntArray
    threshold: FloatArray
    members: IntArray
    nan_left: BoolArray
    left: IntArray
    right: IntArray
    value: FloatArray
    first_output: int
    library_id: IntArray


@dataclass(frozen=True, eq=False)
class Forest:
    """An ensemble of trees with exact decisions; see the module's text for what it means.

    Attributes
    ----------
    trees : tuple of TreeNodes
        All of one `width` of values.
    n_features : int
    precision : {"float32", "float64"}
        What features are rounded to before they are compared.
    base : ndarray of float64, shape (n_outputs,)
        Added to the trees' sum.
    category_sets : tuple of frozenset of int
        Sets that categorical nodes ask membership of.
    accepts_nan : bool
        Whether the model takes missing values; if not, `nan_left` means nothing.
    zero_is_missing : ndarray of bool, shape (n_features,)
        Features of which a value of at most ``ZERO_THRESHOLD`` in magnitude is missing.
    known_categories : mapping of int to frozenset of int
        Per feature (not every feature must be listed) the categories that are not missing.
    sum_precision : {"float32", "float64"}
        What the library adds leaf values up in.
    """

    trees: tuple[TreeNodes, ...]
    n_features: int
    precision: Precision
    base: FloatArray
    category_sets: tuple[frozenset[int], ...] = ()
    accepts_nan: bool = False
    zero_is_missing: BoolArray | None = None
    known_categories: Mapping[int, frozenset[int]] = field(default_factory=dict)
    sum_precision: Precision = "float64"

    def __post_init__(self) -> None:
        zero = np.zeros(self.n_features, np.bool_) if self.zero_is_missing is None else self.zero_is_missing
        object.__setattr__(self, "zero_is_missing", zero)
        object.__setattr__(self, "base", np.array(self.base, dtype=np.float64))
        if not self.trees:
            raise LoweringError("the model holds no tree; fit it with at least one iteration")
        if not np.isfinite(self.base).all():
            raise LoweringError(f"the model's base score must be finite, got {self.base}")
        for index, tree in enumerate(self.trees):
            self._check_tree(f"tree {index}", tree)

    def _check_tree(self, name: str, tree: TreeNodes) -> None:
        inner = tree.feature >= 0
        if (tree.feature[inner] >= self.n_features).any():
            raise LoweringError(f"{name} asks feature {tree.feature.max()} of {self.n_features}")
        if not np.isfinite(tree.value).all():
            raise LoweringError(f"{name}: a leaf holds NaN or infinity (did fit diverge?)")
        numerical = inner & (tree.members < 0)
        if np.isnan(tree.threshold[numerical]).any():
            raise LoweringError(f"{name}: a threshold is NaN")
        with np.errstate(over="ignore"):
            rounded = tree.threshold.astype(self.precision).astype(np.float64)
        if (rounded != tree.threshold)[numerical].any():
            raise LoweringError(f"{name}: a threshold is no {self.precision}, in which the model compares")
        last = tree.first_output + tree.value.shape[1]
        if tree.value.shape[1] != self.trees[0].value.shape[1] or not 0 <= tree.first_output < last <= self.n_outputs:
            raise LoweringError(f"{name} has values for outputs {tree.first_output} to {last - 1} of {self.n_outputs}")

    @property
    def n_outputs(self) -> int:
        """Number of scores."""
        return len(self.base)

    @property
    def n_trees(self) -> int:
        """Number of trees."""
        return len(self.trees)

    def with_outputs(self, kept: IntArray) -> Forest:
        """The forest of some outputs only, all of whose trees have values for every output."""
        trees = tuple(replace(tree, value=tree.value[:, kept], first_output=0) for tree in self.trees)
        return replace(self, trees=trees, base=self.base[kept])

    def rows_at_thresholds(self, n: int) -> FloatArray:
        """Finite rows that reach many leaves: features at the thresholds that the trees ask, each in another rhythm.

        Returns float64, shape (n, n_features).
        """
        rows = np.zeros((n, self.n_features))
        features = np.concatenate([tree.feature for tree in self.trees])
        thresholds = np.concatenate([tree.threshold for tree in self.trees])
        for feature in np.unique(features[features >= 0]):
            points = np.unique(thresholds[(features == feature) & np.isfinite(thresholds)])
            rows[:, feature] = points[np.arange(n) * (2 * feature + 1) % len(points)] if len(points) else 0.0
        return rows

    @property
    def score_range(self) -> FloatArray:
        """Greatest less least score that leaves of all trees could add up to; 1 where all are equal. (n_outputs,)."""
        reach = np.zeros(self.n_outputs)
        for tree in self.trees:
            leaves = tree.value[tree.feature < 0]
            reach[tree.first_output : tree.first_output + leaves.shape[1]] += np.ptp(leaves, axis=0)
        return np.where(reach > 0, reach, 1.0)

    @property
    def rounding_bound(self) -> FloatArray:
        """How far the library's scores may be from exact sums, and float64 ones from either; shape (n_outputs,).

        Adding n numbers has a relative error of at most (n - 1) eps of the sum of their magnitudes (Higham, Accuracy
        and Stability of Numerical Algorithms, 2002, section 4.2); here for the trees, the base and two roundings more.
        """
        magnitude = np.abs(self.base)
        for tree in self.trees:
            outputs = slice(tree.first_output, tree.first_output + tree.value.shape[1])
            magnitude[outputs] += np.abs(tree.value).max(axis=0)
        eps = float(np.finfo(self.sum_precision).eps) + float(np.finfo(np.float64).eps)
        return (self.n_trees + 2) * eps * magnitude

    def missing(self, x: Any) -> FloatArray:
        """Features as the nodes compare them: rounded to `precision`, and NaN where they count as missing.

        x: floats, shape (n, n_features). Returns float64, same shape; the argument is not changed.
        """
        with np.errstate(over="ignore"):
            rounded = np.asarray(x).astype(self.precision).astype(np.float64)
        assert self.zero_is_missing is not None
        rounded[(np.abs(rounded) <= np.float32(ZERO_THRESHOLD)) & self.zero_is_missing] = np.nan
        for feature, known in self.known_categories.items():
            column = rounded[:, feature]
            column[~np.isin(column, list(known))] = np.nan
        return rounded

    def apply(self, x: Any) -> IntArray:
        """The leaf that each row reaches in each tree, by the plain walk that defines what a forest means.

        x: floats, shape (n, n_features). Returns int64, shape (n, n_trees): indices into each tree's arrays.
        """
        x = self.missing(x)
        return np.stack([self._walk(tree, x) for tree in self.trees], axis=1)

    def _walk(self, tree: TreeNodes, x: FloatArray) -> IntArray:
        rows = np.arange(len(x))
        at = np.zeros(len(x), dtype=np.int64)
        while (inner := tree.feature[at] >= 0).any():
            values = x[rows, np.maximum(tree.feature[at], 0)]
            left = values <= tree.threshold[at]
            for members in np.unique(tree.members[at][inner]):
                if members >= 0:
                    left = np.where(
                        tree.members[at] == members, np.isin(values, list(self.category_sets[members])), left
                    )
            left = np.where(np.isnan(values), tree.nan_left[at], left)
            at = np.where(inner, np.where(left, tree.left[at], tree.right[at]), at)
        return at

    def scores(self, x: Any) -> FloatArray:
        """The scores of rows in float64. x: floats, shape (n, n_features). Returns shape (n, n_outputs)."""
        return self.sums(self.apply(x))

    def sums(self, leaves: IntArray) -> FloatArray:
        """The scores of rows that reach `leaves`, as :meth:`apply` returns them. Returns shape (n, n_outputs)."""
        scores = np.repeat(self.base[np.newaxis], len(leaves), axis=0)
        for index, tree in enumerate(self.trees):
            last = tree.first_output + tree.value.shape[1]
            scores[:, tree.first_output : last] += tree.value[leaves[:, index]]
        return scores

    def library_leaves(self, x: Any) -> IntArray:
        """As :meth:`apply`, by the library's own node numbers."""
        leaves = self.apply(x)
        columns: Sequence[Any] = [tree.library_id[leaves[:, t]] for t, tree in enumerate(self.trees)]
        return np.stack(columns, axis=1)
