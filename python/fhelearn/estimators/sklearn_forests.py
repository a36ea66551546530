# mypy: disallow-subclassing-any=False
"""How scikit-learn's tree models are read as forests, and how the scores of forests become their answers again.

As for linear models, no answer is computed here: the view's lowest function, the one that walks the trees, returns the
scores, and scikit-learn's own methods do the rest. Scores reach them unchanged to the last bit, because ties of classes
and outlier thresholds, which are scores of training rows, are decided there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.utils.validation import check_is_fitted, validate_data

from fhelearn.estimators.adapters import shallow_view
from fhelearn.frontends.tree import Forest, sklearn_reader
from fhelearn.typing import FloatArray

_FINGERPRINT_ARRAYS = ("children_left", "children_right", "feature", "threshold", "missing_go_to_left", "value")


class _Answers:
    """Stands for an estimator inside the view of an ensemble: it answers what it is told, whatever the rows are."""

    values: Any
    probabilities: Any

    def __init__(self, **answers: Any) -> None:
        self.__dict__.update(answers)

    def predict(self, X: Any, check_input: bool = True) -> Any:
        return self.values

    def predict_proba(self, X: Any, check_input: bool = True) -> Any:
        return self.probabilities

    def apply(self, X: Any, check_input: bool = True) -> NDArray[np.intp]:
        return np.arange(len(X))


class _Counted(list[Any]):
    """A list that claims to have `count` entries: scikit-learn divides the sum over its entries by their number."""

    def __init__(self, entries: Iterable[Any], count: int) -> None:
        super().__init__(entries)
        self._count = count

    def __len__(self) -> int:
        return self._count


class _ForestAdapter:
    """What most families have in common."""

    def forest(self, estimator: Any) -> Forest:
        """See ForestAdapter."""
        return sklearn_reader.read_sklearn(estimator)

    def prepare(self, estimator: Any, X: Any) -> NDArray[Any]:
        """See ForestAdapter; float32, in which the trees compare."""
        check_is_fitted(estimator)
        return _dense(self._validated(estimator, X), np.float32)

    def _validated(self, estimator: Any, X: Any) -> Any:
        """`X` as ``predict`` validates it, dense or sparse."""
        return estimator._validate_X_predict(X)

    def placeholder(self, estimator: Any, n: int) -> NDArray[Any]:
        """See ForestAdapter."""
        return np.zeros((n, estimator.n_features_in_), dtype=np.float32)


class TreeAdapter(_ForestAdapter):
    """DecisionTree and ExtraTree, for classification and regression."""

    def _validated(self, estimator: Any, X: Any) -> Any:
        return estimator._validate_X_predict(X, check_input=True)

    def fitted(self, estimator: Any) -> tuple[Any, ...]:
        """See ForestAdapter."""
        return (_trees_digest([estimator]),)

    def view(self, estimator: Any, scores: FloatArray) -> Any:
        """A tree whose ``tree_`` predicts the scores."""
        view = shallow_view(estimator, estimator.n_features_in_)
        view._validate_X_predict = _unchanged
        # As Tree.predict has it: (n, n_classes) of one output, (n, n_outputs, most classes) of several.
        padded = np.zeros((len(scores), estimator.n_outputs_, estimator.tree_.max_n_classes))
        for output, part in enumerate(_by_output(estimator, scores)):
            padded[:, output, : part.shape[1]] = part
        view.tree_ = _Answers(values=padded[:, 0] if estimator.n_outputs_ == 1 else padded)
        return view


class ForestOfTreesAdapter(_ForestAdapter):
    """RandomForest and ExtraTrees, for classification and regression."""

    def fitted(self, estimator: Any) -> tuple[Any, ...]:
        """See ForestAdapter."""
        return (_trees_digest(estimator.estimators_),)

    def view(self, estimator: Any, scores: FloatArray) -> Any:
        """A forest with one tree that predicts the sum of all."""
        view = _ensemble_view(estimator)
        view._validate_X_predict = _unchanged
        probabilities = [part.copy() for part in _by_output(estimator, scores)]
        answers = _Answers(
            values=scores[:, 0] if estimator.n_outputs_ == 1 else scores,
            probabilities=probabilities[0] if estimator.n_outputs_ == 1 else probabilities,
        )
        view.estimators_ = _Counted([answers], len(estimator.estimators_))
        return view


class GradientBoostingAdapter(_ForestAdapter):
    """GradientBoosting, for classification and regression."""

    def _validated(self, estimator: Any, X: Any) -> Any:
        return validate_data(estimator, X, dtype=np.float32, order="C", accept_sparse="csr", reset=False)

    def fitted(self, estimator: Any) -> tuple[Any, ...]:
        """See ForestAdapter."""
        init = estimator.init_
        prior = [] if isinstance(init, str) else [vars(init).get(name) for name in ("constant_", "class_prior_")]
        trees = _trees_digest(estimator.estimators_.ravel())
        return trees, estimator.learning_rate, _digest(value for value in prior if value is not None)

    def view(self, estimator: Any, scores: FloatArray) -> Any:
        """A booster whose raw predictions are the scores."""
        view = shallow_view(estimator, estimator.n_features_in_)
        view._raw_predict = lambda X: scores.copy()
        return view


class HistGradientBoostingAdapter(_ForestAdapter):
    """HistGradientBoosting, for classification and regression."""

    def prepare(self, estimator: Any, X: Any) -> NDArray[Any]:
        """See ForestAdapter; float64, categories encoded, features in the order of `X`."""
        check_is_fitted(estimator)
        encoded = _dense(estimator._preprocess_X(X, reset=False), np.float64)
        x = np.empty_like(encoded)
        x[:, sklearn_reader.hist_feature_order(estimator)] = encoded
        return x

    def fitted(self, estimator: Any) -> tuple[Any, ...]:
        """See ForestAdapter."""
        predictors = [predictor for stage in estimator._predictors for predictor in stage]
        names = [name for name in predictors[0].nodes.dtype.names if name not in ("count", "gain", "depth")]
        trees = _digest(
            array
            for predictor in predictors
            for array in (*(predictor.nodes[name] for name in names), predictor.raw_left_cat_bitsets)
        )
        categorical = () if estimator._preprocessor is None else tuple(np.asarray(estimator.is_categorical_).tolist())
        categories = (
            [repr(known.tolist()) for known in estimator._preprocessor.named_transformers_["encoder"].categories_]
            if any(categorical)
            else []
        )
        known = hashlib.sha256(repr(categories).encode()).hexdigest()
        return trees, _digest([estimator._baseline_prediction]), categorical, known

    def view(self, estimator: Any, scores: FloatArray) -> Any:
        """A booster whose raw predictions are the scores."""
        view = shallow_view(estimator, estimator.n_features_in_)
        raw = np.asfortranarray(scores)  # as scikit-learn lays them out: its softmax sums in memory order
        view._raw_predict = lambda X, n_threads=None: raw.copy(order="F")
        return view


class IsolationForestAdapter(_ForestAdapter):
    """IsolationForest."""

    def _validated(self, estimator: Any, X: Any) -> Any:
        return validate_data(estimator, X, accept_sparse="csr", dtype=np.float32, reset=False, ensure_all_finite=False)

    def fitted(self, estimator: Any) -> tuple[Any, ...]:
        """See ForestAdapter."""
        arrays = (*estimator._decision_path_lengths, *estimator._average_path_length_per_tree)
        return _trees_digest(estimator.estimators_), _digest(arrays), _digest(estimator.estimators_features_)

    def view(self, estimator: Any, scores: FloatArray) -> Any:
        """A forest in which rows have the path lengths of the scores.

        scikit-learn adds ``length - 1.0`` per tree. One tree of length `scores` and one of length 2 give the scores
        back exactly, because ``score - 1.0`` is exact from 0.5 on; ``score + 1.0`` would not be.
        """
        view = _ensemble_view(estimator)
        view._compute_chunked_score_samples = lambda X: view._compute_score_samples(X, False)
        view.estimators_ = _Counted([_Answers(), _Answers()], len(estimator.estimators_))
        view.estimators_features_ = [None, None]
        view._decision_path_lengths = (scores[:, 0], np.full(len(scores), 2.0))
        view._average_path_length_per_tree = (np.zeros(len(scores)), np.zeros(len(scores)))
        return view


class _AdaBoostAdapter(_ForestAdapter):
    """What AdaBoost has in common."""

    def _validated(self, estimator: Any, X: Any) -> Any:
        # The trees validate once more what AdaBoost lets pass, and round it to float32.
        return estimator.estimators_[0]._validate_X_predict(estimator._check_X(X), check_input=True)

    def fitted(self, estimator: Any) -> tuple[Any, ...]:
        """See ForestAdapter."""
        return _trees_digest(estimator.estimators_), _digest([estimator.estimator_weights_])


class AdaBoostClassifierAdapter(_AdaBoostAdapter):
    """AdaBoostClassifier over trees."""

    def fitted(self, estimator: Any) -> tuple[Any, ...]:
        """See ForestAdapter; leaves vote for labels."""
        return *super().fitted(estimator), repr(estimator.classes_.tolist())

    def view(self, estimator: Any, scores: FloatArray) -> Any:
        """A booster whose decision function is the scores by the weights' sum."""
        view = shallow_view(estimator, estimator.n_features_in_)
        # As scikit-learn lays it out: its softmax sums in memory order.
        decision = np.asfortranarray(scores / estimator.estimator_weights_.sum())
        shaped = decision[:, 0] if len(estimator.classes_) == 2 else decision
        view.decision_function = lambda X: shaped.copy(order="F")
        return view


