"""Leaf values as integers: one scale for the whole forest.

A tree's values are counted from their least, ``q = rint((value - least) / scale)``, so that every tree fits the same
`n_bits` and the sum of the offsets is the decoder's. Where all values lie on a lattice that fits (votes, counts), its
step is the scale and nothing is lost. Otherwise the number of steps is even, so that the middle between the least and
the greatest value, where a probability of a half lies, is represented exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fhelearn.exceptions import LoweringError
from fhelearn.frontends.tree.forest import Forest, TreeNodes
from fhelearn.typing import FloatArray, IntArray

MIN_BITS, MAX_BITS = 1, 16
"""Bits of a leaf value. With 16 the rounding is 1.5e-5 of the widest tree's range; more have hardly any parameters."""

_LATTICE_VALUES = 1024
"""More distinct values than this are not tested for lying on a lattice: a lattice of 2**10 steps holds fewer."""

_LATTICE_ERROR = 1e-9
"""Distance from a lattice, in steps, that float64 rounding explains for values of up to 1e6 steps."""

_COMPLEMENT_ERROR = 1e-14
"""Relative difference that rounding explains between the sums of two probabilities that should be equal."""


@dataclass(frozen=True, eq=False)
class IntegerLeaves:
    """Integer leaf values of some outputs of a forest.

    Attributes
    ----------
    values : tuple of ndarray of int64, each (n_nodes, width)
        Per tree; 0 at inner nodes.
    scale : float
        Of all trees and outputs.
    offset : ndarray of float64, shape (n_outputs,)
        Sum of the trees' least values, and the base score.
    error_bound : ndarray of float64, shape (n_outputs,)
        The scores of no row are further than this from the float ones (exact up to the rounding of float64 sums).
    n_bits : int
        Bits of the largest value.
    """

    values: tuple[IntArray, ...]
    scale: float
    offset: FloatArray
    error_bound: FloatArray
    n_bits: int


def quantize_leaves(forest: Forest, n_bits: int) -> IntegerLeaves:
    """Round leaf values to integers.

    Parameters
    ----------
    forest : Forest
    n_bits : int
        1 to 16.

    Raises
    ------
    LoweringError
        If the range of a tree's values overflows float64.
    """
    least = [tree.value[tree.feature < 0].min(axis=0) for tree in forest.trees]
    greatest = [tree.value[tree.feature < 0].max(axis=0) for tree in forest.trees]
    with np.errstate(over="ignore"):
        reach = max(float((high - low).max()) for low, high in zip(least, greatest, strict=True))
    if not np.isfinite(reach):
        raise LoweringError("the range of a tree's leaf values overflows float64; rescale the target")
    scale = reach / _steps(forest, least, reach, n_bits) if reach > 0 else 1.0
    if scale == 0:
        scale = reach  # a range of denormal numbers: fewer steps than asked for
    values = []
    offset, error = forest.base.copy(), np.zeros(forest.n_outputs)
    for tree, low in zip(forest.trees, least, strict=True):
        leaf = tree.feature < 0
        q = np.where(leaf[:, np.newaxis], np.rint((tree.value - low) / scale), 0.0)
        values.append(q.astype(np.int64))
        outputs = slice(tree.first_output, tree.first_output + tree.value.shape[1])
        offset[outputs] += low
        error[outputs] += np.abs(tree.value - low - q * scale)[leaf].max(axis=0)
    largest = max(int(q.max()) for q in values)
    return IntegerLeaves(tuple(values), scale, offset, error, max(largest.bit_length(), 1))


def _steps(forest: Forest, least: list[FloatArray], reach: float, n_bits: int) -> int:
    """Number of steps of the widest tree's range."""
    most: int = 2**n_bits - 1
    distinct: FloatArray = np.zeros(0)
    for tree, low in zip(forest.trees, least, strict=True):
        distinct = np.union1d(distinct, ((tree.value - low) / reach)[tree.feature < 0])
        if len(distinct) > _LATTICE_VALUES:
            return max(most - most % 2, 1)
    for steps in range(1, most + 1):
        places = distinct * steps
        if np.abs(places - np.rint(places)).max() <= _LATTICE_ERROR:
            return steps
    return max(most - most % 2, 1)


@dataclass(frozen=True, eq=False)
class Complements:
    """Outputs that are known from others: ``score[derived] = total - score[partner]``.

    Attributes
    ----------
    kept : ndarray of int64
        Outputs that must be evaluated.
    derived, partner : ndarray of int64
    total : ndarray of float64
    """

    kept: IntArray
    derived: IntArray
    partner: IntArray
    total: FloatArray

    def expand(self, scores: FloatArray) -> FloatArray:
        """All outputs from those kept. scores: float64, shape (n, len(kept)). Returns shape (n, n_outputs)."""
        result = np.empty((len(scores), len(self.kept) + len(self.derived)))
        result[:, self.kept] = scores
        result[:, self.derived] = self.total - result[:, self.partner]
        return result


def without_complements(forest: Forest) -> tuple[Forest, Complements]:
    """Drop the first of two neighbouring outputs whose sum is the same at all leaves of every tree.

    Those are the probabilities of two classes: evaluating both would double the lookups and tell nothing new.
    """
    derived: list[int] = []
    totals: list[float] = []
    if all(tree.value.shape[1] == forest.n_outputs for tree in forest.trees):
        output = 0
        while output + 1 < forest.n_outputs:
            sums = [_constant_sum(tree, output) for tree in forest.trees]
            if None in sums:
                output += 1
                continue
            derived.append(output)
            totals.append(sum(s for s in sums if s is not None) + float(forest.base[output : output + 2].sum()))
            output += 2
    kept = np.setdiff1d(np.arange(forest.n_outputs), derived)
    gone = np.array(derived, dtype=np.int64)
    complements = Complements(kept, gone, gone + 1, np.array(totals, dtype=np.float64))
    return (forest, complements) if not derived else (forest.with_outputs(kept), complements)


def _constant_sum(tree: TreeNodes, output: int) -> float | None:
    """The sum of two outputs if it is the same at all leaves, up to rounding."""
    leaves = tree.value[tree.feature < 0][:, output : output + 2]
    sums = leaves.sum(axis=1)
    middle = float((sums.min() + sums.max()) / 2)
    spread = float(sums.max() - sums.min())
    return middle if spread <= _COMPLEMENT_ERROR * float(np.abs(leaves).max()) else None
