"""Simulation of linear models on 100,000 rows of 30 features, against scikit-learn's own predict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn import linear_model as peer
from sklearn.datasets import make_classification, make_regression

from fhelearn.linear_model import LinearRegression, LogisticRegression
from fhelearn.typing import FloatArray

ROWS, FEATURES = 100_000, 30


@pytest.fixture(scope="module")
def classifier() -> tuple[Any, FloatArray]:
    X, y = make_classification(ROWS, FEATURES, n_informative=10, random_state=0)
    return LogisticRegression().fit(X, y), X


@pytest.fixture(scope="module")
def regressor() -> tuple[Any, FloatArray]:
    X, y = make_regression(ROWS, FEATURES, noise=1.0, random_state=0)
    return LinearRegression().fit(X, y), X


@pytest.mark.benchmark(group="LogisticRegression.predict, 100,000 x 30")
def bench_scikit_learn_predicts_labels(benchmark: Callable[..., Any], classifier: tuple[Any, FloatArray]) -> None:
    model, X = classifier
    float_model = peer.LogisticRegression().fit(X[:1000], model.predict(X[:1000]))
    float_model.coef_, float_model.intercept_ = model.coef_, model.intercept_
    assert np.array_equal(benchmark(float_model.predict, X), model.predict(X))


@pytest.mark.benchmark(group="LogisticRegression.predict, 100,000 x 30")
def bench_fhelearn_simulates_labels(benchmark: Callable[..., Any], classifier: tuple[Any, FloatArray]) -> None:
    model, X = classifier
    model.compile(X)
    simulated = benchmark(model.predict, X, fhe="simulate")
    scores = model.decision_function(X)
    step = np.abs(model.decision_function(X, fhe="simulate") - scores).max()
    clear = np.abs(scores) > step  # a row nearer to the boundary than the quantization step may fall on either side
    assert np.array_equal(simulated[clear], model.predict(X)[clear])


@pytest.mark.benchmark(group="LinearRegression.predict, 100,000 x 30")
def bench_scikit_learn_predicts_targets(benchmark: Callable[..., Any], regressor: tuple[Any, FloatArray]) -> None:
    model, X = regressor
    float_model = peer.LinearRegression()
    float_model.coef_, float_model.intercept_ = model.coef_, model.intercept_
    assert np.array_equal(benchmark(float_model.predict, X), model.predict(X))


@pytest.mark.benchmark(group="LinearRegression.predict, 100,000 x 30")
def bench_fhelearn_simulates_targets(benchmark: Callable[..., Any], regressor: tuple[Any, FloatArray]) -> None:
    model, X = regressor
    model.compile(X)
    simulated, clear = benchmark(model.predict, X, fhe="simulate"), model.predict(X)
    assert np.abs(simulated - clear).max() <= 1e-3 * np.ptp(clear)