class AdaBoostRegressorAdapter(_AdaBoostAdapter):
    """AdaBoostRegressor over trees; the client takes the weighted median of the trees' predictions."""

    def view(self, estimator: Any, scores: FloatArray) -> Any:
        """A booster whose trees predict one score each."""
        view = shallow_view(estimator, estimator.n_features_in_)
        view.estimators_ = [_Answers(values=column) for column in scores.T]
        return view


class BaggingAdapter(_ForestAdapter):
    """BaggingClassifier and BaggingRegressor over trees."""

    def _validated(self, estimator: Any, X: Any) -> Any:
        """Only features that some tree asks are checked for NaN and infinity; the others become zeros."""
        X = validate_data(estimator, X, accept_sparse=["csr", "csc"], dtype=None, ensure_all_finite=False, reset=False)
        asked = np.unique(np.concatenate(estimator.estimators_features_))
        tree = shallow_view(estimator.estimators_[0], len(asked))
        x = np.zeros((X.shape[0], estimator.n_features_in_), dtype=np.float32)
        x[:, asked] = _dense(tree._validate_X_predict(X[:, asked], check_input=True), np.float32)
        return x

    def fitted(self, estimator: Any) -> tuple[Any, ...]:
        """See ForestAdapter."""
        features = _digest(estimator.estimators_features_)
        return _trees_digest(estimator.estimators_), features, estimator.n_estimators

    def view(self, estimator: Any, scores: FloatArray) -> Any:
        """An ensemble with one estimator that predicts the sum of all."""
        view = _ensemble_view(estimator)
        view.n_estimators = estimator.n_estimators
        answers = _Answers(
            values=scores[:, 0] if scores.shape[1] == 1 else scores,
            probabilities=scores,
            classes_=np.arange(scores.shape[1]),
        )
        view.estimators_ = [answers]
        view.estimators_features_ = [np.arange(estimator.n_features_in_)]
        # Without log-probabilities of its own, so that the logarithm of the mean is taken.
        view.estimator_ = answers
        return view


