"""What is refused, when, and in which words."""

import builtins
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.exceptions import NotFittedError

from fhelearn.exceptions import (
    BackendUnavailableError,
    LoweringError,
    NotCompiledError,
    OutOfRangeError,
    OutOfRangeWarning,
    QuantizationError,
)
from fhelearn.kernel_ridge import KernelRidge
from fhelearn.linear_model import BayesianRidge, Lasso, LinearRegression, LogisticRegression, RANSACRegressor, Ridge
from fhelearn.svm import SVC, SVR, NuSVC, NuSVR, OneClassSVM
from tests.python.estimators.cases import CLASSES, CLASSIFIERS, compiled, data_for, fitted, load, make

X, Y = load("diabetes")


@pytest.fixture
def model():
    return Ridge().fit(X, Y).compile(X)


@pytest.mark.parametrize("name", CLASSES)
def test_before_fit_it_says_so_in_scikit_learns_words(name):
    estimator, (x, _) = make(name), data_for(name)
    words = f"This {name} instance is not fitted yet. Call 'fit' with appropriate arguments before using this estimator"
    for call in (
        lambda: estimator.compile(x),
        lambda: estimator.predict(x, fhe="simulate"),
        lambda: estimator.quantize_input(x),
        lambda: estimator.dequantize_output(x),
        lambda: estimator.report(),
        lambda: estimator.is_compiled_,
        lambda: estimator.program_,
        lambda: estimator.fhe_circuit_,
    ):
        with pytest.raises(NotFittedError, match=re.escape(words)):
            call()
    assert not hasattr(estimator, "program_")


@pytest.mark.parametrize("name", CLASSES)
def test_before_compile_it_says_to_call_compile(name):
    estimator, (x, _) = fitted(name), data_for(name)
    for call in (
        lambda: estimator.predict(x, fhe="simulate"),
        lambda: estimator.predict(x, fhe="execute"),
        lambda: estimator.quantize_input(x),
        lambda: estimator.report(),
        lambda: estimator.program_,
        lambda: estimator.fhe_circuit_,
    ):
        with pytest.raises(NotCompiledError, match=rf"This {name} instance is fitted but .* Call 'compile\(X\)'"):
            call()
    assert not estimator.is_compiled_
    assert not hasattr(estimator, "program_")


@pytest.mark.parametrize("fhe", ["simulate", "execute"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_in_scikit_learns_words(model, fhe, bad):
    x = X.copy()
    x[3, 2] = bad
    words = "Input X contains (NaN|infinity)"
    with pytest.raises(ValueError, match=words):
        model.predict(x, fhe=fhe)
    with pytest.raises(ValueError, match=words):
        model.compile(x)
    with pytest.raises(ValueError, match=words):
        model.quantize_input(x)


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (X[:, :4], ValueError, "X has 4 features, but Ridge is expecting 10 features as input"),
        (X[0], ValueError, "Expected 2D array, got 1D array instead"),
        (X[None], ValueError, "Found array with dim 3"),
        (X[:0], ValueError, r"Found array with 0 sample\(s\)"),
        ([["a"] * 10], ValueError, "could not convert string to float|not compatible with arrays of bytes/strings"),
        (X.astype(complex), ValueError, "Complex data not supported"),
        (None, ValueError, "Expected 2D array, got scalar array instead"),
    ],
    ids=["features", "1d", "3d", "empty", "strings", "complex", "none"],
)
def test_wrong_shapes_and_types_are_refused_in_scikit_learns_words(model, x, error, words):
    for call in (
        lambda: model.predict(x),
        lambda: model.predict(x, fhe="simulate"),
        lambda: model.quantize_input(x),
        lambda: model.compile(x),
    ):
        with pytest.raises(error, match=words):
            call()


@pytest.mark.parametrize("mode", ["encrypted", None, True, ["simulate"]])
def test_unknown_modes_are_refused(model, mode):
    with pytest.raises(ValueError, match='fhe must be "disable", "simulate" or "execute", got '):
        model.predict(X, fhe=mode)


