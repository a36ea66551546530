# mypy: disallow-subclassing-any=False
"""How a fitted scikit-learn estimator is read as a linear map, and how its scores become its answers again.

No answer is computed here: an adapter makes a *view* of the estimator, a shallow copy whose own linear map is the
identity, and the view's own methods (scikit-learn's code) turn scores into labels, probabilities or means. So ties,
link functions, string labels and multilabel outputs are scikit-learn's, in every release.
"""

from __future__ import annotations

from collections.abc import Callable
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
        """Small fitted arrays that tell whether the model changed since it was compiled.

        They are read, never computed: the same pickle must look unchanged on another machine.
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

    It is made without calling any constructor, because those of scikit-learn's deprecated classes warn.
    """
    view = object.__new__(type(estimator))
    view.__dict__.update(estimator.__dict__)
    view.__dict__.pop("feature_names_in_", None)
    view.__dict__.pop("_fhe_compiled", None)
    view.n_features_in_ = n_features
    return view


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
        """``dual_coef_``."""
        return (estimator.dual_coef_,)

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
        """``dual_coef_`` and ``intercept_``."""
        return estimator.dual_coef_, estimator.intercept_

    def linear_map(self, estimator: Any) -> LinearMap:
        """Read ``coef_`` and ``intercept_``; scikit-learn flips their sign for two classes, libsvm does not."""
        _require_linear_kernel(estimator)
        sign = -1.0 if len(getattr(estimator, "classes_", ())) == 2 else 1.0
        return LinearMap(sign * _dense(estimator.coef_).T, sign * _dense(estimator.intercept_))

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
