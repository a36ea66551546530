"""What a user's subclass overrides is applied once, to features, in every mode."""

import numpy as np
import pytest
from sklearn.datasets import make_classification

from fhelearn.exceptions import LoweringError
from fhelearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, RANSACRegressor, Ridge
from fhelearn.naive_bayes import MultinomialNB
from tests.python.estimators.cases import load

X, Y = load("diabetes")
LABELS = np.where(np.median(Y) < Y, 1, 0)


class LogTarget(LinearRegression):
    def fit(self, X, y, sample_weight=None):
        return super().fit(X, np.log1p(y), sample_weight)

    def predict(self, X, **kwargs):
        return np.expm1(super().predict(X, **kwargs))


class Squared(LogisticRegression):
    def predict_proba(self, X, **kwargs):
        squares = super().predict_proba(X, **kwargs) ** 2
        return squares / squares.sum(axis=1, keepdims=True)


class Shifted(LogisticRegression):
    """Uses the features beside the scores, so that scores in their place would be noticed."""

    def decision_function(self, X, **kwargs):
        assert X.shape[1] == self.n_features_in_
        return 3 * X[:, 2] + super().decision_function(X, **kwargs)


class Named(MultinomialNB):
    def predict(self, X, **kwargs):
        return np.where(super().predict_proba(X, **kwargs)[:, 1] > 0.9, "sure", "unsure")


def test_an_overridden_predict_of_a_regression_is_applied_once():
    model = LogTarget().fit(X, Y).compile(X)
    np.testing.assert_allclose(model.predict(X, fhe="simulate"), model.predict(X), rtol=1e-3)
    report = model.report(X, Y)
    assert report.max_error <= 1e-3
    assert report.metric_float == model.score(X, Y)
    assert report.metric_quantized == pytest.approx(report.metric_float, abs=1e-3)


@pytest.mark.parametrize("cls", [Squared, Shifted])
def test_scikit_learns_methods_call_what_a_classifier_overrides_as_without_encryption(cls):
    model = cls(C=100).fit(X, LABELS).compile(X)
    plain = LogisticRegression(C=100).fit(X, LABELS)
    for method in ("decision_function", "predict_proba", "predict_log_proba"):
        expected = getattr(model, method)(X)
        np.testing.assert_allclose(getattr(model, method)(X, fhe="simulate"), expected, atol=5e-3)
    changed = model.predict(X) != plain.predict(X)
    assert changed.any() == (cls is Shifted)
    assert (model.predict(X, fhe="simulate") == model.predict(X)).all()
    report = model.report(X, LABELS)
    assert report.label_agreement == 1
    assert report.metric_quantized == report.metric_float == model.score(X, LABELS)


def test_a_predict_that_calls_another_method_is_applied_once():
    x, y = load("digits")
    model = Named().fit(x, y < 5).compile(x)
    assert set(model.predict(x)) == {"sure", "unsure"}
    assert (model.predict(x, fhe="simulate") == model.predict(x)).all()
    assert model.report(x).label_agreement == 1


def test_rows_are_run_once_whatever_is_overridden(monkeypatch):
    model = Shifted().fit(X, LABELS).compile(X)
    calls = []
    simulate = type(model._fhe_compiled).simulate
    monkeypatch.setattr(type(model._fhe_compiled), "simulate", lambda *a, **k: calls.append(1) or simulate(*a, **k))
    model.predict(X, fhe="simulate")
    assert calls == [1]


def test_an_override_without_the_keyword_is_refused_not_skipped():
    class Blind(LogisticRegression):
        def decision_function(self, X):
            return super().decision_function(X) + 1

    model = Blind().fit(X, LABELS).compile(X)
    with pytest.raises(TypeError, match="unexpected keyword argument 'fhe'"):
        model.predict(X, fhe="simulate")


def test_a_score_of_ones_own_is_left_out_of_the_report():
    class Scored(PoissonRegressor):
        def score(self, X, y, sample_weight=None):
            return -1.0

    report = Scored().fit(X, Y).compile(X).report(X, Y)
    assert report.metric is report.metric_float is report.metric_quantized is None
    assert report.max_error <= 1e-3


def test_ransac_refuses_an_inner_model_that_overrides_predict():
    class Doubled(Ridge):
        def predict(self, X, **kwargs):
            return 2 * super().predict(X, **kwargs)

    x, y = make_classification(n_samples=100, n_features=5, random_state=0)[0], np.arange(100.0)
    model = RANSACRegressor(Doubled(), random_state=0, min_samples=50).fit(x, y)
    with pytest.raises(LoweringError, match="RANSACRegressor: its estimator Doubled overrides predict or score"):
        model.compile(x)
