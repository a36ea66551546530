"""Forests read from scikit-learn decide and answer as scikit-learn does, on every row and to the last bit."""

import copy
import functools
import pickle
import re

import numpy as np
import pandas as pd
import pytest
import treelite
from scipy.sparse import csr_array
from sklearn import datasets, ensemble, tree
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression

from fhelearn.estimators import sklearn_forests as adapters
from fhelearn.exceptions import LoweringError
from fhelearn.frontends.tree import Forest
from fhelearn.frontends.tree.sklearn_reader import read_sklearn
from fhelearn.frontends.tree.treelite_reader import forest_from_treelite
from tests.python.unit.frames import mixed_frame

METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "score_samples")
MEMBERS = 6

CLASSIFIERS = {
    "tree": (tree.DecisionTreeClassifier(max_depth=6), adapters.TreeAdapter),
    "extra tree": (tree.ExtraTreeClassifier(max_depth=6), adapters.TreeAdapter),
    "random forest": (ensemble.RandomForestClassifier(MEMBERS, max_leaf_nodes=20), adapters.ForestOfTreesAdapter),
    "extra trees": (ensemble.ExtraTreesClassifier(MEMBERS, max_depth=5), adapters.ForestOfTreesAdapter),
    "boosting": (
        ensemble.GradientBoostingClassifier(n_estimators=3, learning_rate=0.37),
        adapters.GradientBoostingAdapter,
    ),
    "boosting from zero": (
        ensemble.GradientBoostingClassifier(n_estimators=2, init="zero", subsample=0.5),
        adapters.GradientBoostingAdapter,
    ),
    "hist boosting": (
        ensemble.HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=3),
        adapters.HistGradientBoostingAdapter,
    ),
    "isolation": (
        ensemble.IsolationForest(n_estimators=MEMBERS, contamination=0.1),
        adapters.IsolationForestAdapter,
    ),
    "isolation of few features": (
        ensemble.IsolationForest(n_estimators=MEMBERS, max_features=0.5, bootstrap=True),
        adapters.IsolationForestAdapter,
    ),
    "adaboost": (
        ensemble.AdaBoostClassifier(tree.DecisionTreeClassifier(max_depth=2), n_estimators=MEMBERS),
        adapters.AdaBoostClassifierAdapter,
    ),
    "bagging": (
        ensemble.BaggingClassifier(n_estimators=MEMBERS, max_samples=0.2, max_features=0.5, bootstrap_features=True),
        adapters.BaggingAdapter,
    ),
}
REGRESSORS = {
    "tree": (tree.DecisionTreeRegressor(max_depth=6), adapters.TreeAdapter),
    "extra tree": (tree.ExtraTreeRegressor(max_depth=6), adapters.TreeAdapter),
    "random forest": (ensemble.RandomForestRegressor(MEMBERS, max_depth=5), adapters.ForestOfTreesAdapter),
    "extra trees": (ensemble.ExtraTreesRegressor(MEMBERS, max_depth=5), adapters.ForestOfTreesAdapter),
    "boosting": (
        ensemble.GradientBoostingRegressor(n_estimators=50, n_iter_no_change=1, loss="huber"),
        adapters.GradientBoostingAdapter,
    ),
    "hist boosting": (
        ensemble.HistGradientBoostingRegressor(max_iter=3, loss="gamma"),
        adapters.HistGradientBoostingAdapter,
    ),
    "adaboost": (
        ensemble.AdaBoostRegressor(tree.ExtraTreeRegressor(max_depth=4), n_estimators=MEMBERS),
        adapters.AdaBoostRegressorAdapter,
    ),
    "bagging": (ensemble.BaggingRegressor(n_estimators=MEMBERS, max_features=0.5), adapters.BaggingAdapter),
}
TAKE_NAN = {"tree", "extra tree", "random forest", "extra trees", "hist boosting", "isolation", "bagging"}
MULTI_OUTPUT = {"tree", "extra tree", "random forest", "extra trees"}


def with_holes(x):
    """`x` with a fifth of its values missing."""
    return np.where(np.random.default_rng(1).random(x.shape) < 0.2, np.nan, x)


