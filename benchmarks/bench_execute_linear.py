"""Encrypted prediction by a 30-feature LogisticRegression, against concrete-python's own front end, same weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from benchmarks.peers import linear_weights, tracing_front_end
from fhelearn.linear_model import LogisticRegression
from fhelearn.typing import FloatArray

pytestmark = pytest.mark.fhe
ROWS = 64
P_ERROR = 2.0**-40


@pytest.fixture(scope="module")
def compiled() -> tuple[Any, FloatArray]:
    X, y = load_breast_cancer(return_X_y=True)
    model = LogisticRegression(solver="newton-cholesky").fit(X, y)
    model.compile(X, p_error=P_ERROR)
    model.fhe_circuit_.keygen()
    return model, X[:ROWS]


@pytest.mark.benchmark(group="LogisticRegression on 64 encrypted rows of 30 features")
def bench_fhelearn_executes(benchmark: Callable[..., Any], compiled: tuple[Any, FloatArray]) -> None:
    model, X = compiled
    labels = benchmark(model.predict, X, fhe="execute")
    assert np.array_equal(labels, model.predict(X, fhe="simulate"))
    assert np.array_equal(labels, model.predict(X))


@pytest.mark.benchmark(group="LogisticRegression on 64 encrypted rows of 30 features")
def bench_tracing_front_end_executes(benchmark: Any, compiled: tuple[Any, FloatArray]) -> None:
    model, X = compiled
    circuit = tracing_front_end(model.program_, P_ERROR)
    circuit.keygen()
    rows = model.quantize_input(X)
    weights, constant = linear_weights(model.program_)

    def execute() -> list[Any]:
        return [circuit.encrypt_run_decrypt(row) for row in rows]

    scores = benchmark.pedantic(execute, rounds=3, warmup_rounds=1)
    assert np.array_equal(np.reshape(scores, (ROWS, -1)), rows @ weights + constant)


@pytest.mark.benchmark(group="One encrypted row of 30 features")
def bench_fhelearn_executes_one_row(benchmark: Callable[..., Any], compiled: tuple[Any, FloatArray]) -> None:
    model, X = compiled
    assert np.array_equal(benchmark(model.predict, X[:1], fhe="execute"), model.predict(X[:1]))


@pytest.mark.benchmark(group="One encrypted row of 30 features")
def bench_tracing_front_end_executes_one_row(benchmark: Callable[..., Any], compiled: tuple[Any, FloatArray]) -> None:
    model, X = compiled
    circuit = tracing_front_end(model.program_, P_ERROR)
    circuit.keygen()
    (row,) = model.quantize_input(X[:1])
    weights, constant = linear_weights(model.program_)
    assert np.array_equal(np.ravel(benchmark(circuit.encrypt_run_decrypt, row)), row @ weights + constant)
