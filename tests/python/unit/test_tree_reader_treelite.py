"""Forests read from treelite decide and sum as treelite itself does."""

import numpy as np
import pytest
import treelite
from treelite.model_builder import Metadata, ModelBuilder, PostProcessorFunc, TreeAnnotation

from fhelearn.exceptions import LoweringError
from fhelearn.frontends.tree.comparisons import canonical_threshold
from fhelearn.frontends.tree.treelite_reader import forest_from_treelite, read_trees

HUGE = 1.5 * float(np.finfo(np.float32).max)


def build(trees, *, kind="float32", shape=(1, 1), classes=(1,), averages=False, base=None, target=None, class_=None):
    """A model of four features. Trees are nested tuples (test, left, right), where a test makes calls on the builder.

    Leaves are numbers or lists.
    """
    builder = ModelBuilder(
        threshold_type=kind,
        leaf_output_type=kind,
        metadata=Metadata(4, "kRegressor", averages, len(classes), list(classes), shape),
        tree_annotation=TreeAnnotation(len(trees), target or [0] * len(trees), class_ or [0] * len(trees)),
        postprocessor=PostProcessorFunc("identity"),
        base_scores=base or [0.0] * (len(classes) * max(classes)),
    )
    for root in trees:
        builder.start_tree()
        pending = [(0, root)]
        unused = 1
        while pending:
            key, node = pending.pop(0)
            builder.start_node(key)
            if isinstance(node, tuple):
                node[0](builder, unused, unused + 1)
                pending += [(unused, node[1]), (unused + 1, node[2])]
                unused += 2
            else:
                builder.leaf(node)
            builder.end_node()
        builder.end_tree()
    return builder.commit()


def number(feature, operator, threshold, default_left=False):
    return lambda builder, left, right: builder.numerical_test(
        feature, threshold, default_left=default_left, opname=operator, left_child_key=left, right_child_key=right
    )


def category(feature, categories, to_the_right, default_left=False):
    return lambda builder, left, right: builder.categorical_test(
        feature,
        default_left=default_left,
        category_list=categories,
        category_list_right_child=to_the_right,
        left_child_key=left,
        right_child_key=right,
    )


def rows(dtype):
    """Every combination of numbers next to thresholds, categories and missing values."""
    near = [np.nextafter(dtype(0.1), dtype(end)) for end in (-np.inf, np.inf)]
    numbers = [dtype(0.1), *near, dtype(0.1) * 2, -np.inf, np.inf, np.nan]
    codes = [0, 3, 5, 31, 200, np.nan, 2.0**23]
    return np.array([[a, b, c, d] for a in numbers for b in numbers[::2] for c in codes for d in codes[:3]], dtype)


@pytest.mark.parametrize("default_left", [False, True])
@pytest.mark.parametrize("to_the_right", [False, True])
@pytest.mark.parametrize("operator", ["<", "<="])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_leaves_and_sums_are_those_of_treelite(dtype, operator, to_the_right, default_left):
    same = category(2, [3, 31, 200], to_the_right, default_left)
    model = build(
        [
            (number(0, operator, float(dtype(0.1)), default_left), (same, 1.0, 2.0), (same, 3.0, 4.0)),
            (number(1, operator, -np.inf, default_left), 5.0, (number(0, operator, np.inf, default_left), 6.0, 7.0)),
            (category(3, [], to_the_right, default_left), 8.0, (category(2, [0, 5], False), 9.0, 10.0)),
            11.0,
        ],
        kind=dtype.__name__,
        base=[0.5],
    )
    forest = forest_from_treelite(model, precision=dtype.__name__, accepts_nan=True)
    x = rows(dtype)
    np.testing.assert_array_equal(forest.library_leaves(x), treelite.gtil.predict_leaf(model, x))
    np.testing.assert_array_equal(forest.scores(x)[:, 0], treelite.gtil.predict(model, x).reshape(len(x)))
    assert set(forest.category_sets) == {frozenset({3, 31, 200}), frozenset(), frozenset({0, 5})}


