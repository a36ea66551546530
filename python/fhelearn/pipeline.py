"""Fitted pipelines, and estimators that have no class of their own here, on encrypted data.

:func:`from_sklearn_model` decides once what is encrypted, by what it is given:

1. A linear model of fhelearn behind steps that are one affine map (scalers, PCA, selection): the steps are multiplied
   into the model's weights. The client encrypts raw features, the server computes one dot product.
2. Another final step that fhelearn has a class for (trees, forests, networks; linear models behind other steps): the
   client runs the steps before it in the clear, by the pipeline's own transformers, and encrypts what they give.
3. Any other model that Hummingbird supports: its ONNX graph. What can run on clear values at the graph's two ends
   stays with the client, an affine rest becomes a linear model, anything else a quantized network. Where there is no
   such graph of all steps (texts, missing values, transformers that Hummingbird does not know), the client runs those
   before the last as in 2.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from fhelearn.estimators.adapters import PlainFeatures
from fhelearn.estimators.base import FHEMixin, float64
from fhelearn.estimators.bits import parse_n_bits
from fhelearn.estimators.build import check_keywords
from fhelearn.estimators.compiled import CompiledLinear, CompileOptions
from fhelearn.estimators.compiled_network import CompiledNetwork, NetworkModel
from fhelearn.estimators.mixin import FHELinearMixin
from fhelearn.estimators.network_mixin import DEFAULT_MARGIN, DEFAULT_ROUNDING, parse_network_bits
from fhelearn.estimators.pipeline_routes import (
    ANSWERS,
    AffineRoute,
    Answer,
    GraphRoute,
    Route,
    StepwiseRoute,
    checked_rows,
)
from fhelearn.exceptions import LoweringError, ModelFormatError
from fhelearn.frontends.linear import LinearMap, quantize_linear
from fhelearn.frontends.onnx import Rounding, Settings, import_linear_or_network, linear_map
from fhelearn.frontends.onnx.settings import BoundsMode
from fhelearn.ir import Program
from fhelearn.quantization.grids import ObserverName
from fhelearn.quantization.uniform import ColumnRange
from fhelearn.typing import FheMode, FloatArray, IntArray

if TYPE_CHECKING:
    import onnx

__all__ = ["EncryptedPipeline", "from_sklearn_model"]

_TRIED_ROWS = 100

_OWN_MODULES = (
    "linear_model, svm, naive_bayes, discriminant_analysis, cross_decomposition, kernel_ridge, tree, ensemble, "
    "neural_network, xgboost, lightgbm"
)


def from_sklearn_model(model: Any, X: Any, *, n_bits: Any = None, **compile_options: Any) -> EncryptedPipeline:
    """Quantize a fitted pipeline or estimator and make its circuit; see the module's text for what is encrypted.

    Parameters
    ----------
    model : fitted Pipeline or estimator
        It is copied, not changed: fitting it again changes no answer of what is returned.
    X : array-like of shape (n, n_features), n >= 1
        Rows like those to come, as the pipeline's first step takes them.
    n_bits : default=None
        As for the fhelearn class of the final step; models without one take what networks take (None: 12 to 16 bits
        for what is one affine map).
    **compile_options
        Keyword arguments of that class's ``compile``, for instance `p_error`; models without one take those of
        ``MLPClassifier.compile``, `rounding_threshold_bits` among them.

    Returns
    -------
    EncryptedPipeline

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If `model` is not fitted.
    TypeError
        If an option is none of the final step's.
    ValueError
        If `X` does not fit the model.
    QuantizationError, LoweringError
        If the model, or the options, cannot be encrypted; says what to change.
    BackendUnavailableError
        An ImportError: models without a class of their own need Hummingbird and ONNX.
    """
    check_is_fitted(model)
    model = copy.deepcopy(model)
    before, last = (model[:-1], model[-1]) if isinstance(model, Pipeline) else (None, model)
    before = before if before is not None and len(before) else None
    own = _own_class(last)
    if own is None:
        return EncryptedPipeline(model, _of_other(model, before, last, X, n_bits, **compile_options))
    if before is None:
        return EncryptedPipeline(
            model, StepwiseRoute(None, own.from_sklearn_model(last, X, n_bits=n_bits, **compile_options))
        )
    affine = _affine_steps(before, X) if _takes_plain_features(own) else None
    if affine is not None:
        return EncryptedPipeline(model, _of_affine(model, X, own, last, affine, n_bits, **compile_options))
    estimator = own.from_sklearn_model(last, before.transform(X), n_bits=n_bits, **compile_options)
    return EncryptedPipeline(model, StepwiseRoute(before, estimator))


class EncryptedPipeline:
    """A fitted model that predicts on encrypted data; :func:`from_sklearn_model` makes it.

    It has those of ``predict``, ``predict_proba``, ``predict_log_proba``, ``decision_function`` and ``transform`` that
    can be computed from what is decrypted. Each takes ``fhe="disable"`` (the model itself), ``"simulate"`` or
    ``"execute"``, and `n_jobs` and `progress` as the estimators do.

    Attributes
    ----------
    model : Pipeline or estimator
        A copy of the one that was given.
    """

    def __init__(self, model: Any, route: Route) -> None:
        self.model = model
        self._route = route

    def _answer(self, method: str, X: Any, fhe: FheMode, n_jobs: int | None, progress: bool | None) -> Any:
        check_keywords(fhe, n_jobs, progress)
        if fhe == "disable":
            return getattr(self.model, method)(X)
        return self._route.answer(method, X, fhe, n_jobs, progress)

    def __repr__(self) -> str:
        steps = [step for _, step in self.model.steps] if isinstance(self.model, Pipeline) else [self.model]
        names = " -> ".join(step if isinstance(step, str) else type(step).__name__ for step in steps)
        return f"EncryptedPipeline({names}; encrypted: {self._route.encrypted}; {', '.join(self._route.methods)})"

    @property
    def classes_(self) -> Any:
        """The model's class labels, in the order of the columns of ``predict_proba``; AttributeError without any."""
        return self.model.classes_

    @property
    def program_(self) -> Program:
        """The integer program."""
        return self._route.compiled.program

    @property
    def fhe_circuit_(self) -> Any:
        """The Concrete circuit: keys, encryption, cost."""
        return self._route.compiled.circuit

    @property
    def onnx_model_(self) -> onnx.ModelProto:
        """The whole model in ONNX, as Hummingbird writes it. Raises LoweringError where that cannot."""
        return self._route.onnx_model(self.model)

    def quantize_input(self, X: Any) -> IntArray:
        """The integers that are encrypted for rows as the model takes them: int64, shaped as the program's input."""
        return self._route.quantize(X)

    def dequantize_output(self, q: IntArray) -> FloatArray:
        """The floats that decrypted integers stand for, before the client's last steps. Shape (n, *outputs)."""
        return self._route.dequantize(q)

    def answer(self, q: Any, method: str = "predict") -> Any:
        """What a method answers for decrypted integers: the client's last step, where it decrypts itself.

        Parameters
        ----------
        q : ndarray of integers, shape (n, *outputs), or tuple of them if the program has several outputs
            As ``fhe_circuit_.decrypt`` returns them.
        method : str, default="predict"
            One of those that the model has: "predict", "predict_proba", "transform", ...

        Returns
        -------
        answer : what the method returns for n rows

        Raises
        ------
        ValueError
            If `q` has another shape, or the model has no such method.
        """
        if method not in self._route.methods:
            raise ValueError(f"method must be one of {', '.join(self._route.methods)}, got {method!r}")
        return self._route.answer_of(method, q)

    def report(self, X: Any = None, y: Any = None) -> Any:
        """What predictions on ciphertexts cost, and how closely they follow the model's.

        Returns
        -------
        LinearReport, or the report of the final step's class, or NetworkReport for models without one
        """
        return self._route.report(self.model, X, y)


