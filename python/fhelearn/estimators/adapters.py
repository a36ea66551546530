# mypy: disallow-subclassing-any=False
"""How a fitted scikit-learn estimator is read as a linear map, and how its scores become its answers again.

No answer is computed here: an adapter makes a *view* of the estimator, a shallow copy whose own linear map is the
identity, and the view's own methods (scikit-learn's code) turn scores into labels, probabilities or means. So ties,
link functions, string labels and multilabel outputs are scikit-learn's, in every release.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from scipy.sparse import issparse

from fhelearn.exceptions import LoweringError
from fhelearn.frontends.linear import LinearMap
from fhelearn.quantization import ColumnRange
from fhelearn.typing import FloatArray


class Adapter(Protocol):
    """Reads one family of estimators."""

    def linear_map(self, estimator: Any) -> LinearMap:
        """The map from features (after :meth:`prepare`) to scores. Raises LoweringError if there is none."""
        ...

    def fitted(self, estimator: Any) -> tuple[Any, ...]:
        """Small arrays and parameters that tell whether the linear map or `prepare` changed since `compile`.

        They are read, never computed: the same pickle must look unchanged on another machine. What the view reads
        itself (links, labels, offsets, the loss of SGDClassifier) is left out: its answers follow such changes.
        """
        ...

    def prepare(self, estimator: Any, x: FloatArray) -> FloatArray:
        """What the client does to validated features in the clear, before it encodes them."""
        ...

    def columns(self, estimator: Any, x: FloatArray, margin: float) -> ColumnRange:
        """The range that the encoder of prepared features must cover, given those of `compile`."""
        ...

    def view(self, estimator: Any, n_scores: int) -> Any:
        """A copy of `estimator` whose methods take scores, shape (n, n_scores), in place of features."""
        ...


def shallow_view(estimator: Any, n_features: int) -> Any:
    """A copy that shares every attribute with `estimator` but takes `n_features` unnamed features.

    It is of scikit-learn's class, so that what a subclass overrides is not applied to scores as if they were features.
    It is made without calling any constructor, because those of scikit-learn's deprecated classes warn.
    """
    view = object.__new__(getattr(estimator, "_fhe_base", None) or type(estimator))
    view.__dict__.update(estimator.__dict__)
    for name in ("feature_names_in_", "_fhe_compiled", "_fhe_known"):
        view.__dict__.pop(name, None)
    view.n_features_in_ = n_features
    return view


def overridden(estimator: Any, methods: Iterable[str]) -> list[str]:
    """Those of `methods` that a subclass of the class that mixes FHEMixin in defines itself."""
    ours = next((cls for cls in type(estimator).__mro__ if cls.__dict__.get("_fhe_base") is not None), type(estimator))
    absent = object()
    return [
        name
        for name in methods
        if inspect.getattr_static(type(estimator), name, absent) is not inspect.getattr_static(ours, name, absent)
    ]


def _digest(values: Any) -> str:
    """A fingerprint of an array, which may be sparse and as large as the training data."""
    parts = (values.data, values.indices, values.indptr) if issparse(values) else (values,)
    digest = hashlib.sha256(repr(np.shape(values)).encode())
    for part in parts:
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _dense(values: Any) -> FloatArray:
    return np.asarray(values.toarray() if issparse(values) else values, dtype=np.float64)


class PlainFeatures:
    """Features are encoded as they are, for the range seen at `compile`."""

    def prepare(self, estimator: Any, x: FloatArray) -> FloatArray:
        """Nothing."""
        return x

    def columns(self, estimator: Any, x: FloatArray, margin: float) -> ColumnRange:
        """The range of `x`, widened by `margin`."""
        return ColumnRange.of(x, margin=margin)


class CoefAdapter(PlainFeatures):
    """``x @ coef_.T + intercept_``: almost every linear model."""

    def fitted(self, estimator: Any) -> tuple[Any, ...]:
        """``coef_`` and ``intercept_``."""
        return estimator.coef_, estimator.intercept_

    def linear_map(self, estimator: Any) -> LinearMap:
        """Read ``coef_`` and ``intercept_``."""
        weights = np.atleast_2d(_dense(estimator.coef_)).T
        return LinearMap(weights, np.broadcast_to(_dense(estimator.intercept_).ravel(), weights.shape[1:]))

    def view(self, estimator: Any, n_scores: int) -> Any:
        """Set ``coef_`` to the identity and ``intercept_`` to zero, in the shapes the estimator uses."""
        view = shallow_view(estimator, n_scores)
        view.coef_ = np.eye(n_scores) if np.ndim(estimator.coef_) == 2 else np.ones(n_scores)
        view.intercept_ = np.zeros(np.shape(estimator.intercept_))
        return view


class OneClassAdapter(CoefAdapter):
    """SGDOneClassSVM: scores are ``x @ coef_``; the view keeps ``offset_`` and subtracts it itself."""

    def fitted(self, estimator: Any) -> tuple[Any, ...]:
        """``coef_`` (``offset_`` is never compiled)."""
        return (estimator.coef_,)

    def linear_map(self, estimator: Any) -> LinearMap:
        """Read ``coef_``."""
        weights = np.atleast_2d(_dense(estimator.coef_)).T
        return LinearMap(weights, np.zeros(weights.shape[1]))

    def view(self, estimator: Any, n_scores: int) -> Any:
        """Set ``coef_`` to the identity."""
        view = shallow_view(estimator, n_scores)
        view.coef_ = np.eye(n_scores)
        return view


class CenteredAdapter(CoefAdapter):
    """Partial least squares: ``(x - mean) @ coef_.T + intercept_``."""

    def fitted(self, estimator: Any) -> tuple[Any, ...]:
        """``coef_``, ``intercept_`` and the mean."""
        return estimator.coef_, estimator.intercept_, estimator._x_mean

    def linear_map(self, estimator: Any) -> LinearMap:
        """Fold the mean into the intercept."""
        weights = np.atleast_2d(_dense(estimator.coef_)).T
        return LinearMap(weights, _dense(estimator.intercept_) - estimator._x_mean @ weights)

    def view(self, estimator: Any, n_scores: int) -> Any:
        """As for any linear model, with a mean of zero."""
        view = super().view(estimator, n_scores)
        view._x_mean = np.zeros(n_scores)
        return view


class NestedAdapter(CoefAdapter):
    """RANSACRegressor: answers with ``estimator_``, which must be one of scikit-learn's linear models."""

    def _inner(self, estimator: Any) -> Adapter:
        inner = estimator.estimator_
        adapter = getattr(inner, "_fhe_adapter", None)
        if adapter is not None and overridden(inner, ("predict", "score")):
            raise LoweringError(
                f"{type(estimator).__name__}: its estimator {type(inner).__name__} overrides predict or score, which "
                f"would get scores in place of features; override those of {type(estimator).__name__} instead"
            )
        if adapter is None and type(inner).__module__.startswith("sklearn.linear_model.") and hasattr(inner, "coef_"):
            adapter = CoefAdapter()
        if adapter is None:
            raise LoweringError(
                f"{type(estimator).__name__}: its estimator {type(inner).__name__} does not predict through one dot "
                "product; choose a model of sklearn.linear_model"
            )
        return adapter  # type: ignore[no-any-return]

    def fitted(self, estimator: Any) -> tuple[Any, ...]:
        """Those of ``estimator_``."""
        return self._inner(estimator).fitted(estimator.estimator_)

    def linear_map(self, estimator: Any) -> LinearMap:
        """That of ``estimator_``."""
        return self._inner(estimator).linear_map(estimator.estimator_)

    def view(self, estimator: Any, n_scores: int) -> Any:
        """A view whose ``estimator_`` is a view."""
        view = shallow_view(estimator, n_scores)
        view.estimator_ = self._inner(estimator).view(estimator.estimator_, n_scores)
        return view


