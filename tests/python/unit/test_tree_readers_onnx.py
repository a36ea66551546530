"""Trees of ONNX-ML nodes and of Hummingbird's GEMM graphs mean what onnx's reference implementation says they mean."""

import copy

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import GradientBoostingClassifier, RandomForestRegressor
from sklearn.tree import DecisionTreeClassifier

from fhelearn.exceptions import LoweringError
from fhelearn.frontends.tree.hummingbird_reader import forest_from_hummingbird
from fhelearn.frontends.tree.onnx_ml_reader import forest_from_onnx_ml, read_onnx_ml
from fhelearn.onnx import export_sklearn
from tests.python.unit.onnx_trees import (
    Node,
    classifier,
    ensemble,
    random_tree,
    regressor,
    rows_around,
    sklearn_tree,
)

NUMERICAL = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT")
STUMP = (Node(0, "BRANCH_LEQ", 0, 1.5, 1, 2), Node(1, weights={0: 2.0}), Node(2, weights={0: 3.0}))


def run(model, x):
    return ReferenceEvaluator(model).run(None, {"x": x})


def float32_error(forest):
    """A bound of the rounding errors of summing a forest's scores in float32, plus that of the result."""
    largest = np.abs(forest.base).max() + sum(np.abs(tree.value).max() for tree in forest.trees)
    return (forest.n_trees + 2) * np.finfo(np.float32).eps * largest


def extreme_rows(forest, rng, dtype="float32"):
    x = rows_around(forest, rng, dtype)
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 2.0, 1.0, 3.0], dtype=dtype)
    return np.concatenate([x, rng.choice(special, size=(40, x.shape[1]))])


@pytest.mark.parametrize("seed", range(8))
def test_random_regressors_of_every_mode_score_as_the_reference_does(seed):
    rng = np.random.default_rng(seed)
    trees = [random_tree(rng, (*NUMERICAL, "BRANCH_EQ", "BRANCH_NEQ"), 3, 2, depth=4) for _ in range(4)]
    aggregate = ("SUM", "AVERAGE")[seed % 2]
    model = regressor(trees, 3, 2, base_values=[0.5, -2.0], aggregate_function=aggregate)
    forest = forest_from_onnx_ml(model)
    x = extreme_rows(forest, rng)
    np.testing.assert_allclose(forest.scores(x), run(model, x)[0], rtol=0, atol=float32_error(forest))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", range(4))
def test_random_ensembles_of_version_5_score_as_the_reference_does(seed, dtype):
    rng = np.random.default_rng(seed)
    modes = (*NUMERICAL, "BRANCH_EQ", "BRANCH_MEMBER")  # the reference sends NaN through BRANCH_NEQ's true branch
    # In depth-first order: the reference takes members in that order, the standard in the order of nodes_modes.
    trees = [random_tree(rng, modes, 3, 2, depth=4, one_weight=True, shuffled=False) for _ in range(4)]
    if dtype == "float64":
        for node in (node for tree in trees for node in tree if node.mode in NUMERICAL):
            node.split += 1e-12
    model = ensemble(trees, 3, 2, dtype)
    forest = forest_from_onnx_ml(model)
    assert forest.precision == dtype
    x = extreme_rows(forest, rng, dtype)
    np.testing.assert_allclose(forest.scores(x), run(model, x)[0], rtol=0, atol=float32_error(forest))


def test_a_node_without_branches_of_version_5_is_a_leaf():
    model = ensemble([[Node(0, "BRANCH_LEQ", 0, 0.0, 1, 1), Node(1, weights={0: 4.0})]], 1)
    forest = forest_from_onnx_ml(model)
    assert len(forest.trees[0].feature) == 1
    assert forest.scores(np.zeros((1, 1))).tolist() == [[4.0]]


def test_less_than_minus_infinity_is_never_true():
    for mode, expected in (("BRANCH_LT", 3.0), ("BRANCH_GTE", 2.0)):
        for missing in (False, True):
            root = Node(0, mode, 0, -np.inf, 1, 2, missing)
            forest = forest_from_onnx_ml(regressor([[root, *STUMP[1:]]], 1))
            scores = forest.scores(np.array([[-np.inf], [0.0], [np.inf], [np.nan]])).ravel()
            assert scores.tolist() == [expected] * 3 + [2.0 if missing else 3.0]


