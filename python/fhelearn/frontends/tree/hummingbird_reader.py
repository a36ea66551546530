"""Trees of ONNX graphs that Hummingbird made with ``tree_implementation="gemm"`` in the forest form.

Such a graph evaluates all nodes of all trees by matrix products (Nakandala et al., "A Tensor Compiler for Unified
Machine Learning Prediction Serving", OSDI 2020, section 4.1). With T trees padded to H splits and L leaves each:

    bits = (A x <= B)         A (T*H, n_features) picks one feature per split, B (T*H, 1) holds the thresholds
    leaf = (C bits == D)      C (T, L, H): +1 where the leaf lies left of the split, -1 right, 0 elsewhere;
                              D (T*L, 1) counts the +1
    sums = E leaf             E (T, width, L): the leaves' values

and adds the sums of the trees, or of as many runs of trees as there are classes, and a base score. The constants are
found by following the graph from its input; names mean nothing.

What is read is what the *graph* means. If Hummingbird rounded a model's float64 thresholds to float32, features that
are equal to a threshold that was rounded up go to another side than in the model. A missing value makes all comparisons
of its row false in the graph, whatever feature they ask: such a forest does not take missing values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fhelearn.exceptions import LoweringError
from fhelearn.frontends.tree.comparisons import canonical_threshold
from fhelearn.frontends.tree.forest import Forest, Precision, TreeNodes
from fhelearn.frontends.tree.onnx_graph import (
    Attributes,
    GraphInput,
    ReadableGraph,
    node_name,
    precision_of,
    readable_graph,
    width_of,
)
from fhelearn.typing import FloatArray, IntArray

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

# Comparison of the features with the thresholds, and what it is with its operands exchanged, or negated.
_EXCHANGED = {"Less": "Greater", "LessOrEqual": "GreaterOrEqual", "Greater": "Less", "GreaterOrEqual": "LessOrEqual"}
_NEGATED = {"Less": "GreaterOrEqual", "LessOrEqual": "Greater", "Greater": "LessOrEqual", "GreaterOrEqual": "Less"}
# What makes probabilities and labels of the scores.
_LINKS = frozenset({"ArgMax", "Cast", "Exp", "Identity", "Sigmoid", "Softmax"})
_AFTER = _LINKS | {"Concat", "Constant", "Gather", "Sub"}


@dataclass(frozen=True, eq=False)
class _Matrices:
    """The constants of a graph, as the module's text names them: A, B, C, D, E with T, H, L unfolded.

    selection: (T, H, n_features); threshold: (T, H); path: (T, L, H); count: (T, L); value: (T, width, L).
    """

    selection: FloatArray
    comparison: str
    threshold: FloatArray
    path: FloatArray
    count: FloatArray
    value: FloatArray
    precision: Precision


def forest_from_hummingbird(model: ModelProto, *, n_features: int | None = None) -> Forest:
    """Read the forest of a graph in Hummingbird's GEMM form.

    Parameters
    ----------
    model : onnx.ModelProto
    n_features : int, default=None
        Needed if the model's input has no fixed number of columns; must agree with it otherwise.

    Returns
    -------
    Forest
        Scores are the graph's before sigmoid, softmax or exp. Trees are in the graph's order (those of one class
        together). `library_id` of a leaf is its position among the leaves of its tree in the graph, which counts them
        from left to right; of an inner node -1 minus its split's position.

    Raises
    ------
    LoweringError
        If the graph has another shape (the message names the node), or its matrices describe no trees.
    TypeError
        If `model` is no ModelProto.
    """
    graph = readable_graph(model)
    walk = _Walk(graph)
    source = graph.the_input()
    matrices = _read_matrices(walk, source)
    first, base = _read_sums(walk, *matrices.value.shape[:2])
    graph.refuse_others(walk.passed, _AFTER)
    for node in graph.consumers(walk.tensor):
        if node.op_type not in _LINKS:
            raise LoweringError(f"{node_name(node)} changes the trees' scores; export the bare tree model")
    if matrices.selection.shape[2] != width_of(source, n_features or matrices.selection.shape[2]):
        raise LoweringError(
            f"the first matrix takes {matrices.selection.shape[2]} features, the input has {source.width}"
        )
    trees = []
    for index, output in enumerate(first):
        tree, constant = _tree(matrices, index, output)
        base[output : output + len(constant)] += constant
        trees.append(tree)
    return Forest(tuple(trees), matrices.selection.shape[2], matrices.precision, base)


class _Walk:
    """A path through the graph along tensors that one node each takes."""

    def __init__(self, graph: ReadableGraph) -> None:
        self.graph = graph
        self.tensor = graph.the_input().name
        self.passed: set[int] = set()

    def peek(self, *operators: str) -> NodeProto | None:
        """The next node, if it is the only one and of one of `operators`."""
        consumers = self.graph.consumers(self.tensor)
        return consumers[0] if len(consumers) == 1 and consumers[0].op_type in operators else None

    def step(self, *operators: str) -> NodeProto:
        """Go through the next node, which must be of one of `operators`."""
        node = self.peek(*operators)
        if node is None:
            met = ", ".join(node_name(found) for found in self.graph.consumers(self.tensor)) or "nothing"
            raise LoweringError(
                f"in Hummingbird's GEMM form '{self.tensor}' goes to {' or '.join(operators)}, here to {met}; "
                'export the model by export_sklearn(..., tree_implementation="gemm")'
            )
        self.passed.add(id(node))
        if len(node.output) != 1:
            raise LoweringError(f"{node_name(node)} must have one output, got {len(node.output)}")
        self.tensor = node.output[0]
        return node

    def skip(self, *operators: str) -> list[NodeProto]:
        """Go through all next nodes of `operators`."""
        nodes: list[NodeProto] = []
        while self.peek(*operators) is not None and len(nodes) < len(self.graph.nodes):
            nodes.append(self.step(*operators))
        return nodes

    def constant(self, node: NodeProto, *, side: int | None = None) -> tuple[NDArray[Any], int]:
        """The constant among the two inputs of `node` and its position, which must be `side` if that is given."""
        if len(node.input) == 2:
            for position in (0, 1) if side is None else (side,):
                if (values := self.graph.constant(node.input[position])) is not None:
                    return values, position
        raise LoweringError(f"{node_name(node)} must have two inputs, one of them a constant of the trees")

    def matrix(self, node: NodeProto) -> FloatArray:
        """The constant that `node` multiplies or compares by."""
        values = self.constant(node, side=None if node.op_type == "Equal" else 0)[0]
        if values.dtype.kind != "f" or not np.isfinite(values).all():
            raise LoweringError(f"{node_name(node)}: its constant must hold finite floats")
        return values.astype(np.float64)

    def transpose(self) -> None:
        """Go through a transpose of a matrix."""
        node = self.step("Transpose")
        if Attributes(node).integers("perm").tolist() not in ([], [1, 0]):
            raise LoweringError(f"{node_name(node)} must exchange two axes")

    def shape(self, *expected: int) -> None:
        """Go through a reshape to `expected`."""
        node = self.step("Reshape")
        found = self.constant(node, side=1)[0].ravel().tolist()
        if found != list(expected):
            raise LoweringError(f"{node_name(node)} must reshape to {list(expected)}, got {found}")


def _element_type(values: NDArray[Any]) -> int:
    import onnx

    return int(onnx.TensorProto.DOUBLE if values.dtype == np.float64 else onnx.TensorProto.FLOAT)


def _read_matrices(walk: _Walk, source: GraphInput) -> _Matrices:
    """Go from the input to the leaves' values."""
    graph = walk.graph
    casts = walk.skip("Cast", "Identity")
    transposed = bool(walk.peek("Transpose"))
    if transposed:
        walk.transpose()
    product = walk.step("MatMul" if transposed else "Gemm")
    selection = walk.matrix(product) if transposed else _gemm_matrix(walk, product)
    raw = graph.constant(product.input[0])
    assert raw is not None
    casts += walk.skip("Cast", "Identity")  # to the thresholds' type
    precision = precision_of(source, casts, _element_type(raw))
    compare = walk.step(*_EXCHANGED)
    limits, position = walk.constant(compare)
    comparison = compare.op_type if position == 1 else _EXCHANGED[compare.op_type]
    for _ in walk.skip("Not"):
        comparison = _NEGATED[comparison]
    split = walk.step("Reshape")
    unfolded = walk.constant(split, side=1)[0].ravel().tolist()
    walk.skip("Cast", "Identity")
    paths = walk.matrix(walk.step("MatMul"))
    if paths.ndim != 3 or unfolded != [paths.shape[0], paths.shape[2], -1]:
        raise LoweringError(f"{node_name(split)} reshapes to {unfolded}, its product takes shape {paths.shape}")
    n_trees, n_leaves, n_splits = paths.shape
    if selection.ndim != 2 or len(selection) != n_trees * n_splits or limits.shape != (n_trees * n_splits, 1):
        raise LoweringError(
            f"{node_name(compare)}: {n_trees} trees of {n_splits} splits need matrices of {n_trees * n_splits} rows, "
            f"got shapes {selection.shape} and {limits.shape}"
        )
    walk.shape(n_trees * n_leaves, -1)
    equal = walk.step("Equal")
    count = walk.matrix(equal)
    walk.shape(n_trees, n_leaves, -1)
    walk.skip("Cast", "Identity")
    last = walk.step("MatMul")
    value = walk.matrix(last)
    if count.shape != (n_trees * n_leaves, 1) or value.ndim != 3 or value.shape[::2] != (n_trees, n_leaves):
        raise LoweringError(
            f"{node_name(last)}: {n_trees} trees of {n_leaves} leaves need counts {(n_trees * n_leaves, 1)} and values "
            f"{(n_trees, 'width', n_leaves)}, got {count.shape} and {value.shape}"
        )
    walk.shape(n_trees, value.shape[1], -1)
    return _Matrices(
        selection=selection.reshape(n_trees, n_splits, -1),
        comparison=comparison,
        threshold=limits.astype(np.float64).reshape(n_trees, n_splits),
        path=paths,
        count=count.reshape(n_trees, n_leaves),
        value=value,
        precision=precision,
    )


