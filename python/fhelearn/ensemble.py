"""Ensembles of trees: scikit-learn's own classes and parameters, on encrypted data; see :mod:`fhelearn.tree`.

Bagging and AdaBoost work over trees; other base estimators are refused by `compile`.
"""
# mypy: disallow-subclassing-any=False
# ruff: noqa: D101 (the mix-in derives each docstring from scikit-learn's)

from __future__ import annotations

from sklearn import ensemble

from fhelearn.estimators.forest_mixin import FHEForestDecisionMixin, FHEForestMixin, FHEForestProbabilityMixin
from fhelearn.estimators.sklearn_forests import (
    AdaBoostClassifierAdapter,
    AdaBoostRegressorAdapter,
    BaggingAdapter,
    ForestOfTreesAdapter,
    GradientBoostingAdapter,
    HistGradientBoostingAdapter,
    IsolationForestAdapter,
)

__all__ = [
    "AdaBoostClassifier",
    "AdaBoostRegressor",
    "BaggingClassifier",
    "BaggingRegressor",
    "ExtraTreesClassifier",
    "ExtraTreesRegressor",
    "GradientBoostingClassifier",
    "GradientBoostingRegressor",
    "HistGradientBoostingClassifier",
    "HistGradientBoostingRegressor",
    "IsolationForest",
    "RandomForestClassifier",
    "RandomForestRegressor",
]


class RandomForestClassifier(FHEForestProbabilityMixin, ensemble.RandomForestClassifier):
    _fhe_adapter = ForestOfTreesAdapter()


class RandomForestRegressor(FHEForestMixin, ensemble.RandomForestRegressor):
    _fhe_adapter = ForestOfTreesAdapter()


class ExtraTreesClassifier(FHEForestProbabilityMixin, ensemble.ExtraTreesClassifier):
    _fhe_adapter = ForestOfTreesAdapter()


class ExtraTreesRegressor(FHEForestMixin, ensemble.ExtraTreesRegressor):
    _fhe_adapter = ForestOfTreesAdapter()


class GradientBoostingClassifier(FHEForestDecisionMixin, ensemble.GradientBoostingClassifier):
    _fhe_adapter = GradientBoostingAdapter()


class GradientBoostingRegressor(FHEForestMixin, ensemble.GradientBoostingRegressor):
    _fhe_adapter = GradientBoostingAdapter()


class HistGradientBoostingClassifier(FHEForestDecisionMixin, ensemble.HistGradientBoostingClassifier):
    _fhe_adapter = HistGradientBoostingAdapter()


class HistGradientBoostingRegressor(FHEForestMixin, ensemble.HistGradientBoostingRegressor):
    _fhe_adapter = HistGradientBoostingAdapter()


class BaggingClassifier(FHEForestDecisionMixin, ensemble.BaggingClassifier):
    _fhe_adapter = BaggingAdapter()


class BaggingRegressor(FHEForestMixin, ensemble.BaggingRegressor):
    _fhe_adapter = BaggingAdapter()


class AdaBoostClassifier(FHEForestDecisionMixin, ensemble.AdaBoostClassifier):
    _fhe_adapter = AdaBoostClassifierAdapter()


class AdaBoostRegressor(FHEForestMixin, ensemble.AdaBoostRegressor):
    _fhe_adapter = AdaBoostRegressorAdapter()


class IsolationForest(FHEForestMixin, ensemble.IsolationForest):
    _fhe_adapter = IsolationForestAdapter()
