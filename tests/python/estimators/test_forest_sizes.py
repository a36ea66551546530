"""Large ensembles: the program is made from the model alone, however many rows there are, and its sums are exact."""

import tracemalloc
from functools import cache

import numpy as np
import pytest
from sklearn.datasets import make_classification

from fhelearn.ensemble import RandomForestClassifier
from fhelearn.estimators.compiled import CompileOptions
from fhelearn.estimators.compiled_forest import CompiledForest
from fhelearn.frontends.tree import ForestOptions, QuantizedForest, quantize_forest
from fhelearn.ir import cost
from fhelearn.xgboost import XGBClassifier
from tests.python.estimators.forest_cases import lazy_circuits  # noqa: F401 (an autouse fixture)

pytestmark = pytest.mark.slow

FOREST = {"n_estimators": 500, "max_depth": 8, "random_state": 0, "n_jobs": 2}
BOOSTED = {"n_estimators": 219, "max_depth": 6, "random_state": 0, "n_jobs": 2}
MODELS = {"random forest": (RandomForestClassifier, FOREST), "boosted": (XGBClassifier, BOOSTED)}
OPTIONS = ForestOptions(leaf_bits=8, grid="thresholds")


@cache
def rows():
    """3000 rows to fit on, and 20,000 of the same kind."""
    x, y = make_classification(23_000, n_features=50, n_informative=15, random_state=0)
    return x[:3000], y[:3000], x[3000:]


@cache
def fitted(name):
    cls, arguments = MODELS[name]
    return cls(**arguments).fit(*rows()[:2])


@cache
def quantized(name) -> QuantizedForest:
    model = fitted(name)
    return quantize_forest(model._fhe_adapter.forest(model), rows()[0], OPTIONS)


@pytest.mark.parametrize("name", MODELS)
def test_a_large_ensemble_becomes_a_program_of_narrow_lookups(name):
    forest = quantized(name).forest
    assert forest.n_trees == MODELS[name][1]["n_estimators"]
    program = quantized(name).program
    assert program.nodes[program.outputs[0]].value.size == 1
    assert cost(program).total_lookups < sum(int((tree.feature < 0).sum()) for tree in forest.trees)
    assert max(cost(program).lookups) <= 4


@pytest.mark.parametrize("name", MODELS)
def test_the_program_does_not_depend_on_the_rows(name):
    """With thresholds alone nothing is taken from rows, so one row gives the same program as all."""
    model = fitted(name)
    few = quantize_forest(model._fhe_adapter.forest(model), rows()[0][:1], OPTIONS)
    assert few.program.digest == quantized(name).program.digest


@pytest.mark.parametrize("name", MODELS)
def test_simulating_many_rows_equals_the_plain_walk_on_a_sample(name):
    model = fitted(name)
    adapter = model._fhe_adapter
    state = model._fhe_compiled = CompiledForest(quantized(name), CompileOptions(), model.n_bits, adapter.fitted(model))
    prepared = adapter.prepare(model, rows()[2])
    sums = state.simulate(prepared)
    assert sums.shape == (20_000, 1)
    sample = np.random.default_rng(1).integers(0, len(prepared), 200)
    forest = adapter.forest(model)
    leaves = forest.apply(prepared[sample])
    np.testing.assert_array_equal(state.forest_engine.apply(prepared[sample]), leaves)
    exact = sum(values[leaves[:, t]] for t, values in enumerate(state.quantized.leaves.values))
    shift = sum(state.quantized.zeros)
    np.testing.assert_array_equal(sums[sample] + shift, exact)
    bits = state.quantized.encode(prepared[sample])
    np.testing.assert_array_equal(state.engine.run([bits])[0], sums[sample])
    wrong = model.predict(rows()[2], fhe="simulate") != model.predict(rows()[2])
    margin = np.abs(state.quantized.decode(sums)[:, -1] - decision_point(name))
    assert (margin[wrong] <= state.quantized.error_bound[-1]).all()


def decision_point(name):
    """Where the last score turns the label: half of the trees' votes, or a margin of zero."""
    return FOREST["n_estimators"] / 2 if name == "random forest" else 0.0


def peak(forest, x, grid):
    """Most bytes that NumPy and Python hold at once while a program is made."""
    tracemalloc.start()
    try:
        quantize_forest(forest, x, ForestOptions(grid=grid))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("grid", ["thresholds", "hidden"])
def test_making_a_program_takes_no_more_memory_for_more_rows(grid):
    """A number per row and node would be 100 megabytes; decoys need the features in float64, sorted."""
    x, y, _ = rows()
    model = XGBClassifier(n_estimators=10, max_depth=3, random_state=0, n_jobs=1).fit(x[:1000], y[:1000])
    forest = model._fhe_adapter.forest(model)
    many = np.resize(x, (100_000, 50)).astype(np.float32)
    grown = peak(forest, many, grid) - peak(forest, many[:10], grid)
    assert grown <= (0 if grid == "thresholds" else 4 * many.size * 8) + 1e6
