"""Labels, probabilities, means and decisions are scikit-learn's own, computed from scores."""

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.datasets import load_iris, load_wine, make_multilabel_classification

from fhelearn.estimators.build import METHODS
from fhelearn.linear_model import LogisticRegression, RANSACRegressor, Ridge, RidgeClassifier, SGDClassifier
from fhelearn.naive_bayes import BernoulliNB, MultinomialNB
from fhelearn.svm import SVC, NuSVC
from tests.python.estimators.cases import (
    CLASSES,
    CLASSIFIERS,
    compiled,
    data_for,
    fit,
    fitted,
    load,
    make,
    without_n_bits,
)

pytestmark = pytest.mark.filterwarnings("ignore:Class PassiveAggressive:FutureWarning")  # scikit-learn's


def float_scores(model, x):
    """What the encrypted side would return if it computed in float64."""
    linear = model._fhe_adapter.linear_map(model)
    return model._fhe_adapter.prepare(model, np.asarray(x, dtype=np.float64)) @ linear.weights + linear.intercept


def float_magnitude(model, x):
    """Largest sum of the magnitudes of the terms of a decision: float64 rounds in units of its epsilon times that."""
    linear = model._fhe_adapter.linear_map(model)
    terms = np.abs(x) @ np.abs(linear.weights) + np.abs(linear.intercept)
    return x.shape[1] * (terms.max() + np.abs(model.offset_).max())


def assert_same_answers(model, x, methods=METHODS):
    """The view of `model` answers from float scores as `model` does from features, up to float64's rounding."""
    scores = float_scores(model, x)
    view = model._fhe_adapter.view(model, scores.shape[1])
    compared = [name for name in methods if hasattr(model, name)]
    assert "predict" in compared
    for name in compared:
        expected, answer = getattr(model, name)(x), getattr(view, name)(scores)
        assert answer.shape == expected.shape
        assert answer.dtype == expected.dtype
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(answer, expected, rtol=1e-7, atol=1e-7 * np.abs(expected).max())
        elif name == "predict" and hasattr(model, "offset_"):
            # A one-class machine puts its support vectors on the boundary, where rounding decides the sign.
            decisions = model.decision_function(x)
            rounding = 8 * np.finfo(np.float64).eps * float_magnitude(model, x)
            assert (answer == expected)[np.abs(decisions) > rounding].all()
        else:
            assert (answer == expected).all()


@pytest.mark.parametrize("name", CLASSES)
def test_every_method_answers_from_scores_as_from_features(name):
    assert_same_answers(fitted(name), data_for(name)[0])


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_two_classes_and_string_labels(name):
    x, y = load("iris")
    rows = y < 2
    labels = np.array(["setosa", "versicolor", "virginica"])
    assert_same_answers(fit(make(name), x[rows], labels[y[rows]]), x[rows])
    model = fit(make(name), x, labels[y]).compile(x)
    assert_same_answers(model, x)
    assert (model.predict(x, fhe="simulate") == model.predict(x)).all()


@pytest.mark.parametrize("cls", [SVC, NuSVC])
@pytest.mark.parametrize("shape", ["ovr", "ovo"])
@pytest.mark.parametrize("dataset", ["iris", "wine", "digits"])
def test_support_vector_machines_vote_as_libsvm_does(cls, shape, dataset):
    x, y = load(dataset)
    model = cls(kernel="linear", decision_function_shape=shape, **({"nu": 0.1} if cls is NuSVC else {})).fit(x, y)
    assert_same_answers(model, x)


@pytest.mark.filterwarnings("ignore:.*probability:FutureWarning")
@pytest.mark.parametrize("classes", [2, 3])
def test_platt_probabilities_come_from_scores(classes):
    x, y = load("iris")
    model = SVC(kernel="linear", probability=True, random_state=0).fit(x[y < classes], y[y < classes])
    assert_same_answers(model, x[y < classes])
    model.compile(x)
    np.testing.assert_allclose(
        model.predict_proba(x, fhe="simulate"), model.predict_proba(x), atol=1e-3
    )  # scores agree to 1e-4, and probabilities change by at most a quarter of that per unit of Platt's slope


def test_breaking_ties_uses_the_decision_function():
    x, y = load("wine")
    model = SVC(kernel="linear", break_ties=True).fit(x, y).compile(x)
    assert (model.predict(x, fhe="simulate") == model.predict(x)).all()


@pytest.mark.parametrize("loss", ["log_loss", "modified_huber"])
def test_probabilities_of_stochastic_gradient_descent_depend_on_the_loss(loss):
    x, y = load("iris")
    model = SGDClassifier(loss=loss, random_state=0).fit(x, y).compile(x)
    assert_same_answers(model, x)
    np.testing.assert_allclose(model.predict_proba(x, fhe="simulate"), model.predict_proba(x), atol=5e-3)


