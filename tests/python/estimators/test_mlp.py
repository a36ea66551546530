"""Multi-layer perceptrons: scikit-learn's answers, computed from integers that the reference evaluator fixes."""

import copy
import pickle
import warnings
from functools import cache

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fhelearn.exceptions import (
    AccumulatorOverflowError,
    NotCompiledError,
    OutOfRangeError,
    OutOfRangeWarning,
    QuantizationError,
)
from fhelearn.frontends.linear import LinearMap, quantize_linear
from fhelearn.ir import cost, evaluate
from fhelearn.neural_network import MLPClassifier, MLPRegressor
from fhelearn.onnx import get_equivalent_numpy_forward
from fhelearn.quantization.uniform import ColumnRange
from tests.python.estimators.cases import fit, load
from tests.python.estimators.checks import differences

X, LABELS = load("iris")
NAMES = np.array(["setosa", "versicolor", "virginica"])[LABELS]
TARGETS = {
    "three classes": (MLPClassifier, NAMES),
    "two classes": (MLPClassifier, LABELS == 1),
    "several labels": (MLPClassifier, np.column_stack([LABELS == 0, LABELS > 0, X[:, 0] > 6]).astype(int)),
    "one value": (MLPRegressor, X[:, 0] * 2),
    "two values": (MLPRegressor, X[:, 1:3]),
    "counts": (MLPRegressor, LABELS),
}
METHODS = ("predict", "predict_proba", "predict_log_proba")


def make(kind="three classes", **arguments):
    cls, _ = TARGETS[kind]
    extra = {"loss": "poisson"} if kind == "counts" else {}
    return cls(**{"hidden_layer_sizes": (6,), "max_iter": 200, "random_state": 0, **extra, **arguments})


@cache
def fitted(kind="three classes", activation="relu"):
    """Shared between tests: do not change it."""
    return fit(make(kind, activation=activation), X, TARGETS[kind][1])


@cache
def compiled(kind="three classes", activation="relu"):
    """Shared between tests: do not change it."""
    return copy.deepcopy(fitted(kind, activation)).compile(X)


def whole_range(model, rng):
    """Codes drawn from the whole range of the program's input, and its ends."""
    bounds = model.program_.nodes[model.program_.inputs[0]].value
    lo, hi = bounds.bounds.broadcast(bounds.shape).to_int64()
    return np.concatenate([rng.integers(lo, hi + 1, size=(200, *bounds.shape)), lo[None], hi[None]])


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
@pytest.mark.parametrize("kind", TARGETS)
def test_the_engine_equals_the_reference_on_the_whole_range(kind, activation, rng):
    model = compiled(kind, activation)
    q = whole_range(model, rng)
    assert (model._fhe_compiled.simulate([q])[0] == evaluate(model.program_, [q], on_overflow="wrap")[0]).all()


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
@pytest.mark.parametrize("kind", TARGETS)
def test_every_answer_follows_from_the_reference_evaluator_bit_for_bit(kind, activation):
    model = compiled(kind, activation)
    integers = evaluate(model.program_, [model.quantize_input(X)], on_overflow="wrap")[0]
    for method in METHODS:
        if hasattr(model, method):
            answered = getattr(model, method)(X, fhe="simulate")
            assert (answered == model.answer(integers, method)).all()
            expected = getattr(model, method)(X)
            assert (answered.dtype, answered.shape) == (expected.dtype, expected.shape)


@pytest.mark.parametrize("kind", TARGETS)
def test_answers_are_those_of_scikit_learn_for_the_same_scores(kind):
    model = compiled(kind)
    bare = copy.copy(model)
    bare.out_activation_ = "identity"
    scores = bare._forward_pass_fast(X)
    for method in METHODS:
        if hasattr(model, method):
            assert (model._fhe_from_scores(method, scores) == getattr(model, method)(X)).all()


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
@pytest.mark.parametrize("kind", TARGETS)
def test_the_onnx_view_is_the_model(kind, activation):
    model = fitted(kind, activation)
    output = get_equivalent_numpy_forward(model.onnx_model_)(X)
    np.testing.assert_allclose(output, model._forward_pass_fast(X), rtol=1e-9, atol=1e-12)


