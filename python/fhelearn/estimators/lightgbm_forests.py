"""LGBMClassifier and LGBMRegressor as forests, and scores as LightGBM's answers."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

from fhelearn.exceptions import LoweringError
from fhelearn.frontends.tree import Forest
from fhelearn.frontends.tree.lightgbm_reader import LightGBMHeader, forest_from_lightgbm, header_from_lightgbm
from fhelearn.typing import FloatArray

try:
    from lightgbm import Booster, LGBMModel
    from lightgbm.basic import _data_from_pandas
except ImportError as error:
    raise ImportError('LightGBM models need LightGBM: pip install "fhelearn[lightgbm]"') from error

_INVALID_CATEGORY = -1.0


class LightGBMAdapter:
    """A ForestAdapter of LightGBM's estimators, early stopping included.

    Infinities are numbers, entries absent from a sparse matrix are zeros, as for LightGBM.
    """

    def forest(self, estimator: Any) -> Forest:
        """The trees up to the best iteration; scores are raw scores, those of random forests not yet averaged."""
        booster = _booster(estimator)
        if _early_stop(estimator) is not False:
            raise LoweringError(
                f"{type(estimator).__name__}: pred_early_stop must be False, got {_early_stop(estimator)!r}: it leaves "
                "out trees, row by row; set it with set_params"
            )
        return forest_from_lightgbm(booster)

    def prepare(self, estimator: Any, X: Any) -> NDArray[Any]:
        """Float32 or float64 as LightGBM takes `X`; categories as LightGBM's codes, NaN if pandas' dtype lacks them.

        Codes are what LightGBM makes of them: fractions are cut off, and a negative code is -1, which no split lists.
        Of data frames only pandas' are taken: a TypeError names others.
        """
        # The library's own validation, at the price of one iteration.
        LGBMModel.predict(estimator, X, raw_score=True, num_iteration=1)
        booster = _booster(estimator)
        header = header_from_lightgbm(booster)
        values = _values(booster, X)
        if values.shape[1] != header.n_features:
            name = type(estimator).__name__
            raise ValueError(
                f"X has {values.shape[1]} features, but {name} is expecting {header.n_features} features as input"
            )
        for feature in header.categorical:
            codes = np.trunc(values[:, feature]) + 0.0  # no minus zero
            # From 2**31 on, the cast to int that LightGBM does is undefined, but finds no category.
            codes[(codes < 0) | (codes >= 2.0**31)] = _INVALID_CATEGORY
            values[:, feature] = codes
        return values

    def fitted(self, estimator: Any) -> tuple[Any, ...]:
        """Digests of the booster's text up to the best iteration and of pandas' categories, and pred_early_stop."""
        trees, _, rest = _booster(estimator).model_to_string().partition("\nend of trees")
        categories = rest.rpartition("\npandas_categorical:")[2]
        digests = (hashlib.sha256(text.encode()).hexdigest() for text in (trees, categories))
        return *digests, str(_early_stop(estimator))

    def view(self, estimator: Any, scores: FloatArray) -> Any:
        """A copy whose booster answers by LightGBM's own objective."""
        view = object.__new__(getattr(estimator, "_fhe_base", None) or type(estimator))
        view.__dict__.update(estimator.__dict__)
        view._Booster = _ScoredBooster(_booster(estimator), scores)
        view._fitted_with_feature_names = False  # the placeholder has none
        return view

    def placeholder(self, estimator: Any, n: int) -> NDArray[Any]:
        """Zeros."""
        return np.zeros((n, _booster(estimator).num_feature()), dtype=np.float64)


