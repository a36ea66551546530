"""The report states what was measured."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from fhelearn.estimators import LinearReport
from fhelearn.linear_model import GammaRegressor, LogisticRegression, Ridge, SGDOneClassSVM
from tests.python.estimators.cases import CLASSES, CLASSIFIERS, REGRESSORS, compiled, data_for, fit, load

X, Y = load("wine")


def test_figures_of_a_classifier():
    model = fit(LogisticRegression(n_bits=3), X, Y).compile(X)
    report = model.report(X, Y)
    quantized = model.predict(X, fhe="simulate")
    assert report.label_agreement == np.mean(quantized == model.predict(X)) < 1
    assert report.metric == "accuracy"
    assert report.metric_float == model.score(X, Y)
    assert report.metric_quantized == accuracy_score(Y, quantized)
    assert (report.estimator, report.n_features, report.n_scores, report.lookups) == ("LogisticRegression", 13, 3, 0)
    assert (report.input_bits, report.weight_bits) == (3, 3)
    assert report.accumulator_bits == model.program_.nodes[-1].value.bit_width
    assert report.clipped == 0


def test_figures_of_a_regression_relate_to_the_targets_range():
    x, y = load("diabetes")
    model = Ridge(n_bits=4).fit(x, y).compile(x)
    report = model.report(x, y)
    assert report.max_error == np.abs(model.predict(x, fhe="simulate") - model.predict(x)).max() / np.ptp(y)
    assert report.label_agreement is None
    assert model.report(x).max_error == pytest.approx(report.max_error * np.ptp(y) / np.ptp(model.predict(x)))


def test_the_metric_is_the_class_own_score():
    x, y = load("diabetes")
    model = GammaRegressor(n_bits=12).fit(x, y).compile(x)
    report = model.report(x, y)
    assert report.metric_float == model.score(x, y)
    assert report.metric_quantized == pytest.approx(report.metric_float, abs=1e-3)


def test_without_data_only_the_cost_is_reported():
    report = fit(LogisticRegression(), X, Y).compile(X).report()
    assert report.label_agreement is report.metric_float is report.clipped is None
    assert "agreement" not in str(report)


def test_outlier_detectors_have_no_score():
    report = SGDOneClassSVM(random_state=0).fit(X).compile(X).report(X)
    assert report.metric is None
    assert report.label_agreement > 0.9


def test_values_out_of_range_are_counted_without_a_warning(recwarn):
    model = Ridge().fit(X, Y).compile(X, range_margin=0.0)
    assert model.report(X * [2.0] + 0).clipped > 0
    assert not recwarn


@pytest.mark.parametrize("name", CLASSES)
def test_every_estimator_reports(name):
    x, y = data_for(name)
    report = compiled(name).report(x, y)
    assert isinstance(report, LinearReport)
    assert report.lookups == 0
    assert (report.label_agreement is None) == (name in REGRESSORS)
    if name in CLASSIFIERS:
        assert report.label_agreement == 1
        assert report.metric_quantized == report.metric_float
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.lookups = 1


def test_a_report_is_read_line_by_line():
    widths = {"input_bits": 16, "weight_bits": 16, "accumulator_bits": 35}
    text = str(LinearReport(estimator="Ridge", n_features=3, n_scores=1, lookups=0, **widths, max_error=0.000123456789))
    assert text.splitlines() == [
        "estimator         Ridge",
        "n features        3",
        "n scores          1",
        "lookups           0",
        "input bits        16",
        "weight bits       16",
        "accumulator bits  35",
        "max error         0.000123457",
    ]
