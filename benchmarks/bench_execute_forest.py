"""One encrypted row of XGBClassifier (20 trees of depth 3), against concrete-python's own front end, same tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from benchmarks.peers import tracing_forest
from fhelearn.typing import FloatArray
from fhelearn.xgboost import XGBClassifier

pytestmark = pytest.mark.fhe
P_ERROR = 2.0**-40
GROUP = "XGBClassifier, 20 trees of depth 3: one encrypted row"


@pytest.fixture(scope="module")
def compiled() -> tuple[Any, FloatArray]:
    X, y = load_breast_cancer(return_X_y=True)
    X_train, X_test, y_train, _ = train_test_split(X, y, random_state=0)
    model = XGBClassifier(n_estimators=20, max_depth=3, n_jobs=1).fit(X_train, y_train)
    model.compile(X_train, p_error=P_ERROR, grid="thresholds")
    model.fhe_circuit_.keygen()
    return model, X_test


@pytest.mark.benchmark(group=GROUP)
def bench_fhelearn_executes_a_forest(benchmark: Any, compiled: tuple[Any, FloatArray]) -> None:
    model, X = compiled
    labels = benchmark.pedantic(model.predict, (X[:1],), {"fhe": "execute"}, rounds=8, warmup_rounds=1)
    assert np.array_equal(labels, model.predict(X[:1]))


@pytest.mark.benchmark(group=GROUP)
def bench_tracing_front_end_executes_a_forest(benchmark: Any, compiled: tuple[Any, FloatArray]) -> None:
    model, X = compiled
    bits = model.quantize_input(X)
    circuit = tracing_forest(model.program_, bits, P_ERROR)
    circuit.keygen()
    score = benchmark.pedantic(circuit.encrypt_run_decrypt, (bits[0],), rounds=8, warmup_rounds=1)
    assert np.array_equal(np.ravel(score), model._fhe_compiled.simulate(X[:1].astype(np.float32))[0])


@pytest.mark.benchmark(group="XGBClassifier, 20 trees of depth 3: from the fitted model to the circuit")
def bench_fhelearn_compiles_a_forest(benchmark: Callable[..., Any], compiled: tuple[Any, FloatArray]) -> None:
    model, X = compiled
    fresh = benchmark(XGBClassifier.from_sklearn_model, model, X, p_error=P_ERROR, grid="thresholds")
    assert fresh.fhe_circuit_.cost.num_lookups == model.fhe_circuit_.cost.num_lookups
