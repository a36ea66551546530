"""Simulation of tree ensembles on 100,000 rows, against the libraries' own predict on the same models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, make_classification
from sklearn.model_selection import train_test_split

from fhelearn.ensemble import RandomForestClassifier
from fhelearn.estimators.compiled import CompiledModel
from fhelearn.typing import FloatArray
from fhelearn.xgboost import XGBClassifier

ROWS = 100_000
SMALL, WIDE, DEEP = (
    "XGBClassifier, 20 trees of depth 3, 100,000 x 30",
    "XGBClassifier, 100 trees of depth 6, 100,000 x 30",
    "RandomForestClassifier, 500 trees of depth 8, 100,000 x 50",
)


def simulated_only(model: Any, X: FloatArray) -> Any:
    """Compile the program without a circuit: of these large models none is run on ciphertexts here."""
    prepare = CompiledModel.prepare_circuit
    CompiledModel.prepare_circuit = lambda self: None  # type: ignore[method-assign]
    try:
        return model.compile(X, grid="thresholds")
    finally:
        CompiledModel.prepare_circuit = prepare  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def small() -> tuple[Any, FloatArray]:
    X, y = load_breast_cancer(return_X_y=True)
    X_train, X_test, y_train, _ = train_test_split(X, y, random_state=0)
    model = simulated_only(XGBClassifier(n_estimators=20, max_depth=3, n_jobs=2).fit(X_train, y_train), X_train)
    return model, np.resize(X_test, (ROWS, X.shape[1]))


@pytest.fixture(scope="module")
def wide() -> tuple[Any, FloatArray]:
    X, y = make_classification(ROWS, 30, n_informative=20, flip_y=0.1, random_state=0)
    model = XGBClassifier(n_estimators=100, max_depth=6, n_jobs=2).fit(X[:20_000], y[:20_000])
    return simulated_only(model, X[:20_000]), X


@pytest.fixture(scope="module")
def deep() -> tuple[Any, FloatArray]:
    X, y = make_classification(ROWS, 50, n_informative=30, flip_y=0.1, random_state=0)
    model = RandomForestClassifier(500, max_depth=8, n_jobs=2, random_state=0).fit(X[:5000], y[:5000])
    return simulated_only(model, X[:5000]), X


def check(model: Any, X: FloatArray, simulated: Any) -> None:
    """Labels are the library's, but for rows that quantized leaves leave undecided."""
    report = model.report(X[:5000])
    different = int((simulated[:5000] != model.predict(X[:5000])).sum())
    assert report.rows_moved == 0
    assert different <= report.rows_undecided


@pytest.mark.benchmark(group=SMALL)
def bench_fhelearn_simulates_20_trees(benchmark: Callable[..., Any], small: tuple[Any, FloatArray]) -> None:
    model, X = small
    check(model, X, benchmark(model.predict, X, fhe="simulate"))


@pytest.mark.benchmark(group=SMALL)
def bench_xgboost_predicts_20_trees(benchmark: Callable[..., Any], small: tuple[Any, FloatArray]) -> None:
    model, X = small
    assert len(benchmark(model.predict, X)) == ROWS


@pytest.mark.benchmark(group=WIDE)
def bench_fhelearn_simulates_100_trees(benchmark: Callable[..., Any], wide: tuple[Any, FloatArray]) -> None:
    model, X = wide
    check(model, X, benchmark(model.predict, X, fhe="simulate"))


@pytest.mark.benchmark(group=WIDE)
def bench_engine_runs_100_trees(benchmark: Callable[..., Any], wide: tuple[Any, FloatArray]) -> None:
    model, X = wide
    engine, x = model._fhe_compiled.forest_engine, X.astype(np.float32)
    sums = benchmark(engine.run, x, num_threads=2)
    assert np.array_equal(sums[:100], engine.run(x[:100]))


@pytest.mark.benchmark(group=WIDE)
def bench_xgboost_predicts_100_trees(benchmark: Callable[..., Any], wide: tuple[Any, FloatArray]) -> None:
    model, X = wide
    assert len(benchmark(model.predict, X)) == ROWS


@pytest.mark.benchmark(group=DEEP)
def bench_fhelearn_simulates_500_trees(benchmark: Any, deep: tuple[Any, FloatArray]) -> None:
    model, X = deep
    check(model, X, benchmark.pedantic(model.predict, (X,), {"fhe": "simulate"}, rounds=5, warmup_rounds=1))


@pytest.mark.benchmark(group=DEEP)
def bench_scikit_learn_predicts_500_trees(benchmark: Any, deep: tuple[Any, FloatArray]) -> None:
    model, X = deep
    assert len(benchmark.pedantic(model.predict, (X,), rounds=3)) == ROWS
