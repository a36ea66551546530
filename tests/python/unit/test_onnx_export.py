"""The ONNX view of fitted models, made through Hummingbird."""

import copy
import os
import subprocess
import sys
import threading
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from lightgbm import LGBMClassifier, LGBMRegressor
from onnx.reference import ReferenceEvaluator
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from threadpoolctl import threadpool_limits
from xgboost import XGBClassifier, XGBRegressor

from fhelearn.exceptions import BackendUnavailableError, LoweringError
from fhelearn.onnx import export_sklearn

IRIS = load_iris(return_X_y=True)
CANCER = load_breast_cancer(return_X_y=True)
DIABETES = load_diabetes(return_X_y=True)
SHORT = {"n_estimators": 3, "max_depth": 3, "random_state": 0}
BOOSTED = {**SHORT, "n_jobs": 1}
CATEGORICAL = {**BOOSTED, "verbose": -1, "min_data_per_group": 1, "cat_smooth": 1, "max_cat_to_onehot": 1}


@pytest.fixture(autouse=True)
def one_thread():
    """The threads of histogram-based trees spin: on a machine that does other things, a fit takes seconds."""
    with threadpool_limits(1):
        yield


def run(model, x):
    return ReferenceEvaluator(model).run(None, {"input": x})


@pytest.mark.parametrize("implementation", ["auto", "gemm", "tree_trav", "perf_tree_trav"])
@pytest.mark.parametrize(
    ("model", "data"),
    [
        (DecisionTreeClassifier(max_depth=3, random_state=0), IRIS),
        (XGBClassifier(**BOOSTED), CANCER),
        (XGBClassifier(**BOOSTED), IRIS),
        (LGBMClassifier(**BOOSTED, verbose=-1), CANCER),
        (HistGradientBoostingClassifier(max_iter=3, random_state=0), IRIS),
    ],
)
def test_every_strategy_answers_as_the_model(model, data, implementation):
    x, y = data[0].astype(np.float32), np.array(["none", "one", "two"])[data[1]]
    if isinstance(model, XGBClassifier):
        y = data[1]
    fitted = model.fit(x, y)
    label, scores = run(export_sklearn(fitted, x, tree_implementation=implementation), x)
    assert np.array_equal(fitted.classes_[label], fitted.predict(x))
    # Sums and links in float32: relative to probabilities, which are at most 1.
    np.testing.assert_allclose(scores, fitted.predict_proba(x), rtol=0, atol=16 * np.finfo(np.float32).eps)


def test_pipelines_and_linear_models_have_index_labels_too():
    names = np.array(["setosa", "versicolor", "virginica"])[IRIS[1]]
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(IRIS[0], names)
    label, scores = run(export_sklearn(fitted, IRIS[0]), IRIS[0])
    assert np.array_equal(fitted.classes_[label], fitted.predict(IRIS[0]))
    np.testing.assert_allclose(scores, fitted.predict_proba(IRIS[0]), rtol=0, atol=1e-6)
    graph = export_sklearn(Ridge().fit(*DIABETES), DIABETES[0])
    assert [output.name for output in graph.graph.output] == ["output"]