class NaiveBayesAdapter(PlainFeatures):
    """Discrete naive Bayes: the joint log likelihood is linear in the counts."""

    def fitted(self, estimator: Any) -> tuple[Any, ...]:
        """``feature_log_prob_`` and ``class_log_prior_``."""
        return estimator.feature_log_prob_, estimator.class_log_prior_

    def linear_map(self, estimator: Any) -> LinearMap:
        """Read ``feature_log_prob_`` and the class prior, as ``_joint_log_likelihood`` combines them.

        The intercept is the likelihood of a row of zeros, which scikit-learn's own method computes.
        """
        n_features = estimator.feature_log_prob_.shape[1]
        intercept = estimator._joint_log_likelihood(np.zeros((1, n_features)))[0]
        return LinearMap(self._weights(estimator), intercept)

    def _weights(self, estimator: Any) -> FloatArray:
        return _dense(estimator.feature_log_prob_).T

    def view(self, estimator: Any, n_scores: int) -> Any:
        """A view that takes scores for the joint log likelihood."""
        view = shallow_view(estimator, n_scores)
        view._check_X = _identity
        view._joint_log_likelihood = _identity
        return view


class BernoulliAdapter(NaiveBayesAdapter):
    """BernoulliNB: the client binarizes in the clear."""

    def fitted(self, estimator: Any) -> tuple[Any, ...]:
        """Also ``binarize``, on which the encoder's range depends."""
        return *super().fitted(estimator), estimator.binarize

    def _weights(self, estimator: Any) -> FloatArray:
        log_probability = _dense(estimator.feature_log_prob_)
        weights: FloatArray = (log_probability - np.log1p(-np.exp(log_probability))).T
        return weights

    def prepare(self, estimator: Any, x: FloatArray) -> FloatArray:
        """1 where a feature exceeds ``binarize``, else 0."""
        return x if estimator.binarize is None else (x > estimator.binarize).astype(np.float64)

    def columns(self, estimator: Any, x: FloatArray, margin: float) -> ColumnRange:
        """[0, 1] once binarized, even for features that are constant in `x`."""
        columns = ColumnRange.of(x, margin=margin)
        if estimator.binarize is None:
            return columns
        return replace(columns, low=np.zeros_like(columns.low), high=np.ones_like(columns.high))


