"""A forest's program, its lookups and the C++ forest engine give the sums of the leaves that the plain walk reaches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhelearn.backends.native import NativeEngine
from fhelearn.estimators.compiled_forest import build_engine
from fhelearn.frontends.tree import Forest, ForestOptions, QuantizedForest, place, quantize_forest
from fhelearn.ir import evaluate, from_bytes, to_bytes
from fhelearn.passes import canonicalize_linear, is_canonical
from tests.python.unit.forests import random_forest, rows_for

SEEDS = st.integers(0, 2**32 - 1)
DATA_ROWS = 40


def data_for(forest: Forest, seed: int) -> np.ndarray:
    """Rows on and next to thresholds, missing values, infinities and categories among them."""
    return rows_for(forest, seed, DATA_ROWS, "float64")


def numerical_forest(seed: int) -> Forest:
    """A forest that asks thresholds only and takes no missing values."""
    forest = random_forest(seed, "float32", 5, n_trees=3)
    trees = tuple(replace(tree, members=np.full_like(tree.members, -1)) for tree in forest.trees)
    return Forest(trees, forest.n_features, forest.precision, forest.base)


def integer_sums(quantized: QuantizedForest, x: np.ndarray) -> np.ndarray:
    """What the program must return, by the definition of a forest: integer leaf values, counted from the zeros."""
    kept = quantized.complements.kept
    forest = quantized.forest
    leaves = forest.apply(x)
    sums = np.zeros((len(x), len(kept)), dtype=np.int64)
    for t, values in enumerate(quantized.leaves.values):
        first = forest.trees[t].first_output if values.shape[1] < len(kept) else 0
        sums[:, first : first + values.shape[1]] += values[leaves[:, t]]
    return sums - quantized.zeros


def no_two_lookups_of_a_sum_are_equal(quantized: QuantizedForest) -> bool:
    """Equal indices would make equal ciphertexts; the sum of these has more noise than the parameters allow."""
    keys = [
        (lookup.output, *sorted(weights.items()), constant)
        for lookup in quantized.cut.lookups
        for weights, constant in [lookup.index_weights()]
    ]
    return len(set(keys)) == len(keys)


def check(forest: Forest, x: np.ndarray, options: ForestOptions) -> QuantizedForest:
    quantized = quantize_forest(forest, x, options)
    bits = quantized.encode(x)
    expected = integer_sums(quantized, x)
    assert np.array_equal(evaluate(quantized.program, [bits])[0], expected)
    assert np.array_equal(NativeEngine(quantized.program).run([bits])[0], expected)
    assert np.array_equal(build_engine(quantized.native).run(x), expected)
    assert no_two_lookups_of_a_sum_are_equal(quantized)
    error = np.abs(quantized.decode(expected) - quantized.forest.scores(x))
    rounding = 1e-12 * (1 + np.abs(quantized.forest.scores(x)))  # of sums of at most 12 values of 3 digits in float64
    assert (error <= quantized.error_bound + rounding).all()
    return quantized


# Two hundred and fifty examples each of four kinds: a thousand forests.
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("depth", [3, 8])
@settings(max_examples=250, deadline=None)
@given(seed=SEEDS, leaf_bits=st.integers(1, 10), grid=st.sampled_from(["hidden", "thresholds"]))
def test_random_forests_become_programs_with_their_very_decisions(
    precision: str, depth: int, seed: int, leaf_bits: int, grid: str
) -> None:
    forest = random_forest(seed, precision, depth, n_trees=3)
    x = data_for(forest, seed)
    quantized = check(forest, x, ForestOptions(leaf_bits=leaf_bits, grid=grid))
    assert quantized.forest is forest


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, input_bits=st.integers(2, 8), encoding=st.sampled_from(["bits", "digits"]))
def test_random_forests_on_uniform_grids_take_the_decisions_of_the_moved_thresholds(
    seed: int, input_bits: int, encoding: str
) -> None:
    forest = numerical_forest(seed)
    x = np.random.default_rng(seed).normal(size=(DATA_ROWS, forest.n_features))
    options = ForestOptions(input_bits=input_bits, grid="uniform", encoding=encoding)
    quantized = check(forest, x, options)
    moved, points = place(forest, x, options)
    assert points is not None
    for tree in moved.trees:
        for node in np.flatnonzero(tree.feature >= 0):
            assert tree.threshold[node] in points[tree.feature[node]]
    assert np.array_equal(quantized.forest.apply(x), moved.apply(x))


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS)
def test_programs_of_forests_add_independent_ciphertexts_and_survive_their_file(seed: int) -> None:
    forest = random_forest(seed, "float64", 6, n_trees=4)
    program = quantize_forest(forest, data_for(forest, seed), ForestOptions()).program
    assert is_canonical(program)
    assert canonicalize_linear(program) is program
    assert from_bytes(to_bytes(program)) == program