@pytest.mark.parametrize("fhe", ["disable", "simulate", "execute"])
def test_unknown_and_surplus_arguments_are_refused_in_every_mode(model, fhe):
    with pytest.raises(TypeError, match=r"predict\(\) got an unexpected keyword argument 'mode'"):
        model.predict(X, mode="simulate", fhe=fhe)
    with pytest.raises(TypeError, match=r"predict\(\) (takes 2 positional|too many positional)"):
        model.predict(X, 1, 2, fhe=fhe)
    bayesian = BayesianRidge().fit(X, Y).compile(X)
    with pytest.raises(TypeError, match="positional arguments"):
        bayesian.predict(X, False, 2, fhe=fhe)
    with pytest.raises(TypeError, match="multiple values for argument 'return_std'"):
        bayesian.predict(X, False, return_std=False, fhe=fhe)


@pytest.mark.parametrize("fhe", ["disable", "simulate", "execute"])
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"n_jobs": "2"}, TypeError, "n_jobs must be an int or None, got '2'"),
        ({"n_jobs": 1.5}, TypeError, "n_jobs must be an int or None, got 1.5"),
        ({"n_jobs": True}, TypeError, "n_jobs must be an int or None, got True"),
        ({"n_jobs": 0}, ValueError, "n_jobs must not be 0"),
        ({"progress": "yes"}, TypeError, "progress must be True, False or None, got 'yes'"),
    ],
)
def test_wrong_jobs_and_progress_are_refused_in_every_mode(model, fhe, options, error, words):
    with pytest.raises(error, match=words):
        model.predict(X, fhe=fhe, **options)


@pytest.mark.parametrize("n_jobs", [None, 1, 2, -1, np.int64(2)])
def test_any_number_of_jobs_gives_the_same_answer(model, n_jobs):
    assert (model.predict(X, fhe="simulate", n_jobs=n_jobs) == model.predict(X, fhe="simulate")).all()


@pytest.mark.parametrize("n_bits", [1, 17, 0, -3])
def test_n_bits_out_of_range_is_refused_by_fit_and_by_compile(n_bits, model):
    with pytest.raises(ValueError, match=r"The 'n_bits' parameter of Lasso must be an int in the range \[2, 16\]"):
        Lasso(n_bits=n_bits).fit(X, Y)
    with pytest.raises(QuantizationError, match=f"n_bits must be an int from 2 to 16, got {n_bits}"):
        model.set_params(n_bits=n_bits).compile(X)


@pytest.mark.parametrize(
    ("n_bits", "words"),
    [
        (True, "n_bits must be an int from 2 to 16, got True"),
        (8.0, "got 8.0"),
        ("8", "got '8'"),
        ({"inputs": 8}, r"must have the keys \['inputs', 'weights'\], got \['inputs'\]"),
        ({"inputs": 8, "weights": 8, "outputs": 8}, "must have the keys"),
        ({"inputs": 8, "weights": 17}, r"n_bits\['weights'\] must be an int from 2 to 16, got 17"),
        ({"inputs": None, "weights": 4}, r"n_bits\['inputs'\] must be an int from 2 to 16, got None"),
    ],
)
def test_other_forms_of_n_bits_are_refused(model, n_bits, words):
    with pytest.raises(QuantizationError, match=words):
        model.set_params(n_bits=n_bits).compile(X)


