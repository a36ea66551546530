"""Trees of ONNX-ML nodes (``TreeEnsembleClassifier``, ``TreeEnsembleRegressor``, ``TreeEnsemble``) in the forest form.

The forest's scores are the node's sums before `post_transform`. Where the standard is silent, its reference
implementation (``onnx.reference``) decides: a tree's root is its first node, and integers are compared as float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import numpy as np

from fhelearn.exceptions import LoweringError
from fhelearn.frontends.tree.comparisons import canonical_threshold
from fhelearn.frontends.tree.forest import MAX_CATEGORY, BoolArray, Forest, Precision, TreeNodes
from fhelearn.frontends.tree.onnx_graph import Attributes, precision_of, readable_graph, width_of
from fhelearn.typing import FloatArray, IntArray

if TYPE_CHECKING:
    from onnx import ModelProto

PostTransform: TypeAlias = Literal["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"]
Name = TypeVar("Name", bound=str)

_POST_TRANSFORMS: tuple[PostTransform, ...] = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
_AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
_MODES = (
    "BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER", "LEAF",
)  # fmt: skip
_LEQ, _LT, _GTE, _GT, _EQ, _NEQ, _MEMBER, _LEAF = range(len(_MODES))
_OPERATORS = ("TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor")
# What may follow: it makes probabilities and labels of the scores, which no forest holds.
_AFTER = frozenset(
    {"ArgMax", "ArrayFeatureExtractor", "Cast", "Constant", "Flatten", "Gather", "Identity", "LabelEncoder"}
    | {"Normalizer", "Reshape", "Sigmoid", "Softmax", "Squeeze", "ZipMap"}
)
_MAX_OUTPUTS = 2**16


@dataclass(frozen=True, eq=False)
class OnnxMlTrees:
    """What the tree node of an ONNX-ML model says.

    Attributes
    ----------
    forest : Forest
        Outputs are the node's targets or classes. A classifier of two classes whose leaves all weigh the same class id
        has one output, the score of the second class.
    post_transform : {"NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"}
        What the node does to the scores.
    labels : tuple of int or tuple of str, or None
        Class labels of a classifier, None for other nodes.
    """

    forest: Forest
    post_transform: PostTransform
    labels: tuple[int, ...] | tuple[str, ...] | None


@dataclass(frozen=True, eq=False)
class _Table:
    """The nodes of all trees, one row each; `true` and `false` are rows, -1 at leaves.

    `weights` are (row, output, weight) of leaves; `members` the sets of categorical rows.
    """

    name: str
    library_id: IntArray
    mode: IntArray
    feature: IntArray
    split: FloatArray
    missing_true: BoolArray
    true: IntArray
    false: IntArray
    roots: Sequence[int]
    members: Mapping[int, frozenset[int]]
    weights: tuple[IntArray, IntArray, FloatArray]


def forest_from_onnx_ml(model: ModelProto, *, n_features: int | None = None) -> Forest:
    """Read the forest of an ONNX-ML model; see :func:`read_onnx_ml`."""
    return read_onnx_ml(model, n_features=n_features).forest


def read_onnx_ml(model: ModelProto, *, n_features: int | None = None) -> OnnxMlTrees:
    """Read a model whose core is one tree node.

    Parameters
    ----------
    model : onnx.ModelProto
        Casts may stand before the node; casts, normalizers and label operators after it, which are not read. A node on
        float or integer tensors compares in float32, on double tensors in float64.
    n_features : int, default=None
        Needed if the model's input has no fixed number of columns; must agree with it otherwise.

    Returns
    -------
    OnnxMlTrees
        The forest takes missing values. `library_id` is a node's id in the model; ``TreeEnsemble`` counts nodes and
        leaves apart: there a leaf has its position among the leaves, an inner node -1 minus its position.

    Raises
    ------
    LoweringError
        If there is not exactly one tree node, another node changes features or scores, the node aggregates by MIN or
        MAX, a feature is compared for equality with what is no category, or the model is corrupt.
    TypeError
        If `model` is no ModelProto.
    """
    graph = readable_graph(model)
    found = [node for node in graph.nodes if node.op_type in _OPERATORS]
    if len(found) != 1:
        raise LoweringError(
            f"the model holds {len(found)} nodes of {', '.join(_OPERATORS)}, exactly one can be read; convert the "
            "estimator to one tree ensemble"
        )
    node = found[0]
    casts, source = graph.casts_before(node.input[0] if node.input else "")
    graph.refuse_others({id(node), *map(id, casts)}, _AFTER)
    attributes = Attributes(node)
    modern = node.op_type == "TreeEnsemble"
    table = _modern_table(attributes) if modern else _table(attributes, node.op_type == "TreeEnsembleClassifier")
    labels = _labels(attributes) if node.op_type == "TreeEnsembleClassifier" else None
    n_outputs = _n_outputs(attributes, table.weights[1], labels)
    base = _base(attributes, n_outputs, labels)
    averaged = _choice(attributes, "aggregate_function", _AGGREGATES, "SUM") == "AVERAGE"
    scale = 1 / max(len(table.roots), 1) if averaged else 1.0
    forest = _forest(table, base, scale, precision_of(source, casts), width_of(source, n_features))
    return OnnxMlTrees(forest, _choice(attributes, "post_transform", _POST_TRANSFORMS, "NONE"), labels)


def _choice(attributes: Attributes, name: str, allowed: tuple[Name, ...], default: Name) -> Name:
    """An attribute that ONNX-ML up to version 4 writes as a word, version 5 as the word's number."""
    if attributes.kind(name) == "INT":
        number = attributes.integer(name, 0)
        value = allowed[number] if 0 <= number < len(allowed) else str(number)
    else:
        value = attributes.text(name, default)
    for word in allowed:
        if word == value and word not in ("MIN", "MAX"):
            return word
    fit = [word for word in allowed if word not in ("MIN", "MAX")]
    raise LoweringError(f"{attributes.name}: {name} must be one of {', '.join(fit)}, got {value!r}")


