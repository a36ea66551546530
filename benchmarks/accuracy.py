"""How well simulated and decrypted predictions agree with scikit-learn's, on data sets that ship with it, unscaled."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.metrics import accuracy_score, r2_score

from fhelearn.linear_model import LinearRegression, LogisticRegression


def logistic_regression(**parameters: Any) -> LogisticRegression:
    """Make the classifier; lbfgs, the default solver, finds the same weights but needs thousands of steps unscaled."""
    return LogisticRegression(solver="newton-cholesky", **parameters)


DATA_SETS = {
    "breast cancer": (load_breast_cancer, logistic_regression),
    "wine": (load_wine, logistic_regression),
    "digits": (load_digits, logistic_regression),
    "diabetes": (load_diabetes, LinearRegression),
}


@dataclass(frozen=True)
class Agreement:
    """One row of the table.

    Attributes
    ----------
    rows : int
        Predicted rows: the whole data set.
    float_metric, simulated_metric, decrypted_metric : float
        Accuracy of a classifier, R2 of a regressor.
    worst : float
        Classifier: share of labels that differ from scikit-learn's. Regressor: largest difference, as a share of the
        predictions' range.
    exact : bool
        Whether every decrypted prediction equals the simulated one.
    """

    data: str
    model: str
    n_bits: str
    rows: int
    float_metric: float
    simulated_metric: float
    decrypted_metric: float
    worst: float
    exact: bool
    output_bits: int
    lookups: int
    milliseconds_per_row: float
    evaluation_key_bytes: int
    secret_key_bytes: int
    input_bytes_per_row: int
    output_bytes_per_row: int


def disagreement(model: Any, prediction: Any, reference: Any) -> float:
    """Share of different labels, or largest difference as a share of the reference's range."""
    if is_classifier(model):
        return float(np.mean(prediction != reference))
    return float(np.abs(prediction - reference).max() / np.ptp(reference))


def measure(data: str, n_bits: int | None) -> Agreement:
    """Train on the whole data set, then predict all of it three ways."""
    load, make = DATA_SETS[data]
    X, y = load(return_X_y=True)
    model = make(**({} if n_bits is None else {"n_bits": n_bits})).fit(X, y)
    model.compile(X)
    model.fhe_circuit_.keygen()
    cost = model.fhe_circuit_.cost
    metric = accuracy_score if is_classifier(model) else r2_score
    clear, simulated = model.predict(X), model.predict(X, fhe="simulate")
    start = time.perf_counter()
    decrypted = model.predict(X, fhe="execute")
    seconds = time.perf_counter() - start
    return Agreement(
        data=data,
        model=type(model).__name__,
        n_bits="default" if n_bits is None else str(n_bits),
        rows=len(X),
        float_metric=float(metric(y, clear)),
        simulated_metric=float(metric(y, simulated)),
        decrypted_metric=float(metric(y, decrypted)),
        worst=max(disagreement(model, simulated, clear), disagreement(model, decrypted, clear)),
        exact=bool(np.array_equal(simulated, decrypted)),
        output_bits=max(model.program_.nodes[index].value.bit_width for index in model.program_.outputs),
        lookups=cost.num_lookups,
        milliseconds_per_row=1e3 * seconds / len(X),
        evaluation_key_bytes=cost.evaluation_key_bytes,
        secret_key_bytes=cost.secret_key_bytes,
        input_bytes_per_row=cost.input_bytes_per_row,
        output_bytes_per_row=cost.output_bytes_per_row,
    )


def measure_all() -> list[Agreement]:
    """Every data set at the default width and at 8 bits."""
    return [measure(data, n_bits) for n_bits in (None, 8) for data in DATA_SETS]