def test_too_wide_accumulators_are_refused_with_the_widest_n_bits_that_fits(rng):
    x = rng.normal(size=(50, 900))
    model = Ridge(n_bits=16).fit(x, x[:, 0])
    with pytest.raises(
        QuantizationError, match=r"need a 39-bit accumulator.*lower n_bits to (\d+), or leave"
    ) as caught:
        model.compile(x)
    fits = int(re.search(r"lower n_bits to (\d+)", str(caught.value))[1])
    model.set_params(n_bits=fits).compile(x)
    with pytest.raises(QuantizationError, match="lower n_bits"):
        model.set_params(n_bits=fits + 1).compile(x)
    model.set_params(n_bits=None).compile(x)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"p_error": 1e-9, "global_p_error": 1e-9}, ValueError, "not both"),
        ({"p_error": 0.0}, ValueError, "p_error must be in"),
        ({"p_error": 1.5}, ValueError, "p_error must be in"),
        ({"security_level": 64}, ValueError, "security_level must be 128 or 132"),
        ({"on_out_of_range": "ignore"}, ValueError, 'on_out_of_range must be "warn" or "error"'),
        ({"range_margin": -0.1}, QuantizationError, "margin must be a finite float >= 0, got -0.1"),
        ({"range_margin": np.nan}, QuantizationError, "margin must be a finite float >= 0"),
    ],
)
def test_wrong_compile_options_are_refused(model, options, error, words):
    with pytest.raises(error, match=words):
        model.compile(X, **options)


def test_a_refused_compile_leaves_the_former_one(model):
    before = model.program_
    with pytest.raises(ValueError, match="p_error"):
        model.compile(X, p_error=2.0)
    assert model.program_ is before


def test_values_out_of_range_are_clipped_with_one_warning_that_counts_them(model):
    x = X.copy()
    x[0, 2], x[1, 2], x[2, 2], x[5, 8] = 1e3, -1e3, 1e300, -7.0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clipped = model.predict(x, fhe="simulate")
    assert [w.category for w in caught] == [OutOfRangeWarning]
    assert str(caught[0].message).startswith(
        f"4 of {x.size} values in 2 features lie outside the range seen at compile: feature 2 (1 below "
    )
    assert "2 above" in str(caught[0].message)
    assert caught[0].filename == __file__
    encoder = model._fhe_compiled.quantized.encoder
    assert (clipped == model.predict(np.clip(x, encoder.minimum, encoder.maximum), fhe="simulate")).all()


def test_values_out_of_range_are_refused_when_asked(model):
    model.compile(X, on_out_of_range="error", range_margin=0.0)
    model.predict(X, fhe="simulate")
    with pytest.raises(OutOfRangeError, match=f"1 of {X.size} values in 1 feature .*compile.X. with data of the full"):
        model.predict(np.where(X[:, 2].max() == X, 2 * X, X), fhe="simulate")
    with pytest.raises(OutOfRangeError):
        model.quantize_input(X * 1.5)


def test_features_are_named_in_out_of_range_messages():
    frame = pd.DataFrame(X[:, :2], columns=["age", "sex"])
    model = Ridge().fit(frame, Y).compile(frame)
    with pytest.warns(OutOfRangeWarning, match=r"age \(0 below .*, 442 above"):
        model.predict(frame + np.array([1.0, 0.0]), fhe="simulate")


def test_many_features_out_of_range_are_counted_not_listed(model):
    with pytest.warns(OutOfRangeWarning, match="and 5 more features|5 more features"):
        model.predict(X + 10, fhe="simulate")


def test_features_without_weight_may_take_any_value():
    x = np.column_stack([X[:, 2], np.zeros(len(X)), X[:, 3]])
    model = Lasso(alpha=0.1).fit(x, Y).compile(x)
    assert model.coef_[1] == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        changed = model.predict(x + np.array([0.0, 1e6, 0.0]), fhe="simulate")
    assert (changed == model.predict(x, fhe="simulate")).all()


@pytest.mark.parametrize("constant", [0.0, 5.0, -3.5, 1e12])
def test_constant_features_are_exact(constant):
    x = np.column_stack([X[:, 2], np.full(len(X), constant)])
    model = Ridge(fit_intercept=False).fit(x, Y).compile(x)
    error = np.abs(model.predict(x, fhe="simulate") - model.predict(x)).max()
    assert error <= 1e-4 * np.ptp(Y)