def _method(name: str) -> Any:
    def method(
        self: EncryptedPipeline,
        X: Any,
        *,
        fhe: FheMode = "disable",
        n_jobs: int | None = None,
        progress: bool | None = None,
    ) -> Any:
        return self._answer(name, X, fhe, n_jobs, progress)

    method.__name__ = name
    method.__qualname__ = f"EncryptedPipeline.{name}"
    method.__doc__ = f"``{name}`` of the model, in the clear, simulated or on encrypted data."
    return available_if(lambda self: name in self._route.methods)(method)


for _name in ANSWERS:
    setattr(EncryptedPipeline, _name, _method(_name))


# -- making them -------------------------------------------------------------------------------------------------------


def _own_class(estimator: Any) -> type[FHEMixin] | None:
    """The fhelearn class of an estimator, if there is one."""
    if isinstance(estimator, FHEMixin):
        return type(estimator)
    parts = type(estimator).__module__.split(".")
    module = parts[1] if parts[0] == "sklearn" and len(parts) > 1 else parts[0]
    try:
        found = getattr(import_module(f"fhelearn.{module}"), type(estimator).__name__, None)
    except ModuleNotFoundError:
        return None
    ours = isinstance(found, type) and issubclass(found, FHEMixin) and found._fhe_base is type(estimator)
    return found if ours else None


