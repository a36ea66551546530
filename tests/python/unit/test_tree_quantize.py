"""Leaves, grids and digits of the tree front end."""

from __future__ import annotations

import numpy as np
import pytest

from fhelearn.exceptions import LoweringError, QuantizationError
from fhelearn.frontends.tree.conditions import ask
from fhelearn.frontends.tree.forest import Forest, TreeNodes
from fhelearn.frontends.tree.grid import (
    HIDDEN_POINTS,
    encode_hidden,
    encode_thresholds,
    native_encoder,
    snap,
    uniform_grid,
)
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
@pytest.mark.parametrize("separate", [False, True])
def test_integer_leaves_are_within_half_a_step_and_the_bound_is_the_sum_of_the_worst(
    seed: int, n_bits: int, separate: bool
) -> None:
    forest = random_forest(seed, n_trees=5)
    leaves = quantize_leaves(forest, n_bits, separate)
    assert separate or len(set(leaves.scale.tolist())) == 1
    x = rows_for(forest, seed, 200, "float64")
    reached = forest.apply(x)
    sums = np.zeros((len(x), forest.n_outputs), dtype=np.int64)
    worst = np.zeros(forest.n_outputs)
    for t, (tree, q) in enumerate(zip(forest.trees, leaves.values, strict=True)):
        outputs = slice(tree.first_output, tree.first_output + q.shape[1])
        assert q.min() >= 0
        assert q.max() < 2**n_bits
        sums[:, outputs] += q[reached[:, t]]
        leaf = tree.feature < 0
        steps = (tree.value[leaf] - tree.value[leaf].min()) / leaves.scale[outputs] - q[leaf]
        steps -= np.round(steps.mean(axis=0)) if separate else 0  # targets are counted from their own least
        assert (np.abs(steps) <= 1 if separate else np.abs(steps) <= 0.5 + 1e-9).all()
        worst[outputs] += 0.5 * leaves.scale[outputs]
    scores = (sums + leaves.shift) * leaves.scale + leaves.offset
    rounding = 1e-12 * (1 + np.abs(scores))
    assert (np.abs(scores - forest.sums(reached)) <= leaves.error_bound + rounding).all()
    assert (leaves.error_bound <= worst * (1 + 1e-9)).all()


def test_votes_and_counts_are_represented_exactly_with_the_bits_that_they_need() -> None:
    leaves = quantize_leaves(forest_of(stump([[0.0], [1.0]]), stump([[3.0], [0.0]])), 8)
    assert (leaves.n_bits, leaves.scale.tolist(), leaves.error_bound.tolist()) == (2, [1.0], [0.0])


def test_the_middle_between_least_and_greatest_is_represented_exactly() -> None:
    forest = forest_of(stump([[0.0], [1.0]]), stump([[0.5], [0.0]]), stump([[0.123456], [0.0]]))
    leaves = quantize_leaves(forest, 8)
    assert [q[:, 0].tolist() for q in leaves.values[:2]] == [[0, 0, 254], [0, 127, 0]]


def test_targets_of_unlike_units_keep_their_resolution_and_classes_share_a_scale() -> None:
    forest = forest_of(stump([[0.0, 1e6], [1.0, 0.0]]), stump([[0.3, 1e5], [0.1, 0.0]]))
    assert quantize_leaves(forest, 8).scale.tolist() == [1e6 / 254] * 2
    separate = quantize_leaves(forest, 8, separate=True)
    assert separate.scale.tolist() == [0.1, 1e5]
    assert separate.error_bound.max() < 1e-9


@pytest.mark.parametrize("trees", [1, 3, 7, 10])
@pytest.mark.parametrize("rows", [5, 7, 31])
def test_equal_scores_of_classes_decode_to_equal_numbers(trees: int, rows: int) -> None:
    """Probabilities k / rows of three classes whose sums tie in another way in every tree."""
    ways = [[2 / rows, 2 / rows, (rows - 4) / rows], [1 / rows, 1 / rows, (rows - 2) / rows]]
    forest = forest_of(*(stump([ways[t % 2], [0.0, 1.0, 0.0]]) for t in range(trees)))
    _, complements = without_complements(forest)
    leaves = quantize_leaves(forest, 8)
    sums = np.sum([q[1] for q in leaves.values], axis=0, keepdims=True)
    scores = complements.decode(sums, leaves)
    assert scores[0, 0] == scores[0, 1]


@pytest.mark.parametrize("rows", [2, 6, 10, 30, 62, 254, 1000])
def test_probabilities_of_two_classes_that_are_equal_decode_to_equal_numbers(rows: int) -> None:
    half = rows // 2 / rows
    forest = forest_of(*(stump([[half, 1 - half], [1 / rows, 1 - 1 / rows]]) for _ in range(7)))
    kept, complements = without_complements(forest)
    leaves = quantize_leaves(kept, 8)
    sums = np.sum([q[1] for q in leaves.values], axis=0, keepdims=True)
    scores = complements.decode(sums, leaves)
    assert scores[0, 0] == scores[0, 1]


def test_leaves_whose_range_overflows_are_refused() -> None:
    with pytest.raises(LoweringError, match="rescale the target"):
        quantize_leaves(forest_of(stump([[-1.7e308], [1.7e308]])), 8)


def test_leaves_of_a_denormal_range_keep_their_order() -> None:
    leaves = quantize_leaves(forest_of(stump([[0.0], [5e-324]])), 8)
    assert leaves.values[0][1, 0] < leaves.values[0][2, 0]


def test_probabilities_of_two_classes_are_evaluated_once() -> None:
    forest = forest_of(stump([[0.25, 0.75], [0.5, 0.5]]), stump([[0.0, 1.0], [1.0, 0.0]]))
    kept, complements = without_complements(forest)
    assert kept.n_outputs == 1
    assert (complements.kept.tolist(), complements.derived.tolist(), complements.total.tolist()) == ([1], [0], [2.0])
    leaves = quantize_leaves(kept, 8)
    sums = np.array([[leaves.values[0][1, 0] + leaves.values[1][2, 0]]])
    assert complements.decode(sums, leaves).tolist() == [[1.25, 0.75]]


def test_outputs_that_are_not_complementary_are_all_evaluated() -> None:
    forest = forest_of(stump([[0.25, 0.75, 0.0], [0.5, 0.25, 0.25]]))
    kept, complements = without_complements(forest)
    assert kept is forest
    assert complements.kept.tolist() == [0, 1, 2]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("hidden", [False, True])
def test_sent_bits_add_up_to_the_answers_of_the_nodes_and_tell_no_side(seed: int, hidden: bool) -> None:
    forest = random_forest(seed, n_trees=4)
    conditions = ask(forest).conditions
    x = rows_for(forest, seed, 300, "float32")
    encoding = encode_hidden(forest, conditions, x) if hidden else encode_thresholds(forest, conditions)
    bits = encoding.encoder.encode(x)
    missing = np.where(encoding.present >= 0, 1 - bits[:, np.maximum(encoding.present, 0)], 0)
    answers = native_encoder(forest, conditions).encode(x)
    assert np.array_equal(bits[:, encoding.columns] + missing, answers)
    if hidden:
        encoder = encoding.encoder
        assert not encoder.nan_true.any()
        sent = list(zip(encoder.feature.tolist(), encoder.threshold, encoder.members, strict=True))
        assert len(set(sent)) == len(sent)


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
    with pytest.raises(ValueError, match="row 1, column 0, which digits do not encode"):
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