def test_the_default_scores_within_a_point_of_the_clear_model_on_digits():
    x, y = load("digits")
    model = fit(MLPClassifier((32,), max_iter=60, random_state=0), x[::2], y[::2]).compile(x)
    encrypted = (model.predict(x[1::2], fhe="simulate") == y[1::2]).mean()
    assert encrypted > model.score(x[1::2], y[1::2]) - 0.01


@pytest.mark.parametrize("kind", TARGETS)
def test_a_network_without_a_nonlinear_layer_is_the_linear_model_of_its_product(kind):
    model = compiled(kind, "identity")
    (first, last), (inner, outer) = model.coefs_, model.intercepts_
    product = LinearMap(first @ last, inner @ last + outer)
    assert model.program_ == quantize_linear(product, ColumnRange.of(X, margin=0.1)).program
    assert cost(model.program_).total_lookups == 0


def test_no_rounding_is_random_by_default():
    assert {node.attributes["method"] for node in compiled().program_.nodes if node.op == "round"} <= {"exact"}


def test_features_in_other_units_give_the_same_program():
    units = np.array([2.0**20, 1.0, 2.0**-15, 2.0])  # powers of two: no float is rounded anew
    model, other = copy.deepcopy(fitted()), copy.deepcopy(fitted())
    other.coefs_ = [other.coefs_[0] / units[:, None], *other.coefs_[1:]]
    assert other.compile(X * units).program_ == model.compile(X).program_
    assert (other.predict_proba(X * units, fhe="simulate") == model.predict_proba(X, fhe="simulate")).all()


# -- scikit-learn's ways -----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # scikit-learn's, about convergence
@parametrize_with_checks([MLPClassifier(max_iter=100), MLPRegressor(max_iter=100)])
def test_a_check_fails_only_where_it_fails_for_scikit_learns_class(estimator, check):
    assert differences(check, estimator) is None


def test_partial_fit_exists_where_scikit_learns_does():
    assert hasattr(MLPClassifier(solver="adam"), "partial_fit")
    assert not hasattr(MLPClassifier(solver="lbfgs"), "partial_fit")


def test_training_drops_what_was_compiled():
    model = copy.deepcopy(compiled())
    model.partial_fit(X, NAMES)
    assert not model.is_compiled_


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_and_pickles_answer_alike(duplicate):
    twin = duplicate(compiled())
    assert twin.program_ == compiled().program_
    assert (twin.predict_proba(X, fhe="simulate") == compiled().predict_proba(X, fhe="simulate")).all()


def test_clones_are_neither_fitted_nor_compiled():
    with pytest.raises(NotFittedError):
        clone(compiled()).predict(X, fhe="simulate")


def test_grid_search_over_n_bits():
    bits = [6, {"op_inputs": 4, "op_weights": 5}]
    search = GridSearchCV(make(max_iter=30), {"n_bits": bits}, cv=2)
    best = fit(search, X, NAMES).best_estimator_.compile(X)
    assert best.n_bits in bits
    assert best.predict(X, fhe="simulate").shape == NAMES.shape


def test_a_pipeline_passes_fhe_to_its_last_step():
    pipeline = fit(make_pipeline(StandardScaler(), make()), X, NAMES)
    pipeline[-1].compile(pipeline[:-1].transform(X))
    assert set(pipeline.predict(X, fhe="simulate")) <= set(NAMES)


def test_from_sklearn_model_takes_a_fitted_network_as_it_is():
    plain = fit(make()._fhe_base(hidden_layer_sizes=(6,), max_iter=200, random_state=0), X, NAMES)
    model = MLPClassifier.from_sklearn_model(plain, X)
    assert (model.predict(X) == plain.predict(X)).all()
    assert model.program_ == compiled().program_


def test_the_report_tells_cost_agreement_and_layers():
    report = compiled().report(X, NAMES)
    assert (report.n_features, report.n_scores, report.clipped) == (4, 3, 0)
    assert report.lookups == cost(compiled().program_).total_lookups
    assert report.label_agreement == (compiled().predict(X, fhe="simulate") == compiled().predict(X)).mean()
    assert report.metric_quantized == (compiled().predict(X, fhe="simulate") == NAMES).mean()
    assert report.network.overflow_rate == 0
    printed = str(report).splitlines()
    assert sum("activation_1" in line for line in printed) == 1
    for name in ("p error", "price", "lookups", "label agreement", "clipped"):
        assert sum(line.startswith(f"{name}  ") for line in printed) == 1
    assert not any(line.startswith("network") for line in printed)


