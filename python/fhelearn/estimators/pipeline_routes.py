"""The three ways in which a pipeline is encrypted; see :mod:`fhelearn.pipeline`."""
# ruff: noqa: D102 (overrides do what `Route` says)

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import validate_data

from fhelearn.estimators.base import float64
from fhelearn.estimators.compiled import CompiledLinear, CompiledModel
from fhelearn.estimators.compiled_network import CompiledNetwork
from fhelearn.estimators.module_inputs import counted
from fhelearn.estimators.network_report import network_report
from fhelearn.estimators.out_of_range import report_clipped
from fhelearn.estimators.report import LinearReport, accuracy_figures, cost_figures
from fhelearn.typing import FloatArray, IntArray

if TYPE_CHECKING:
    import onnx

ANSWERS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "transform")

Answer = Callable[[Sequence[Any]], Any]
"""From the graph's outputs to the answer of a method."""


def checked_rows(model: Any, X: Any) -> FloatArray:
    """`X` as the model's first step would check it, float64, dense, shape (n, n_features)."""
    return float64(validate_data(model, X, reset=False, accept_sparse="csr", dtype="numeric", order="C"))


class Route(ABC):
    """What is encrypted, and how answers follow from it.

    Attributes
    ----------
    compiled : CompiledModel
    methods : tuple of str
        Those that can be answered.
    encrypted : str
        What is, in words.
    """

    encrypted: str
    compiled: CompiledModel
    methods: tuple[str, ...]

    @abstractmethod
    def answer(self, method: str, X: Any, fhe: str, n_jobs: int | None, progress: bool | None) -> Any:
        """The answer of `method` for rows, simulated or encrypted."""

    @abstractmethod
    def answer_of(self, method: str, q: Any) -> Any:
        """The answer of `method` for decrypted integers."""

    @abstractmethod
    def quantize(self, X: Any) -> IntArray:
        """The program's input for rows as the model takes them."""

    @abstractmethod
    def dequantize(self, q: IntArray) -> FloatArray:
        """The floats that decrypted integers stand for."""

    @abstractmethod
    def report(self, model: Any, X: Any, y: Any) -> Any:
        """Cost, and accuracy on rows with labels or targets."""

    def onnx_model(self, model: Any) -> onnx.ModelProto:
        """The whole model in ONNX."""
        from fhelearn.onnx import export_sklearn

        row, names = np.zeros((1, model.n_features_in_)), getattr(model, "feature_names_in_", None)
        if names is None or find_spec("pandas") is None:
            return export_sklearn(model, row)
        return export_sklearn(model, import_module("pandas").DataFrame(row, columns=names))


class StepwiseRoute(Route):
    """The steps before the last in the clear, then the last."""

    def __init__(self, before: Any, estimator: Any) -> None:
        self.before, self.estimator = before, estimator
        self.methods = tuple(name for name in ANSWERS if name != "transform" and hasattr(estimator, name))

    @property
    def compiled(self) -> CompiledModel:  # type: ignore[override]
        return self.estimator._fhe_state()  # type: ignore[no-any-return]

    @property
    def encrypted(self) -> str:  # type: ignore[override]
        before = "" if self.before is None else f", after {counted(len(self.before), 'step')} in the clear"
        return f"{type(self.estimator).__name__}{before}"

    def answer_of(self, method: str, q: Any) -> Any:
        return self.estimator.answer(q, method)

    def prepared(self, X: Any) -> Any:
        return X if self.before is None else self.before.transform(X)

    def answer(self, method: str, X: Any, fhe: str, n_jobs: int | None, progress: bool | None) -> Any:
        return getattr(self.estimator, method)(self.prepared(X), fhe=fhe, n_jobs=n_jobs, progress=progress)

    def quantize(self, X: Any) -> IntArray:
        return self.estimator.quantize_input(self.prepared(X))  # type: ignore[no-any-return]

    def dequantize(self, q: IntArray) -> FloatArray:
        return self.estimator.dequantize_output(q)  # type: ignore[no-any-return]

    def report(self, model: Any, X: Any, y: Any) -> Any:
        return self.estimator.report(None if X is None else self.prepared(X), y)


