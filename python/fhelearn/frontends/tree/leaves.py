"""Leaf values as integers, and sums of them as scores again.

Outputs that are compared with each other (the scores of classes) share one scale, and a tree's values of them are
counted from their least, ``q = rint((value - least) / scale)``: equal values stay equal, so that ties stay ties.
Targets of a regression have a scale each, for their units may differ.

Where all values lie on a lattice that fits `n_bits` (votes, counts, probabilities of few rows), its step is the scale
and nothing is lost. Otherwise the number of steps is even, so that the middle between the least and the greatest value,
where a probability of a half lies, is represented exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fhelearn.exceptions import LoweringError
from fhelearn.frontends.tree.forest import Forest, TreeNodes
from fhelearn.typing import FloatArray, IntArray

MIN_BITS, MAX_BITS = 1, 16
"""Bits of a leaf value. With 16 the rounding is 1.5e-5 of the widest tree's range; more have hardly any parameters."""

_LATTICE_VALUES, _LATTICE_STEPS = 1024, 4096
"""Lattices of more steps are not looked for, nor where there are more distinct values: little would be gained."""

_LATTICE_ROUNDING = 8 * np.finfo(np.float64).eps
"""Distance from a lattice, relative to the value, that a few float64 roundings explain. What remains of it is counted
in the error bound."""

_LATTICE_REACH = 1e6
"""Values further from zero than so many times the range are counted from their least only."""

_COMPLEMENT_ERROR = 1e-14
"""Relative difference that rounding explains between the sums of two probabilities that should be equal."""


@dataclass(frozen=True, eq=False)
class IntegerLeaves:
    """Integer leaf values of a forest: ``score = (sum of values + shift) * scale + offset``.

    Attributes
    ----------
    values : tuple of ndarray of int64, each (n_nodes, width)
        Per tree; 0 at inner nodes, else not negative.
    scale : ndarray of float64, shape (n_outputs,)
        Positive.
    shift : ndarray of int64, shape (n_outputs,)
    offset : ndarray of float64, shape (n_outputs,)
    error_bound : ndarray of float64, shape (n_outputs,)
        The scores of no row are further than this from the exact sums of the float values.
    """

    values: tuple[IntArray, ...]
    scale: FloatArray
    shift: IntArray
    offset: FloatArray
    error_bound: FloatArray

    @property
    def n_bits(self) -> int:
        """Bits of the largest value."""
        return max(max(int(q.max()) for q in self.values).bit_length(), 1)


def quantize_leaves(forest: Forest, n_bits: int, separate: bool = False) -> IntegerLeaves:
    """Round leaf values to integers.

    Parameters
    ----------
    forest : Forest
    n_bits : int
        1 to 16.
    separate : bool, default=False
        Whether each output has a scale of its own; else all share one.

    Raises
    ------
    LoweringError
        If the range of a tree's values overflows float64.
    """
    n = forest.n_outputs
    values = [np.zeros(tree.value.shape, dtype=np.int64) for tree in forest.trees]
    scale, offset, error = np.ones(n), forest.base.copy(), np.zeros(n)
    shift = np.zeros(n, dtype=np.int64)
    for group in np.arange(n)[:, np.newaxis] if separate else [np.arange(n)]:
        parts = [_part(tree, group) for tree in forest.trees]
        step, absolute = _step([part for part in parts if part.size], n_bits)
        scale[group] = step
        for tree, part, q in zip(forest.trees, parts, values, strict=True):
            if not part.size:
                continue
            columns = np.flatnonzero(np.isin(_outputs(tree), group))
            least = float(part.min())
            rounded = np.rint((part - least) / step).astype(np.int64)
            q[np.ix_(np.flatnonzero(tree.feature < 0), columns)] = rounded
            places = tree.first_output + columns
            first = round(least / step) if absolute else 0
            shift[places] += first
            offset[places] += 0.0 if absolute else least
            decoded = (rounded + first) * step if absolute else rounded * step + least
            error[places] += np.abs(part - decoded).max(axis=0)
    return IntegerLeaves(tuple(values), scale, shift, offset, error)


def _outputs(tree: TreeNodes) -> IntArray:
    """The output of each column of a tree's values."""
    return np.arange(tree.first_output, tree.first_output + tree.value.shape[1])


def _part(tree: TreeNodes, group: IntArray) -> FloatArray:
    """Values of the leaves for those outputs of `group` that the tree adds to, shape (n_leaves, columns)."""
    return tree.value[tree.feature < 0][:, np.isin(_outputs(tree), group)]


