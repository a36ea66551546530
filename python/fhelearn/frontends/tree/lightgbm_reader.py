"""LightGBM boosters in the one forest form.

The model is read from LightGBM's own text (``model_to_string``), which holds every number with 17 digits, so exactly.
Treelite reads the same text but loses what exactness needs (treelite 4.8.1, LightGBM 4.7): the default directions of
nodes that take zeros for missing (`zero_as_missing`), the numbers of the leaves, and linear leaves, which it takes for
constants without a word; and it refuses multiclass models of custom objectives. Where both are right they agree, which
a test holds.

What a node means (``NumericalDecision`` and ``CategoricalDecision`` in LightGBM's ``tree.h``), with ``x <= t`` in
float64:

=============  ====================================================================
missing type   missing values
=============  ====================================================================
none           NaN is 0.0 and compared as such
zero           NaN and ``|x| <= 1e-35`` (a float32) follow the default direction
nan            NaN follows the default direction
(categorical)  NaN, negative and unlisted categories go to the right
=============  ====================================================================

Before a tree sees them, values with ``|x| <= 1e-35`` become 0.0 (``RowPairFunctionFromDenseMatric`` in ``c_api.cpp``),
so a threshold within that band splits zero from one side of the band: it is moved to the band's edge.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from fhelearn.exceptions import LoweringError
from fhelearn.frontends.tree.forest import MAX_CATEGORY, ZERO_THRESHOLD, BoolArray, Forest, TreeNodes
from fhelearn.typing import FloatArray, IntArray

try:
    from lightgbm import Booster
except ImportError as error:
    raise ImportError('LightGBM models need LightGBM: pip install "fhelearn[lightgbm]"') from error

Fields: TypeAlias = Mapping[str, str]

_NONE, _ZERO, _NAN = 0, 1, 2  # enum MissingType in LightGBM's bin.h
_CATEGORICAL_MASK, _DEFAULT_LEFT_MASK = 1, 2  # of decision_type, in tree.h; missing type in bits 2 and 3
_ZERO_EDGE = float(np.float32(ZERO_THRESHOLD))


@dataclass(frozen=True)
class LightGBMHeader:
    """What a booster's text says before its first tree.

    Attributes
    ----------
    n_features : int
    n_outputs : int
        Trees per iteration, and scores.
    n_classes : int
    objective : str or None
        With its parameters, as ``binary sigmoid:1``; None for a custom objective.
    average_output : bool
        Whether raw scores are divided by the number of iterations before the objective makes answers of them
        (``boosting_type="rf"``).
    categorical : tuple of int
        Features that training took for categories.
    """

    n_features: int
    n_outputs: int
    n_classes: int
    objective: str | None
    average_output: bool
    categorical: tuple[int, ...]


def header_from_lightgbm(booster: Booster) -> LightGBMHeader:
    """Read the header of a booster."""
    return _header(booster.model_to_string(num_iteration=1).partition("\nTree=")[0])


def forest_from_lightgbm(booster: Booster, n_iterations: int | None = None) -> Forest:
    """Read a booster.

    Parameters
    ----------
    booster : lightgbm.Booster
        Its scores are what ``predict(raw_score=True)`` returns.
    n_iterations : int, default=None
        Read only so many iterations; None reads as many as `predict` uses (``best_iteration``, else all).

    Returns
    -------
    Forest
        In float64; one output per class of a multiclass model, else one. The base is zero: LightGBM keeps the average
        it starts from in the first trees. ``library_leaves`` equals ``predict(pred_leaf=True)``. Scores of random
        forests are sums too, as LightGBM's raw scores are; only what it makes of them divides by the iterations.

    Raises
    ------
    LoweringError
        If leaves are linear, the booster holds no tree, nodes disagree about what a feature is, or a category is
        2**24 or more.
    """
    text = booster.model_to_string(num_iteration=n_iterations).partition("\nend of trees")[0]
    head, *blocks = re.split(r"^Tree=\d+\n", text, flags=re.MULTILINE)
    header = _header(head)
    kinds = _FeatureKinds(header.n_features)
    trees = tuple(
        _tree(f"LightGBM: tree {index}", _fields(block), index % header.n_outputs, kinds)
        for index, block in enumerate(blocks)
    )
    return Forest(
        trees=trees,
        n_features=header.n_features,
        precision="float64",
        base=np.zeros(header.n_outputs),
        category_sets=tuple(kinds.category_sets),
        accepts_nan=True,
        zero_is_missing=kinds.zero_is_missing(),
    )


@dataclass
class _FeatureKinds:
    """What the nodes read so far say about each feature, and the sets of categories they ask."""

    n_features: int
    category_sets: dict[frozenset[int], int] = field(default_factory=dict)
    numerical: BoolArray = field(init=False)
    categorical: BoolArray = field(init=False)
    zero: BoolArray = field(init=False)

    def __post_init__(self) -> None:
        self.numerical, self.categorical, self.zero = (np.zeros(self.n_features, dtype=np.bool_) for _ in range(3))

    def add(self, feature: IntArray, categorical: BoolArray, missing: IntArray) -> None:
        self.categorical[feature[categorical]] = True
        self.zero[feature[~categorical & (missing == _ZERO)]] = True
        self.numerical[feature[~categorical & (missing != _ZERO)]] = True

    def zero_is_missing(self) -> BoolArray:
        """Features whose zeros are missing; raises LoweringError if the trees do not agree about a feature."""
        if (mixed := self.zero & self.numerical).any():
            raise LoweringError(
                f"LightGBM: zero is missing in some splits of feature {np.flatnonzero(mixed)[0]}, a number in others; "
                "fit all iterations with one setting of zero_as_missing"
            )
        if (mixed := self.categorical & (self.numerical | self.zero)).any():
            raise LoweringError(
                f"LightGBM: feature {np.flatnonzero(mixed)[0]} is categorical in some splits and numerical in others; "
                "fit all iterations with the same categorical features"
            )
        # Features that no split asks do not matter; marked alike, they do not tell the client which are asked.
        asked = self.zero | self.numerical | self.categorical
        return self.zero | (~asked & bool(self.zero.any()))


def _fields(block: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in block.splitlines())
    return {key: value for key, _, value in pairs if key}


def _header(text: str) -> LightGBMHeader:
    fields = _fields(text)
    # A numerical feature's range is [lo:hi], categories are listed as 3:1:2, a feature without splits is none.
    infos = fields["feature_infos"].split()
    return LightGBMHeader(
        n_features=int(fields["max_feature_idx"]) + 1,
        n_outputs=int(fields["num_tree_per_iteration"]),
        n_classes=int(fields["num_class"]),
        objective=fields.get("objective"),
        average_output="average_output" in fields,
        categorical=tuple(f for f, info in enumerate(infos) if info != "none" and not info.startswith("[")),
    )


def _ints(text: str) -> IntArray:
    return np.array(text.split(), dtype=np.int64)


def _floats(text: str) -> FloatArray:
    return np.array([float(number) for number in text.split()], dtype=np.float64)


def _tree(name: str, fields: Fields, output: int, kinds: _FeatureKinds) -> TreeNodes:
    """One tree: its inner nodes in LightGBM's order, then its leaves."""
    if int(fields.get("is_linear", "0")):
        raise LoweringError(f"{name}: leaves must be constants, got linear ones; fit with linear_tree=False")
    leaf_value = _floats(fields["leaf_value"])
    n_inner, n_leaves = len(leaf_value) - 1, len(leaf_value)
    feature, threshold = _ints(fields["split_feature"]), _floats(fields["threshold"])
    decision = _ints(fields["decision_type"])
    categorical = (decision & _CATEGORICAL_MASK) != 0
    missing = decision >> 2 & 3
    kinds.add(feature, categorical, missing)
    members = np.full(n_inner, -1, dtype=np.int64)
    for node in np.flatnonzero(categorical):
        chosen = _categories(name, fields, int(threshold[node]))
        members[node] = kinds.category_sets.setdefault(chosen, len(kinds.category_sets))
    nan_left = np.where(missing == _NONE, threshold >= 0.0, (decision & _DEFAULT_LEFT_MASK) != 0) & ~categorical
    threshold = np.where(categorical, 0.0, np.where(missing == _ZERO, threshold, _around_zero(threshold)))

    def with_leaves(values: IntArray, leaves: object) -> IntArray:
        return np.concatenate([values, np.broadcast_to(np.asarray(leaves, dtype=values.dtype), n_leaves)])

    left, right = _ints(fields["left_child"]), _ints(fields["right_child"])
    none = np.array(-1)
    return TreeNodes(
        feature=with_leaves(feature, -1),
        threshold=np.concatenate([threshold, np.zeros(n_leaves)]),
        members=with_leaves(members, -1),
        nan_left=np.concatenate([nan_left, np.zeros(n_leaves, dtype=np.bool_)]),
        left=with_leaves(np.where(left < 0, n_inner + ~left, left), none),
        right=with_leaves(np.where(right < 0, n_inner + ~right, right), none),
        value=np.concatenate([np.zeros(n_inner), leaf_value])[:, np.newaxis],
        first_output=output,
        library_id=with_leaves(np.arange(n_inner), np.arange(n_leaves)),
    )


def _around_zero(threshold: FloatArray) -> FloatArray:
    """Thresholds that decide about values as they come as the given ones do about values flushed to zero."""
    below = (threshold >= -_ZERO_EDGE) & (threshold < 0.0)
    above = (threshold >= 0.0) & (threshold < _ZERO_EDGE)
    return np.where(below, np.nextafter(-_ZERO_EDGE, -np.inf), np.where(above, _ZERO_EDGE, threshold))


def _categories(name: str, fields: Fields, index: int) -> frozenset[int]:
    """The categories that a split sends to the left: the bits set in words of 32 bits."""
    begin, end = (int(word) for word in fields["cat_boundaries"].split()[index : index + 2])
    words = np.array(fields["cat_threshold"].split()[begin:end], dtype="<u4")
    chosen = np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little"))
    if len(chosen) and chosen[-1] >= MAX_CATEGORY:
        raise LoweringError(f"{name}: category {chosen[-1]} must be less than 2**24; renumber the categories")
    return frozenset(chosen.tolist())