def _takes_plain_features(own: type[FHEMixin]) -> bool:
    """Whether the class multiplies its features as they are by its weights."""
    return issubclass(own, FHELinearMixin) and getattr(type(own._fhe_adapter), "prepare", None) is PlainFeatures.prepare


def _affine_steps(steps: Pipeline, X: Any) -> LinearMap | None:
    """The affine map that fitted transformers are, or None if they are not seen to be one.

    Whether they are is read from their graph, whose weights are float32; the map itself is taken from the transformers,
    in float64: what they give at the middle of the data, and what changes with every feature across its range.
    """
    from fhelearn.onnx import export_sklearn
    from fhelearn.onnx.cleanup import clean

    try:
        x = checked_rows(steps, X)
        if linear_map(clean(export_sklearn(steps, X), cut=False).body) is None:
            return None
    except (LoweringError, ModelFormatError, ImportError, ValueError):
        return None  # the steps run in the clear, and say themselves what is wrong with X

    def given(points: FloatArray) -> Any:
        named = getattr(steps, "feature_names_in_", None) is not None and hasattr(X, "columns")
        return type(X)(points, columns=list(X.columns)) if named else points

    middle, span = x.mean(axis=0), np.ptp(x, axis=0)
    span = np.where(span > 0, span, np.maximum(np.abs(middle), 1.0))
    base, *moved = float64(steps.transform(given(np.concatenate([middle[None], middle + np.diag(span)]))))
    weights = (np.array(moved) - base) / span[:, None]
    # Hummingbird leaves out what its library's release did not know (MinMaxScaler's `clip`), so the map is tried, on
    # the data and far outside of it, to half the digits of float64.
    far = np.concatenate([x[:_TRIED_ROWS], *(middle + times * np.diag(span) for times in (-10.0, 0.3, 10.0))])
    expected = float64(steps.transform(given(far)))
    error = np.abs(base + (far - middle) @ weights - expected).max(initial=0.0)
    if not error <= np.sqrt(np.finfo(np.float64).eps) * max(np.abs(expected).max(initial=0.0), np.abs(base).max()):
        return None
    return LinearMap(weights, base - middle @ weights)


def _of_affine(
    model: Any,
    X: Any,
    own: Any,
    last: Any,
    steps: LinearMap,
    n_bits: Any,
    *,
    p_error: float | None = None,
    global_p_error: float | None = None,
    security_level: int = 128,
    range_margin: float = 0.1,
    on_out_of_range: Literal["warn", "error"] = "warn",
) -> AffineRoute:
    options = CompileOptions(p_error, global_p_error, security_level, on_out_of_range)
    estimator = own._fhe_adopt(last, n_bits)
    after = own._fhe_adapter.linear_map(last)
    whole = LinearMap(steps.weights @ after.weights, steps.intercept @ after.weights + after.intercept)
    quantized = quantize_linear(
        whole, ColumnRange.of(checked_rows(model, X), margin=range_margin), parse_n_bits(estimator.n_bits)
    )
    names = getattr(model, "feature_names_in_", None)
    names = [f"feature {j}" for j in range(len(steps.weights))] if names is None else list(names)
    compiled = CompiledLinear(quantized, options, estimator.n_bits, (), names)
    compiled.prepare_circuit()
    return AffineRoute(model, estimator, compiled)