def _columns(attributes: Attributes, names: Mapping[str, Any]) -> int:
    """The common length of attributes that describe the same things."""
    lengths = {name: len(values) for name, values in names.items()}
    if len(set(lengths.values())) != 1:
        raise LoweringError(f"{attributes.name}: these attributes must be of one length, got {lengths}")
    return next(iter(lengths.values()))


def _flags(attributes: Attributes, name: str, n: int) -> BoolArray:
    values = attributes.integers(name)
    if len(values) not in (0, n):
        raise LoweringError(f"{attributes.name}: {name} must be of length {n}, got {len(values)}")
    return (values != 0) if len(values) else np.zeros(n, dtype=np.bool_)


def _required(attributes: Attributes, name: str, values: FloatArray | None) -> FloatArray:
    if values is None:
        raise LoweringError(f"{attributes.name}: attribute '{name}' is missing")
    return values


def _table(attributes: Attributes, classifier: bool) -> _Table:
    """The table of a node of ONNX-ML 1 to 4, whose nodes are named by (tree id, node id)."""
    prefix, ids = ("class", "class_ids") if classifier else ("target", "target_ids")
    nodes: dict[str, Any] = {
        name: attributes.integers(name)
        for name in ("nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_truenodeids", "nodes_falsenodeids")
    }
    nodes["nodes_modes"] = attributes.texts("nodes_modes")
    nodes["nodes_values"] = _required(attributes, "nodes_values", attributes.floats("nodes_values"))
    n = _columns(attributes, nodes)
    votes: dict[str, Any] = {
        name: attributes.integers(name) for name in (f"{prefix}_treeids", f"{prefix}_nodeids", ids)
    }
    weights = _required(attributes, f"{prefix}_weights", attributes.floats(f"{prefix}_weights"))
    _columns(attributes, {**votes, f"{prefix}_weights": weights})
    if unknown := set(nodes["nodes_modes"]) - set(_MODES) | set(nodes["nodes_modes"]) & {"BRANCH_MEMBER"}:
        raise LoweringError(f"{attributes.name}: nodes_modes must not hold {sorted(unknown)}")
    mode = np.array([_MODES.index(name) for name in nodes["nodes_modes"]], dtype=np.int64)
    keys = zip(nodes["nodes_treeids"].tolist(), nodes["nodes_nodeids"].tolist(), strict=True)
    rows = {key: row for row, key in enumerate(keys)}
    if len(rows) != n:
        raise LoweringError(f"{attributes.name}: two nodes have the same tree id and node id")

    leaves = _rows(attributes, rows, votes[f"{prefix}_treeids"], votes[f"{prefix}_nodeids"], f"{prefix}_nodeids")
    if (mode[leaves] != _LEAF).any():
        raise LoweringError(f"{attributes.name}: {prefix}_nodeids names nodes that are no leaves")
    inner = np.flatnonzero(mode != _LEAF)
    true, false = np.full(n, -1, dtype=np.int64), np.full(n, -1, dtype=np.int64)
    for child, name in ((true, "nodes_truenodeids"), (false, "nodes_falsenodeids")):
        child[inner] = _rows(attributes, rows, nodes["nodes_treeids"][inner], nodes[name][inner], name)
    first: dict[int, int] = {}
    for (tree, _), row in rows.items():
        first.setdefault(tree, row)
    return _Table(
        name=attributes.name,
        library_id=nodes["nodes_nodeids"],
        mode=mode,
        feature=nodes["nodes_featureids"],
        split=nodes["nodes_values"],
        missing_true=_flags(attributes, "nodes_missing_value_tracks_true", n),
        true=true,
        false=false,
        roots=[first[tree] for tree in sorted(first)],
        members={},
        weights=(leaves, votes[ids], weights),
    )


