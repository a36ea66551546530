"""Every public estimator with arguments that let it predict through a dot product, and data to fit it on."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
from sklearn.base import is_classifier, is_outlier_detector
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine, make_regression

MODULES = (
    "linear_model",
    "svm",
    "discriminant_analysis",
    "cross_decomposition",
    "naive_bayes",
    "kernel_ridge",
)

ARGUMENTS: dict[str, dict[str, Any]] = {
    "LogisticRegressionCV": {"Cs": 2, "cv": 2, "max_iter": 50},
    "SVC": {"kernel": "linear"},
    "NuSVC": {"kernel": "linear", "nu": 0.1},
    "SVR": {"kernel": "linear"},
    "NuSVR": {"kernel": "linear"},
    "OneClassSVM": {"kernel": "linear"},
    "RANSACRegressor": {"random_state": 0},
    "TheilSenRegressor": {"random_state": 0, "max_subpopulation": 100},
    "BernoulliNB": {"binarize": 2.0},
    "PLSCanonical": {"n_components": 1},
    "CCA": {"n_components": 1},
}

SEEDED = ("SGDClassifier", "SGDRegressor", "SGDOneClassSVM", "Perceptron", "LinearSVC", "LinearSVR")

POSITIVE_TARGET = ("PoissonRegressor", "GammaRegressor", "TweedieRegressor")

SEVERAL_TARGETS_ONLY = ("MultiTaskLasso", "MultiTaskLassoCV", "MultiTaskElasticNet", "MultiTaskElasticNetCV")

SEVERAL_TARGETS_TOO = (
    "LinearRegression", "Ridge", "RidgeCV", "Lasso", "ElasticNet", "Lars", "LassoLars", "OrthogonalMatchingPursuit",
    "RANSACRegressor", "PLSRegression", "PLSCanonical", "CCA", "KernelRidge", *SEVERAL_TARGETS_ONLY,
)  # fmt: skip

LOADERS = {
    "breast_cancer": load_breast_cancer,
    "wine": load_wine,
    "digits": load_digits,
    "iris": load_iris,
    "diabetes": load_diabetes,
}


def public_classes(modules: Iterable[str]) -> dict[str, type]:
    """Every public estimator of modules, by name."""
    found = {}
    for name in modules:
        module = importlib.import_module(f"fhelearn.{name}")
        found |= {public: getattr(module, public) for public in module.__all__}
    return found


CLASSES = public_classes(MODULES)
CLASSIFIERS = [name for name, cls in CLASSES.items() if is_classifier(cls())]
OUTLIER_DETECTORS = [name for name, cls in CLASSES.items() if is_outlier_detector(cls())]
REGRESSORS = [name for name in CLASSES if name not in CLASSIFIERS + OUTLIER_DETECTORS]


def make(name: str, **arguments: Any) -> Any:
    """An instance of the public estimator `name`."""
    seed = {"random_state": 0} if name in SEEDED or name.startswith("PassiveAggressive") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # scikit-learn's, on its deprecated classes
        return CLASSES[name](**{**seed, **ARGUMENTS.get(name, {}), **arguments})


def fit(estimator: Any, x: Any, y: Any) -> Any:
    """Fit; raw features leave some solvers short of convergence, which is no concern here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(x, y)


def without_n_bits(estimator: Any) -> dict[str, Any]:
    """The parameters that scikit-learn's class takes too."""
    return {name: value for name, value in estimator.get_params(deep=False).items() if name != "n_bits"}


@cache
def load(name: str) -> tuple[np.ndarray, np.ndarray]:
    """One of scikit-learn's data sets, raw."""
    x, y = LOADERS[name](return_X_y=True)
    return x, y


def data_for(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Small data that the estimator `name` can be fitted on."""
    if name in CLASSIFIERS or name in OUTLIER_DETECTORS:
        return load("iris")
    if name in SEVERAL_TARGETS_ONLY:
        return make_regression(n_samples=80, n_features=6, n_targets=3, noise=1.0, random_state=0)
    x, y = load("diabetes")
    return x[:150], y[:150]


@cache
def fitted(name: str) -> Any:
    """The estimator `name`, fitted on `data_for(name)`. Shared between tests: do not change it."""
    return fit(make(name), *data_for(name))


@cache
def compiled(name: str) -> Any:
    """The estimator `name`, fitted and compiled on `data_for(name)`. Shared between tests: do not change it."""
    x, y = data_for(name)
    return fit(make(name), x, y).compile(x)
