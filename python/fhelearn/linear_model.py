"""Linear models: scikit-learn's own classes and parameters, predicting on encrypted data.

Added to each class: the keyword-only parameter `n_bits`, the method `compile`, and the keyword `fhe` of the prediction
methods; see :class:`fhelearn.estimators.FHELinearMixin`.
"""
# mypy: disallow-subclassing-any=False
# ruff: noqa: D101 (the mix-in derives each docstring from scikit-learn's)

from __future__ import annotations

from sklearn import linear_model

from fhelearn.estimators.adapters import NestedAdapter, OneClassAdapter
from fhelearn.estimators.mixin import FHEDecisionMixin, FHELinearMixin, FHEProbabilityMixin

__all__ = [
    "ARDRegression",
    "BayesianRidge",
    "ElasticNet",
    "ElasticNetCV",
    "GammaRegressor",
    "HuberRegressor",
    "Lars",
    "LarsCV",
    "Lasso",
    "LassoCV",
    "LassoLars",
    "LassoLarsCV",
    "LassoLarsIC",
    "LinearRegression",
    "LogisticRegression",
    "LogisticRegressionCV",
    "MultiTaskElasticNet",
    "MultiTaskElasticNetCV",
    "MultiTaskLasso",
    "MultiTaskLassoCV",
    "OrthogonalMatchingPursuit",
    "OrthogonalMatchingPursuitCV",
    "Perceptron",
    "PoissonRegressor",
    "QuantileRegressor",
    "RANSACRegressor",
    "Ridge",
    "RidgeCV",
    "RidgeClassifier",
    "RidgeClassifierCV",
    "SGDClassifier",
    "SGDOneClassSVM",
    "SGDRegressor",
    "TheilSenRegressor",
    "TweedieRegressor",
]


class LinearRegression(FHELinearMixin, linear_model.LinearRegression): ...


class Ridge(FHELinearMixin, linear_model.Ridge): ...


class RidgeCV(FHELinearMixin, linear_model.RidgeCV): ...


class Lasso(FHELinearMixin, linear_model.Lasso): ...


class LassoCV(FHELinearMixin, linear_model.LassoCV): ...


class ElasticNet(FHELinearMixin, linear_model.ElasticNet): ...


class ElasticNetCV(FHELinearMixin, linear_model.ElasticNetCV): ...


class MultiTaskLasso(FHELinearMixin, linear_model.MultiTaskLasso): ...


class MultiTaskLassoCV(FHELinearMixin, linear_model.MultiTaskLassoCV): ...


class MultiTaskElasticNet(FHELinearMixin, linear_model.MultiTaskElasticNet): ...


class MultiTaskElasticNetCV(FHELinearMixin, linear_model.MultiTaskElasticNetCV): ...


class Lars(FHELinearMixin, linear_model.Lars): ...


class LarsCV(FHELinearMixin, linear_model.LarsCV): ...


class LassoLars(FHELinearMixin, linear_model.LassoLars): ...


class LassoLarsCV(FHELinearMixin, linear_model.LassoLarsCV): ...


class LassoLarsIC(FHELinearMixin, linear_model.LassoLarsIC): ...


class OrthogonalMatchingPursuit(FHELinearMixin, linear_model.OrthogonalMatchingPursuit): ...


class OrthogonalMatchingPursuitCV(FHELinearMixin, linear_model.OrthogonalMatchingPursuitCV): ...


class BayesianRidge(FHELinearMixin, linear_model.BayesianRidge): ...


class ARDRegression(FHELinearMixin, linear_model.ARDRegression): ...


class HuberRegressor(FHELinearMixin, linear_model.HuberRegressor): ...


class QuantileRegressor(FHELinearMixin, linear_model.QuantileRegressor): ...


class TheilSenRegressor(FHELinearMixin, linear_model.TheilSenRegressor): ...


class PoissonRegressor(FHELinearMixin, linear_model.PoissonRegressor): ...


class GammaRegressor(FHELinearMixin, linear_model.GammaRegressor): ...


class TweedieRegressor(FHELinearMixin, linear_model.TweedieRegressor): ...


class SGDRegressor(FHELinearMixin, linear_model.SGDRegressor): ...


class LogisticRegression(FHEDecisionMixin, FHEProbabilityMixin, linear_model.LogisticRegression): ...


class LogisticRegressionCV(FHEDecisionMixin, FHEProbabilityMixin, linear_model.LogisticRegressionCV): ...


class RidgeClassifier(FHEDecisionMixin, linear_model.RidgeClassifier): ...


class RidgeClassifierCV(FHEDecisionMixin, linear_model.RidgeClassifierCV): ...


class SGDClassifier(FHEDecisionMixin, FHEProbabilityMixin, linear_model.SGDClassifier): ...


class Perceptron(FHEDecisionMixin, linear_model.Perceptron): ...


class RANSACRegressor(FHELinearMixin, linear_model.RANSACRegressor):
    _fhe_adapter = NestedAdapter()


class SGDOneClassSVM(FHEDecisionMixin, linear_model.SGDOneClassSVM):
    _fhe_adapter = OneClassAdapter()


if hasattr(linear_model, "PassiveAggressiveClassifier"):  # deprecated in scikit-learn 1.8, to be removed in 1.10

    class PassiveAggressiveClassifier(FHEDecisionMixin, linear_model.PassiveAggressiveClassifier): ...

    class PassiveAggressiveRegressor(FHELinearMixin, linear_model.PassiveAggressiveRegressor): ...

    __all__ += ["PassiveAggressiveClassifier", "PassiveAggressiveRegressor"]