def _rows(
    attributes: Attributes, rows: Mapping[tuple[int, int], int], trees: IntArray, nodes: IntArray, name: str
) -> IntArray:
    """The rows of nodes that the attribute `name` refers to."""
    found = []
    for key in zip(trees.tolist(), nodes.tolist(), strict=True):
        if key not in rows:
            raise LoweringError(
                f"{attributes.name}: {name} refers to node {key[1]} of tree {key[0]}, which does not exist"
            )
        found.append(rows[key])
    return np.array(found, dtype=np.int64)


def _modern_table(attributes: Attributes) -> _Table:
    """The table of a ``TreeEnsemble`` of ONNX-ML 5: its nodes' rows, then its leaves'."""
    nodes: dict[str, Any] = {
        name: attributes.integers(name)
        for name in (
            "nodes_featureids",
            "nodes_truenodeids",
            "nodes_falsenodeids",
            "nodes_trueleafs",
            "nodes_falseleafs",
        )
    }
    modes = attributes.tensor("nodes_modes")
    nodes["nodes_modes"] = np.array([] if modes is None else modes).astype(np.int64)
    nodes["nodes_splits"] = _required(attributes, "nodes_splits", attributes.floats("nodes_splits"))
    n = _columns(attributes, nodes)
    weights = _required(attributes, "leaf_weights", attributes.floats("leaf_weights"))
    targets = attributes.integers("leaf_targetids")
    n_leaves = _columns(attributes, {"leaf_weights": weights, "leaf_targetids": targets})
    if n and not 0 <= nodes["nodes_modes"].min() <= nodes["nodes_modes"].max() <= _MEMBER:
        raise LoweringError(f"{attributes.name}: nodes_modes must lie in [0, {_MEMBER}]")

    def children(side: str) -> IntArray:
        child, leaf = nodes[f"nodes_{side}nodeids"], nodes[f"nodes_{side}leafs"] != 0
        if (wrong := (child < 0) | (child >= np.where(leaf, n_leaves, n))).any():
            row = int(np.flatnonzero(wrong)[0])
            raise LoweringError(
                f"{attributes.name}: node {row} has the {side} child {child[row]}, which does not exist"
            )
        return np.where(leaf, child + n, child)

    true, false = children("true"), children("false")
    roots = attributes.integers("tree_roots")
    if len(roots) and not 0 <= roots.min() <= roots.max() < n:
        raise LoweringError(f"{attributes.name}: tree_roots must lie in [0, {n - 1}]")
    single = (true == false) & (true >= n)  # the standard's way to write a tree that is one leaf
    return _Table(
        name=attributes.name,
        library_id=np.concatenate([-1 - np.arange(n), np.arange(n_leaves)]),
        mode=np.append(nodes["nodes_modes"], np.full(n_leaves, _LEAF)),
        feature=np.append(nodes["nodes_featureids"], np.zeros(n_leaves, dtype=np.int64)),
        split=np.append(nodes["nodes_splits"], np.zeros(n_leaves)),
        missing_true=np.append(_flags(attributes, "nodes_missing_value_tracks_true", n), np.zeros(n_leaves, np.bool_)),
        true=np.append(true, np.full(n_leaves, -1)),
        false=np.append(false, np.full(n_leaves, -1)),
        roots=[int(true[root] if single[root] else root) for root in roots],
        members=_member_sets(attributes, np.flatnonzero(nodes["nodes_modes"] == _MEMBER)),
        weights=(np.arange(n_leaves) + n, targets, weights),
    )