def _of_other(model: Any, before: Any, last: Any, X: Any, n_bits: Any, **compile_options: Any) -> GraphRoute:
    """All steps in one graph where that is possible, else the last alone."""
    try:
        return _of_graph(model, None, X, n_bits, **compile_options)
    except ValueError:  # of Hummingbird, the encrypted part or features that are no finite numbers
        if before is None:
            raise
        return _of_graph(last, before, before.transform(X), n_bits, **compile_options)


def _of_graph(
    model: Any,
    before: Any,
    X: Any,
    n_bits: Any,
    *,
    p_error: float | None = None,
    global_p_error: float | None = None,
    security_level: int = 128,
    rounding_threshold_bits: int | Mapping[str, Any] | None = DEFAULT_ROUNDING,
    bounds: BoundsMode = "calibrated",
    margin: float = DEFAULT_MARGIN,
    observer: ObserverName = "minmax",
    range_margin: float = 0.1,
    on_out_of_range: Literal["warn", "error"] = "warn",
) -> GraphRoute:
    options = CompileOptions(p_error, global_p_error, security_level, on_out_of_range)
    bits, linear_bits = parse_network_bits(n_bits)
    settings = Settings(bits, Rounding.of(rounding_threshold_bits), bounds, margin, observer, range_margin=range_margin)
    quantize = partial(import_linear_or_network, bits=linear_bits)
    x = checked_rows(model, X)
    example = X if hasattr(X, "columns") else x  # the model may choose columns by name
    graph = _exported(model, example)
    compiled = CompiledNetwork(NetworkModel.of(graph, [x], settings, quantize=quantize), options, n_bits)
    if len(compiled.program.inputs) != 1:
        raise LoweringError(
            f"{type(model).__name__}: what is left to encrypt of its graph has {len(compiled.program.inputs)} inputs, "
            "at most 1 is possible here; use fhelearn.torch.compile_onnx_model"
        )
    compiled.prepare_circuit()
    answers = _answers(model, [output.name for output in graph.graph.output], example[:1])
    return GraphRoute(model, before, compiled, answers)


def _exported(model: Any, example: Any) -> onnx.ModelProto:
    """The graph of a model that fhelearn has no class for."""
    from fhelearn.onnx import export_sklearn

    try:
        return export_sklearn(model, example)
    except LoweringError as error:
        name = type(model[-1] if isinstance(model, Pipeline) else model).__name__
        reason = str(error).partition("; where fhelearn has a class")[0]
        raise LoweringError(
            f"{name} cannot be encrypted: fhelearn has no class for it, and it has no graph ({reason}); supported are "
            f"the estimators of fhelearn.{_OWN_MODULES}, and what Hummingbird converts: clusterings, decompositions "
            "and AdaBoost, among others"
        ) from error


def _answers(model: Any, outputs: Sequence[str], row: Any) -> dict[str, Answer]:
    """How the model's methods follow from its graph's outputs (see `export_sklearn`), as they answer one `row`."""
    methods: dict[str, Answer] = {}
    if "label" in outputs:
        label, scores = outputs.index("label"), outputs.index("scores")
        methods["predict"] = partial(_labels, model, label)
        kind = "predict_proba" if hasattr(model, "predict_proba") else "decision_function"
        methods[kind] = partial(_shaped, scores, getattr(model, kind)(row))
        return methods
    kind = "predict" if hasattr(model, "predict") else "transform"
    return {kind: partial(_shaped, 0, getattr(model, kind)(row))}


def _labels(model: Any, index: int, outputs: Sequence[Any]) -> Any:
    found = np.asarray(outputs[index]).ravel()
    return model.classes_[found.astype(np.int64)] if hasattr(model, "classes_") else found


def _shaped(index: int, example: Any, outputs: Sequence[Any]) -> Any:
    """An output in the shape and type of the model's own answer."""
    values = np.asarray(outputs[index])
    like = np.asarray(example.toarray() if hasattr(example, "toarray") else example)
    values = values.reshape(len(values), *like.shape[1:])
    return np.rint(values).astype(like.dtype) if like.dtype.kind in "iu" else values.astype(like.dtype, copy=False)