class AffineRoute(Route):
    """One dot product of raw features; `estimator` turns its scores into answers."""

    encrypted = "one dot product of the features as they are given"
    compiled: CompiledLinear

    def __init__(self, model: Any, estimator: Any, compiled: CompiledLinear) -> None:
        self.model, self.estimator, self.compiled = model, estimator, compiled
        self.methods = tuple(name for name in ANSWERS if name != "transform" and hasattr(estimator, name))

    def answer_of(self, method: str, q: Any) -> Any:
        return self.estimator._fhe_from_scores(method, self.dequantize(q))

    def scores(self, X: Any, fhe: str, n_jobs: int | None = None, progress: bool | None = None) -> FloatArray:
        q = self.compiled.encode(checked_rows(self.model, X), stacklevel=5)
        if fhe == "simulate":
            return self.compiled.decode(self.compiled.simulate(q, n_jobs=n_jobs))
        return self.compiled.decode(self.compiled.execute(q, n_jobs=n_jobs, progress=progress))

    def answer(self, method: str, X: Any, fhe: str, n_jobs: int | None, progress: bool | None) -> Any:
        return self.estimator._fhe_from_scores(method, self.scores(X, fhe, n_jobs, progress))

    def quantize(self, X: Any) -> IntArray:
        return self.compiled.encode(checked_rows(self.model, X), stacklevel=3)

    def dequantize(self, q: IntArray) -> FloatArray:
        return self.compiled.decode(q)

    def report(self, model: Any, X: Any, y: Any) -> LinearReport:
        figures = cost_figures(self.compiled)
        if X is not None:
            _, below, above = self.compiled.quantized.encoder.quantize_counting(checked_rows(self.model, X))
            scores = self.scores(X, "simulate")
            view = self.estimator._fhe_adapter.view(self.estimator, scores.shape[1])
            figures |= accuracy_figures(model, X, y, view.predict(scores), view, scores)
            figures["clipped"] = int(below.sum() + above.sum())
        return LinearReport(estimator=type(self.estimator).__name__, **figures)


class GraphRoute(Route):
    """The steps `before` in the clear if there are any, then the ONNX graph of `model`."""

    encrypted = "the ONNX graph"
    compiled: CompiledNetwork

    def __init__(self, model: Any, before: Any, compiled: CompiledNetwork, answered: Mapping[str, Answer]) -> None:
        self.model, self.before, self.compiled, self.answered = model, before, compiled, answered
        self.methods = tuple(answered)

    def prepared(self, X: Any) -> FloatArray:
        return checked_rows(self.model, X if self.before is None else self.before.transform(X))

    def answer(self, method: str, X: Any, fhe: str, n_jobs: int | None, progress: bool | None) -> Any:
        q = [self.encoded(X, 5)]
        if fhe == "simulate":
            integers = self.compiled.simulate(q, n_jobs=n_jobs)
        else:
            integers = self.compiled.run_encrypted(q, n_jobs=n_jobs, progress=progress)
        return self.answered[method](self.compiled.decode(integers))

    def answer_of(self, method: str, q: Any) -> Any:
        program = self.compiled.program
        shapes = [program.nodes[i].value.shape for i in program.outputs]
        given = [np.asarray(array) for array in (q if isinstance(q, tuple) else (q,))]
        if [array.shape[1:] for array in given] != shapes:
            expected = " and ".join(f"({', '.join(map(str, ('n', *shape)))})" for shape in shapes)
            raise ValueError(f"q must have shape {expected}, got {' and '.join(str(array.shape) for array in given)}")
        return self.answered[method](self.compiled.decode(given))

    def encoded(self, X: Any, stacklevel: int) -> IntArray:
        encoder = self.compiled.network.quantized.encoders[0]
        (rows,) = self.compiled.network.preprocess([self.prepared(X)])
        q, below, above = encoder.columns.quantize_counting(rows.reshape(len(rows), -1))
        if (below + above).any():
            names = [f"feature {j}" for j in range(encoder.columns.n_features)]
            report_clipped(encoder.columns, names, below, above, len(rows), self.compiled.options, stacklevel)
        return q.reshape(len(q), *encoder.shape)

    def quantize(self, X: Any) -> IntArray:
        return self.encoded(X, 4)

    def dequantize(self, q: IntArray) -> FloatArray:
        return self.compiled.network.quantized.dequantize([q])[0]

    def report(self, model: Any, X: Any, y: Any) -> Any:
        return network_report(self.compiled, None if X is None else [self.prepared(X)])

    def onnx_model(self, model: Any) -> onnx.ModelProto:
        return self.compiled.network.model if self.before is None else super().onnx_model(model)
