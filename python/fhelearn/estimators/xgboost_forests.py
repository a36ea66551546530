"""XGBClassifier, XGBRegressor and their random forests as forests, and scores as XGBoost's answers."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhelearn.exceptions import LoweringError
from fhelearn.frontends.tree import Forest
from fhelearn.frontends.tree.xgboost_reader import forest_from_xgboost, zero_leaves
from fhelearn.typing import FloatArray

try:
    from xgboost import Booster, DMatrix, XGBModel
except ImportError as error:
    raise ImportError('XGBoost models need XGBoost: pip install "fhelearn[xgboost]"') from error

_INVALID_CATEGORY = -1.0
_MAX_CATEGORY = 2.0**24  # OutOfRangeCat in XGBoost's categorical.h


class XGBoostAdapter:
    """A ForestAdapter of XGBoost's estimators with trees, early stopping included.

    Features are missing if they are NaN, equal the estimator's `missing` (0 or -999, say; compared in float32, and
    with the codes that a data frame gives its categories, as XGBoost does), or are absent from a sparse matrix.
    Infinities are numbers, as for XGBoost's ``predict``.
    """

    def forest(self, estimator: Any) -> Forest:
        """The trees up to the best iteration; scores are margins."""
        return forest_from_xgboost(estimator.get_booster(), _iteration_range(estimator)[1] or None)

    def prepare(self, estimator: Any, X: Any) -> NDArray[Any]:
        """Float32, NaN where a feature is missing; categories as XGBoost's codes.

        Codes are what XGBoost makes of them: fractions are cut off, and a code below 0 or from 2**24, which no split
        lists, is -1. Names that were not seen in training are XGBoost's error.
        """
        # The library's own validation, at the price of one iteration.
        XGBModel.predict(estimator, X, output_margin=True, iteration_range=(0, 1))
        booster = estimator.get_booster()
        values = _values(estimator, booster, X)
        for feature, kind in enumerate(booster.feature_types or ()):
            if kind == "c":
                codes = np.floor(values[:, feature])
                codes[(codes < 0) | (codes >= _MAX_CATEGORY)] = _INVALID_CATEGORY
                values[:, feature] = codes
        return values

    def fitted(self, estimator: Any) -> tuple[Any, ...]:
        """A digest of the booster, the iterations that `predict` uses, and `missing` (as text: NaN equals nothing)."""
        raw = estimator.get_booster().save_raw("ubj")
        return hashlib.sha256(raw).hexdigest(), _iteration_range(estimator)[1], str(float(estimator.missing))

    def view(self, estimator: Any, scores: FloatArray) -> Any:
        """A copy whose booster answers by XGBoost's own objective."""
        view = object.__new__(getattr(estimator, "_fhe_base", None) or type(estimator))
        view.__dict__.update(estimator.__dict__)
        view._Booster = _ScoredBooster(estimator.get_booster(), scores, _iteration_range(estimator))
        return view

    def placeholder(self, estimator: Any, n: int) -> NDArray[Any]:
        """Zeros."""
        return np.zeros((n, estimator.get_booster().num_features()), dtype=np.float32)


class _ScoredBooster:
    """Stands for a booster whose margins are known; every other attribute is the booster's."""

    def __init__(self, booster: Booster, scores: FloatArray, iterations: tuple[int, int]) -> None:
        self._booster = booster
        self._scores = scores
        self._iterations = iterations

    def __getattr__(self, name: str) -> Any:
        return getattr(self._booster, name)

    def inplace_predict(
        self,
        data: Any,
        *,
        iteration_range: tuple[int, int] = (0, 0),
        predict_type: str = "value",
        base_margin: Any = None,
        **_: Any,
    ) -> NDArray[Any]:
        """The answers for the scores; `data` is not looked at."""
        if base_margin is not None:
            raise LoweringError("base_margin must be None: the scores hold the booster's own base scores")
        if tuple(iteration_range) != self._iterations:
            raise LoweringError(
                f"iteration_range must be the compiled one, {self._iterations}, got {tuple(iteration_range)}; "
                "compile a booster of these iterations (booster[begin:end])"
            )
        rows = np.zeros((len(self._scores), self._booster.num_features()), dtype=np.float32)
        margins = np.asarray(self._scores, dtype=np.float32)
        answers: NDArray[Any] = zero_leaves(self._booster).inplace_predict(
            rows, predict_type=predict_type, base_margin=margins, validate_features=False
        )
        return answers

    def predict(self, *_: Any, **__: Any) -> NDArray[Any]:
        """Leaves and contributions do not follow from scores."""
        raise LoweringError("only predict and predict_proba follow from scores; apply needs the features")


def _iteration_range(estimator: Any) -> tuple[int, int]:
    """As XGBModel's predict chooses it: up to the best iteration of early stopping; (0, 0) are all."""
    try:
        return 0, estimator.best_iteration + 1
    except AttributeError:
        return 0, 0


def _values(estimator: Any, booster: Booster, X: Any) -> NDArray[Any]:
    """Features as the trees compare them, dense, in float32; NaN where they are missing."""
    if isinstance(X, (np.ndarray, list, tuple)):
        with np.errstate(over="ignore"):  # beyond float32 is infinite, to XGBoost as well
            values = np.array(X, dtype=np.float32, order="C").reshape(-1, booster.num_features())
        values[values == np.float32(estimator.missing)] = np.nan
        return values
    if hasattr(X, "iloc"):
        return _frame_values(estimator, booster, X.to_frame() if X.ndim == 1 else X)
    return _dense(DMatrix(X, missing=estimator.missing, enable_categorical=True, nthread=estimator.n_jobs))


def _frame_values(estimator: Any, booster: Booster, X: Any) -> NDArray[Any]:
    """The features of a data frame of pandas, categories as the codes of training."""
    known = booster.get_categories()
    finite, infinite = _without_infinities(X)
    types = None if known.empty() else known
    values = _dense(DMatrix(finite, enable_categorical=True, feature_types=types, nthread=estimator.n_jobs))
    values[infinite != 0] = infinite[infinite != 0]
    for index, (_, column) in enumerate(X.items()):
        # XGBoost compares `missing` with the frame's own codes, before it translates them to those of training.
        compared = column.cat.codes.to_numpy() if hasattr(column, "cat") else values[:, index]
        values[compared == np.float32(estimator.missing), index] = np.nan
    return values


def _dense(matrix: DMatrix) -> NDArray[Any]:
    present = matrix.get_data().tocoo()
    values = np.full((matrix.num_row(), matrix.num_col()), np.nan, dtype=np.float32)
    values[present.row, present.col] = present.data
    return values


def _without_infinities(X: Any) -> tuple[Any, NDArray[Any]]:
    """A data frame with NaN for infinities, which DMatrix refuses although `predict` takes them; and the infinities.

    They come as float32 of the frame's shape, 0 elsewhere; beyond float32 is infinite.
    """
    finite = X.copy(deep=False)
    infinite = np.zeros(X.shape, dtype=np.float32)
    for index, (_, column) in enumerate(X.items()):
        if getattr(column.dtype, "kind", "") != "f":
            continue
        with np.errstate(over="ignore"):
            values = column.to_numpy(dtype=np.float32, na_value=np.nan)
        if (found := np.isinf(values)).any():
            infinite[found, index] = values[found]
            finite.isetitem(index, np.where(found, np.float32(np.nan), values))
    return finite, infinite