@pytest.mark.parametrize(
    "shape_and_names",
    [
        {"classes": (2, 3), "shape": (2, 3), "target": [-1, -1], "class_": [-1, -1], "leaf": 6},
        {"classes": (3, 3), "shape": (1, 3), "target": [1, 0], "class_": [-1, -1], "leaf": 3},
        {"classes": (2, 3), "shape": (1, 3), "target": [1, 0], "class_": [-1, -1], "leaf": 3},
        {"classes": (3, 3), "shape": (2, 1), "target": [-1, -1], "class_": [2, 0], "leaf": 2},
        {"classes": (3,), "shape": (1, 1), "target": [0, 0], "class_": [2, 0], "leaf": 1},
        {"classes": (1, 1), "shape": (1, 1), "target": [0, 1], "class_": [0, 0], "leaf": 1},
        {"classes": (1, 1), "shape": (2, 1), "target": [-1, -1], "class_": [0, 0], "leaf": 2},
    ],
)
@pytest.mark.parametrize("averages", [False, True])
def test_values_go_to_the_outputs_that_treelite_adds_them_to(shape_and_names, averages):
    names = dict(shape_and_names)
    width, classes = names.pop("leaf"), names["classes"]
    outputs = len(classes) * max(classes)
    leaves = [[float(2**k * (10**i)) for k in range(width)] for i in range(4)]
    leaves = leaves if width > 1 else [leaf[0] for leaf in leaves]
    trees = [(number(0, "<=", 0.0), leaves[0], leaves[1]), (number(1, "<=", 0.0), leaves[2], leaves[3])]
    model = build(trees, kind="float64", averages=averages, base=[0.25 * k for k in range(outputs)], **names)
    x = np.array([[a, b, 0, 0] for a in (-1.0, 1.0) for b in (-1.0, 1.0)])
    forest = forest_from_treelite(model, precision="float64", accepts_nan=True)
    found = treelite.gtil.predict(model, x).reshape(len(x), len(classes), max(classes))
    expected = np.concatenate([found[:, target, :n] for target, n in enumerate(classes)], axis=1)
    silent = np.isnan(expected)  # treelite's mean of no tree is NaN
    assert averages or not silent.any()
    np.testing.assert_array_equal(forest.scores(x), np.where(silent, forest.base, expected))


def test_library_numbers_base_scores_and_the_number_of_trees_can_be_given():
    model = build([(number(0, "<=", 0.0), 1.0, 2.0), 3.0, 4.0], base=[0.5])
    ids = [np.array([7, 8, 9]), np.array([1])]
    forest = forest_from_treelite(
        model, precision="float32", accepts_nan=False, base=np.array([2.0]), library_ids=ids, n_trees=2
    )
    assert forest.n_trees == 2
    np.testing.assert_array_equal(forest.library_leaves([[0, 0, 0, 0], [1, 0, 0, 0]]), [[8, 1], [9, 1]])
    np.testing.assert_array_equal(forest.scores([[0, 0, 0, 0]]), [[2 + 1 + 3]])


def test_the_arrays_outlive_the_model():
    model = build([(number(0, "<=", 0.5), 1.0, 2.0)] * 50, kind="float64")
    read = read_trees(model, precision="float64")
    del model
    build([(number(1, "<=", 9.0), 8.0, 8.0)] * 50, kind="float64")
    assert all(nodes.threshold[0] == 0.5 and nodes.value[1, 0] == 1.0 for nodes in read.trees)


@pytest.mark.parametrize("operator", ["==", ">", ">="])
def test_other_comparisons_are_refused_by_name(operator):
    model = build([1.0, (number(0, operator, 0.0), 1.0, 2.0)])
    with pytest.raises(LoweringError, match=f"tree 1: node 0 compares by '{operator}', allowed are '<' and '<='"):
        forest_from_treelite(model, precision="float32", accepts_nan=True)


def test_a_category_that_float32_cannot_count_is_refused():
    model = build([(category(0, [2**24], False), 1.0, 2.0)])
    with pytest.raises(LoweringError, match="tree 0: category 16777216 must be less than 2"):
        forest_from_treelite(model, precision="float32", accepts_nan=True)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("strict", [False, True])
def test_a_canonical_threshold_decides_as_the_comparison_does(strict, precision, rng):
    thresholds = np.concatenate(
        [rng.normal(size=200), rng.integers(-99, 99, 99) / 8, [0.1, 1e-60, -1e-60, 0.0, -0.0, HUGE, -HUGE, np.inf]]
    )
    canonical = canonical_threshold(thresholds, strict, precision)
    with np.errstate(over="ignore"):
        near = thresholds.astype(precision)
    ends = [near.dtype.type(end) for end in (-np.inf, np.inf)]
    for x in (near, *(np.nextafter(near, end) for end in ends), *(np.full_like(near, end) for end in ends)):
        wide = x.astype(np.float64)
        decided = wide < thresholds if strict else wide <= thresholds
        # Nothing is less than minus infinity, which no threshold expresses.
        sayable = ~((thresholds == -np.inf) & strict)
        np.testing.assert_array_equal((wide <= canonical)[sayable], decided[sayable])
