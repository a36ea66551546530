"""Trees of a `treelite.Model`, whatever library made it, in the one forest form.

Treelite numbers its nodes as it likes; the libraries' readers pass `library_ids` where their own numbers differ. What
the readers must settle themselves, because treelite does not hold it: the precision of the data, whether missing
values are accepted, zeros that count as missing, and unknown categories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fhelearn.exceptions import LoweringError
from fhelearn.frontends.tree.comparisons import canonical_threshold
from fhelearn.frontends.tree.forest import MAX_CATEGORY, BoolArray, Forest, Precision, TreeNodes
from fhelearn.typing import FloatArray, IntArray

if TYPE_CHECKING:
    from treelite import Model

__all__ = ["TreeliteTrees", "canonical_threshold", "forest_from_treelite", "read_trees", "with_library_id"]

_OPERATORS = ("none", "==", "<", "<=", ">", ">=")  # enum class Operator in treelite's enum/operator.h
_LESS, _LESS_EQUAL = _OPERATORS.index("<"), _OPERATORS.index("<=")
_NUMERICAL, _CATEGORICAL = 1, 2  # enum class TreeNodeType in treelite's enum/tree_node_type.h


@dataclass(frozen=True, eq=False)
class TreeliteTrees:
    """The trees of a model, and the shape of what they add to.

    Attributes
    ----------
    trees : tuple of TreeNodes
        In treelite's order of trees and of nodes; `library_id` is treelite's node number.
    category_sets : tuple of frozenset of int
        What the trees' `members` point into, each set once.
    base : ndarray of float64, shape (n_outputs,)
        Treelite's base scores.
    """

    trees: tuple[TreeNodes, ...]
    category_sets: tuple[frozenset[int], ...]
    base: FloatArray


@dataclass(frozen=True)
class _Outputs:
    """Which scores exist: treelite pads every target to as many classes as the largest has; the padding is dropped."""

    n_classes: tuple[int, ...]

    def flat(self, target: int, class_: int) -> IntArray:
        """The padded outputs, row-major, that a tree's values belong to; -1 stands for all targets or classes."""
        n_classes = max(self.n_classes)
        targets = np.arange(len(self.n_classes)) if target < 0 else np.array([target])
        classes = np.arange(n_classes) if class_ < 0 else np.array([class_])
        padded: IntArray = (targets[:, np.newaxis] * n_classes + classes).ravel()
        return padded

    def kept(self) -> IntArray:
        """The padded outputs that are real ones."""
        n_classes = max(self.n_classes)
        real = [t * n_classes + np.arange(n, dtype=np.int64) for t, n in enumerate(self.n_classes)]
        return np.concatenate(real)


def forest_from_treelite(
    model: Model,
    *,
    precision: Precision,
    accepts_nan: bool,
    base: FloatArray | None = None,
    zero_is_missing: BoolArray | None = None,
    known_categories: Mapping[int, frozenset[int]] | None = None,
    library_ids: Sequence[IntArray] | None = None,
    n_trees: int | None = None,
) -> Forest:
    """Read a treelite model.

    Parameters
    ----------
    model : treelite.Model
    precision : {"float32", "float64"}
        What the library rounds features to before it compares them.
    accepts_nan : bool
        Whether the library takes missing values.
    base : ndarray of float64, shape (n_outputs,), default=None
        Base scores; None takes treelite's.
    zero_is_missing, known_categories
        As in Forest.
    library_ids : sequence of ndarray of int64, default=None
        Per tree, the library's number of each of treelite's nodes; None takes treelite's own.
    n_trees : int, default=None
        Read only the first `n_trees` trees (an early-stopped booster); None reads all.

    Returns
    -------
    Forest
        Outputs are laid out target by target, each with its classes.

    Raises
    ------
    LoweringError
        If a node compares otherwise than by ``<``, ``<=`` or set membership, a category is 2**24 or more, or
        the model is not usable (no tree, NaN in a leaf).
    """
    read = read_trees(model, precision=precision, n_trees=n_trees)
    trees = read.trees
    if library_ids is not None:
        trees = tuple(with_library_id(tree, ids) for tree, ids in zip(trees, library_ids, strict=True))
    return Forest(
        trees=trees,
        n_features=int(model.num_feature),
        precision=precision,
        base=read.base if base is None else base,
        category_sets=read.category_sets,
        accepts_nan=accepts_nan,
        zero_is_missing=zero_is_missing,
        known_categories=known_categories or {},
    )


def with_library_id(tree: TreeNodes, library_id: IntArray) -> TreeNodes:
    """`tree` with other library numbers of its nodes. library_id: int64, shape (n_nodes,)."""
    return TreeNodes(**{**vars(tree), "library_id": np.asarray(library_id, dtype=np.int64)})


