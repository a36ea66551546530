"""The distinct conditions that a forest asks, which are what a client encrypts.

Conditions on one feature that treat missing values alike are *nested*: ``x <= 3`` implies ``x <= 5``. They form a
chain, in which a condition implies every later one. So one number, how many conditions of a chain hold, says which of
them do. A condition on categories is a chain of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fhelearn.frontends.tree.forest import BoolArray, Forest, TreeNodes
from fhelearn.typing import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Conditions:
    """Distinct conditions: those of a chain side by side, each implying the next.

    Attributes
    ----------
    feature : ndarray of int64, shape (n_conditions,)
    threshold : ndarray of float64, shape (n_conditions,)
        The condition is ``x <= threshold``, where `members` is None.
    members : tuple of frozenset of int or None
        The condition is ``x in members``, where it is given.
    nan_true : ndarray of bool, shape (n_conditions,)
        Whether the condition holds for a missing value.
    chain : ndarray of int64, shape (n_conditions,)
        Number of the chain that each belongs to.
    """

    feature: IntArray
    threshold: FloatArray
    members: tuple[frozenset[int] | None, ...]
    nan_true: BoolArray
    chain: IntArray

    def __len__(self) -> int:
        return len(self.feature)


@dataclass(frozen=True, eq=False)
class AskedForest:
    """A forest whose nodes name their conditions.

    Attributes
    ----------
    forest : Forest
    conditions : Conditions
    asks : tuple of ndarray of int64
        Per tree, the index of each node's condition; -1 at leaves.
    """

    forest: Forest
    conditions: Conditions
    asks: tuple[IntArray, ...]


def ask(forest: Forest) -> AskedForest:
    """Find the distinct conditions of `forest`: equal ones of all trees become one."""
    sets, canonical = _distinct_sets(forest)
    keys = np.concatenate([_keys(tree, canonical, forest.accepts_nan) for tree in forest.trees])
    inner = np.concatenate([tree.feature >= 0 for tree in forest.trees])
    distinct, inverse = np.unique(keys[inner], axis=0, return_inverse=True)
    indices = np.full(len(keys), -1, dtype=np.int64)
    indices[inner] = inverse.ravel()
    feature, members, nan, threshold = distinct.T.reshape(4, -1)
    _, chain = np.unique(distinct[:, :3], axis=0, return_inverse=True)
    conditions = Conditions(
        feature.astype(np.int64),
        threshold,
        tuple(None if index < 0 else sets[int(index)] for index in members),
        nan.astype(np.bool_),
        chain.ravel().astype(np.int64),
    )
    return AskedForest(forest, conditions, tuple(_split(indices, forest)))


def _distinct_sets(forest: Forest) -> tuple[list[frozenset[int]], IntArray]:
    """The different sets of categories, and the number among them of each of the forest's."""
    numbers: dict[frozenset[int], int] = {}
    canonical = [numbers.setdefault(members, len(numbers)) for members in forest.category_sets]
    return list(numbers), np.array([*canonical, -1], dtype=np.int64)  # the last entry is what index -1 reads


def _keys(tree: TreeNodes, canonical: IntArray, accepts_nan: bool) -> FloatArray:
    """Per node (feature, set of categories, side of missing values, threshold): equal rows are equal conditions.

    Adding 0.0 turns -0.0, which compares equal to it, into it.
    """
    nan = tree.nan_left if accepts_nan else np.zeros_like(tree.nan_left)
    return np.column_stack([tree.feature, canonical[tree.members], nan, tree.threshold + 0.0]).astype(np.float64)


def _split(indices: IntArray, forest: Forest) -> Iterator[IntArray]:
    start = 0
    for tree in forest.trees:
        yield indices[start : start + len(tree.feature)]
        start += len(tree.feature)