def test_multiclass_forests_score_and_number_leaves_as_scikit_learn():
    x, y = load_iris(return_X_y=True)
    fitted = DecisionTreeClassifier(random_state=0).fit(x.astype(np.float32), y)
    trees = [sklearn_tree(fitted)]
    read = read_onnx_ml(classifier(trees, 4, ["a", "b", "c"], post_transform="SOFTMAX"))
    assert (read.labels, read.post_transform) == (("a", "b", "c"), "SOFTMAX")
    rows = rows_around(read.forest, np.random.default_rng(0), "float32")
    assert np.array_equal(read.forest.library_leaves(rows)[:, 0], fitted.apply(rows))
    expected = run(classifier(trees, 4, [0, 1, 2]), rows)[1]
    np.testing.assert_allclose(read.forest.scores(rows), expected, rtol=0, atol=float32_error(read.forest))


def test_trees_of_one_class_each_stay_narrow():
    x, y = load_iris(return_X_y=True)
    fitted = GradientBoostingClassifier(n_estimators=3, max_depth=2, random_state=0).fit(x, y)
    trees = [sklearn_tree(tree, output=k, scale=0.1) for stage in fitted.estimators_ for k, tree in enumerate(stage)]
    model = classifier(trees, 4, [0, 1, 2], base_values=[0.25, -1.0, 3.0])
    forest = forest_from_onnx_ml(model)
    assert [tree.value.shape[1] for tree in forest.trees] == [1] * 9
    assert [tree.first_output for tree in forest.trees] == [0, 1, 2] * 3
    rows = rows_around(forest, np.random.default_rng(0), "float32")
    np.testing.assert_allclose(forest.scores(rows), run(model, rows)[1], rtol=0, atol=float32_error(forest))


@pytest.mark.parametrize("labels", [[0, 1], [1]])
@pytest.mark.parametrize("base", [[], [0.75]])
def test_a_binary_classifier_with_one_weight_column_has_the_score_of_the_second_class(labels, base):
    model = classifier([STUMP, STUMP], 1, labels, **({"base_values": base} if base else {}))
    forest = forest_from_onnx_ml(model)
    x = np.array([[1.5], [1.75]], dtype=np.float32)
    assert forest.scores(x).tolist() == [[4 + sum(base)], [6 + sum(base)]]
    assert np.array_equal(run(model, x)[1][:, 1:], forest.scores(x))


def test_both_classes_of_a_binary_classifier_may_have_weights():
    tree = [STUMP[0], Node(1, weights={0: 0.25, 1: 0.75}), Node(2, weights={0: 1.0, 1: 0.0})]
    forest = forest_from_onnx_ml(classifier([tree], 1, [0, 1]))
    assert forest.scores(np.array([[1.0], [2.0]])).tolist() == [[0.25, 0.75], [1.0, 0.0]]


def test_double_attributes_compare_in_the_type_of_the_features():
    third = 1 / 3  # float32 rounds it up
    tree = [Node(0, "BRANCH_LEQ", 0, third, 1, 2), *STUMP[1:]]
    double = forest_from_onnx_ml(regressor([tree], 1, double=True, base_values=[1.0]))
    assert (double.precision, double.trees[0].threshold[0]) == ("float64", third)
    model = regressor([tree], 1, double=True)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    single = forest_from_onnx_ml(model)
    assert single.precision == "float32"
    assert single.trees[0].threshold[0] == np.nextafter(np.float32(third), np.float32(0))


@pytest.mark.parametrize(
    ("source", "casts", "precision"),
    [
        (TensorProto.DOUBLE, [TensorProto.FLOAT], "float32"),
        (TensorProto.FLOAT, [TensorProto.DOUBLE], "float32"),
        (TensorProto.INT64, [TensorProto.DOUBLE], "float64"),
        (TensorProto.INT64, [], "float32"),
    ],
)
def test_casts_before_the_trees_decide_the_precision(source, casts, precision):
    model = cast_model(source, casts)
    assert forest_from_onnx_ml(model).precision == precision


