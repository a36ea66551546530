"""Leaves, grids and digits of the tree front end."""

from __future__ import annotations

import numpy as np
import pytest

from fhelearn.exceptions import LoweringError, QuantizationError
from fhelearn.frontends.tree.conditions import ask
from fhelearn.frontends.tree.forest import Forest, TreeNodes
from fhelearn.frontends.tree.grid import HIDDEN_POINTS, encode_hidden, encode_thresholds, snap, uniform_grid
from fhelearn.frontends.tree.leaves import quantize_leaves, without_complements
from fhelearn.frontends.tree.quantize import ForestOptions, quantize_forest
from fhelearn.ir import evaluate
from fhelearn.quantization.digits import DigitEncoder, digit_columns
from tests.python.unit.forests import random_forest, rows_for


def stump(values: list[list[float]], threshold: float = 0.0, feature: int = 0) -> TreeNodes:
    """One condition, two leaves."""
    return TreeNodes(
        feature=np.array([feature, -1, -1]),
        threshold=np.array([threshold, 0.0, 0.0]),
        members=np.array([-1, -1, -1]),
        nan_left=np.zeros(3, dtype=bool),
        left=np.array([1, -1, -1]),
        right=np.array([2, -1, -1]),
        value=np.array([np.zeros(len(values[0])), *values]),
        first_output=0,
        library_id=np.arange(3),
    )