class _ScoredBooster:
    """Stands for a booster whose raw scores are known; every other attribute is the booster's."""

    def __init__(self, booster: Booster, scores: FloatArray) -> None:
        self._booster = booster
        self._scores = scores

    def __getattr__(self, name: str) -> Any:
        return getattr(self._booster, name)

    def predict(
        self,
        data: Any,
        *,
        raw_score: bool = False,
        start_iteration: int = 0,
        num_iteration: int | None = None,
        pred_leaf: bool = False,
        pred_contrib: bool = False,
        num_threads: int = 0,
        **_: Any,
    ) -> NDArray[Any]:
        """The answers for the scores; `data` is not looked at."""
        if pred_leaf or pred_contrib:
            raise LoweringError("pred_leaf and pred_contrib need the features; only predictions follow from scores")
        if start_iteration != 0 or num_iteration is not None:
            raise LoweringError(
                f"start_iteration and num_iteration must be 0 and None, got {start_iteration} and {num_iteration}; "
                "compile a booster of these iterations"
            )
        header = header_from_lightgbm(self._booster)
        scores = np.ascontiguousarray(self._scores, dtype=np.float64)
        if header.average_output and not raw_score:
            best = self._booster.best_iteration
            scores = scores / (best if best > 0 else self._booster.current_iteration())
        return np.asarray(_answerer(header).predict(scores, raw_score=raw_score, num_threads=num_threads))


def _answerer(header: LightGBMHeader) -> Booster:
    """A booster of the same objective whose raw scores are its features.

    LightGBM turns raw scores into answers only on the way from features, so the way is made the identity: per score one
    linear tree, both of whose leaves are ``0 + 1 * feature``.
    """
    trees = [_identity_tree(output) for output in range(header.n_outputs)]
    outputs = range(header.n_outputs)
    lines = [
        "tree",
        "version=v4",
        f"num_class={header.n_classes}",
        f"num_tree_per_iteration={header.n_outputs}",
        "label_index=0",
        f"max_feature_idx={header.n_outputs - 1}",
        *([] if header.objective is None else [f"objective={header.objective}"]),
        "feature_names=" + " ".join(f"score_{output}" for output in outputs),
        "feature_infos=" + " ".join("[-1:1]" for _ in outputs),
        "tree_sizes=" + " ".join(str(len(tree)) for tree in trees),
        "\n",
    ]
    tail = "end of trees\n\nfeature_importances:\n\nparameters:\nend of parameters\n\npandas_categorical:null\n"
    return Booster(model_str="\n".join(lines) + "".join(trees) + tail)


def _identity_tree(output: int) -> str:
    """A tree in LightGBM's text that adds feature `output` to score `output`."""
    lines = [
        f"Tree={output}",
        "num_leaves=2",
        "num_cat=0",
        f"split_feature={output}",
        "split_gain=0",
        "threshold=0",
        "decision_type=2",
        "left_child=-1",
        "right_child=-2",
        "leaf_value=0 0",
        "leaf_weight=0 0",
        "leaf_count=0 0",
        "internal_value=0",
        "internal_weight=0",
        "internal_count=0",
        "is_linear=1",
        "leaf_const=0 0",
        "num_features=1 1",
        f"leaf_features={output}  {output}  ",
        "leaf_coeff=1  1  ",
        "shrinkage=1",
    ]
    return "\n".join(lines) + "\n\n\n"


def _booster(estimator: Any) -> Booster:
    """The estimator's booster; raises LightGBM's NotFittedError."""
    booster: Booster = estimator.booster_
    return booster


def _values(booster: Booster, X: Any) -> NDArray[Any]:
    """`X` as LightGBM hands it to its trees, dense: float32 or float64."""
    if hasattr(X, "iloc"):
        values: NDArray[Any] = _data_from_pandas(X, "auto", "auto", booster.pandas_categorical)[0]
    elif hasattr(X, "__dataframe__") or hasattr(X, "__arrow_c_stream__"):
        raise TypeError(
            f"X must be an array, a sparse matrix or a pandas DataFrame, got {type(X).__name__}; convert it"
        )
    else:
        values = X.toarray() if issparse(X) else np.asarray(X)
        if values.dtype == object:
            values = values.astype(np.float64)
    return np.array(values, dtype=values.dtype if values.dtype in (np.float32, np.float64) else np.float32, order="C")


def _early_stop(estimator: Any) -> Any:
    """LightGBM's parameter `pred_early_stop`, False where it is not given or says so in words."""
    value = estimator.get_params().get("pred_early_stop", False)
    return False if not value or str(value).lower() in ("false", "0", "-") else value
