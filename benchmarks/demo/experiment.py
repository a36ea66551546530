"""Train a model, predict its test rows three ways, and keep what a reader wants to see: answers, times, sizes, cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from sklearn.base import is_classifier
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split

from fhelearn.backends.native import NativeEngine
from fhelearn.estimators import LinearReport

Answer = TypeVar("Answer")


class Stopwatch:
    """Wall-clock seconds of named stages, in the order they ran."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def measure(self, stage: str, function: Callable[..., Answer], *arguments: Any, **keywords: Any) -> Answer:
        """Call a function and note how long it took."""
        start = time.perf_counter()
        answer = function(*arguments, **keywords)
        self.seconds[stage] = time.perf_counter() - start
        return answer


@dataclass(frozen=True)
class Experiment:
    """What one model did.

    Attributes
    ----------
    truth, clear, simulated, decrypted : ndarray, shape (n_rows,)
        The test rows' labels or targets, and three predictions of them: scikit-learn's floats, the C++ engine's, and
        decrypted ones.
    clear_scores, decrypted_scores : ndarray of float64, shape (n_rows,)
        Before the decision: what a classifier compares with 0, or a regressor's prediction itself.
    report : LinearReport
        What the model itself says it will cost; `clipped` counts test values outside the range kept at compile.
    integers_equal : bool
        Whether every decrypted integer equals the simulated one.
    seconds : dict of str to float
        Per stage, over all test rows where rows are involved.
    """

    title: str
    data: str
    model: Any
    train_rows: int
    features: int
    truth: Any
    clear: Any
    simulated: Any
    decrypted: Any
    clear_scores: Any
    decrypted_scores: Any
    report: LinearReport
    integers_equal: bool
    seconds: dict[str, float]

    @property
    def rows(self) -> int:
        """Number of encrypted rows."""
        return len(self.truth)

    @property
    def is_classifier(self) -> bool:
        """Whether predictions are labels."""
        return bool(is_classifier(self.model))

    @property
    def metric_name(self) -> str:
        """What `metric` computes."""
        return "accuracy" if self.is_classifier else "R2"

    def metric(self, prediction: Any) -> float:
        """Accuracy of labels, R2 of targets, against the truth."""
        return float((accuracy_score if self.is_classifier else r2_score)(self.truth, prediction))

    def agreement(self, prediction: Any) -> str:
        """Say how a prediction differs from the float one."""
        if self.is_classifier:
            return f"{int(np.sum(prediction == self.clear))} of {self.rows} labels equal"
        return f"within {np.abs(prediction - self.clear).max() / np.ptp(self.truth):.1e} of the range"

    @property
    def decrypted_equals_simulated(self) -> bool:
        """The promise: integers and predictions are the same, bit for bit."""
        return self.integers_equal and bool(np.array_equal(self.decrypted, self.simulated))


def scores(model: Any, X: Any, **how: Any) -> Any:
    """Values before the decision, shape (n_rows,)."""
    return model.decision_function(X, **how) if is_classifier(model) else model.predict(X, **how)


def run(title: str, data: str, model: Any, X: Any, y: Any) -> Experiment:
    """Train on three quarters of the rows, then predict the rest in the clear, simulated, and encrypted."""
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    watch = Stopwatch()
    watch.measure("train", model.fit, X_train, y_train)
    # Test rows may lie beyond the training rows: half a range on either side costs one bit of resolution.
    watch.measure("compile", model.compile, X_train, range_margin=0.5)
    circuit = model.fhe_circuit_
    watch.measure("make keys", circuit.keygen)
    clear = watch.measure("predict in the clear", model.predict, X_test)
    simulated = watch.measure("simulate", model.predict, X_test, fhe="simulate")
    encoded = watch.measure("quantize", model.quantize_input, X_test)
    ciphertexts = watch.measure("encrypt", circuit.encrypt, [encoded])
    answers = watch.measure("run encrypted", circuit.run, ciphertexts)
    (integers,) = watch.measure("decrypt", circuit.decrypt, answers)
    (expected,) = NativeEngine(model.program_).run([encoded])
    return Experiment(
        title=title,
        data=data,
        model=model,
        train_rows=len(X_train),
        features=X.shape[1],
        truth=y_test,
        clear=clear,
        simulated=simulated,
        decrypted=model.predict(X_test, fhe="execute"),
        clear_scores=scores(model, X_test),
        decrypted_scores=scores(model, X_test, fhe="execute"),
        report=model.report(X_test, y_test),
        integers_equal=bool(np.array_equal(integers, expected)),
        seconds=watch.seconds,
    )
