"""Cutting trees into lookups: sums stay what they are, indices stay in range, and known trees need known numbers."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from fhelearn.exceptions import LoweringError
from fhelearn.frontends.tree.conditions import ask
from fhelearn.frontends.tree.cut import LOOKUP_PRICE, Cut, Piece, Pricing, cut_trees, outcomes
from fhelearn.frontends.tree.forest import Forest, TreeNodes
from fhelearn.frontends.tree.scalar import ScalarTree, facts_of, live_nodes, scalar_tree
from tests.python.unit.forests import random_forest


def full_tree(depth: int, first_condition: int = 0, leaf: int = 1) -> ScalarTree:
    """A complete tree whose inner nodes all ask conditions of their own, with the leaves `leaf`, `leaf` + 1, ..."""
    tree = ScalarTree([], [], [], [])
    leaves = iter(range(leaf, leaf + 2**depth))
    conditions = iter(range(first_condition, first_condition + 2**depth))

    def grow(left_over: int) -> int:
        index = len(tree)
        for column, value in zip((tree.condition, tree.left, tree.right, tree.value), (-1, -1, -1, 0), strict=True):
            column.append(value)
        if left_over:
            tree.condition[index] = next(conditions)
            tree.left[index] = grow(left_over - 1)
            tree.right[index] = grow(left_over - 1)
        else:
            tree.value[index] = next(leaves)
        return index

    grow(depth)
    return tree


def walk(tree: ScalarTree, true: set[int]) -> int:
    node = 0
    while tree.condition[node] >= 0:
        node = tree.left[node] if tree.condition[node] in true else tree.right[node]
    return tree.value[node]


def lookup_sum(cut: Cut, true: set[int]) -> int:
    """The lookups' sum where exactly the conditions `true` hold; fails if an index leaves its table."""
    total = sum(cut.zeros)
    for lookup in cut.lookups:
        weights, constant = lookup.index_weights()
        index = constant + sum(weight for condition, weight in weights.items() if condition in true)
        assert 0 <= index < lookup.size <= 2**cut.bit_width
        total += lookup.table()[index]
    return total


def consistent_assignments(chain: list[int], rng: np.random.Generator, count: int) -> list[set[int]]:
    """Random answers to conditions of which those of a chain are nested: the last ones of each hold."""
    chains = {c: [i for i, other in enumerate(chain) if other == c] for c in chain}
    found = []
    for _ in range(count):
        true: set[int] = set()
        for members in chains.values():
            true.update(members[rng.integers(len(members) + 1) :])
        found.append(true)
    return found