@pytest.mark.parametrize("cls", [SVC, NuSVC, SVR, NuSVR, OneClassSVM, KernelRidge])
def test_other_kernels_are_refused_by_compile(cls):
    x, y = load("iris")
    model = cls(kernel="rbf").fit(x, y)
    with pytest.raises(LoweringError, match=rf"{cls.__name__}: kernel must be 'linear', got 'rbf'.*Fit with kernel"):
        model.compile(x)
    assert (model.predict(x) == cls._fhe_base(kernel="rbf").fit(x, y).predict(x)).all()


def test_ransac_over_a_model_without_dot_product_is_refused():
    from sklearn.tree import DecisionTreeRegressor

    model = RANSACRegressor(DecisionTreeRegressor(max_depth=2), random_state=0, min_samples=50).fit(X, Y)
    with pytest.raises(LoweringError, match="DecisionTreeRegressor does not predict through one dot product"):
        model.compile(X)


def test_answers_that_need_more_than_scores_are_refused():
    model = BayesianRidge().fit(X, Y).compile(X)
    assert len(model.predict(X, return_std=True)) == 2
    assert model.predict(X, fhe="simulate", return_std=False).shape == (len(X),)
    with pytest.raises(ValueError, match=r"BayesianRidge\.predict: return_std cannot be combined with"):
        model.predict(X, return_std=True, fhe="simulate")
    with pytest.raises(ValueError, match="return_std cannot be combined"):
        model.predict(X, True, fhe="simulate")


def test_diverged_models_are_refused():
    model = LinearRegression().fit(X, Y)
    model.coef_[4] = np.nan
    with pytest.raises(QuantizationError, match="the model's weights hold NaN or infinity"):
        model.compile(X)


@pytest.mark.parametrize(
    ("factor", "words"), [(1.7e308, "range of column 0 is too wide"), (1e200, "overflow"), (1e-320, None)]
)
def test_extreme_ranges_give_an_error_or_a_right_answer(factor, words):
    x = X[:, :1] / np.abs(X[:, :1]).max() * factor
    model = LinearRegression().fit(X[:, :1], Y)
    model.coef_[0] = 1e200
    if words is None:
        np.testing.assert_allclose(model.compile(x).predict(x, fhe="simulate"), model.predict(x))
    else:
        with pytest.raises(QuantizationError, match=words):
            model.compile(x)


def test_wrong_integers_are_refused_by_dequantize_output(model):
    with pytest.raises(ValueError, match=r"q must have shape \(n, 1\), got \(3,\)"):
        model.dequantize_output(np.array([1, 2, 3]))
    with pytest.raises(ValueError, match="q must hold integers, got dtype float64"):
        model.dequantize_output(np.array([[1.0]]))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_sparse_rows_with_wrong_width_are_refused(name):
    with pytest.raises(ValueError, match="X has 9 features"):
        compiled(name).predict(scipy.sparse.csr_matrix(np.ones((2, 9))), fhe="simulate")


def test_without_concrete_everything_but_execute_works(monkeypatch):
    monkeypatch.setattr("fhelearn.backends.concrete.is_available", lambda: False)
    monkeypatch.setattr("fhelearn.backends.concrete.unavailable_reason", lambda: "no wheel for this platform")
    model = LogisticRegression(max_iter=1000).fit(*load("iris")).compile(load("iris")[0])
    x = load("iris")[0]
    assert (model.predict(x, fhe="simulate") == model.predict(x)).all()
    assert "seconds" not in str(model.report(x))
    words = 'fhe="execute" needs concrete-python: no wheel for this platform'
    with pytest.raises(BackendUnavailableError, match=words):
        model.predict(x, fhe="execute")
    with pytest.raises(BackendUnavailableError, match=words):
        _ = model.fhe_circuit_


def test_disable_imports_no_back_end(monkeypatch):
    def refuse(name, *args, **kwargs):
        assert not name.startswith(("concrete", "fhelearn.backends.concrete")), name
        return original(name, *args, **kwargs)

    original = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", refuse)
    Ridge().fit(X, Y).predict(X)