def generated(n=150):
    """Rows with duplicates, a constant feature, magnitudes that float32 rounds, and a coarse feature."""
    rng = np.random.default_rng(2)
    x = np.column_stack(
        [rng.normal(size=n), np.full(n, 0.1), 1e9 + rng.normal(size=n) * 100, rng.integers(0, 4, n), rng.normal(size=n)]
    )
    return np.vstack([x, x[: n // 3]])


@functools.cache
def data(name):
    """Features and targets: two numbers of classes, strings, several outputs."""
    x = generated()
    labels = (x[:, 3] + (x[:, 0] > 0) + 2 * (x[:, 4] > 1)).astype(int)
    if name in ("breast_cancer", "wine", "iris", "digits", "diabetes"):
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        rows = np.random.default_rng(0).permutation(len(x))[:250]
        x, y = x[rows], y[rows]
        return (x, np.array(["benign", "malignant"])[y]) if name == "breast_cancer" else (x, y)
    if name == "missing":
        return with_holes(x), np.array([f"class {label}" for label in labels])
    if name == "missing values":
        return with_holes(x), x[:, 0] ** 2 + x[:, 3] + 0.5
    if name == "outputs of classes":
        return x, np.column_stack([labels, labels % 2, (x[:, 4] > 0) * 7])
    if name == "outputs":
        return x, np.column_stack([x[:, 0], x[:, 3] * x[:, 4], x[:, 0] ** 2])
    return x, {"generated": labels > 2, "generated values": x[:, 0] ** 2 + x[:, 3] + 0.5}[name]


def cases():
    for families, kind, names in (
        (CLASSIFIERS, "classifier", ("breast_cancer", "wine", "iris", "digits", "generated")),
        (REGRESSORS, "regressor", ("diabetes", "generated values")),
    ):
        extra = {"classifier": ("missing", "outputs of classes"), "regressor": ("missing values", "outputs")}[kind]
        for family in families:
            chosen = names
            chosen += (extra[0],) if family in TAKE_NAN else ()
            chosen += (extra[1],) if family in MULTI_OUTPUT or (kind, family) == ("regressor", "bagging") else ()
            yield from (pytest.param(kind, family, name, id=f"{family}-{kind}-{name}") for name in chosen)


EVERY_CASE = pytest.mark.parametrize(("kind", "family", "name"), list(cases()))


@functools.cache
def fitted(kind, family, name):
    """A model trained on two thirds of the rows, its adapter, its forest, and all rows."""
    model, adapter = (CLASSIFIERS if kind == "classifier" else REGRESSORS)[family]
    x, y = data(name)
    model = copy.deepcopy(model)
    if hasattr(model, "random_state"):
        model.set_params(random_state=0)
    model.fit(x[: 2 * len(x) // 3], y[: 2 * len(x) // 3])
    return model, adapter(), adapter().forest(model), x


def apply(model, x):
    """The leaves as scikit-learn finds them, shape (n, n_trees)."""
    if hasattr(model, "_predictors"):
        return hist_apply(model, x)
    if isinstance(model, tree.DecisionTreeClassifier | tree.DecisionTreeRegressor):
        return model.apply(x)[:, np.newaxis]
    if hasattr(model, "estimators_features_"):
        subsets = zip(model.estimators_, model.estimators_features_, strict=True)
        if isinstance(model, ensemble.IsolationForest) and model._max_features == x.shape[1]:
            subsets = ((sub, slice(None)) for sub in model.estimators_)
        return np.column_stack([sub.apply(x[:, features]) for sub, features in subsets])
    if not hasattr(model, "apply"):
        return np.column_stack([sub.apply(x) for sub in model.estimators_])
    return model.apply(x).reshape(len(x), -1)


def hist_apply(model, x):
    """The same of histogram gradient boosting, whose own traversal is made to return the number of the leaf."""
    encoded = model._preprocess_X(x, reset=False)
    known, index = model._bin_mapper.make_known_categories_bitsets()
    columns = []
    for predictor in (predictor for stage in model._predictors for predictor in stage):
        numbered = copy.deepcopy(predictor)
        numbered.nodes["value"] = np.arange(len(numbered.nodes))
        columns.append(numbered.predict(encoded, known, index, n_threads=1))
    return np.column_stack(columns)


def visitors(forest: Forest, nodes, x):
    """Per node that a row passes, one such row."""
    x = forest.missing(x)
    passing = {0: np.arange(len(x))}
    for node in range(len(nodes.feature)):
        rows = passing.get(node, np.array([], dtype=int))
        if nodes.feature[node] >= 0 and nodes.members[node] < 0 and len(rows):
            values = x[rows, nodes.feature[node]]
            left = np.where(np.isnan(values), nodes.nan_left[node], values <= nodes.threshold[node])
            passing[nodes.left[node]], passing[nodes.right[node]] = rows[left], rows[~left]
            if len(rows):
                yield node, rows[0]


def adversarial(forest, x, most=60):
    """Rows that reach a node with the value of its threshold, or next to it in float64 or float32."""
    rows = []
    for nodes in forest.trees:
        for node, row in list(visitors(forest, nodes, x))[:most]:
            t, t32 = nodes.threshold[node], np.float32(nodes.threshold[node])
            for value in (
                t,
                *(np.nextafter(t, end) for end in (-np.inf, np.inf)),
                *(np.nextafter(t32, np.float32(end)) for end in (-np.inf, np.inf)),
                (t + np.float64(np.nextafter(t32, np.float32(np.inf)))) / 2,  # a tie of rounding to float32
                np.nan if forest.accepts_nan else t,
            ):
                if np.isnan(value) or abs(value) <= np.finfo(np.float32).max:  # most families refuse infinity
                    changed = x[row].astype(np.float64)
                    changed[nodes.feature[node]] = value
                    rows.append(changed)
    return np.array(rows)


@EVERY_CASE
def test_the_leaves_are_those_of_the_library(kind, family, name):
    model, adapter, forest, x = fitted(kind, family, name)
    hard = adversarial(forest, x)
    assert len(hard) >= 7
    for rows in (x, hard, x.astype(np.float32), hard.astype(np.float32)):
        np.testing.assert_array_equal(forest.library_leaves(adapter.prepare(model, rows)), apply(model, rows))


@EVERY_CASE
def test_the_answers_are_those_of_the_library_to_the_last_bit(kind, family, name):
    model, adapter, forest, x = fitted(kind, family, name)
    x = np.vstack([x, adversarial(forest, x)[:200]])
    view = adapter.view(model, forest.scores(adapter.prepare(model, x)))
    for method in METHODS:
        if hasattr(model, method):
            expected, found = (
                getattr(m, method)(rows) for m, rows in ((model, x), (view, placeholder(adapter, model, x)))
            )
            assert type(found) is type(expected)
            for a, b in zip(outputs(expected), outputs(found), strict=True):
                assert a.dtype == b.dtype
                if family == "bagging" and method == "predict_log_proba":
                    close_logarithms(a, b, len(model.estimators_))
                else:
                    np.testing.assert_array_equal(a, b)


def placeholder(adapter, model, x):
    zeros = adapter.placeholder(model, len(x))
    assert zeros.shape == x.shape
    assert not zeros.any()
    return zeros


def outputs(answer):
    return answer if isinstance(answer, list) else [answer]


def close_logarithms(expected, found, n_trees):
    """Bagging adds up logarithms of the trees' probabilities, where the view takes the logarithm of the mean.

    Each of its `n_trees` sums of logarithms rounds a number of magnitude at most `size` twice and is off by an ulp of
    three functions; so is the view's one logarithm, of a sum of relative error `n_trees` * eps.
    """
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(finite, np.isfinite(found))
    size = 1 + np.abs(expected[finite]).max() + np.log(n_trees)
    assert np.abs(expected[finite] - found[finite]).max() <= 6 * n_trees * size * np.finfo(float).eps


@EVERY_CASE
def test_a_view_leaves_the_model_and_the_scores_unchanged(kind, family, name):
    model, adapter, forest, x = fitted(kind, family, name)
    before, names = pickle.dumps(model), set(vars(model))
    scores = forest.scores(adapter.prepare(model, x))
    kept = scores.copy()
    view = adapter.view(model, scores)
    for method in METHODS:
        if hasattr(view, method):
            getattr(view, method)(adapter.placeholder(model, len(x)))
    np.testing.assert_array_equal(scores, kept)
    assert set(vars(model)) == names
    assert len(pickle.dumps(model)) == len(before)


@EVERY_CASE
def test_the_fingerprint_survives_pickling_and_sees_every_change_of_the_forest(kind, family, name):
    model, adapter, _, _ = fitted(kind, family, name)
    twin = pickle.loads(pickle.dumps(model))
    assert adapter.fitted(twin) == adapter.fitted(model)
    if family == "hist boosting":
        twin._predictors[-1][-1].nodes["value"][-1] += 1
    else:
        sub = twin if isinstance(adapter, adapters.TreeAdapter) else np.ravel(twin.estimators_)[-1]
        sub.tree_.value[-1] += 1
    assert adapter.fitted(twin) != adapter.fitted(model)


@pytest.mark.parametrize(
    ("family", "kind", "change"),
    [
        ("boosting", "classifier", lambda m: m.set_params(learning_rate=0.5)),
        ("boosting", "regressor", lambda m: setattr(m.init_, "constant_", m.init_.constant_ + 1)),
        ("hist boosting", "classifier", lambda m: setattr(m, "_baseline_prediction", m._baseline_prediction + 1)),
        ("adaboost", "classifier", lambda m: setattr(m, "estimator_weights_", m.estimator_weights_ * 2)),
        ("bagging", "classifier", lambda m: m.set_params(n_estimators=3)),
        ("bagging", "classifier", lambda m: m.estimators_features_.reverse()),
        (
            "isolation",
            "classifier",
            lambda m: setattr(m, "_decision_path_lengths", [d + 1 for d in m._decision_path_lengths]),
        ),
        ("random forest", "classifier", lambda m: m.estimators_.reverse()),
    ],
)
def test_the_fingerprint_sees_what_the_trees_do_not_hold(family, kind, change):
    model, adapter, _, x = fitted(kind, family, "iris" if kind == "classifier" else "diabetes")
    twin = copy.deepcopy(model)
    change(twin)
    assert adapter.fitted(twin) != adapter.fitted(model)
    scores = adapter.forest(twin).scores(adapter.prepare(twin, x))
    answered = adapter.view(twin, scores).predict(adapter.placeholder(twin, len(x)))
    np.testing.assert_array_equal(answered, twin.predict(x))


@pytest.mark.parametrize("missing_categories", [False, True])
def test_categories_are_decided_as_the_library_does(missing_categories):
    frame, y = mixed_frame(towns=40)
    if not missing_categories:
        frame["colour"] = frame["colour"].cat.add_categories("none").fillna("none")
    model = ensemble.HistGradientBoostingRegressor(max_iter=4, min_samples_leaf=5, categorical_features="from_dtype")
    model.fit(frame[:200], y[:200])
    adapter = adapters.HistGradientBoostingAdapter()
    forest = adapter.forest(model)
    assert len(forest.category_sets) > 1
    unseen = frame.copy()
    for column, odd in (("colour", "ultraviolet"), ("town", "Atlantis")):
        unseen[column] = pd.Categorical(np.where(np.arange(len(frame)) % 3 == 0, odd, frame[column].astype(object)))
    for rows in (frame, unseen):
        x = adapter.prepare(model, rows)
        np.testing.assert_array_equal(forest.library_leaves(x), hist_apply(model, rows))
        answered = adapter.view(model, forest.scores(x)).predict(adapter.placeholder(model, len(x)))
        np.testing.assert_array_equal(answered, model.predict(rows))
    np.testing.assert_array_equal(adapter.prepare(model, frame)[:, [0, 2]], frame[["size", "age"]])
    assert adapter.fitted(pickle.loads(pickle.dumps(model))) == adapter.fitted(model)


def test_numbers_as_categories_are_decided_as_the_library_does(rng):
    x = np.column_stack([rng.normal(size=300), rng.choice([3.0, 7.0, 11.0, 200.0], 300)])
    model = ensemble.HistGradientBoostingClassifier(max_iter=3, categorical_features=[1], min_samples_leaf=5)
    model.fit(x, (x[:, 1] % 4 > 2.5) ^ (x[:, 0] > 0))
    adapter = adapters.HistGradientBoostingAdapter()
    rows = np.column_stack([np.zeros(7), [3, 4, -3, 7.5, np.nan, 200, 1e300]])
    forest = adapter.forest(model)
    for values in (x, rows):
        np.testing.assert_array_equal(forest.library_leaves(adapter.prepare(model, values)), hist_apply(model, values))


@pytest.mark.parametrize("family", ["random forest", "extra trees", "boosting from zero", "isolation", "hist boosting"])
@pytest.mark.parametrize("name", ["iris", "generated", "missing", "outputs of classes"])
def test_treelite_reads_the_same_forest(family, name):
    if (name == "missing" and family not in TAKE_NAN) or (name == "outputs of classes" and family not in MULTI_OUTPUT):
        return
    model, adapter, forest, x = fitted("classifier", family, name)
    read = forest_from_treelite(
        treelite.sklearn.import_model(model),
        precision=forest.precision,
        accepts_nan=forest.accepts_nan,
    )
    x = adapter.prepare(model, np.vstack([x, adversarial(forest, x)]))
    np.testing.assert_array_equal(read.library_leaves(x), forest.library_leaves(x))
    averaged = family in ("random forest", "extra trees", "isolation")
    expected = values_reached(forest, x) / (forest.n_trees if averaged else 1)
    # Treelite divides class counts by their sum once more, and computes path lengths in another order of steps.
    steps = {"isolation": 8}.get(family, forest.n_outputs + 2) if averaged else 0
    np.testing.assert_allclose(values_reached(read, x), expected, rtol=steps * np.finfo(float).eps, atol=0)


def values_reached(forest, x):
    leaves = forest.apply(x)
    return np.stack([nodes.value[leaves[:, t]] for t, nodes in enumerate(forest.trees)])


@pytest.mark.parametrize("family", CLASSIFIERS)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: x[:, 1:],
        lambda x: x[0],
        lambda x: x[:0],
        lambda x: np.where(x == x.max(), np.inf, x),
        lambda x: np.where(x == x.max(), np.nan, x),
        lambda x: np.full(x.shape, "red"),
        lambda x: csr_array(x),
        lambda x: pd.DataFrame(x),
        lambda x: x.tolist(),
    ],
    ids=["columns", "one_row", "no_row", "infinite", "missing", "strings", "sparse", "frame", "lists"],
)
def test_input_is_refused_exactly_when_and_as_the_library_refuses_it(family, spoil):
    model, adapter, forest, x = fitted("classifier", family, "iris")
    rows = spoil(x)
    try:
        expected = model.predict(rows)
    except Exception as error:
        with pytest.raises(type(error), match=re.escape(str(error))):
            adapter.prepare(model, rows)
        return
    prepared = adapter.prepare(model, rows)
    assert prepared.flags.c_contiguous
    assert prepared.dtype == forest.precision
    answered = adapter.view(model, forest.scores(prepared)).predict(adapter.placeholder(model, len(prepared)))
    np.testing.assert_array_equal(answered, expected)


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_a_model_that_is_not_fitted_is_refused(family):
    model, adapter = CLASSIFIERS[family]
    with pytest.raises(NotFittedError):
        adapter().forest(copy.deepcopy(model))
    with pytest.raises(NotFittedError):
        adapter().prepare(copy.deepcopy(model), np.zeros((1, 2)))


class ContraryTree(tree.DecisionTreeClassifier):
    """A tree whose answer is not its leaf."""

    def predict_proba(self, X, check_input=True):
        return super().predict_proba(X, check_input)[:, ::-1]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (ensemble.BaggingClassifier(LogisticRegression()), "got LogisticRegression.*DecisionTreeClassifier"),
        (ensemble.BaggingClassifier(ensemble.RandomForestClassifier(2)), "got RandomForestClassifier"),
        (ensemble.BaggingClassifier(ContraryTree()), "ContraryTree overrides predict_proba"),
        (ensemble.AdaBoostClassifier(LogisticRegression(), n_estimators=2), "got LogisticRegression"),
        (ensemble.AdaBoostRegressor(LinearRegression()), "got LinearRegression"),
        (ensemble.GradientBoostingRegressor(init=LinearRegression(), n_estimators=2), "init predicts by Linear"),
        (ensemble.GradientBoostingClassifier(init=DummyClassifier(strategy="uniform"), n_estimators=2), "uniform"),
        (ensemble.RandomTreesEmbedding(2), "RandomTreesEmbedding is no tree model"),
        (LogisticRegression(), "LogisticRegression is no tree model"),
    ],
)
def test_a_model_that_is_no_sum_of_trees_is_refused_with_the_reason(model, words):
    x, y = data("iris")
    with pytest.raises(LoweringError, match=words):
        read_sklearn(model.fit(x, y > 0))


def test_more_trees_asked_for_after_fit_change_nothing():
    model, adapter, forest, x = fitted("classifier", "random forest", "wine")
    twin = copy.deepcopy(model).set_params(n_estimators=1000)
    scores = adapter.forest(twin).scores(x)
    np.testing.assert_array_equal(scores, forest.scores(x))
    answered = adapter.view(twin, scores).predict_proba(adapter.placeholder(twin, len(x)))
    np.testing.assert_array_equal(answered, twin.predict_proba(x))