def _member_sets(attributes: Attributes, rows: IntArray) -> dict[int, frozenset[int]]:
    """The sets of categorical nodes: runs of `membership_values` that end in NaN, in the order of the nodes."""
    values = attributes.floats("membership_values")
    values = np.zeros(0) if values is None else values
    if len(values) and not np.isnan(values[-1]):
        values = np.append(values, np.nan)  # NaN stands between sets; the last one need not end in it
    ends = np.flatnonzero(np.isnan(values))
    if len(ends) != len(rows):
        raise LoweringError(f"{attributes.name}: membership_values holds {len(ends)} sets for {len(rows)} nodes")
    begins = [0, *(ends + 1)]
    sets = (values[begin:end] for begin, end in zip(begins, ends, strict=False))
    return {int(row): _categories(attributes.name, chosen) for row, chosen in zip(rows, sets, strict=True)}


def _categories(name: str, values: FloatArray) -> frozenset[int]:
    if len(values) and not ((values == np.floor(values)) & (values >= 0) & (values < MAX_CATEGORY)).all():
        raise LoweringError(
            f"{name}: a feature is compared for equality with {values.tolist()[:5]}; only categories, integers in "
            f"[0, {MAX_CATEGORY}), can be: write the comparison as two of BRANCH_LEQ"
        )
    return frozenset(int(value) for value in values)


def _labels(attributes: Attributes) -> tuple[int, ...] | tuple[str, ...]:
    numbers, words = attributes.integers("classlabels_int64s").tolist(), attributes.texts("classlabels_strings")
    if bool(numbers) == bool(words):
        raise LoweringError(f"{attributes.name}: one of classlabels_int64s and classlabels_strings must be given")
    return tuple(numbers) if numbers else tuple(words)


def _n_outputs(attributes: Attributes, ids: IntArray, labels: Sequence[Any] | None) -> int:
    n = attributes.integer("n_targets", int(ids.max(initial=0)) + 1) if labels is None else len(labels)
    if not 0 < n <= _MAX_OUTPUTS or (len(ids) and not 0 <= ids.min() <= ids.max() < n):
        raise LoweringError(
            f"{attributes.name}: leaves weigh outputs {ids.min(initial=0)} to {ids.max(initial=0)} of {n} (at most "
            f"{_MAX_OUTPUTS} are allowed)"
        )
    return 1 if labels is not None and n <= 2 and len(set(ids.tolist())) <= 1 else n


def _base(attributes: Attributes, n_outputs: int, labels: Sequence[Any] | None) -> FloatArray:
    base = attributes.floats("base_values")
    if base is None or not len(base):
        return np.zeros(n_outputs)
    if labels is not None and n_outputs == 1 and len(base) == 2 and base[0] == base[1]:
        base = base[:1]  # runtimes disagree on which of the two counts for a single score
    if len(base) != n_outputs:
        raise LoweringError(f"{attributes.name}: base_values must hold {n_outputs} values, got {base.tolist()[:5]}")
    return base