def read_trees(model: Model, *, precision: Precision, n_trees: int | None = None) -> TreeliteTrees:
    """Read the trees of a treelite model; see :func:`forest_from_treelite`.

    If every tree has values for one run of outputs and all runs are of one length, trees keep that width and a
    `first_output`; else every tree gets values for all outputs, 0 where it says nothing. Where treelite averages the
    trees, a tree's values are divided by the number of trees that speak of that output.
    """
    header = model.get_header_accessor()
    n_classes = tuple(int(n) for n in header.get_field("num_class"))
    outputs = _Outputs(n_classes)
    count = int(model.num_tree) if n_trees is None else min(n_trees, int(model.num_tree))
    targets, classes = header.get_field("target_id")[:count], header.get_field("class_id")[:count]
    flats = [outputs.flat(int(target), int(class_)) for target, class_ in zip(targets, classes, strict=True)]
    kept = outputs.kept()
    divisor = np.ones(max(n_classes) * len(n_classes))
    if header.get_field("average_tree_output")[0]:
        divisor = np.maximum(np.bincount(np.concatenate(flats), minlength=len(divisor)), 1).astype(np.float64)
    width = _common_width(flats, len(kept))
    category_sets: dict[frozenset[int], int] = {}
    trees = []
    for index, flat in enumerate(flats):
        name = f"tree {index}"
        fields = _Fields(model.get_tree_accessor(index))
        value = _leaf_values(name, fields, len(flat)) / divisor[flat]
        first = int(flat[0])
        if width is None:
            wide = np.zeros((len(value), len(divisor)))
            wide[:, flat] = value
            value, first = wide[:, kept], 0
        trees.append(_tree(name, fields, precision, value, first, category_sets))
    base = np.asarray(header.get_field("base_scores"), dtype=np.float64)[kept]
    return TreeliteTrees(tuple(trees), tuple(category_sets), base)


class _Fields:
    """The arrays of one tree, copied: treelite's own views die with the model."""

    def __init__(self, accessor: Any) -> None:
        self._accessor = accessor
        self.n_nodes = int(accessor.get_field("num_nodes")[0])

    def get(self, name: str, dtype: Any) -> NDArray[Any]:
        return np.array(self._accessor.get_field(name), dtype=dtype)


def _common_width(flats: Sequence[IntArray], n_kept: int) -> int | None:
    """The number of values that every tree has, if they are consecutive outputs and no padding exists."""
    widths = {len(flat) for flat in flats}
    if len(widths) != 1 or any(flat[-1] - flat[0] >= len(flat) or flat[-1] >= n_kept for flat in flats):
        return None
    return widths.pop()


def _leaf_values(name: str, fields: _Fields, width: int) -> FloatArray:
    """What each node adds to its `width` outputs; 0 at inner nodes. Shape (n_nodes, width)."""
    value = np.zeros((fields.n_nodes, width))
    leaves = np.flatnonzero(fields.get("cleft", np.int64) < 0)
    begin = fields.get("leaf_vector_begin", np.int64)
    length = fields.get("leaf_vector_end", np.int64) - begin
    if not length.any():
        if width != 1:
            raise LoweringError(f"{name}: leaves hold one value for {width} outputs")
        value[leaves, 0] = fields.get("leaf_value", np.float64)[leaves]
        return value
    if (length[leaves] != width).any():
        raise LoweringError(f"{name}: leaves hold {length[leaves].min()} values for {width} outputs")
    vectors = fields.get("leaf_vector", np.float64)
    value[leaves] = vectors[begin[leaves, np.newaxis] + np.arange(width)]
    return value


def _tree(
    name: str,
    fields: _Fields,
    precision: Precision,
    value: FloatArray,
    first_output: int,
    category_sets: dict[frozenset[int], int],
) -> TreeNodes:
    """One tree; sets that are new are added to `category_sets`."""
    kind = fields.get("node_type", np.int64)
    numerical, categorical = kind == _NUMERICAL, kind == _CATEGORICAL
    operator = fields.get("cmp", np.int64)
    if (foreign := numerical & (operator != _LESS) & (operator != _LESS_EQUAL)).any():
        raise LoweringError(
            f"{name}: node {np.flatnonzero(foreign)[0]} compares by '{_OPERATORS[operator[foreign][0]]}', allowed are "
            "'<' and '<='; export the model with one of these"
        )
    strict = numerical & (operator == _LESS)
    threshold = np.where(numerical, fields.get("threshold", np.float64), 0.0)
    members = np.full(fields.n_nodes, -1, dtype=np.int64)
    # Nothing is less than minus infinity, but minus infinity is at most minus infinity: ask the opposite question.
    swapped = strict & (threshold == -np.inf)
    if categorical.any():
        begin, end = fields.get("category_list_begin", np.int64), fields.get("category_list_end", np.int64)
        categories = fields.get("category_list", np.int64)
        if len(categories) and categories.max() >= MAX_CATEGORY:
            raise LoweringError(f"{name}: category {categories.max()} must be less than 2**24")
        for node in np.flatnonzero(categorical):
            chosen = frozenset(categories[begin[node] : end[node]].tolist())
            members[node] = category_sets.setdefault(chosen, len(category_sets))
        swapped |= categorical & fields.get("category_list_right_child", np.bool_)
    left, right = fields.get("cleft", np.int64), fields.get("cright", np.int64)
    inner = numerical | categorical
    return TreeNodes(
        feature=np.where(inner, fields.get("split_index", np.int64), -1),
        threshold=np.where(swapped & numerical, np.inf, canonical_threshold(threshold, strict, precision)),
        members=members,
        nan_left=inner & (fields.get("default_left", np.bool_) != swapped),
        left=np.where(swapped, right, left),
        right=np.where(swapped, left, right),
        value=value,
        first_output=first_output,
        library_id=np.arange(fields.n_nodes, dtype=np.int64),
    )