def forest_of(*trees: TreeNodes, n_features: int = 1, base: float = 0.0) -> Forest:
    return Forest(tuple(trees), n_features, "float64", np.full(trees[0].value.shape[1], base))


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("n_bits", [1, 2, 5, 8, 16])
def test_integer_leaves_are_within_half_a_step_and_the_bound_is_the_sum_of_the_worst(seed: int, n_bits: int) -> None:
    forest = random_forest(seed, n_trees=5)
    leaves = quantize_leaves(forest, n_bits)
    worst = np.zeros(forest.n_outputs)
    total = forest.base.copy()
    for tree, q in zip(forest.trees, leaves.values, strict=True):
        leaf = tree.feature < 0
        assert q.min() >= 0
        assert q.max() < 2**n_bits
        least = tree.value[leaf].min(axis=0)
        error = np.abs(least + q * leaves.scale - tree.value)[leaf]
        assert (error <= leaves.scale * (0.5 + 1e-9)).all()
        outputs = slice(tree.first_output, tree.first_output + tree.value.shape[1])
        worst[outputs] += error.max(axis=0)
        total[outputs] += least
    np.testing.assert_allclose(leaves.error_bound, worst, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(leaves.offset, total, rtol=1e-12, atol=1e-12)


def test_votes_and_counts_are_represented_exactly_with_the_bits_that_they_need() -> None:
    leaves = quantize_leaves(forest_of(stump([[0.0], [1.0]]), stump([[3.0], [0.0]])), 8)
    assert (leaves.n_bits, leaves.scale, leaves.error_bound.tolist()) == (2, 1.0, [0.0])


def test_the_middle_between_least_and_greatest_is_represented_exactly() -> None:
    tree = stump([[0.123456], [1.0]])
    half = TreeNodes(**{**tree.__dict__, "value": np.array([[0.0], [0.0], [1.0]])})
    forest = forest_of(half, stump([[0.5], [0.1234567]]))
    q = quantize_leaves(forest, 8).values
    assert q[0][2, 0] == 254
    probability = TreeNodes(**{**tree.__dict__, "value": np.array([[0.0], [0.5], [0.987654321]])})
    leaves = quantize_leaves(forest_of(half, probability), 8)
    assert leaves.values[0].max() % 2 == 0


def test_leaves_whose_range_overflows_are_refused() -> None:
    with pytest.raises(LoweringError, match="rescale the target"):
        quantize_leaves(forest_of(stump([[-1.7e308], [1.7e308]])), 8)


def test_leaves_of_a_denormal_range_keep_their_order() -> None:
    leaves = quantize_leaves(forest_of(stump([[0.0], [5e-324]])), 8)
    assert leaves.values[0][:, 0].tolist() == [0, 0, 1]


def test_probabilities_of_two_classes_are_evaluated_once() -> None:
    forest = forest_of(stump([[0.25, 0.75], [0.6, 0.4]]), stump([[0.1, 0.9], [1.0, 0.0]]))
    kept, complements = without_complements(forest)
    assert kept.n_outputs == 1
    assert (complements.kept.tolist(), complements.derived.tolist()) == ([1], [0])
    np.testing.assert_array_equal(complements.expand(np.array([[1.65]])), [[2.0 - 1.65, 1.65]])


def test_outputs_that_are_not_complementary_are_all_evaluated() -> None:
    forest = forest_of(stump([[0.25, 0.75, 0.0], [0.5, 0.25, 0.25]]))
    kept, complements = without_complements(forest)
    assert kept is forest
    assert complements.kept.tolist() == [0, 1, 2]


@pytest.mark.parametrize("seed", range(20))
def test_hidden_grids_answer_the_models_conditions_among_others(seed: int) -> None:
    forest = random_forest(seed, n_trees=4)
    conditions = ask(forest).conditions
    x = rows_for(forest, seed, 300, "float32")
    hidden, plain = encode_hidden(forest, conditions, x), encode_thresholds(forest, conditions)
    assert np.array_equal(hidden.encoder.encode(x)[:, hidden.columns], plain.encoder.encode(x)[:, plain.columns])
    assert len(set(hidden.columns.tolist())) == len(conditions)


def test_hidden_grids_give_every_feature_that_varies_as_many_thresholds() -> None:
    forest = forest_of(stump([[0.0], [1.0]], 0.5), n_features=3)
    x = np.random.default_rng(0).normal(size=(500, 3))
    x[:, 2] = 7.0
    encoder = encode_hidden(forest, ask(forest).conditions, x).encoder
    assert np.bincount(encoder.feature, minlength=3).tolist() == [HIDDEN_POINTS, HIDDEN_POINTS, 0]
    assert (np.diff(encoder.threshold[encoder.feature == 1]) > 0).all()


@pytest.mark.parametrize("on_values", [True, False])
def test_decoys_lie_where_the_models_thresholds_lie(on_values: bool) -> None:
    x = np.random.default_rng(1).normal(size=(200, 1))
    v = np.sort(x[:, 0])
    threshold = v[100] if on_values else (v[100] + v[101]) / 2
    forest = forest_of(stump([[0.0], [1.0]], threshold))
    points = encode_hidden(forest, ask(forest).conditions, x).encoder.threshold
    assert np.isin(points, v).all() == on_values
    assert len(points) == HIDDEN_POINTS


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_moved_thresholds_keep_the_data_on_its_side_where_a_grid_point_does(bits: int) -> None:
    rng = np.random.default_rng(bits)
    x = rng.integers(0, 2 ** (bits - 1), size=(100, 1)).astype(np.float64)
    thresholds = rng.choice(np.unique(x)[:-1], size=20)
    forest = forest_of(*(stump([[0.0], [1.0]], np.nextafter(t + 1, -np.inf)) for t in thresholds))
    moved = snap(forest, uniform_grid(forest, x, bits), x)
    assert np.array_equal(moved.apply(x), forest.apply(x))


def test_a_grid_needs_values_and_no_categories() -> None:
    forest = forest_of(stump([[0.0], [1.0]]))
    with pytest.raises(QuantizationError, match="feature 0 has no finite value"):
        uniform_grid(forest, np.full((3, 1), np.nan), 8)
    categorical = random_forest(3)
    assert categorical.category_sets
    with pytest.raises(LoweringError, match="no place on a uniform grid"):
        snap(categorical, np.zeros((categorical.n_features, 3)), np.zeros((1, categorical.n_features)))


@pytest.mark.parametrize("bit_width", range(2, 9))
def test_digits_compare_every_number_with_every_grid_point(bit_width: int) -> None:
    """One stump per grid point, as outputs of their own: all comparisons of all numbers at once."""
    points = np.arange(2**bit_width - 1, dtype=np.float64)
    n = len(points)
    trees = tuple(TreeNodes(**{**stump([[1.0], [0.0]], t).__dict__, "first_output": i}) for i, t in enumerate(points))
    forest = Forest(trees, 1, "float64", np.zeros(n))
    x = np.arange(-1, n + 1, dtype=np.float64)[:, np.newaxis]
    data = points[:, np.newaxis]
    quantized = quantize_forest(forest, data, ForestOptions(1, bit_width, "uniform", "digits"))
    bits = quantized.encode(x)
    assert bits.shape == (n + 2, digit_columns(bit_width))
    scores = quantized.decode(evaluate(quantized.program, [bits])[0])
    assert np.array_equal(scores, (x <= points).astype(float))


def test_digits_refuse_missing_values_and_other_shapes() -> None:
    encoder = DigitEncoder(np.zeros((2, 3)), 2, "float32")
    with pytest.raises(ValueError, match=r'row 1, column 0.*encoding="bits"'):
        encoder.encode(np.array([[0.0, 0.0], [np.nan, 0.0]]))
    with pytest.raises(ValueError, match=r"shape \(n, 2\), got \(1, 3\)"):
        encoder.encode(np.zeros((1, 3)))
    with pytest.raises(QuantizationError, match="no point of the grid"):
        encoder.position(0, 1.0)
    with pytest.raises(QuantizationError, match="3 ascending points"):
        DigitEncoder(np.zeros((2, 4)), 2, "float32")


def test_a_forest_that_asks_nothing_still_has_a_program() -> None:
    constant = TreeNodes(*(np.array([v]) for v in (-1, 0.0, -1, False, -1, -1)), np.array([[2.5]]), 0, np.array([0]))
    for options in (ForestOptions(grid="thresholds"), ForestOptions(), ForestOptions(encoding="digits")):
        quantized = quantize_forest(forest_of(constant, base=1.0), np.array([[1.0], [2.0]]), options)
        (sums,) = evaluate(quantized.program, [quantized.encode(np.zeros((3, 1)))])
        assert quantized.decode(sums).tolist() == [[3.5]] * 3