def cast_model(source, casts):
    model = regressor([STUMP], 1)
    model.graph.input[0].type.tensor_type.elem_type = source
    names = ["x", *(f"cast{i}" for i in range(len(casts)))]
    for i, kind in enumerate(casts):
        model.graph.node.insert(i, helper.make_node("Cast", [names[i]], [names[i + 1]], to=kind, name=names[i + 1]))
    model.graph.node[-1].input[0] = names[-1]
    return model


def changed(**attributes):
    """A regressor of one stump with other attributes (None: without it)."""
    model = regressor([STUMP], 1)
    node = model.graph.node[0]
    for name, value in attributes.items():
        kept = [attribute for attribute in node.attribute if attribute.name != name]
        del node.attribute[:]
        node.attribute.extend(kept if value is None else [*kept, helper.make_attribute(name, value)])
    return model


def with_node(position, node):
    model = regressor([STUMP], 1)
    model.graph.node.insert(position, node)
    return model


@pytest.mark.parametrize(("factor", "allowed"), [(1.0, True), (0.5, False)])
def test_only_a_product_with_one_may_follow_the_trees(factor, allowed):
    model = with_node(1, helper.make_node("Mul", ["scores", "factor"], ["y"], name="product"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(factor, np.float32), "factor"))
    if allowed:
        assert forest_from_onnx_ml(model).scores(np.zeros((1, 1))).tolist() == [[2.0]]
    else:
        with pytest.raises(LoweringError, match="Mul 'product' may change the trees' scores"):
            forest_from_onnx_ml(model)


def scaled():
    model = with_node(0, helper.make_node("Scaler", ["x"], ["y"], name="scale", domain="ai.onnx.ml"))
    model.graph.node[1].input[0] = "y"
    return model


def looped():
    model = with_node(0, helper.make_node("Cast", ["c"], ["c"], to=1, name="loop"))
    model.graph.node[1].input[0] = "c"
    return model


def external():
    tensor = numpy_helper.from_array(np.ones(3))
    tensor.data_location = TensorProto.EXTERNAL
    return changed(nodes_values=None, nodes_values_as_tensor=tensor)