def test_methods_exist_where_scikit_learn_has_them():
    assert not hasattr(SGDClassifier(loss="hinge"), "predict_proba")
    assert hasattr(SGDClassifier(loss="log_loss"), "predict_proba")
    for name, cls in CLASSES.items():
        if not name.startswith("PassiveAggressive"):
            ours = make(name)
            theirs = cls._fhe_base(**without_n_bits(ours))
            assert [m for m in METHODS if hasattr(ours, m)] == [m for m in METHODS if hasattr(theirs, m)]


@pytest.mark.parametrize("name", CLASSES)
def test_disable_is_bit_identical_with_scikit_learn(name):
    x, y = data_for(name)
    ours = compiled(name)
    theirs = fit(ours._fhe_base(**without_n_bits(ours)), x, y)
    for method in METHODS:
        if hasattr(ours, method):
            assert getattr(ours, method)(x).tobytes() == getattr(theirs, method)(x).tobytes()


def test_multilabel_ridge():
    x, y = make_multilabel_classification(random_state=0)
    model = RidgeClassifier().fit(x, y).compile(x)
    assert_same_answers(model, x)
    assert (model.predict(x, fhe="simulate") == model.predict(x)).all()


def test_sample_weights_reach_fit():
    x, y = load("iris")
    weights = np.where(y == 0, 5.0, 1.0)
    model = fit(LogisticRegression(), x, y)
    weighted = LogisticRegression(max_iter=1000).fit(x, y, sample_weight=weights).compile(x)
    assert (weighted.coef_ != model.coef_).any()
    assert (weighted.predict(x, fhe="simulate") == weighted.predict(x)).all()


def test_pandas_in_with_feature_names():
    frame, target = load_iris(return_X_y=True, as_frame=True)
    model = LogisticRegression(max_iter=1000).fit(frame, target).compile(frame)
    assert list(model.feature_names_in_) == list(frame.columns)
    assert (model.predict(frame, fhe="simulate") == model.predict(frame)).all()
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame[frame.columns[::-1]], fhe="simulate")
    with pytest.warns(UserWarning, match="X does not have valid feature names, but LogisticRegression was fitted"):
        model.predict(frame.to_numpy(), fhe="simulate")


def test_categorical_targets_of_pandas():
    frame, target = load_wine(return_X_y=True, as_frame=True)
    model = fit(LogisticRegression(), frame, pd.Series(["abc"[t] for t in target])).compile(frame)
    assert set(model.predict(frame, fhe="simulate")) == {"a", "b", "c"}


@pytest.mark.parametrize("container", [scipy.sparse.csr_matrix, scipy.sparse.csr_array, scipy.sparse.csc_matrix])
def test_sparse_rows_are_quantized_as_dense_ones(container):
    x, y = load("digits")
    model = MultinomialNB().fit(container(x), y).compile(container(x))
    assert (model.predict(container(x)) == model.predict(x)).all()
    assert (model.predict(container(x), fhe="simulate") == model.predict(x, fhe="simulate")).all()


def test_sparsified_coefficients():
    x, y = load("iris")
    model = SGDClassifier(random_state=0, penalty="l1").fit(x, y).compile(x)
    before = model.predict(x, fhe="simulate")
    assert (model.sparsify().predict(x, fhe="simulate") == before).all()
    assert (model.compile(x).predict(x, fhe="simulate") == before).all()


def test_float32_and_integer_features():
    x, y = load("digits")
    model = Ridge().fit(x.astype(np.float32), y).compile(x.astype(np.float32))
    assert (model.predict(x.astype(np.int32), fhe="simulate") == model.predict(x, fhe="simulate")).all()


def test_ransac_answers_with_any_linear_model_inside():
    x, y = load("diabetes")
    for inner in (Ridge(alpha=0.1), Ridge._fhe_base(alpha=0.1)):
        model = RANSACRegressor(inner, random_state=0, min_samples=50).fit(x, y).compile(x)
        assert_same_answers(model, x)


def test_binarized_features_are_in_range_whatever_compile_saw():
    x, y = load("digits")
    model = BernoulliNB(binarize=4.0).fit(x, y).compile(x[:1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (model.predict(x * 100 - 50, fhe="simulate") == model.predict(x * 100 - 50)).all()


def test_one_row_and_one_feature():
    x = np.arange(8.0)[:, None]
    model = Ridge(alpha=1e-9).fit(x, 3 * x.ravel()).compile(x)
    np.testing.assert_allclose(model.predict([[5.0]], fhe="simulate"), [15.0], rtol=1e-4)
