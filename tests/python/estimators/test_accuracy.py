"""Accuracy on scikit-learn's data sets with raw, unscaled features."""

import numpy as np
import pytest

from tests.python.estimators.cases import (
    CLASSIFIERS,
    REGRESSORS,
    SEVERAL_TARGETS_ONLY,
    SEVERAL_TARGETS_TOO,
    fit,
    load,
    make,
)


@pytest.mark.parametrize("dataset", ["breast_cancer", "wine", "digits"])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_default_widths_give_scikit_learns_label_on_every_row(name, dataset):
    x, y = load(dataset)
    model = fit(make(name), x, y).compile(x)
    assert (model.predict(x, fhe="simulate") == model.predict(x)).all()


@pytest.mark.parametrize("name", REGRESSORS)
def test_default_widths_follow_regressions_to_a_thousandth_of_the_targets_range(name):
    x, y = load("diabetes")
    targets = np.column_stack([y, y[::-1]]) if name in SEVERAL_TARGETS_ONLY else y
    model = fit(make(name), x, targets).compile(x)
    error = np.abs(model.predict(x, fhe="simulate") - model.predict(x)).max()
    assert error <= 1e-3 * np.ptp(y)


@pytest.mark.parametrize("name", SEVERAL_TARGETS_TOO)
def test_several_targets_are_followed_alike(name):
    x, y = load("diabetes")
    targets = np.column_stack([y, 1000 * x[:, 0], y + 50 * x[:, 3]])
    model = fit(make(name), x, targets).compile(x)
    error = np.abs(model.predict(x, fhe="simulate") - model.predict(x)).max(axis=0)
    assert (error <= 1e-3 * np.ptp(targets, axis=0)).all()


@pytest.mark.parametrize("dataset", ["breast_cancer", "wine", "digits"])
@pytest.mark.parametrize("name", ["LogisticRegression", "RidgeClassifier", "LinearSVC", "LinearDiscriminantAnalysis"])
def test_eight_bits_cost_at_most_half_a_point_of_accuracy(name, dataset):
    x, y = load(dataset)
    model = fit(make(name, n_bits=8), x, y).compile(x)
    quantized = np.mean(model.predict(x, fhe="simulate") == y)
    assert quantized >= model.score(x, y) - 0.005


def test_features_of_unlike_units_lose_nothing(rng):
    x, y = load("breast_cancer")
    units = 10.0 ** rng.integers(-9, 9, size=x.shape[1])
    plain = fit(make("LinearDiscriminantAnalysis", n_bits=8), x, y).compile(x)
    scaled = fit(make("LinearDiscriminantAnalysis", n_bits=8), x, y)
    scaled.coef_ = scaled.coef_ / units
    scaled.compile(x * units)
    assert (scaled.predict(x * units, fhe="simulate") == plain.predict(x, fhe="simulate")).all()


def test_integer_features_are_encoded_without_error():
    x, y = load("digits")
    model = fit(make("RidgeClassifier"), x, y).compile(x)
    assert (model._fhe_compiled.quantized.encoder.dequantize(model.quantize_input(x)) == x).all()
