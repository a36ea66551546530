"""Pipelines: what becomes one dot product, what stays with the client, and answers as the clear pipeline gives them."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, Ridge, RidgeClassifier
from sklearn.naive_bayes import BernoulliNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC

import fhelearn.linear_model
import fhelearn.neural_network
import fhelearn.tree
from fhelearn.exceptions import LoweringError, OutOfRangeError, OutOfRangeWarning, QuantizationError
from fhelearn.ir import cost, evaluate
from fhelearn.pipeline import from_sklearn_model
from tests.python.estimators.cases import fit, load

X, LABELS = load("iris")
Y = np.array(["setosa", "versicolor", "virginica"])[LABELS]
FAR = X * 1000 + 1e6  # float32 would lose what tells the classes apart

AFFINE = {
    "scaler": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "scaler, PCA": lambda: make_pipeline(MinMaxScaler(), PCA(3), LinearSVC(random_state=0)),
    "two scalers": lambda: make_pipeline(RobustScaler(), StandardScaler(), RidgeClassifier()),
    "selection": lambda: make_pipeline(SelectKBest(k=2), StandardScaler(), SVC(kernel="linear")),
}
OTHER = {
    "forest": lambda: make_pipeline(StandardScaler(), RandomForestClassifier(3, max_depth=3, random_state=0)),
    "network": lambda: make_pipeline(StandardScaler(), MLPClassifier((4,), max_iter=100, random_state=0)),
    "powers": lambda: make_pipeline(MinMaxScaler(), PolynomialFeatures(2), LogisticRegression()),
    "clipping": lambda: make_pipeline(MinMaxScaler(clip=True), LogisticRegression()),
    "counts": lambda: make_pipeline(StandardScaler(), BernoulliNB()),
    "no steps": lambda: LogisticRegression(max_iter=1000),
}
METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function")


def fitted(make, x=X, y=Y):
    return fit(make(), x, y)


@pytest.mark.parametrize("name", AFFINE)
def test_affine_steps_and_a_linear_model_are_one_dot_product_of_raw_features(name):
    model = fitted(AFFINE[name])
    encrypted = from_sklearn_model(model, X)
    assert [node.op for node in encrypted.program_.nodes] == ["input", "matmul"]
    assert cost(encrypted.program_).total_lookups == 0
    assert encrypted.quantize_input(X).shape == X.shape
    assert (encrypted.predict(X, fhe="simulate") == model.predict(X)).all()


@pytest.mark.parametrize("name", [*AFFINE, *OTHER])
def test_answers_have_the_labels_types_and_methods_of_the_clear_model(name):
    model = fitted({**AFFINE, **OTHER}[name])
    encrypted = from_sklearn_model(model, X)
    for method in METHODS:
        assert hasattr(encrypted, method) == hasattr(model, method)
        if hasattr(model, method):
            expected, answered = getattr(model, method)(X), getattr(encrypted, method)(X, fhe="simulate")
            assert (answered.dtype, answered.shape) == (expected.dtype, expected.shape)
            assert (getattr(encrypted, method)(X) == expected).all()


@pytest.mark.parametrize("name", [*AFFINE, *OTHER])
def test_simulated_scores_are_those_of_the_reference_evaluator(name):
    encrypted = from_sklearn_model(fitted({**AFFINE, **OTHER}[name]), X)
    q = encrypted.quantize_input(X)
    integers = evaluate(encrypted.program_, [q], on_overflow="wrap")[0]
    estimator = encrypted._route.estimator
    simulated = encrypted.predict(X, fhe="simulate")
    assert (simulated == estimator._fhe_from_scores("predict", encrypted.dequantize_output(integers))).all()


def test_pca_and_a_regression_are_one_matmul_for_a_fifth_of_a_permille_of_the_range():
    x, y = load("diabetes")
    model = make_pipeline(PCA(4), LinearRegression()).fit(x, y)
    encrypted = from_sklearn_model(model, x)
    assert [node.op for node in encrypted.program_.nodes] == ["input", "matmul"]
    assert encrypted.program_.nodes[1].array("weights").shape == (10, 1)
    assert np.abs(encrypted.predict(x, fhe="simulate") - model.predict(x)).max() <= 2e-4 * np.ptp(y)


def test_a_link_function_runs_on_the_client():
    model = fit(make_pipeline(StandardScaler(), PoissonRegressor()), X, LABELS)
    answered = from_sklearn_model(model, X).predict(X, fhe="simulate")
    np.testing.assert_allclose(answered, model.predict(X), rtol=1e-3)


def test_a_scaler_is_folded_in_float64():
    model = fit(make_pipeline(StandardScaler(), LogisticRegression()), FAR, Y)
    encrypted = from_sklearn_model(model, FAR)
    assert cost(encrypted.program_).total_lookups == 0
    np.testing.assert_allclose(encrypted.predict_proba(FAR, fhe="simulate"), model.predict_proba(FAR), atol=1e-3)


def test_the_folded_map_does_not_depend_on_the_units_of_the_features():
    units = np.array([2.0**10, 1.0, 0.5, 2.0**-8])
    one, other = (from_sklearn_model(fitted(AFFINE["scaler"], x), x) for x in (X, X * units))
    assert (one.quantize_input(X) == other.quantize_input(X * units)).all()


def test_steps_that_hummingbird_takes_for_affine_but_are_not_run_in_the_clear():
    model = fitted(OTHER["clipping"])
    encrypted = from_sklearn_model(model, X)
    beyond = X + 3.0
    assert (encrypted.predict(beyond, fhe="simulate") == model.predict(beyond)).all()


def test_missing_values_are_imputed_by_the_client():
    x = np.where(np.random.default_rng(0).uniform(size=X.shape) < 0.1, np.nan, X)
    model = fit(make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()), x, Y)
    assert (from_sklearn_model(model, x).predict(x, fhe="simulate") == model.predict(x)).mean() > 0.99


def test_trees_keep_their_very_decisions():
    model = fitted(OTHER["forest"])
    assert (from_sklearn_model(model, X).predict(X, fhe="simulate") == model.predict(X)).all()


def test_the_final_step_may_be_an_estimator_of_this_library():
    model = fit(make_pipeline(StandardScaler(), fhelearn.linear_model.LogisticRegression(n_bits=8)), X, Y)
    encrypted = from_sklearn_model(model, X, n_bits=8)
    assert (encrypted.predict(X, fhe="simulate") == model.predict(X)).mean() > 0.97
    assert encrypted.program_.nodes[0].value.bit_width == 8


def test_widths_that_are_given_are_used():
    encrypted = from_sklearn_model(fitted(AFFINE["scaler"]), X, n_bits={"inputs": 6, "weights": 5})
    assert encrypted.program_.nodes[0].value.bit_width == 6
    assert np.abs(encrypted.program_.nodes[1].array("weights")).max() == 15


# -- models without a class of their own -------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: PCA(2), lambda: make_pipeline(StandardScaler(), PCA(2))])
def test_affine_transformers_are_one_matmul(make):
    model = make().fit(X)
    encrypted = from_sklearn_model(model, X)
    assert [node.op for node in encrypted.program_.nodes] == ["input", "matmul"]
    expected = model.transform(X)
    answered = encrypted.transform(X, fhe="simulate")
    assert (answered.dtype, answered.shape) == (expected.dtype, expected.shape)
    np.testing.assert_allclose(answered, expected, atol=1e-3)
    assert not hasattr(encrypted, "predict")


def test_a_clustering_becomes_a_network():
    model = make_pipeline(StandardScaler(), KMeans(3, n_init=1, random_state=0)).fit(X)
    encrypted = from_sklearn_model(model, X)
    q = encrypted.quantize_input(X)
    simulated = encrypted._route.compiled.simulate([q])[0]
    assert (simulated == evaluate(encrypted.program_, [q], on_overflow="wrap")[0]).all()
    assert (encrypted.predict(X, fhe="simulate") == model.predict(X)).mean() > 0.95
    assert encrypted.report(X).overflow_rate == 0


TEXTS = np.array(["red", "green", "blue"], dtype=object)[LABELS, None]


@pytest.mark.parametrize(
    ("step", "x"),
    [
        (SimpleImputer(), np.where(X > 6.5, np.nan, X)),
        (OneHotEncoder(sparse_output=False), TEXTS),
        (FunctionTransformer(np.log1p), X),
    ],
    ids=["missing values", "texts", "unknown to Hummingbird"],
)
def test_steps_that_no_graph_can_hold_run_in_the_clear(step, x):
    model = make_pipeline(step, KMeans(3, n_init=1, random_state=0)).fit(x)
    encrypted = from_sklearn_model(model, x, n_bits=8)
    assert (encrypted.predict(x) == model.predict(x)).all()
    between = model[0].transform(x)
    alone = from_sklearn_model(model[1], between, n_bits=8)
    assert (encrypted.quantize_input(x) == alone.quantize_input(between)).all()
    assert (encrypted.predict(x, fhe="simulate") == alone.predict(between, fhe="simulate")).all()
    assert encrypted.report(x).max_errors == alone.report(between).max_errors


@pytest.mark.parametrize("last", [KMeans(3, n_init=1, random_state=0), LogisticRegression()], ids=repr)
@pytest.mark.parametrize("remainder", ["drop", "passthrough"])
def test_columns_of_a_frame_may_be_chosen_by_name(remainder, last):
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    columns = make_column_transformer((StandardScaler(), ["c", "a"]), remainder=remainder)
    model = make_pipeline(columns, last).fit(frame, LABELS)
    encrypted = from_sklearn_model(model, frame, n_bits=8)
    assert encrypted.onnx_model_.graph.input[0].type.tensor_type.shape.dim[1].dim_value == 4
    assert (encrypted.predict(frame, fhe="simulate") == model.predict(frame)).mean() > 0.9


# -- the rest of the interface -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*AFFINE, *OTHER])
def test_every_pipeline_reports(name):
    encrypted = from_sklearn_model(fitted({**AFFINE, **OTHER}[name]), X)
    report = encrypted.report(X, Y)
    assert report.label_agreement == (encrypted.predict(X, fhe="simulate") == encrypted.predict(X)).mean()
    assert report.lookups == cost(encrypted.program_).total_lookups


ROUTES = {
    **AFFINE,
    **OTHER,
    "PCA": lambda: PCA(2),
    "clustering": lambda: make_pipeline(StandardScaler(), KMeans(3, n_init=1, random_state=0)),
}


@pytest.mark.parametrize("name", ROUTES)
def test_decrypted_integers_end_in_the_answers_of_every_method(name):
    encrypted = from_sklearn_model(fitted(ROUTES[name]), X)
    outputs = evaluate(encrypted.program_, [encrypted.quantize_input(X)], on_overflow="wrap")
    q = outputs[0] if len(outputs) == 1 else tuple(outputs)
    methods = encrypted._route.methods
    assert methods
    for method in methods:
        assert (encrypted.answer(q, method) == getattr(encrypted, method)(X, fhe="simulate")).all()
    with pytest.raises(ValueError, match=f"method must be one of {methods[0]}.*got 'score'"):
        encrypted.answer(q, "score")
    with pytest.raises(ValueError, match=r"q must .*shape \(n, .* \(2, 77\)"):
        encrypted.answer(np.zeros((2, 77), np.int64), methods[0])


@pytest.mark.parametrize("name", ROUTES)
def test_classes_are_those_of_the_model(name):
    model = fitted(ROUTES[name])
    encrypted = from_sklearn_model(model, X)
    assert hasattr(encrypted, "classes_") == hasattr(model, "classes_")
    if hasattr(model, "classes_"):
        assert (encrypted.classes_ == model.classes_).all()


def test_it_shows_its_steps_what_is_encrypted_and_what_it_answers():
    found = {name: repr(from_sklearn_model(fitted(ROUTES[name]), X)) for name in ("scaler", "forest", "PCA")}
    assert "(StandardScaler -> LogisticRegression; encrypted: one dot product of the features" in found["scaler"]
    assert "encrypted: RandomForestClassifier, after 1 step in the clear; predict, predict_proba" in found["forest"]
    assert found["PCA"] == "EncryptedPipeline(PCA; encrypted: the ONNX graph; transform)"


def test_models_that_nothing_can_encrypt_say_what_can_be():
    for model in (KNeighborsClassifier(), make_pipeline(StandardScaler(), KNeighborsClassifier())):
        with pytest.raises(LoweringError, match=r"^KNeighborsClassifier cannot be encrypted.*supported are .*ensemble"):
            from_sklearn_model(fit(model, X, Y), X)


def test_the_onnx_view_is_that_of_the_whole_pipeline():
    encrypted = from_sklearn_model(fitted(AFFINE["scaler"]), X)
    assert {output.name for output in encrypted.onnx_model_.graph.output} == {"label", "scores"}


def test_data_frames_keep_their_names():
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    model = fit(make_pipeline(StandardScaler(), LogisticRegression()), frame, Y)
    encrypted = from_sklearn_model(model, frame)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (encrypted.predict(frame, fhe="simulate") == model.predict(frame)).all()
    with pytest.warns(OutOfRangeWarning, match="in 1 feature lie outside the range seen at compile: b "):
        encrypted.predict(frame + np.array([0.0, 9.0, 0.0, 0.0]), fhe="simulate")


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_a_model_that_was_fitted_on_a_frame_takes_arrays_as_scikit_learn_does():
    model = fit(make_pipeline(StandardScaler(), LogisticRegression()), pd.DataFrame(X, columns=["a", "b", "c", "d"]), Y)
    encrypted = from_sklearn_model(model, X)
    assert [node.op for node in encrypted.program_.nodes] == ["input", "matmul"]
    assert (encrypted.predict(X, fhe="simulate") == model.predict(X)).all()


@pytest.mark.parametrize("name", ["scaler", "network", "forest", "no steps"])
def test_fitting_the_model_again_changes_no_answer(name):
    model = fitted({**AFFINE, **OTHER}[name])
    encrypted = from_sklearn_model(model, X)
    answers = [encrypted.predict_proba(X, fhe=fhe) for fhe in ("disable", "simulate")]
    fit(model, X * 3 + 1, Y[::-1])
    for fhe, answer in zip(("disable", "simulate"), answers, strict=True):
        assert (encrypted.predict_proba(X, fhe=fhe) == answer).all()


@pytest.mark.parametrize("make", [AFFINE["scaler"], lambda: PCA(2)])
def test_values_out_of_range_are_counted_or_refused(make):
    model = fitted(make)
    method = "predict" if hasattr(model, "predict") else "transform"
    with pytest.warns(OutOfRangeWarning, match="lie outside the range seen at compile") as caught:
        getattr(from_sklearn_model(model, X), method)(X * 3, fhe="simulate")
    assert caught[0].filename == __file__
    with pytest.raises(OutOfRangeError):
        getattr(from_sklearn_model(model, X, on_out_of_range="error"), method)(X * 3, fhe="simulate")


def test_bad_input_is_refused_in_scikit_learns_words():
    encrypted = from_sklearn_model(fitted(AFFINE["scaler"]), X)
    with pytest.raises(ValueError, match="has 3 features"):
        encrypted.predict(X[:, :3], fhe="simulate")
    with pytest.raises(ValueError, match="contains NaN"):
        encrypted.predict(np.where(X > 7, np.nan, X), fhe="simulate")
    with pytest.raises(ValueError, match='fhe must be "disable", "simulate" or "execute"'):
        encrypted.predict(X, fhe="encrypted")
    with pytest.raises(TypeError, match="n_jobs must be an int or None"):
        encrypted.predict(X, fhe="simulate", n_jobs="2")


def test_what_cannot_be_encrypted_is_refused():
    with pytest.raises(NotFittedError):
        from_sklearn_model(make_pipeline(StandardScaler(), Ridge()), X)
    with pytest.raises(TypeError, match="rounding_threshold_bits"):
        from_sklearn_model(fitted(AFFINE["scaler"]), X, rounding_threshold_bits=6)
    with pytest.raises(QuantizationError, match="n_bits must be an int from 2 to 16"):
        from_sklearn_model(fitted(AFFINE["scaler"]), X, n_bits=17)
    with pytest.raises(LoweringError, match="kernel must be 'linear'"):
        from_sklearn_model(fit(make_pipeline(StandardScaler(), SVC()), X, Y), X)
