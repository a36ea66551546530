"""What tree models cost when encrypted, on breast cancer, beside what the peer was measured at."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from fhelearn.ensemble import RandomForestClassifier
from fhelearn.lightgbm import LGBMClassifier
from fhelearn.tree import DecisionTreeClassifier
from fhelearn.typing import FloatArray
from fhelearn.xgboost import XGBClassifier

SINGLE_ROWS, BATCH_ROWS, SIMULATED_ROWS = 9, 32, 100_000

PEER = {
    "XGBClassifier, 20 x depth 3": (1280, 6.5e10, 7.2),
    "XGBClassifier, 50 x depth 4": (5000, 2.8e11, 16.6),
    "DecisionTreeClassifier, depth 5": (118, None, 2.1),
    "RandomForestClassifier, 20 x depth 4": (2540, None, 10.6),
}
"""Concrete ML 1.9 on the same models and machine class: lookups, complexity, seconds per row. Measured before fhelearn
was built; its version pins keep it from being installed beside."""

MODELS: dict[str, Callable[[], Any]] = {
    "XGBClassifier, 20 x depth 3": lambda: XGBClassifier(n_estimators=20, max_depth=3, n_jobs=1),
    "XGBClassifier, 50 x depth 4": lambda: XGBClassifier(n_estimators=50, max_depth=4, n_jobs=1),
    "DecisionTreeClassifier, depth 5": lambda: DecisionTreeClassifier(max_depth=5, random_state=0),
    "RandomForestClassifier, 20 x depth 4": lambda: RandomForestClassifier(20, max_depth=4, random_state=0),
    "LGBMClassifier, 20 x depth 3": lambda: LGBMClassifier(n_estimators=20, max_depth=3, n_jobs=1, verbose=-1),
}


@dataclass(frozen=True)
class ForestCost:
    """One row of the table; times in seconds per row, the client's and the server's together.

    Attributes
    ----------
    agreement : float
        Share of the test rows whose simulated label is the library's.
    exact : bool
        Whether every decrypted label equals the simulated one.
    """

    model: str
    grid: str
    lookups: int
    bit_width: int
    complexity: float
    ciphertexts: int
    key_bytes: int
    input_bytes: int
    seconds_one_row: float
    seconds_batched: float
    microseconds_simulated: float
    agreement: float
    undecided: int
    exact: bool


def measure(name: str, grid: str) -> ForestCost:
    """Fit on the training rows, then run test rows one by one, as a batch, and simulate many."""
    X, y = load_breast_cancer(return_X_y=True)
    X_train, X_test, y_train, _ = train_test_split(X, y, random_state=0)
    model: Any = MODELS[name]().fit(X_train, y_train)
    model.compile(X_train, p_error=2.0**-40, grid=grid)
    report = model.report(X_test)
    one_row, one_exact = one_by_one(model, X_test)
    start = time.perf_counter()
    batch = model.predict(X_test[:BATCH_ROWS], fhe="execute")
    batched = (time.perf_counter() - start) / BATCH_ROWS
    many = np.resize(X_test, (SIMULATED_ROWS, X.shape[1]))
    return ForestCost(
        model=name,
        grid=grid,
        lookups=report.lookups,
        bit_width=report.cut.bit_width,
        complexity=report.complexity or 0.0,
        ciphertexts=report.ciphertexts,
        key_bytes=report.evaluation_key_bytes or 0,
        input_bytes=report.input_bytes_per_row or 0,
        seconds_one_row=one_row,
        seconds_batched=batched,
        microseconds_simulated=1e6 * median(simulations(model, many)) / SIMULATED_ROWS,
        agreement=report.label_agreement or 0.0,
        undecided=report.rows_undecided or 0,
        exact=one_exact and np.array_equal(batch, model.predict(X_test[:BATCH_ROWS], fhe="simulate")),
    )


def one_by_one(model: Any, rows: FloatArray) -> tuple[float, bool]:
    """Median time of single rows after a first one, which makes keys and loads them, and whether all were right."""
    seconds, exact = [], True
    for i in range(SINGLE_ROWS + 1):
        start = time.perf_counter()
        label = model.predict(rows[i : i + 1], fhe="execute")
        seconds.append(time.perf_counter() - start)
        exact = exact and np.array_equal(label, model.predict(rows[i : i + 1], fhe="simulate"))
    return median(seconds[1:]), exact


def simulations(model: Any, rows: FloatArray) -> list[float]:
    """Times of simulating all rows."""
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        model.predict(rows, fhe="simulate")
        seconds.append(time.perf_counter() - start)
    return seconds


def measure_all() -> list[ForestCost]:
    """Every model with its thresholds only, and one with decoys."""
    shown = [(name, "thresholds") for name in MODELS]
    return [measure(name, grid) for name, grid in [*shown, ("XGBClassifier, 20 x depth 3", "hidden")]]
