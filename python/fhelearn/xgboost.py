"""XGBoost's own classes and parameters, predicting on encrypted data; see :mod:`fhelearn.tree`.

Needs XGBoost: ``pip install "fhelearn[xgboost]"``.
"""
# mypy: disallow-subclassing-any=False
# ruff: noqa: D101 (the mix-in derives each docstring from XGBoost's)

from __future__ import annotations

try:
    import xgboost
except ImportError as error:
    raise ImportError('fhelearn.xgboost needs XGBoost: pip install "fhelearn[xgboost]"') from error

from fhelearn.estimators.forest_mixin import FHEForestMixin, FHEForestProbabilityMixin
from fhelearn.estimators.xgboost_forests import XGBoostAdapter

__all__ = [
    "XGBClassifier",
    "XGBRFClassifier",
    "XGBRFRegressor",
    "XGBRegressor",
]


# XGBoost looks for its own class right behind the first base, so each class has one mix-in. Its methods name
# parameters of their own, which those that the mix-in declares for type checkers do not have.
class _XGBoostMixin(FHEForestMixin):
    _fhe_adapter = XGBoostAdapter()

    def _wrapper_params(self) -> set[str]:
        """Names of parameters that are not XGBoost's."""
        names: set[str] = super()._wrapper_params()  # type: ignore[misc]  # XGBModel's
        return names | {"n_bits"}


class _XGBoostClassifierMixin(_XGBoostMixin, FHEForestProbabilityMixin): ...


class XGBClassifier(_XGBoostClassifierMixin, xgboost.XGBClassifier): ...  # type: ignore[misc]


class XGBRegressor(_XGBoostMixin, xgboost.XGBRegressor): ...


class XGBRFClassifier(_XGBoostClassifierMixin, xgboost.XGBRFClassifier): ...  # type: ignore[misc]


class XGBRFRegressor(_XGBoostMixin, xgboost.XGBRFRegressor): ...