def _step(parts: list[FloatArray], n_bits: int) -> tuple[float, bool]:
    """The scale of one group's values, by tree, and whether they all are multiples of it."""
    with np.errstate(over="ignore"):
        reach = max((float(np.ptp(part)) for part in parts), default=0.0)
    if not np.isfinite(reach):
        raise LoweringError("the range of a tree's leaf values overflows float64; rescale the target")
    if reach == 0:
        return 1.0, False
    most = 2**n_bits - 1
    places, counted = _distinct(parts, reach)
    for values, absolute in ((places, True), (counted, False)):
        for steps in range(1, min(most, _LATTICE_STEPS) + 1) if len(values) else ():
            if _integers(values * steps):
                return reach / steps or reach, absolute
    return reach / max(most - most % 2, 1) or reach, False  # denormal ranges have fewer steps than asked for


def _distinct(parts: list[FloatArray], reach: float) -> tuple[FloatArray, FloatArray]:
    """Different values in units of `reach`, and the same counted from each tree's least; empty where there are many."""
    places, counted = np.zeros(0), np.zeros(0)
    for part in parts:
        places = np.union1d(places, part / reach)
        counted = np.union1d(counted, (part - part.min()) / reach)
        if len(counted) > _LATTICE_VALUES:
            return np.zeros(0), np.zeros(0)
    large = len(places) > _LATTICE_VALUES or np.abs(places).max() > _LATTICE_REACH
    return np.zeros(0) if large else places, counted


def _integers(values: FloatArray) -> bool:
    """Whether all values are integers, up to rounding."""
    return bool((np.abs(values - np.rint(values)) <= _LATTICE_ROUNDING * np.maximum(np.abs(values), 1.0)).all())


@dataclass(frozen=True, eq=False)
class Complements:
    """Outputs that are known from others: ``score[derived] = total - score[partner]``.

    Attributes
    ----------
    kept : ndarray of int64
        Outputs that must be evaluated: the partners, or all where none is derived.
    derived : ndarray of int64
        The output before each partner.
    total : ndarray of float64
    """

    kept: IntArray
    derived: IntArray
    total: FloatArray

    def decode(self, sums: IntArray, leaves: IntegerLeaves) -> FloatArray:
        """All scores, from sums of integer leaf values of the outputs kept.

        Complementary scores are counted from their middle, ``total / 2``, in half steps, so that where they are equal
        in the model they are equal.

        sums: int64, shape (n, len(kept)). Returns float64, shape (n, len(kept) + len(derived)).
        """
        counts = sums + leaves.shift
        if not len(self.derived):
            plain: FloatArray = counts * leaves.scale + leaves.offset
            return plain
        half = leaves.scale / 2
        middle = (self.total / 2 - leaves.offset) / half
        whole = np.rint(middle)
        # the rounding of the sums in `total` and `offset`
        near = np.abs(middle - whole) <= _COMPLEMENT_ERROR * np.maximum(np.abs(self.total / half), 1.0)
        middle = np.where(near, whole, middle)
        from_middle = (2 * counts - middle) * half
        scores = np.empty((len(sums), 2 * len(self.kept)))
        scores[:, self.kept] = self.total / 2 + from_middle
        scores[:, self.derived] = self.total / 2 - from_middle
        return scores

    def expand(self, values: FloatArray) -> FloatArray:
        """What holds for outputs kept and derived alike, for all of them. values: shape (len(kept),)."""
        return np.repeat(values, 2) if len(self.derived) else values


def without_complements(forest: Forest) -> tuple[Forest, Complements]:
    """Drop the first of each pair of outputs if, in every pair, they add up to the same at all leaves of every tree.

    Those are the probabilities of two classes: evaluating both would double the lookups and tell nothing new.
    """
    n = forest.n_outputs
    pairs = range(0, n, 2)
    nothing = np.zeros(0, dtype=np.int64)
    if n % 2 or any(tree.value.shape[1] != n for tree in forest.trees):
        return forest, Complements(np.arange(n), nothing, np.zeros(0))
    sums = np.array([[_constant_sum(tree, output) for output in pairs] for tree in forest.trees])
    if np.isnan(sums).any():
        return forest, Complements(np.arange(n), nothing, np.zeros(0))
    kept = np.arange(1, n, 2)
    total = sums.sum(axis=0) + forest.base[kept - 1] + forest.base[kept]
    return forest.with_outputs(kept), Complements(kept, kept - 1, total)


def _constant_sum(tree: TreeNodes, output: int) -> float:
    """The sum of two outputs if it is the same at all leaves, up to rounding; else NaN."""
    leaves = tree.value[tree.feature < 0][:, output : output + 2]
    sums = leaves.sum(axis=1)
    spread = float(sums.max() - sums.min())
    return float((sums.min() + sums.max()) / 2) if spread <= _COMPLEMENT_ERROR * float(np.abs(leaves).max()) else np.nan
