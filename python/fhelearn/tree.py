"""Decision trees: scikit-learn's own classes and parameters, predicting on encrypted data.

Added to each class: the keyword-only parameter `n_bits`, the method `compile`, and the keyword `fhe` of the prediction
methods; see :class:`fhelearn.estimators.FHEForestMixin`.
"""
# mypy: disallow-subclassing-any=False
# ruff: noqa: D101 (the mix-in derives each docstring from scikit-learn's)

from __future__ import annotations

from sklearn import tree

from fhelearn.estimators.forest_mixin import FHEForestMixin, FHEForestProbabilityMixin
from fhelearn.estimators.sklearn_forests import TreeAdapter

__all__ = [
    "DecisionTreeClassifier",
    "DecisionTreeRegressor",
    "ExtraTreeClassifier",
    "ExtraTreeRegressor",
]


class DecisionTreeClassifier(FHEForestProbabilityMixin, tree.DecisionTreeClassifier):
    _fhe_adapter = TreeAdapter()


class DecisionTreeRegressor(FHEForestMixin, tree.DecisionTreeRegressor):
    _fhe_adapter = TreeAdapter()


class ExtraTreeClassifier(FHEForestProbabilityMixin, tree.ExtraTreeClassifier):
    _fhe_adapter = TreeAdapter()


class ExtraTreeRegressor(FHEForestMixin, tree.ExtraTreeRegressor):
    _fhe_adapter = TreeAdapter()
