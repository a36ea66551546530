"""Forests in the C++ core: what the integer program of a tree model computes, straight from float rows.

The engine never makes the bits of the conditions or the levels of the trees one by one: it treats 512 rows at a time
with one bit per row, or walks the rows down trees of thousands of leaves. Its sums are those of the program.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fhelearn import _core
from fhelearn.backends.native import resolve_num_threads
from fhelearn.typing import IntArray


class ForestEngine:
    """A forest with integer leaves, planned for this CPU.

    Parameters
    ----------
    conditions : _core.Conditions
        What nodes ask: ``ConditionEncoder.native``.
    tree_starts : ndarray of int64, shape (n_trees + 1,)
        Tree ``t`` has the nodes ``tree_starts[t]`` up to ``tree_starts[t + 1]``, its root first.
    condition : ndarray of int64, shape (n_nodes,)
        The condition that an inner node asks; -1 at leaves.
    left, right : ndarray of int64, shape (n_nodes,)
        Children, as indices into these arrays: where the condition holds, and where it does not. They come after their
        parent. Ignored at leaves.
    value : ndarray of int64, shape (n_nodes, width)
        What a leaf adds to the outputs; ignored at inner nodes.
    first_output : ndarray of int64, shape (n_trees,)
        The output that the first column of `value` belongs to.
    n_outputs : int
        Number of sums per row.

    Raises
    ------
    TypeError
        If an array has another dtype, rank or layout (C-contiguous).
    ValueError
        If lengths differ, an index is out of range, a node has two parents, or sums might not fit 64 bits.

    Notes
    -----
    Immutable; the methods may be called from several Python threads at once and release the GIL.
    """

    def __init__(
        self,
        *,
        conditions: _core.Conditions,
        tree_starts: IntArray,
        condition: IntArray,
        left: IntArray,
        right: IntArray,
        value: IntArray,
        first_output: IntArray,
        n_outputs: int,
    ) -> None:
        self._engine = _core.ForestEngine(
            conditions=conditions,
            tree_starts=tree_starts,
            condition=condition,
            left=left,
            right=right,
            value=value,
            first_output=first_output,
            n_outputs=n_outputs,
        )

    @property
    def n_trees(self) -> int:
        """Number of trees."""
        return self._engine.n_trees

    def run(self, x: Any, *, num_threads: int | None = None) -> IntArray:
        """Sums of the values of the leaves that each row reaches.

        Parameters
        ----------
        x : ndarray of float32 or float64, shape (n, n_features), C-contiguous
            May hold NaN and infinities.
        num_threads : int or None
            As :func:`fhelearn.backends.native.resolve_num_threads`. Small batches use one thread.

        Returns
        -------
        ndarray of int64, shape (n, n_outputs)

        Raises
        ------
        TypeError
            If `x` has another dtype, rank or layout.
        ValueError
            If `x` has another number of columns, a feature that some condition takes for categorical holds a number
            that is no integer, or `num_threads` is none of the allowed values.
        """
        return self._engine.run(x, num_threads=resolve_num_threads(num_threads))

    def apply(self, x: Any, *, num_threads: int | None = None) -> IntArray:
        """The leaf that each row reaches in each tree, counted from the tree's root.

        Parameters and errors are those of :meth:`run`.

        Returns
        -------
        ndarray of int64, shape (n, n_trees)
        """
        return self._engine.apply(x, num_threads=resolve_num_threads(num_threads)).astype(np.int64)

    def __repr__(self) -> str:
        return f"ForestEngine({self._engine.n_trees} trees, isa={_core.isa()!r})"