def _gemm_matrix(walk: _Walk, node: NodeProto) -> FloatArray:
    """The constant of ``Gemm(A, x, transB=1)``, which is A times the transposed features."""
    attributes = Attributes(node)
    plain = attributes.number("alpha", 1.0) == 1.0 and attributes.integer("transA", 0) == 0
    if not plain or attributes.integer("transB", 0) != 1:
        raise LoweringError(f"{node_name(node)} must multiply with alpha=1, transA=0 and transB=1")
    return walk.matrix(node)


def _read_sums(walk: _Walk, n_trees: int, width: int) -> tuple[list[int], FloatArray]:
    """Go on to the scores. Returns each tree's first output, and the base scores."""
    if walk.peek("ReduceSum") is not None:  # all trees add up: decision trees and random forests
        _check_axis(walk, walk.step("ReduceSum"), 0)
        walk.transpose()
        first, n_outputs = [0] * n_trees, width
    else:  # boosting: the trees of each class add up
        if width != 1:
            raise LoweringError(f"'{walk.tensor}': boosted trees must have one value per leaf, got {width}")
        walk.step("Squeeze")
        if walk.peek("Transpose"):
            walk.transpose()
        walk.skip("Identity")  # what torch makes of transposing a vector: there is one tree
        node = walk.step("Reshape")
        shape = walk.constant(node, side=1)[0].ravel().tolist()
        if len(shape) != 3 or shape[0] != -1 or shape[1] < 1 or shape[1] * shape[2] != n_trees:
            raise LoweringError(
                f"{node_name(node)} must reshape {n_trees} trees to [-1, classes, trees per class], got {shape}"
            )
        _check_axis(walk, walk.step("ReduceSum"), 2)
        first, n_outputs = [tree // shape[2] for tree in range(n_trees)], int(shape[1])
    base = np.zeros(n_outputs)
    for node in walk.skip("Add"):
        values = walk.constant(node)[0].astype(np.float64)
        if values.shape not in ((), (1,), (1, 1), (n_outputs,), (1, n_outputs)):
            raise LoweringError(f"{node_name(node)} must add {n_outputs} base scores, got shape {values.shape}")
        base += values.ravel()
    return first, base


def _check_axis(walk: _Walk, node: NodeProto, axis: int) -> None:
    """Raise LoweringError unless `node` sums over `axis` and drops it."""
    attributes = Attributes(node)
    moved = len(node.input) == 2  # opset 13 made an input of the attribute
    constant = walk.constant(node, side=1)[0] if moved else attributes.integers("axes")
    if constant.ravel().tolist() != [axis] or attributes.integer("keepdims", 1) != 0:
        raise LoweringError(f"{node_name(node)} must sum over axis {axis}, without keepdims")


def _tree(matrices: _Matrices, index: int, first_output: int) -> tuple[TreeNodes, FloatArray]:
    """One tree, and the values of leaves that every row reaches, shape (width,): padding, where they are 0."""
    name = f"tree {index}"
    path, count = matrices.path[index], matrices.count[index]
    value = matrices.value[index].T
    if not np.isin(path, (-1.0, 0.0, 1.0)).all():
        raise LoweringError(f"{name}: its path matrix must hold -1, 0 and 1")
    empty = ~path.any(axis=1)
    constant = value[empty & (count == 0)].sum(axis=0)
    leaves = np.flatnonzero(~empty)
    if (count[leaves] != (path[leaves] > 0).sum(axis=1)).any():
        raise LoweringError(f"{name}: the count of a leaf is not that of the splits it lies left of")
    nodes = _Nodes(name, matrices, index)
    nodes.grow(leaves)
    return nodes.finish(value, first_output), constant


class _Nodes:
    """Grows one tree from its path matrix, root first."""

    def __init__(self, name: str, matrices: _Matrices, index: int) -> None:
        self._name = name
        self._path = matrices.path[index].copy()
        self._selection, self._threshold = matrices.selection[index], matrices.threshold[index]
        self._comparison, self._precision = matrices.comparison, matrices.precision
        self._rows: list[tuple[int, int]] = []  # split and leaf of each node, -1 for none
        self._children: list[list[int]] = []

    def grow(self, leaves: IntArray) -> None:
        """Divide `leaves` until parts of one are left; a part's root is the split on the paths of all of its leaves."""
        stack = [(leaves, -1, 0)]
        while stack:
            part, parent, side = stack.pop()
            node = len(self._rows)
            if parent >= 0:
                self._children[parent][side] = node
            self._children.append([-1, -1])
            path = self._path[part]
            if len(part) <= 1 and not path.any():
                self._rows.append((-1, int(part[0]) if len(part) else -1))
                continue
            common = np.flatnonzero((path != 0).all(axis=0))
            if len(common) != 1:
                raise LoweringError(
                    f"{self._name}: {len(common)} splits are on all paths to leaves {part.tolist()[:10]}, a tree has 1"
                )
            split = int(common[0])
            left = path[:, split] > 0
            if left.all() or not left.any():
                raise LoweringError(f"{self._name}: split {split} has leaves on one side only")
            self._rows.append((split, -1))
            self._path[part, split] = 0
            stack += [(part[~left], node, 1), (part[left], node, 0)]

    def finish(self, value: FloatArray, first_output: int) -> TreeNodes:
        """The tree. value: shape (L, width)."""
        split, leaf = np.array(self._rows, dtype=np.int64).T
        children = np.array(self._children, dtype=np.int64)
        inner = split >= 0
        asked = self._selection[split[inner]]
        if not ((asked == 0) | (asked == 1)).all() or (asked.sum(axis=1) != 1).any():
            raise LoweringError(f"{self._name}: a split asks for other than one feature")
        feature = np.full(len(split), -1, dtype=np.int64)
        feature[inner] = asked.argmax(axis=1)
        strict = self._comparison in ("Less", "GreaterOrEqual")
        swapped = self._comparison in ("Greater", "GreaterOrEqual")
        threshold = np.zeros(len(split))
        threshold[inner] = canonical_threshold(self._threshold[split[inner]], strict, self._precision)
        if strict and (self._threshold[split[inner]] == -np.inf).any():
            raise LoweringError(
                f"{self._name}: a split asks whether a feature is less than minus infinity, which none is"
            )
        values = np.zeros((len(split), value.shape[1]))
        values[leaf >= 0] = value[leaf[leaf >= 0]]
        return TreeNodes(
            feature=feature,
            threshold=threshold,
            members=np.full(len(split), -1, dtype=np.int64),
            nan_left=np.zeros(len(split), dtype=np.bool_),
            left=children[:, int(swapped)],
            right=children[:, int(not swapped)],
            value=values,
            first_output=first_output,
            library_id=np.where(inner, -1 - split, leaf),
        )