def test_early_stopped_boosters_end_at_their_best_iteration():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 4)).astype(np.float32), rng.integers(2, size=200)
    for model in (
        XGBClassifier(n_estimators=60, max_depth=3, early_stopping_rounds=3, n_jobs=1),
        LGBMClassifier(n_estimators=60, max_depth=3, early_stopping_round=3, n_jobs=1, verbose=-1),
    ):
        held_out = {"eval_set": [(x[100:], y[100:])]}
        if isinstance(model, LGBMClassifier):
            held_out = {"eval_X": x[100:], "eval_y": y[100:]}
        fitted = model.fit(x[:100], y[:100], **held_out)
        scores = run(export_sklearn(fitted, x), x)[1]
        np.testing.assert_allclose(scores, fitted.predict_proba(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("model", [XGBClassifier(**BOOSTED), LGBMClassifier(**BOOSTED, verbose=-1)])
def test_models_fitted_on_data_frames_are_read_by_position(model):
    x, y = load_breast_cancer(return_X_y=True, as_frame=True)
    fitted = model.fit(x, y)
    rows = x.to_numpy().astype(np.float32)
    scores = run(export_sklearn(fitted, x), rows.astype(np.float64))[1]
    np.testing.assert_allclose(scores, fitted.predict_proba(x.astype(np.float32)), rtol=0, atol=1e-6)
    if isinstance(model, XGBClassifier):
        assert fitted.get_booster().feature_names == list(x.columns)


def test_the_type_and_width_of_the_input_are_those_of_the_data():
    fitted = RandomForestClassifier(**SHORT).fit(*IRIS)
    for x, element in ((IRIS[0], 11), (IRIS[0].astype(np.float32), 1), (IRIS[0].astype(np.int32), 11)):
        source = export_sklearn(fitted, x).graph.input[0].type.tensor_type
        assert (source.elem_type, source.shape.dim[1].dim_value) == (element, 4)


def test_a_graph_traced_on_one_row_takes_any_number_of_rows():
    fitted = GradientBoostingClassifier(n_estimators=1, max_depth=2).fit(*CANCER)
    graph = export_sklearn(fitted, CANCER[0][:1], tree_implementation="gemm")
    for n in (1, 2, 7):
        np.testing.assert_allclose(run(graph, CANCER[0][:n])[1], fitted.predict_proba(CANCER[0][:n]), rtol=0, atol=1e-6)


def test_the_model_the_process_and_the_folder_stay_as_they_were(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fitted = DecisionTreeClassifier(max_depth=3, random_state=0).fit(*IRIS)
    state, threads, export = copy.deepcopy(vars(fitted)), torch.get_num_threads(), torch.onnx.export
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_sklearn(fitted, IRIS[0], tree_implementation="tree_trav")
        filters = list(warnings.filters)
    assert filters[0][0] == "error"
    assert (torch.get_num_threads(), torch.onnx.export) == (threads, export)
    assert os.listdir(tmp_path) == []
    assert vars(fitted).keys() == state.keys()
    assert np.array_equal(fitted.tree_.children_left, state["tree_"].children_left)
    assert np.array_equal(fitted.classes_, state["classes_"])


def test_threads_may_export_at_the_same_time():
    fitted = RandomForestClassifier(**SHORT).fit(*IRIS)
    expected, graphs = export_sklearn(fitted, IRIS[0]).SerializeToString(), []
    workers = [
        threading.Thread(target=lambda: graphs.append(export_sklearn(fitted, IRIS[0]).SerializeToString()))
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert graphs == [expected] * 4


RNG = np.random.default_rng(0)
MIXED = np.column_stack([IRIS[0], RNG.integers(4, size=(150, 2))])
FRAME = pd.DataFrame(MIXED, columns=list("abcdef")).astype({"e": int, "f": int})
LOGISTIC = LogisticRegression(max_iter=1000)


def by_columns(numbers, categories):
    return ColumnTransformer([("numbers", StandardScaler(), numbers), ("codes", OneHotEncoder(), categories)])


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (make_pipeline(MinMaxScaler(), LOGISTIC), IRIS[0]),
        (make_pipeline(StandardScaler(), PCA(2, whiten=True), LOGISTIC), IRIS[0]),
        (make_pipeline(SimpleImputer(strategy="median"), LOGISTIC), IRIS[0]),
        (make_pipeline(OneHotEncoder(), LOGISTIC), MIXED[:, 4:].astype(np.int64)),
        (make_pipeline(OneHotEncoder(), LOGISTIC), MIXED[:, 4:].astype(np.float32)),
        (make_pipeline(FeatureUnion([("scaled", StandardScaler()), ("main", PCA(2))]), LOGISTIC), IRIS[0]),
        (make_pipeline(by_columns([0, 1, 2, 3], [-2, -1]), LOGISTIC), MIXED),
        (make_pipeline(by_columns(slice(None, 4), [False] * 4 + [True] * 2), LOGISTIC), MIXED),
        (make_pipeline(by_columns(["a", "b"], ["e", "f"]), LOGISTIC), FRAME),
        (make_pipeline(by_columns(slice("b", "d"), ["f"]), LOGISTIC), FRAME),
        (make_pipeline(ColumnTransformer([("s", StandardScaler(), ["d"])], remainder="passthrough"), LOGISTIC), FRAME),
        (make_pipeline(ColumnTransformer([("s", StandardScaler(), [0]), ("d", "drop", [1])]), LOGISTIC), IRIS[0]),
        (MLPClassifier((5,), max_iter=20, random_state=0), IRIS[0]),
        (make_pipeline(StandardScaler(), MLPClassifier((4, 3), activation="tanh", max_iter=20)), IRIS[0]),
        (make_pipeline(StandardScaler(), MLPClassifier((5,), activation="logistic", max_iter=20)), CANCER[0]),
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_every_step_of_a_pipeline_is_in_the_graph(model, x):
    fitted = model.fit(x, IRIS[1] if len(x) == 150 else CANCER[1])
    rows = np.asarray(x, dtype=np.float32 if getattr(x, "dtype", None) == np.float32 else np.float64)
    label, scores = run(export_sklearn(fitted, x), rows)
    expected = fitted.predict_proba(x)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=np.sqrt(np.finfo(np.float32).eps))
    assert np.array_equal(fitted.classes_[label], fitted.predict(x))


@pytest.mark.parametrize("activation", ["relu", "identity"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_regressors_with_several_targets_keep_their_columns(activation):
    y = np.column_stack([IRIS[1], IRIS[0][:, 0]])
    fitted = MLPRegressor(hidden_layer_sizes=(5,), activation=activation, max_iter=20, random_state=0).fit(IRIS[0], y)
    (output,) = run(export_sklearn(fitted, IRIS[0]), IRIS[0])
    np.testing.assert_allclose(output, fitted.predict(IRIS[0]), rtol=0, atol=1e-4)


def test_transformers_alone_are_graphs_even_if_their_answers_are_sparse():
    for fitted, expected in (
        (PCA(2).fit(IRIS[0]), PCA(2).fit_transform(IRIS[0])),
        (OneHotEncoder().fit(MIXED[:, 4:]), OneHotEncoder().fit_transform(MIXED[:, 4:]).toarray()),
    ):
        x = IRIS[0] if expected.shape[1] == 2 else MIXED[:, 4:]
        np.testing.assert_allclose(run(export_sklearn(fitted, x), x)[0], expected, rtol=0, atol=1e-5)


def test_the_columns_of_a_frame_are_put_into_the_order_of_the_model():
    fitted = make_pipeline(by_columns(["a", "b"], ["e", "f"]), LOGISTIC).fit(FRAME, IRIS[1])
    scores = run(export_sklearn(fitted, FRAME[list("fedcba")]), MIXED)[1]
    np.testing.assert_allclose(scores, fitted.predict_proba(FRAME), rtol=0, atol=1e-5)


def test_texts_are_refused_with_the_remedy():
    texts = FRAME.assign(e=np.where(FRAME.e > 1, "p", "q"))
    fitted = make_pipeline(by_columns(["a"], ["e", "f"]), LOGISTIC).fit(texts, IRIS[1])
    with pytest.raises(
        ValueError, match=r"X must hold numbers only \(could not convert .*; encode texts and categories"
    ):
        export_sklearn(fitted, texts)


def test_graphs_that_tracing_made_constant_are_refused():
    fitted = SVC().fit(*IRIS)
    with pytest.raises(LoweringError, match=r"^SVC: .* its graph is a constant"):
        export_sklearn(fitted, IRIS[0])


def categories():
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.integers(5, size=200), rng.normal(size=200)]).astype(np.float64)
    return x, (x[:, 0] % 2 == 0) ^ (x[:, 1] > 0)


def signs():
    y = np.array([-1.0, 1.0] * 50)
    return y[:, np.newaxis], y


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        (lambda: XGBRegressor(**BOOSTED).fit(*DIABETES), "ValueError: could not convert string to float"),
        (lambda: XGBClassifier(**BOOSTED, booster="dart").fit(*CANCER), "booster='gbtree' only, not 'dart'"),
        (lambda: XGBClassifier(**BOOSTED, objective="binary:hinge").fit(*CANCER), "takes objective='binary:hinge'"),
        (lambda: XGBClassifier(**BOOSTED, num_parallel_tree=2, subsample=0.5).fit(*IRIS), "num_parallel_tree > 1"),
        (lambda: LGBMRegressor(**BOOSTED, verbose=-1, objective="poisson").fit(*DIABETES), "objective='poisson'"),
        (lambda: LGBMRegressor(**BOOSTED, verbose=-1, linear_tree=True).fit(*DIABETES), "slopes of linear trees"),
        (lambda: LGBMClassifier(**CATEGORICAL).fit(*categories(), categorical_feature=[0]), "categorical splits"),
        (lambda: HistGradientBoostingClassifier(categorical_features=[0]).fit(*categories()), "categorical splits"),
        (lambda: HistGradientBoostingRegressor(max_iter=2).fit(*signs()), "of 0 by -1"),
        (lambda: GradientBoostingClassifier(**SHORT, loss="exponential").fit(*CANCER), "loss='exponential'"),
        (lambda: AdaBoostClassifier().fit(*IRIS), "MissingConverter: Unable to find converter"),
    ],
)
def test_models_without_an_exact_graph_are_refused_with_the_reason(fit, message):
    fitted = fit()
    x = np.zeros((1, fitted.n_features_in_))
    with pytest.raises(LoweringError, match=f"^{type(fitted).__name__}: hummingbird-ml 0.4.11.*{message}.*do not need"):
        export_sklearn(fitted, x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"X": np.zeros(4)}, r"X must be of shape \(n, n_features\)"),
        ({"X": np.zeros((0, 4))}, "n >= 1, got"),
        ({"X": np.zeros((2, 3))}, "X has 3 features, but RandomForestClassifier is expecting 4 features as input"),
        ({"X": np.full((2, 4), np.nan)}, "X must be finite"),
        ({"tree_implementation": "fast"}, "tree_implementation must be one of 'auto'.* got 'fast'"),
        ({"tree_precision": "float16"}, "tree_precision must be one of None, 'float32', 'float64', got 'float16'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    fitted = RandomForestClassifier(**SHORT).fit(*IRIS)
    with pytest.raises(ValueError, match=message):
        export_sklearn(fitted, **{"X": IRIS[0], **arguments})


@pytest.mark.parametrize("model", [RandomForestClassifier(), XGBClassifier(), LGBMClassifier()])
def test_models_must_be_fitted(model):
    with pytest.raises(NotFittedError):
        export_sklearn(model, IRIS[0])


def test_without_the_libraries_the_extra_is_named(monkeypatch):
    fitted = RandomForestClassifier(**SHORT).fit(*IRIS)
    monkeypatch.setitem(sys.modules, "hummingbird.ml", None)
    with pytest.raises(BackendUnavailableError, match=r'pip install "fhelearn\[onnx\]"'):
        export_sklearn(fitted, IRIS[0])


def test_importing_the_package_loads_no_library():
    code = (
        "import sys, fhelearn.onnx\n"
        "from fhelearn.frontends.tree import hummingbird_reader, onnx_ml_reader\n"
        "print([name for name in ('onnx', 'torch', 'hummingbird', 'sklearn', 'treelite') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