def truncated():
    tensor = numpy_helper.from_array(np.ones(3))
    tensor.raw_data = tensor.raw_data[:-3]
    return changed(nodes_values=None, nodes_values_as_tensor=tensor)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (changed(nodes_truenodeids=[0, 0, 0]), r"node 0 \(row 0\) is reached twice"),
        (changed(nodes_falsenodeids=[1, 0, 0]), r"node 1 \(row 1\) is reached twice"),
        (changed(nodes_truenodeids=[7, 0, 0]), "nodes_truenodeids refers to node 7 of tree 0, which does not exist"),
        (changed(nodes_nodeids=[0, 1, 1]), "two nodes have the same tree id and node id"),
        (changed(nodes_featureids=[0, 0]), r"must be of one length, got .*'nodes_featureids': 2"),
        (changed(nodes_missing_value_tracks_true=[1]), "nodes_missing_value_tracks_true must be of length 3, got 1"),
        (changed(nodes_featureids=[-2, 0, 0]), "must not be negative, got -2"),
        (changed(nodes_featureids=[5, 0, 0]), "asks feature 5 of 1"),
        (changed(nodes_values=[float("nan"), 0.0, 0.0]), "a threshold is NaN"),
        (changed(nodes_values=None), "attribute 'nodes_values' is missing"),
        (changed(nodes_values=[1, 2, 3]), "attribute 'nodes_values' must be of type TENSOR"),
        (changed(nodes_modes=["BRANCH_LEQ", "LEAF", "TWIG"]), "nodes_modes must not hold .'TWIG'"),
        (changed(nodes_modes=["BRANCH_MEMBER", "LEAF", "LEAF"]), "nodes_modes must not hold .'BRANCH_MEMBER'"),
        (changed(nodes_modes=["BRANCH_EQ", "LEAF", "LEAF"]), r"compared for equality with \[1.5\]"),
        (changed(target_nodeids=[0, 2]), "target_nodeids names nodes that are no leaves"),
        (changed(target_treeids=[0, 9]), "target_nodeids refers to node 2 of tree 9"),
        (changed(target_ids=[0, 3]), "weigh outputs 0 to 3 of 1"),
        (changed(n_targets=2**62), "of 4611686018427387904"),
        (changed(target_weights=[1.0, float("inf")]), "a leaf holds NaN or infinity"),
        (changed(base_values=[1.0, 2.0]), "base_values must hold 1 values"),
        (changed(aggregate_function="MIN"), "aggregate_function must be one of AVERAGE, SUM, got 'MIN'"),
        (changed(post_transform="GUESS"), "post_transform must be one of NONE"),
        (changed(n_targets="one"), "attribute 'n_targets' must be of type INT"),
        (external(), "values are in another file"),
        (truncated(), "the tensor is corrupt"),
        (scaled(), "Scaler 'scale' stands between the features and the trees"),
        (with_node(1, helper.make_node("Mul", ["scores", "scores"], ["y"], name="square")), "Mul 'square' may change"),
        (with_node(1, regressor([STUMP], 1).graph.node[0]), "'scores' is computed twice"),
        (looped(), "Cast 'loop' stands between"),
        (cast_model(TensorProto.FLOAT, [TensorProto.INT64]), "Cast 'cast0' casts features to other than float"),
        (cast_model(TensorProto.STRING, []), "input 'x' must be a tensor of float"),
        (onnx.ModelProto(), "holds 0 nodes"),
    ],
)
def test_corrupt_and_foreign_models_are_refused_by_name(model, message):
    with pytest.raises(LoweringError, match=message):
        forest_from_onnx_ml(model)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"tree_roots": [4]}, r"tree_roots must lie in \[0, 0\]"),
        ({"nodes_truenodeids": [9]}, "node 0 has the true child 9, which does not exist"),
        ({"nodes_trueleafs": [0]}, "is reached twice"),
        ({"aggregate_function": 3}, "got 'MAX'"),
        ({"nodes_modes": numpy_helper.from_array(np.array([9], np.uint8))}, "nodes_modes must lie in"),
        ({"nodes_modes": numpy_helper.from_array(np.array([6], np.uint8))}, "holds 0 sets for 1 nodes"),
        ({"nodes_splits": numpy_helper.from_array(np.array([1]))}, "must be a tensor of floats, got int64"),
    ],
)
def test_corrupt_ensembles_of_version_5_are_refused_by_name(attributes, message):
    model = ensemble([STUMP], 1)
    node = model.graph.node[0]
    kept = [attribute for attribute in node.attribute if attribute.name not in attributes]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(*item) for item in attributes.items())])
    with pytest.raises(LoweringError, match=message):
        forest_from_onnx_ml(model)


def test_the_number_of_features_must_be_known_and_agree():
    model = regressor([STUMP], "columns")
    with pytest.raises(LoweringError, match="pass n_features"):
        forest_from_onnx_ml(model)
    assert forest_from_onnx_ml(model, n_features=3).n_features == 3
    with pytest.raises(LoweringError, match="has 1 columns, got n_features=2"):
        forest_from_onnx_ml(regressor([STUMP], 1), n_features=2)
    with pytest.raises(TypeError, match="must be an onnx"):
        forest_from_onnx_ml(b"bytes")


@pytest.fixture(scope="module")
def graph():
    x, y = load_diabetes(return_X_y=True)
    fitted = RandomForestRegressor(3, max_depth=3, random_state=0).fit(x[:, :4], y)
    return export_sklearn(fitted, x[:, :4], tree_implementation="gemm")


def initializer(model, shape):
    return next(tensor for tensor in model.graph.initializer if list(tensor.dims) == shape)


def replace(model, shape, change):
    tensor = initializer(model, shape)
    values = numpy_helper.to_array(tensor).copy()
    change(values)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def test_gemm_graphs_mean_what_the_reference_computes(graph):
    forest = forest_from_hummingbird(graph)
    x = rows_around(forest, np.random.default_rng(0), "float32").astype(np.float64)
    scores = ReferenceEvaluator(graph).run(None, {"input": x})[0]
    largest = sum(np.abs(tree.value).max() for tree in forest.trees)
    np.testing.assert_allclose(forest.scores(x), scores, rtol=0, atol=5 * np.finfo(np.float64).eps * largest)
    assert [len(tree.feature) for tree in forest.trees] == [15, 15, 15]