def _fields(table: _Table, precision: Precision) -> tuple[TreeNodes, tuple[frozenset[int], ...]]:
    """The rows of the table as nodes of a forest (their values left out), and the forest's category sets."""
    inner = table.mode != _LEAF
    if (table.feature[inner] < 0).any():
        raise LoweringError(f"{table.name}: a feature's index must not be negative, got {table.feature[inner].min()}")
    members = dict(table.members)
    for row in np.flatnonzero(np.isin(table.mode, (_EQ, _NEQ))):
        members[int(row)] = _categories(table.name, table.split[[row]])
    sets = {chosen: index for index, chosen in enumerate(dict.fromkeys(members.values()))}
    member = np.full(len(inner), -1, dtype=np.int64)
    member[list(members)] = [sets[chosen] for chosen in members.values()]
    strict = np.isin(table.mode, (_LT, _GTE))
    # Nothing is less than minus infinity, but minus infinity is at most minus infinity: ask the opposite question.
    never = strict & (table.split == -np.inf)
    swapped = np.isin(table.mode, (_GTE, _GT, _NEQ)) ^ never
    threshold = np.where(never, np.inf, canonical_threshold(table.split, strict, precision))
    nodes = TreeNodes(
        feature=np.where(inner, table.feature, -1),
        threshold=np.where(inner & (member < 0), threshold, 0.0),
        members=member,
        nan_left=inner & (table.missing_true ^ swapped),
        left=np.where(swapped, table.false, table.true),
        right=np.where(swapped, table.true, table.false),
        value=np.zeros((len(inner), 0)),
        first_output=0,
        library_id=table.library_id,
    )
    return nodes, tuple(sets)


def _forest(table: _Table, base: FloatArray, scale: float, precision: Precision, n_features: int) -> Forest:
    """The forest of a table, its leaves' weights times `scale`."""
    nodes, sets = _fields(table, precision)
    orders = _orders(table, nodes)
    rows, ids, weights = table.weights
    n_outputs = len(base)
    tree_of = np.full(len(nodes.feature), -1, dtype=np.int64)
    for index, order in enumerate(orders):
        tree_of[order] = index
    votes = np.unique(np.stack([tree_of[rows], np.zeros_like(ids) if n_outputs == 1 else ids], axis=1), axis=0)
    votes = votes[votes[:, 0] >= 0]
    # One output per tree (boosting): its leaves hold one value.
    narrow = n_outputs == 1 or np.array_equal(votes[:, 0], np.arange(len(orders)))
    value = np.zeros((len(tree_of), 1 if narrow else n_outputs))
    np.add.at(value, (rows, np.zeros_like(ids) if narrow else ids), weights * scale)
    first = votes[:, 1] if narrow and n_outputs > 1 else np.zeros(len(orders), dtype=np.int64)
    return Forest(
        trees=tuple(_tree(nodes, value, order, int(output)) for order, output in zip(orders, first, strict=True)),
        n_features=n_features,
        precision=precision,
        base=base,
        category_sets=sets,
        accepts_nan=True,
    )


def _orders(table: _Table, nodes: TreeNodes) -> list[IntArray]:
    """The rows of each tree, root first, left before right. Raises LoweringError if a node has two parents."""
    seen = np.zeros(len(nodes.feature), dtype=np.bool_)
    orders = []
    for root in table.roots:
        order: list[int] = []
        stack = [root]
        while stack:
            row = stack.pop()
            if seen[row]:
                raise LoweringError(
                    f"{table.name}: node {table.library_id[row]} (row {row}) is reached twice; nodes must form trees"
                )
            seen[row] = True
            order.append(row)
            if nodes.feature[row] >= 0:
                stack += [int(nodes.right[row]), int(nodes.left[row])]
        orders.append(np.array(order, dtype=np.int64))
    return orders


def _tree(nodes: TreeNodes, value: FloatArray, order: IntArray, first_output: int) -> TreeNodes:
    """The tree that the rows `order` make."""
    place = np.full(len(nodes.feature) + 1, -1, dtype=np.int64)  # the last one serves the child -1 of leaves
    place[order] = np.arange(len(order))
    return TreeNodes(
        feature=nodes.feature[order],
        threshold=nodes.threshold[order],
        members=nodes.members[order],
        nan_left=nodes.nan_left[order],
        left=place[nodes.left[order]],
        right=place[nodes.right[order]],
        value=value[order],
        first_output=first_output,
        library_id=nodes.library_id[order],
    )