@pytest.mark.parametrize("seed", range(60))
def test_the_lookups_add_up_to_the_trees_for_all_answers_that_can_occur(seed: int) -> None:
    forest = random_forest(seed, depth=6, n_trees=6)
    forest = Forest(forest.trees, forest.n_features, "float32", forest.base, forest.category_sets, True)
    asked = ask(forest)
    facts = facts_of(asked.conditions)
    trees = [
        scalar_tree(live_nodes(tree, asks, facts, True), tree.value[:, 0].astype(int).tolist())
        for tree, asks in zip(forest.trees, asked.asks, strict=True)
    ]
    chain = asked.conditions.chain.tolist()
    cut = cut_trees(trees, [0] * len(trees), chain)
    for true in consistent_assignments(chain, np.random.default_rng(seed), 100):
        assert lookup_sum(cut, true) == sum(walk(tree, true) for tree in trees)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_every_width_that_is_wide_enough_for_a_path_cuts_full_trees_exactly(
    bits: int, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fhelearn.frontends.tree.cut.LOOKUP_PRICE", {bits: 1.0})
    tree = full_tree(depth)
    chain = list(range(2**depth - 1))
    cut = cut_trees([tree], [0], chain)
    assert all(lookup.size <= 2 ** max(bits, cut.bit_width) for lookup in cut.lookups)
    rng = np.random.default_rng(depth)
    for true in consistent_assignments(chain, rng, 200):
        assert lookup_sum(cut, true) == walk(tree, true)


@pytest.mark.parametrize(
    ("depth", "bits", "lookups"),
    [
        (1, 1, 1),  # a stump asks one condition
        (2, 3, 1),  # three independent conditions are the three bits of an index
        (3, 4, 2),  # each half is reached or not, and asks three more
        (4, 3, 8),  # pairs of leaves behind three conditions: two times four values
    ],
)
def test_complete_trees_of_independent_conditions_need_known_lookups(
    depth: int, bits: int, lookups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fhelearn.frontends.tree.cut.LOOKUP_PRICE", {bits: 1.0})
    cut = cut_trees([full_tree(depth)], [0], list(range(2**depth)))
    assert (cut.bit_width, len(cut.lookups)) == (bits, lookups)


def test_one_leaf_of_every_tree_is_free() -> None:
    """A tree (0 where both of two conditions fail) of three leaves, one of which is worth nothing after the shift."""
    tree = ScalarTree([0, -1, 1, -1, -1], [1, -1, 3, -1, -1], [2, -1, 4, -1, -1], [0, 7, 0, 9, 7])
    cut = cut_trees([tree], [0], [0, 1])
    (lookup,) = cut.lookups
    assert cut.zeros == (7,)
    assert lookup.size == 3  # the number of literals that hold: no, one or both
    assert lookup.table() == [0, 0, 2]


def test_stumps_on_one_feature_share_a_lookup() -> None:
    stumps = [ScalarTree([c, -1, -1], [1, -1, -1], [2, -1, -1], [0, 3 * c + 1, 0]) for c in range(15)]
    cut = cut_trees(stumps, [0] * 15, [0] * 15)
    assert len(cut.lookups) == 1
    assert cut.bit_width == 4
    for held in range(16):
        true = set(range(15 - held, 15))
        assert lookup_sum(cut, true) == sum(walk(stump, true) for stump in stumps)


def test_small_pieces_of_different_trees_share_a_lookup_but_never_pieces_of_different_outputs() -> None:
    stumps = [full_tree(1, first_condition=c) for c in range(4)]
    assert len(cut_trees(stumps, [0, 0, 0, 0], list(range(4))).lookups) == 1
    lookups = cut_trees(stumps, [0, 1, 0, 1], list(range(4))).lookups
    assert [lookup.output for lookup in lookups] == [0, 1]


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_equal_trees_share_their_lookups(depth: int) -> None:
    """Two lookups of one table at one index would be one ciphertext, which must not be added to itself."""
    tree, once = full_tree(depth), list(range(2**depth))
    single = cut_trees([tree], [0], once)
    many = cut_trees([tree] * 5, [0] * 5, once)
    assert len(many.lookups) <= len(single.lookups)
    indices = [(sorted(weights.items()), constant) for weights, constant in (x.index_weights() for x in many.lookups)]
    assert all(indices.count(index) == 1 for index in indices)
    for true in consistent_assignments(once, np.random.default_rng(depth), 50):
        assert lookup_sum(many, true) == 5 * walk(tree, true)


def test_trees_that_are_constant_need_no_lookup() -> None:
    constant = ScalarTree([-1], [-1], [-1], [5])
    cut = cut_trees([constant, constant], [0, 0], [])
    assert cut.lookups == ()
    assert cut.zeros == (5, 5)


def test_a_long_path_widens_the_index_as_far_as_tables_go(monkeypatch: pytest.MonkeyPatch) -> None:
    def caterpillar(length: int) -> ScalarTree:
        inner = [*range(length)]
        condition = [c for i in inner for c in (i, -1)] + [-1]
        left = [c for i in inner for c in (2 * i + 1, -1)] + [-1]
        right = [c for i in inner for c in (2 * i + 2, -1)] + [-1]
        value = [v for i in inner for v in (0, i + 1)] + [length + 1]
        return ScalarTree(condition, left, right, value)

    assert cut_trees([caterpillar(300)], [0], list(range(300))).bit_width == 9
    monkeypatch.setattr("fhelearn.frontends.tree.cut.WIDEST", 8)
    with pytest.raises(LoweringError, match=r"more than 254 features .* limit max_depth"):
        cut_trees([caterpillar(300)], [0], list(range(300)))


def test_prices_of_the_compared_widths_are_kept_and_the_cheapest_is_taken() -> None:
    cut = cut_trees([full_tree(3, 7 * t) for t in range(5)], [0] * 5, list(range(40)))
    assert set(cut.prices) <= set(LOOKUP_PRICE)
    assert cut.prices[cut.bit_width] == min(cut.prices.values()) == LOOKUP_PRICE[cut.bit_width] * len(cut.lookups)


def test_digits_number_the_answers_that_nested_conditions_can_give() -> None:
    assert list(outcomes(((1, 4), (7,)))) == [set(), {4}, {1, 4}, {7}, {4, 7}, {1, 4, 7}]


def test_a_piece_counts_its_literals_above_its_own_number() -> None:
    piece = Piece(literals=((5, 2), (None, 9)), digits=((0,), (3, 4)), own=(1, 2, 3, 4, 5, 6), trees=frozenset([0]))
    weights, constant = piece.index_weights()
    assert piece.size == 18
    assert piece.table() == [0] * 12 + [1, 2, 3, 4, 5, 6]
    assert weights == {5: 6, 2: -6, 9: -6, 0: 1, 3: 2, 4: 2}
    assert constant == 6


@pytest.mark.parametrize("mixture", [0.0, 0.5, 0.9])
def test_a_piece_that_fills_a_lookup_costs_one(mixture: float) -> None:
    costs = Pricing(4, mixture).costs()
    assert costs[16] == pytest.approx(1.0, abs=1e-15)
    assert costs == sorted(costs)


def thresholds_tree(*asked: tuple[int, float, bool]) -> Forest:
    """A caterpillar: each node asks (feature, threshold, side of missing values); its left child is a leaf."""
    size = 2 * len(asked) + 1
    feature, threshold, nan = np.full(size, -1), np.zeros(size), np.zeros(size, dtype=bool)
    left, right = np.full(size, -1), np.full(size, -1)
    for i, (f, t, side) in enumerate(asked):
        feature[2 * i], threshold[2 * i], nan[2 * i] = f, t, side
        left[2 * i], right[2 * i] = 2 * i + 1, 2 * i + 2
    value = np.where(feature < 0, np.arange(size), 0).astype(float)[:, np.newaxis]
    members = np.full(size, -1)
    tree = TreeNodes(feature, threshold, members, nan, left, right, value, 0, np.arange(size))
    return Forest((tree,), 3, "float64", np.zeros(1), accepts_nan=True)


def test_splits_that_decide_nothing_are_dropped() -> None:
    forest = thresholds_tree((0, 5.0, True), (0, 3.0, True), (0, 5.0, False), (1, 2.0, False))
    asked = ask(forest)
    live = live_nodes(forest.trees[0], asked.asks[0], facts_of(asked.conditions), True)
    # x0 <= 5 or missing goes left at the root: beyond it no x0 <= 3 is left, and none that is missing
    assert [asked.conditions.feature[c] for c in live.condition if c >= 0] == [0, 1]


def test_conditions_that_differ_in_missing_values_only_are_two_chains() -> None:
    asked = ask(thresholds_tree((0, 5.0, True), (0, 3.0, False), (0, 7.0, True), (1, 2.0, False)))
    assert asked.conditions.threshold.tolist() == [3.0, 5.0, 7.0, 2.0]
    assert asked.conditions.nan_true.tolist() == [False, True, True, False]
    assert len(set(asked.conditions.chain.tolist())) == 3


@pytest.mark.parametrize("values", list(product([1, 2], repeat=3)))
def test_sub_trees_that_are_equal_become_one(values: tuple[int, int, int]) -> None:
    live = ScalarTree([0, 1, -1, -1, -1], [1, 2, -1, -1, -1], [4, 3, -1, -1, -1], [0, 0, 0, 1, 2])
    merged = scalar_tree(live, values)
    for true in ({0, 1}, {0}, {1}, set()):
        leaf = 0 if {0, 1} <= true else 1 if 0 in true else 2
        assert walk(merged, set(true)) == values[leaf]
    assert len(merged) == {1: 1, 2: 3 if values[0] == values[1] else 5}[len(set(values))]