def _ensemble_view(estimator: Any) -> Any:
    """A view that predicts in this thread, silently."""
    view = shallow_view(estimator, estimator.n_features_in_)
    view.n_jobs, view.verbose = None, 0
    view._max_features = estimator.n_features_in_
    return view


def _unchanged(X: Any, check_input: bool = True) -> Any:
    return X


def _by_output(estimator: Any, scores: FloatArray) -> list[FloatArray]:
    """The scores of each output: of its classes, or its one value."""
    if not hasattr(estimator, "classes_"):
        return list(np.split(scores, scores.shape[1], axis=1))
    return list(np.split(scores, np.cumsum(np.atleast_1d(estimator.n_classes_))[:-1], axis=1))


def _dense(x: Any, dtype: Any) -> NDArray[Any]:
    return np.ascontiguousarray(x.toarray() if issparse(x) else x, dtype=dtype)


def _digest(arrays: Iterable[Any]) -> str:
    """A fingerprint of arrays, which tells their lengths apart too."""
    digest = hashlib.sha256()
    for array in arrays:
        contiguous = np.ascontiguousarray(array)
        digest.update(b"%d;" % contiguous.nbytes)
        digest.update(contiguous.data)
    return digest.hexdigest()


def _trees_digest(estimators: Iterable[Any]) -> str:
    return _digest(getattr(sub.tree_, name) for sub in estimators for name in _FINGERPRINT_ARRAYS)
