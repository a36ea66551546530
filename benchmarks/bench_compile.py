"""Compilation and key generation of a 30-feature LogisticRegression, against concrete-python's own front end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sklearn.datasets import load_breast_cancer

from benchmarks.peers import tracing_front_end
from fhelearn.linear_model import LogisticRegression
from fhelearn.typing import FloatArray

pytestmark = pytest.mark.fhe
P_ERROR = 2.0**-40


@pytest.fixture(scope="module")
def fitted() -> tuple[Any, FloatArray]:
    X, y = load_breast_cancer(return_X_y=True)
    return LogisticRegression(solver="newton-cholesky").fit(X, y), X


@pytest.mark.benchmark(group="Compile a 30-feature LogisticRegression")
def bench_fhelearn_compiles(benchmark: Callable[..., Any], fitted: tuple[Any, FloatArray]) -> None:
    model, X = fitted

    def compile_model() -> Any:
        model.compile(X, p_error=P_ERROR)
        return model.fhe_circuit_

    circuit = benchmark(compile_model)
    assert circuit.cost.num_lookups == 0


@pytest.mark.benchmark(group="Compile a 30-feature LogisticRegression")
def bench_tracing_front_end_compiles(benchmark: Callable[..., Any], fitted: tuple[Any, FloatArray]) -> None:
    model, X = fitted
    model.compile(X, p_error=P_ERROR)
    circuit = benchmark(tracing_front_end, model.program_, P_ERROR)
    assert circuit.programmable_bootstrap_count == 0


@pytest.mark.benchmark(group="Make the keys of a 30-feature LogisticRegression")
def bench_fhelearn_makes_keys(benchmark: Callable[..., Any], fitted: tuple[Any, FloatArray]) -> None:
    model, X = fitted
    model.compile(X, p_error=P_ERROR)
    keys = benchmark(model.fhe_circuit_.keygen, force=True)
    assert keys.key_id


@pytest.mark.benchmark(group="Make the keys of a 30-feature LogisticRegression")
def bench_tracing_front_end_makes_keys(benchmark: Callable[..., Any], fitted: tuple[Any, FloatArray]) -> None:
    model, X = fitted
    model.compile(X, p_error=P_ERROR)
    circuit = tracing_front_end(model.program_, P_ERROR)
    benchmark(circuit.keygen, force=True)
    assert circuit.keys.are_generated