def test_the_rows_that_overflow_are_those_that_the_reference_refuses():
    model = copy.deepcopy(fitted()).compile(X[LABELS == 1], margin=0.0, range_margin=2.0)
    refused = []
    for row, q in enumerate(model.quantize_input(X)):
        try:
            evaluate(model.program_, [q[None]])
        except AccumulatorOverflowError:
            refused.append(row)
    assert model.overflowing_rows(X).tolist() == refused
    assert 0 < len(refused) < len(X)


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_before_fit_and_before_compile_it_says_what_to_call():
    for call in (lambda m: m.compile(X), lambda m: m.predict(X, fhe="simulate"), lambda m: m.onnx_model_):
        with pytest.raises(NotFittedError):
            call(make())
    for call in (lambda m: m.predict(X, fhe="execute"), lambda m: m.quantize_input(X), lambda m: m.program_):
        with pytest.raises(NotCompiledError, match=r"Call 'compile\(X\)'"):
            call(fitted())


@pytest.mark.parametrize("change", [{"n_bits": 5}, {"activation": "tanh"}])
def test_a_changed_model_must_be_compiled_again(change):
    model = copy.deepcopy(compiled()).set_params(**change)
    with pytest.raises(NotCompiledError, match="again"):
        model.predict(X, fhe="simulate")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_refused_in_scikit_learns_words(bad):
    x = np.where(np.arange(4) == 2, bad, X)
    for call in (compiled().quantize_input, copy.deepcopy(compiled()).compile):
        with pytest.raises(ValueError, match=r"Input X contains (NaN|infinity)"):
            call(x)


def test_wrong_shapes_are_refused_in_scikit_learns_words():
    with pytest.raises(ValueError, match="X has 3 features, but MLPClassifier is expecting 4"):
        compiled().predict(X[:, :3], fhe="simulate")
    with pytest.raises(ValueError, match=r"q must have shape \(n, 1, 3\), got \(3,\)"):
        compiled().dequantize_output(np.array([1, 2, 3]))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"p_error": 2.0}, ValueError, "p_error must be in"),
        ({"rounding_threshold_bits": 9}, QuantizationError, "rounding_threshold_bits must be None, an int from 2 to 8"),
        ({"bounds": "seen"}, QuantizationError, "bounds must be 'calibrated' or 'proved'"),
        ({"margin": -1}, QuantizationError, "margin must be a number from 0 to 10"),
        ({"observer": "best"}, QuantizationError, "observer must be"),
        ({"range_margin": -0.1}, QuantizationError, "margin must be a finite float >= 0"),
        ({"on_out_of_range": "ignore"}, ValueError, 'on_out_of_range must be "warn" or "error"'),
    ],
)
def test_wrong_compile_options_are_refused_and_leave_the_former_program(options, error, words):
    model = copy.deepcopy(compiled())
    before = model.program_
    with pytest.raises(error, match=words):
        model.compile(X, **options)
    assert model.program_ is before


@pytest.mark.parametrize("n_bits", [True, 17, 8.0, "8", {"inputs": 4}, {"op_inputs": 4, "op_weights": 1}])
def test_other_forms_of_n_bits_are_refused(n_bits):
    with pytest.raises(QuantizationError, match="n_bits"):
        copy.deepcopy(fitted()).set_params(n_bits=n_bits).compile(X)


def test_values_out_of_range_are_clipped_with_one_warning_that_counts_them():
    x = X.copy()
    x[0, 2], x[1, 2], x[5, 3] = 1e3, -1e3, 99.0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clipped = compiled().predict_proba(x, fhe="simulate")
    assert [w.category for w in caught] == [OutOfRangeWarning]
    assert str(caught[0].message).startswith(
        f"3 of {x.size} values in 2 features lie outside the range seen at compile"
    )
    assert caught[0].filename == __file__
    encoder = compiled()._fhe_compiled.network.quantized.encoders[0].columns
    inside = np.clip(x, encoder.minimum, encoder.maximum)
    assert (clipped == compiled().predict_proba(inside, fhe="simulate")).all()


def test_values_out_of_range_are_refused_when_asked():
    model = copy.deepcopy(fitted()).compile(X, on_out_of_range="error")
    with pytest.raises(OutOfRangeError, match="lie outside the range seen at compile: feature 0"):
        model.predict(X * 3, fhe="simulate")
