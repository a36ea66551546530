"""ONNX-ML models written directly from the public arrays of fitted libraries, without a converter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER", "LEAF")


@dataclass
class Node:
    """An inner node (`mode` is a branch), or a leaf with `weights` per output."""

    id: int
    mode: str = "LEAF"
    feature: int = 0
    split: float = 0.0
    true: int = 0
    false: int = 0
    missing_true: bool = False
    weights: dict[int, float] = field(default_factory=dict)
    members: tuple[int, ...] = ()


Tree = Sequence[Node]


def _model(node, n_features, outputs, elem_type=TensorProto.FLOAT, version=3, extra=()):
    source = helper.make_tensor_value_info("x", elem_type, ["n", n_features])
    results = [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs]
    graph = helper.make_graph([*extra, node], "trees", [source], results)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", version)]
    return helper.make_model(graph, opset_imports=opsets)


def tree_node(trees: Sequence[Tree], prefix: str, double: bool = False, **attributes: Any) -> onnx.NodeProto:
    """The node of ONNX-ML 1 to 3; `prefix` is "class" or "target"."""
    nodes = [(index, node) for index, tree in enumerate(trees) for node in tree]
    votes = [(index, node, output) for index, node in nodes for output in node.weights]
    ids = "class_ids" if prefix == "class" else "target_ids"

    def floats(name: str, values: Sequence[float]) -> dict[str, Any]:
        if double:
            return {f"{name}_as_tensor": numpy_helper.from_array(np.array(values, dtype=np.float64))}
        return {name: [float(value) for value in values]}

    return helper.make_node(
        "TreeEnsembleClassifier" if prefix == "class" else "TreeEnsembleRegressor",
        ["x"],
        ["label", "scores"] if prefix == "class" else ["scores"],
        name="trees",
        domain="ai.onnx.ml",
        nodes_treeids=[index for index, _ in nodes],
        nodes_nodeids=[node.id for _, node in nodes],
        nodes_modes=[node.mode for _, node in nodes],
        nodes_featureids=[node.feature for _, node in nodes],
        nodes_truenodeids=[node.true for _, node in nodes],
        nodes_falsenodeids=[node.false for _, node in nodes],
        nodes_missing_value_tracks_true=[int(node.missing_true) for _, node in nodes],
        **floats("nodes_values", [node.split for _, node in nodes]),
        **{f"{prefix}_treeids": [index for index, _, _ in votes]},
        **{f"{prefix}_nodeids": [node.id for _, node, _ in votes]},
        **{ids: [output for _, _, output in votes]},
        **floats(f"{prefix}_weights", [node.weights[output] for _, node, output in votes]),
        **attributes,
    )


def regressor(
    trees: Sequence[Tree], n_features: int, n_targets: int = 1, double: bool = False, **attributes: Any
) -> onnx.ModelProto:
    attributes = {"n_targets": n_targets, "aggregate_function": "SUM", "post_transform": "NONE", **attributes}
    kind = TensorProto.DOUBLE if double else TensorProto.FLOAT
    return _model(tree_node(trees, "target", double, **attributes), n_features, [("scores", kind)], kind)


def classifier(
    trees: Sequence[Tree], n_features: int, labels: Sequence[Any], double: bool = False, **attributes: Any
) -> onnx.ModelProto:
    name = "classlabels_strings" if isinstance(labels[0], str) else "classlabels_int64s"
    attributes = {name: list(labels), "post_transform": "NONE", **attributes}
    outputs = [("label", TensorProto.STRING if "strings" in name else TensorProto.INT64), ("scores", TensorProto.FLOAT)]
    kind = TensorProto.DOUBLE if double else TensorProto.FLOAT
    return _model(tree_node(trees, "class", double, **attributes), n_features, outputs, kind)


def ensemble(
    trees: Sequence[Tree], n_features: int, n_targets: int = 1, dtype: str = "float32", **attributes: Any
) -> Any:
    """The node of ONNX-ML 5; each leaf has one weight."""
    inner = [(index, node) for index, tree in enumerate(trees) for node in tree if node.mode != "LEAF"]
    leaves = [(index, node) for index, tree in enumerate(trees) for node in tree if node.mode == "LEAF"]
    rows = {(index, node.id): (row, 0) for row, (index, node) in enumerate(inner)}
    rows |= {(index, node.id): (row, 1) for row, (index, node) in enumerate(leaves)}

    def tensor(values: Sequence[float], kind: str) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(values, dtype=kind))

    members = [value for _, node in inner if node.mode == "BRANCH_MEMBER" for value in (*node.members, np.nan)]
    if members:
        attributes["membership_values"] = tensor(members, dtype)
    node = helper.make_node(
        "TreeEnsemble",
        ["x"],
        ["scores"],
        name="trees",
        domain="ai.onnx.ml",
        n_targets=n_targets,
        tree_roots=[rows[index, tree[0].id][0] for index, tree in enumerate(trees)],
        nodes_modes=tensor([MODES.index(node.mode) for _, node in inner], "uint8"),
        nodes_featureids=[node.feature for _, node in inner],
        nodes_splits=tensor([node.split for _, node in inner], dtype),
        nodes_truenodeids=[rows[index, node.true][0] for index, node in inner],
        nodes_trueleafs=[rows[index, node.true][1] for index, node in inner],
        nodes_falsenodeids=[rows[index, node.false][0] for index, node in inner],
        nodes_falseleafs=[rows[index, node.false][1] for index, node in inner],
        nodes_missing_value_tracks_true=[int(node.missing_true) for _, node in inner],
        leaf_targetids=[next(iter(node.weights)) for _, node in leaves],
        leaf_weights=tensor([next(iter(node.weights.values())) for _, node in leaves], dtype),
        **attributes,
    )
    kind = TensorProto.DOUBLE if dtype == "float64" else TensorProto.FLOAT
    return _model(node, n_features, [("scores", kind)], kind, version=5)


def sklearn_tree(estimator: Any, *, output: int | None = None, scale: float = 1.0) -> Tree:
    """A decision tree; its values are for all outputs, or all for `output`. Thresholds are rounded down to float32."""
    tree = estimator.tree_
    nodes = []
    for node in range(tree.node_count):
        if tree.children_left[node] < 0:
            values = tree.value[node].ravel() * scale
            weights = dict(enumerate(values)) if output is None else {output: values[0]}
            nodes.append(Node(node, weights=weights))
        else:
            split = np.float32(tree.threshold[node])
            split = np.nextafter(split, np.float32(-np.inf)) if split > tree.threshold[node] else split
            children = int(tree.children_left[node]), int(tree.children_right[node])
            nodes.append(Node(node, "BRANCH_LEQ", int(tree.feature[node]), float(split), *children))
    return nodes


def xgboost_trees(booster: Any, n_classes: int = 1) -> list[Tree]:
    """The trees of a booster without categories, by its table of nodes."""
    table = booster.trees_to_dataframe()
    trees = []
    for index, rows in table.groupby("Tree"):
        nodes = []
        for row in rows.itertuples():
            if row.Feature == "Leaf":
                nodes.append(Node(row.Node, weights={index % n_classes: row.Gain}))
                continue
            yes, no, missing = (int(child.split("-")[1]) for child in (row.Yes, row.No, row.Missing))
            feature = int(row.Feature.removeprefix("f"))
            nodes.append(Node(row.Node, "BRANCH_LT", feature, row.Split, yes, no, missing == yes))
        trees.append(nodes)
    return trees


def lightgbm_trees(booster: Any, n_classes: int = 1) -> list[Tree]:
    """The trees of a booster without categories and zero_as_missing; a leaf's id is its index, a split's -1 - index."""
    trees = []
    for index, info in enumerate(booster.dump_model()["tree_info"]):
        nodes: list[Node] = []
        _lightgbm_node(info["tree_structure"], index % n_classes, nodes)
        trees.append(nodes)
    return trees


def _lightgbm_node(node: dict[str, Any], output: int, nodes: list[Node]) -> int:
    if "split_index" not in node:
        nodes.append(Node(node.get("leaf_index", 0), weights={output: node["leaf_value"]}))
        return nodes[-1].id
    at = len(nodes)
    nodes.append(Node(-1 - node["split_index"]))
    true = _lightgbm_node(node["left_child"], output, nodes)
    false = _lightgbm_node(node["right_child"], output, nodes)
    # Where training saw no NaN, LightGBM takes it for 0.
    missing = node["default_left"] if node["missing_type"] == "NaN" else node["threshold"] >= 0
    nodes[at] = Node(nodes[at].id, "BRANCH_LEQ", node["split_feature"], node["threshold"], true, false, missing)
    return nodes[at].id


def random_tree(
    rng: np.random.Generator,
    modes: Sequence[str],
    n_features: int,
    n_outputs: int,
    *,
    depth: int,
    one_weight: bool = False,
    shuffled: bool = True,
) -> Tree:
    """A random tree with random node ids, its nodes in random order (root first) or depth first."""
    nodes: list[Node] = []
    ids = rng.permutation(2 ** (depth + 1)).tolist()

    def grow(level: int) -> int:
        node = Node(ids.pop())
        nodes.append(node)
        if level == depth or (level and rng.random() < 0.2):
            chosen = rng.permutation(n_outputs)[: 1 if one_weight else rng.integers(1, n_outputs + 1)]
            node.weights = {int(output): float(np.float32(rng.normal())) for output in chosen}
            return node.id
        node.mode = str(rng.choice(modes))
        node.feature = int(rng.integers(n_features))
        equality = node.mode in ("BRANCH_EQ", "BRANCH_NEQ")
        node.split = float(rng.integers(4) if equality else np.float32(rng.normal() * 3))
        node.members = tuple(rng.choice(np.arange(1, 6), 2, replace=False).tolist())
        node.missing_true = bool(rng.integers(2))
        node.true, node.false = grow(level + 1), grow(level + 1)
        return node.id

    grow(0)
    if not shuffled:
        return nodes
    return [nodes[0], *(nodes[1 + i] for i in rng.permutation(len(nodes) - 1))]


def rows_around(forest: Any, rng: np.random.Generator, dtype: str, n_random: int = 40) -> np.ndarray:
    """Random rows, and rows whose features are thresholds of the forest and their neighbours in `dtype`."""
    asked = [(f, t) for tree in forest.trees for f, t in zip(tree.feature, tree.threshold, strict=True) if f >= 0]
    scale = max([1.0, *(abs(t) for _, t in asked if np.isfinite(t))])
    x = rng.normal(size=(n_random + 3 * len(asked), forest.n_features)) * scale
    x = x.astype(dtype)
    for index, (feature, threshold) in enumerate(asked):
        at = np.dtype(dtype).type(threshold)
        for offset, value in enumerate(
            (at, np.nextafter(at, at.dtype.type(-np.inf)), np.nextafter(at, at.dtype.type(np.inf)))
        ):
            x[n_random + 3 * index + offset, feature] = value
    return x
