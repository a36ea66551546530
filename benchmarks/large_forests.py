"""Large forests: from the fitted model to the program, and 100,000 rows simulated; each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import make_classification

from fhelearn.ensemble import RandomForestClassifier
from fhelearn.estimators.compiled_forest import build_engine
from fhelearn.frontends.tree import ForestOptions, quantize_forest
from fhelearn.xgboost import XGBClassifier

FEATURES, FITTED_ROWS, SIMULATED_ROWS = 50, 20_000, 100_000

MODELS: dict[str, Callable[[], Any]] = {
    "RandomForestClassifier, 500 x depth 8": lambda: RandomForestClassifier(500, max_depth=8, n_jobs=2, random_state=0),
    "XGBClassifier, 219 x depth 6": lambda: XGBClassifier(n_estimators=219, max_depth=6, n_jobs=2),
}


@dataclass(frozen=True)
class LargeForest:
    """One row of the table; the megabytes are what the process grew by while it made the program."""

    model: str
    conditions: int
    lookups: int
    seconds_to_program: float
    megabytes: float
    seconds_to_simulate: float
    exact: bool


def measure(name: str) -> LargeForest:
    """Fit, read, quantize and lower the forest with decoys, then run the engine on many rows."""
    X, y = make_classification(FITTED_ROWS, FEATURES, n_informative=30, flip_y=0.1, random_state=0)
    model = MODELS[name]().fit(X, y)
    x = model._fhe_adapter.prepare(model, X)
    before = peak()
    start = time.perf_counter()
    forest = model._fhe_adapter.forest(model)
    quantized = quantize_forest(forest, x, ForestOptions())
    program = time.perf_counter() - start
    grown = peak() - before
    engine = build_engine(quantized.native)
    many = np.resize(x, (SIMULATED_ROWS, FEATURES))
    start = time.perf_counter()
    sums = engine.run(many)
    simulated = time.perf_counter() - start
    leaves = forest.apply(x[:200])
    error = np.abs(quantized.decode(sums[:200]) - forest.sums(leaves)).max()
    return LargeForest(
        model=name,
        conditions=quantized.native.encoder.n_conditions,
        lookups=len(quantized.cut.lookups),
        seconds_to_program=program,
        megabytes=grown,
        seconds_to_simulate=simulated,
        exact=bool(error <= quantized.error_bound.max()),
    )


def peak() -> float:
    """Most memory that this process has had, in MB; getrusage would count what its parent had."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1000


def measure_all() -> list[LargeForest]:
    """Every model."""
    rows = []
    for name in MODELS:
        command = [sys.executable, "-m", "benchmarks.large_forests", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(LargeForest(**json.loads(done.stdout.splitlines()[-1])))
    return rows


if __name__ == "__main__":
    print(json.dumps(asdict(measure(sys.argv[1]))))