@pytest.mark.parametrize("operator", ["Less", "LessOrEqual", "Greater", "GreaterOrEqual"])
@pytest.mark.parametrize("exchanged", [False, True])
@pytest.mark.parametrize("negated", [False, True])
def test_every_comparison_is_read_as_the_reference_computes_it(graph, operator, exchanged, negated):
    model = copy.deepcopy(graph)
    position, node = next((i, n) for i, n in enumerate(model.graph.node) if n.op_type == "LessOrEqual")
    node.op_type = operator
    if exchanged:
        node.input[:] = list(reversed(node.input))
    if negated:
        model.graph.node.insert(position + 1, helper.make_node("Not", ["kept"], [node.output[0]]))
        node.output[0] = "kept"
    forest = forest_from_hummingbird(model)
    x = rows_around(forest, np.random.default_rng(0), "float32", n_random=5).astype(np.float64)
    scores = ReferenceEvaluator(model).run(None, {"input": x})[0]
    np.testing.assert_allclose(forest.scores(x), scores, rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "change", "message"),
    [
        ([21, 4], lambda a: a.fill(0), "a split asks for other than one feature"),
        ([21, 4], lambda a: a.fill(np.nan), "must hold finite floats"),
        ([3, 8, 7], lambda c: c.__setitem__((0, 0, 0), 2), "must hold -1, 0 and 1"),
        (
            [3, 8, 7],
            lambda c: c.__setitem__((0, slice(None), 0), 1),
            "split 0 has leaves on one side only|the count of",
        ),
        ([3, 8, 7], lambda c: c.__setitem__((0, 0), -c[0, 0]), "the count of a leaf is not that"),
        ([3, 8, 7], lambda c: c.__setitem__((0, 1), c[0, 0]), "splits are on all paths|the count of a leaf"),
        ([24, 1], lambda d: d.fill(3), "the count of a leaf is not that"),
        ([3, 1, 8], lambda e: e.fill(np.inf), "must hold finite floats"),
    ],
)
def test_matrices_that_describe_no_trees_are_refused(graph, shape, change, message):
    model = copy.deepcopy(graph)
    replace(model, shape, change)
    with pytest.raises(LoweringError, match=message):
        forest_from_hummingbird(model)


@pytest.mark.parametrize("operator", ["Gemm", "LessOrEqual", "Reshape", "Equal", "MatMul", "ReduceSum", "Transpose"])
def test_graphs_of_another_shape_are_refused_by_the_node_met(graph, operator):
    model = copy.deepcopy(graph)
    node = next(node for node in model.graph.node if node.op_type == operator)
    node.op_type = "Sin"
    with pytest.raises(LoweringError, match=r"in Hummingbird's GEMM form .* here to Sin"):
        forest_from_hummingbird(model)


@pytest.mark.parametrize("implementation", ["tree_trav", "perf_tree_trav"])
def test_other_strategies_of_hummingbird_are_refused(implementation):
    x, y = load_iris(return_X_y=True)
    fitted = DecisionTreeClassifier(random_state=0).fit(x, y)
    with pytest.raises(LoweringError, match='tree_implementation="gemm"'):
        forest_from_hummingbird(export_sklearn(fitted, x, tree_implementation=implementation))


def test_padding_of_smaller_trees_is_dropped_and_single_leaves_are_kept():
    x = np.repeat(np.arange(4.0), 30)[:, np.newaxis]
    fitted = RandomForestRegressor(6, max_leaf_nodes=None, min_impurity_decrease=0.1, random_state=3)
    fitted.fit(x, (x[:, 0] == 3) * (np.random.default_rng(0).random(120) < 0.2))
    nodes = [tree.tree_.node_count for tree in fitted.estimators_]
    fitted_constant = RandomForestRegressor(2, random_state=0).fit(x, np.full(120, 2.5))
    forest = forest_from_hummingbird(export_sklearn(fitted_constant, x, tree_implementation="gemm"))
    assert np.array_equal(forest.scores(x), np.full((120, 1), 2.5))
    forest = forest_from_hummingbird(export_sklearn(fitted, x, tree_implementation="gemm"))
    # Hummingbird gives a tree that is one leaf a split with that leaf on both sides.
    assert [len(tree.feature) for tree in forest.trees] == [max(n, 3) for n in nodes]
    np.testing.assert_allclose(forest.scores(x)[:, 0], fitted.predict(x), rtol=1e-12)