class KernelRidgeAdapter(PlainFeatures):
    """KernelRidge with the linear kernel: ``x @ (X_fit_.T @ dual_coef_)``."""

    def fitted(self, estimator: Any) -> tuple[Any, ...]:
        """``dual_coef_``, the data it was fitted on, and the kernel."""
        return estimator.dual_coef_, _digest(estimator.X_fit_), estimator.kernel

    def linear_map(self, estimator: Any) -> LinearMap:
        """Multiply the training data by the dual coefficients.

        In extended precision, whose product does not depend on the machine's BLAS: equal models give equal programs.
        """
        _require_linear_kernel(estimator)
        dual = _dense(estimator.dual_coef_).reshape(len(estimator.dual_coef_), -1).astype(np.longdouble)
        weights = (_dense(estimator.X_fit_).T.astype(np.longdouble) @ dual).astype(np.float64)
        return LinearMap(weights, np.zeros(weights.shape[1]))

    def view(self, estimator: Any, n_scores: int) -> Any:
        """A view fitted on unit vectors."""
        view = shallow_view(estimator, n_scores)
        view.X_fit_ = np.eye(n_scores)
        view.dual_coef_ = np.eye(n_scores) if np.ndim(estimator.dual_coef_) == 2 else np.ones(n_scores)
        return view


class LibsvmAdapter(PlainFeatures):
    """Support vector machines of libsvm with the linear kernel.

    A score is the decision value of one pair of classes (of the only one for regression and outliers), as libsvm counts
    it. The view has one support vector per pair, a unit vector that belongs to the pair's first class, so libsvm's own
    voting, Platt scaling and pairwise coupling run on the scores.
    """

    def fitted(self, estimator: Any) -> tuple[Any, ...]:
        """Dual coefficients, support vectors and intercepts as libsvm predicts with them, and the kernel."""
        return estimator._dual_coef_, estimator._intercept_, _digest(estimator.support_vectors_), estimator.kernel

    def linear_map(self, estimator: Any) -> LinearMap:
        """Let scikit-learn compute ``coef_`` from what libsvm predicts with.

        The public attributes differ from that: scikit-learn flips their sign for two classes.
        """
        _require_linear_kernel(estimator)
        native = shallow_view(estimator, estimator.n_features_in_)
        native.dual_coef_ = estimator._dual_coef_
        return LinearMap(_dense(native.coef_).T, _dense(estimator._intercept_))

    def view(self, estimator: Any, n_scores: int) -> Any:
        """A view whose support vectors are unit vectors."""
        view = shallow_view(estimator, n_scores)
        n_classes = len(getattr(estimator, "classes_", (0, 1)))
        pairs = [(first, second) for first in range(n_classes) for second in range(first + 1, n_classes)]
        dual = np.zeros((n_classes - 1, n_scores))
        for column, (_, second) in enumerate(pairs):
            dual[second - 1, column] = 1.0
        view._sparse = False
        view.support_ = np.arange(n_scores, dtype=np.int32)
        view.support_vectors_ = np.eye(n_scores)
        view._n_support = np.arange(n_classes - 1, -1, -1, dtype=np.int32)
        view._dual_coef_ = view.dual_coef_ = dual
        view._intercept_ = np.zeros(n_scores)
        view.shape_fit_ = (n_scores, n_scores)
        return view


def _identity(scores: FloatArray) -> FloatArray:
    return scores


def _require_linear_kernel(estimator: Any) -> None:
    kernel: str | Callable[..., Any] = estimator.kernel
    if kernel != "linear":
        raise LoweringError(
            f"{type(estimator).__name__}: kernel must be 'linear', got {kernel!r}; other kernels compare each row with "
            "every support vector, which is no dot product. Fit with kernel='linear'"
        )
