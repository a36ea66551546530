"""What a compiled model costs and how closely it follows the float model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

import numpy as np
from sklearn.base import is_classifier, is_regressor

from fhelearn.estimators.compiled import CompiledLinear, CompiledModel
from fhelearn.ir import cost
from fhelearn.typing import FloatArray


@dataclass(frozen=True, kw_only=True)
class ModelReport:
    """Cost and accuracy of a compiled estimator; ``print`` it for a table.

    Figures that need data are None when `report` was called without it, those that need concrete-python are None where
    that is not installed.

    Attributes
    ----------
    estimator : str
        Class name.
    n_features, n_scores : int
        Of the model.
    lookups : int
        Table lookups per row.
    label_agreement : float or None
        Share of rows, 0 to 1, on which the quantized model gives the float model's label (classifiers and outlier
        detectors).
    max_error : float or None
        Largest absolute difference between quantized and float predictions, divided by the range of its target (of the
        float predictions if `y` is not given). Regressors only.
    metric : str or None
        What the next two figures are: the ``score`` of the class. None for a subclass that overrides it.
    metric_float, metric_quantized : float or None
        The score of both models on ``(X, y)``.
    complexity : float or None
        The optimizer's price of a row, in elementary operations. None without lookups, where it says nothing.
    p_error, global_p_error : float or None
        Probability that a lookup fails, or that any does; None: the default was used.
    evaluation_key_bytes, secret_key_bytes, input_bytes_per_row, output_bytes_per_row : int or None
        Sizes of keys in memory (they travel compressed, in about a third) and of ciphertexts.
    seconds_per_row : float or None
        Estimate for this machine, from a short measurement; from the model's own runs once there were some.
    """

    estimator: str
    n_features: int
    n_scores: int
    lookups: int
    label_agreement: float | None = None
    max_error: float | None = None
    metric: str | None = None
    metric_float: float | None = None
    metric_quantized: float | None = None
    complexity: float | None = None
    p_error: float | None = None
    global_p_error: float | None = None
    evaluation_key_bytes: int | None = None
    secret_key_bytes: int | None = None
    input_bytes_per_row: int | None = None
    output_bytes_per_row: int | None = None
    seconds_per_row: float | None = None

    def __str__(self) -> str:
        # what is always known first, then what was measured
        ordered = sorted(fields(self), key=lambda field: field.default is not MISSING)
        return table([(field.name, getattr(self, field.name)) for field in ordered])


@dataclass(frozen=True, kw_only=True)
class LinearReport(ModelReport):
    """Cost and accuracy of a compiled linear model.

    Attributes
    ----------
    input_bits, weight_bits, accumulator_bits : int
        Widths in two's complement; the accumulator's is proved, so no input can overflow it.
    clipped : int or None
        Values of `X` outside the range seen at compile.
    """

    input_bits: int
    weight_bits: int
    accumulator_bits: int
    clipped: int | None = None


def table(rows: Sequence[tuple[str, Any]]) -> str:
    """Names and values in two columns; values that are None are left out."""
    shown = [
        (name.replace("_", " "), f"{value:.6g}" if isinstance(value, float) else str(value))
        for name, value in rows
        if value is not None
    ]
    width = max(len(name) for name, _ in shown)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in shown)


def cost_figures(compiled: CompiledLinear) -> dict[str, Any]:
    """The report's fields on widths, lookups, sizes and time."""
    quantized = compiled.quantized
    return {
        "n_features": quantized.encoder.n_features,
        "n_scores": quantized.decoder.n_outputs,
        "lookups": cost(compiled.program).total_lookups,
        "input_bits": quantized.bits.inputs,
        "weight_bits": quantized.bits.weights,
        "accumulator_bits": quantized.accumulator_bits,
        **circuit_figures(compiled),
    }


def circuit_figures(compiled: CompiledModel) -> dict[str, Any]:
    """Fields on the encrypted circuit; those that were not asked for are left out where Concrete is not installed."""
    from fhelearn.backends.concrete import is_available

    figures: dict[str, Any] = {
        "p_error": compiled.options.p_error,
        "global_p_error": compiled.options.global_p_error,
    }
    if is_available():
        price = compiled.circuit.cost
        figures |= {
            "complexity": price.complexity if price.num_lookups else None,
            "p_error": price.p_error,
            "global_p_error": price.global_p_error,
            "evaluation_key_bytes": price.evaluation_key_bytes,
            "secret_key_bytes": price.secret_key_bytes,
            "input_bytes_per_row": price.input_bytes_per_row,
            "output_bytes_per_row": price.output_bytes_per_row,
            "seconds_per_row": compiled.circuit.estimate_seconds(),
        }
    return figures


def accuracy_figures(estimator: Any, X: Any, y: Any, answered: Any, view: Any, scores: FloatArray) -> dict[str, Any]:
    """The report's fields on agreement and score.

    `answered` is what the quantized model predicts for `X`; `view` takes `scores` where `estimator` takes `X`, and is
    None if the class has a score of its own, which nothing says how to compute from scores.
    """
    expected, answered = np.asarray(estimator.predict(X)), np.asarray(answered)
    figures: dict[str, Any] = {}
    if is_regressor(estimator):
        span = np.ptp(expected if y is None else np.asarray(y, dtype=np.float64), axis=0)
        error = np.abs(answered - expected).max(axis=0)
        figures["max_error"] = float(np.max(error / np.where(span > 0, span, 1.0)))
    else:
        same = answered == expected
        figures["label_agreement"] = float(np.mean(same.all(axis=1) if same.ndim == 2 else same))
    if y is not None and view is not None and hasattr(estimator, "score"):
        figures["metric"] = "accuracy" if is_classifier(estimator) else "score"
        figures["metric_float"] = float(estimator.score(X, y))
        figures["metric_quantized"] = float(view.score(scores, y))
    return figures
