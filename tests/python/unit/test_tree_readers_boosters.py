"""Forests read from XGBoost and LightGBM decide and answer as these do, on every row."""

import pickle
import re
import subprocess
import sys

import lightgbm
import numpy as np
import pandas as pd
import pytest
import treelite
import xgboost
from scipy import sparse
from sklearn.exceptions import NotFittedError

from fhelearn.exceptions import LoweringError
from fhelearn.frontends.tree.lightgbm_reader import forest_from_lightgbm
from fhelearn.frontends.tree.treelite_reader import forest_from_treelite
from fhelearn.frontends.tree.xgboost_reader import forest_from_xgboost
from tests.python.unit.boosters import (
    CANCER,
    DIABETES,
    FITTED,
    LGBM,
    LGBM_REGRESSOR,
    XGB,
    ZERO_EDGE,
    adversarial,
    around,
    boosted,
    codes,
    float32,
    inputs,
    lgbm,
    library_leaves,
    margins,
    random_data,
    random_model,
    stump,
    xgb,
)

everywhere = pytest.mark.parametrize("key", FITTED, ids="-".join)


@everywhere
def test_every_row_reaches_the_leaves_that_the_library_names(key):
    adapter, model, _, forest = boosted(key)
    for rows in inputs(key):
        np.testing.assert_array_equal(forest.library_leaves(adapter.prepare(model, rows)), library_leaves(model, rows))


@everywhere
def test_prepared_features_are_contiguous_floats_with_integer_categories(key):
    adapter, model, _, forest = boosted(key)
    categorical = sorted({int(f) for tree in forest.trees for f in tree.feature[tree.members >= 0]})
    for rows in inputs(key):
        x = adapter.prepare(model, rows)
        assert x.flags.c_contiguous
        assert x.dtype in (np.float32, np.float64)
        assert x.shape == (len(rows), forest.n_features)
        listed = x[:, categorical]
        assert (np.isnan(listed) | (listed == np.round(listed)) & (listed >= -1)).all()


@everywhere
def test_scores_are_the_margins_up_to_the_rounding_of_the_library_s_sum(key):
    adapter, model, _, forest = boosted(key)
    for rows in inputs(key):
        scores, expected = forest.scores(adapter.prepare(model, rows)), margins(model, rows)
        if key[0] == "lightgbm":  # the same doubles in the same order
            np.testing.assert_array_equal(scores, expected)
            continue
        size = np.abs(forest.base) + sum(np.abs(tree.value).max() for tree in forest.trees)
        # A float32 sum of n terms errs by n units of 2**-24 of its size; DART rounds four times more per tree.
        assert (np.abs(scores - expected) <= 2 * (forest.n_trees + 2) * 2.0**-24 * size).all()


@everywhere
def test_the_view_answers_the_library_s_margins_with_the_library_s_answers(key):
    adapter, model, _, _ = boosted(key)
    for rows in inputs(key):
        scores = margins(model, rows)
        view, placeholder = adapter.view(model, scores), adapter.placeholder(model, len(rows))
        for method in ("predict", "predict_proba"):
            if hasattr(model, method):
                expected = getattr(model, method)(rows)
                answers = getattr(view, method)(placeholder)
                np.testing.assert_array_equal(answers, expected)
                assert answers.dtype == expected.dtype
        np.testing.assert_array_equal(margins(view, placeholder), scores)


def test_the_labels_of_the_forest_s_scores_are_the_library_s():
    models = [boosted(key) for key in FITTED]
    classifiers = [m for m in models if hasattr(m[1], "predict_proba") and not callable(m[1].objective)]
    assert len(classifiers) > 20
    for adapter, model, X, forest in classifiers:
        scores = forest.scores(adapter.prepare(model, X))
        labels = adapter.view(model, scores).predict(adapter.placeholder(model, len(scores)))
        np.testing.assert_array_equal(labels, model.predict(X))


@everywhere
def test_fingerprints_survive_pickling(key):
    adapter, model, _, _ = boosted(key)
    assert adapter.fitted(pickle.loads(pickle.dumps(model))) == adapter.fitted(model)


def test_fingerprints_tell_when_predictions_may_change():
    X, y = DIABETES()
    for adapter, cls in ((XGB, xgboost.XGBRegressor), (LGBM, lightgbm.LGBMRegressor)):
        models = [cls(n_estimators=n, n_jobs=1).fit(X, target) for n in (1, 2) for target in (y, -y, y + 1e-3)]
        assert len({adapter.fitted(model) for model in models}) == 6
    _, model, _, _ = boosted(("xgboost", "early stopping"))
    model = pickle.loads(pickle.dumps(model))
    before = XGB.fitted(model)
    changed = XGB.fitted(model.set_params(missing=3.0))
    model.get_booster().set_attr(best_iteration="0")
    assert len({before, changed, XGB.fitted(model)}) == 3


@pytest.mark.parametrize("name", ["binary", "multiclass", "nan", "targets"])
def test_xgboost_adds_exactly_the_leaf_to_the_base_for_infinite_features_too(name):
    _, model, X, _ = boosted(("xgboost", name))
    booster = model.get_booster()
    X = np.array(X, dtype=np.float64)
    for value in (np.inf, -np.inf, 1e300, -1e300):
        X[np.random.default_rng(4).random(X.shape) < 0.1] = value
    forest = forest_from_xgboost(booster[0:1])
    margin = booster[0:1].inplace_predict(X, predict_type="margin").reshape(len(X), -1)
    np.testing.assert_array_equal(forest.scores(XGB.prepare(model, X)).astype(np.float32), margin)


def test_infinities_in_a_data_frame_are_numbers_to_xgboost():
    _, model, X, forest = boosted(("xgboost", "frame, partitions"))
    X = X.copy()
    X.loc[::3, "number"], X.loc[1::3, "number"], X.loc[::5, "single"] = np.inf, -1e300, -np.inf
    x = XGB.prepare(model, X)
    assert (x[::3, 0] == np.inf).all()
    assert (x[1::3, 0] == -np.inf).all()
    finite = {name: X[name].clip(-3e38, 3e38) for name in ("number", "single")}
    extreme = X.assign(**finite)
    np.testing.assert_array_equal(model.predict(X), model.predict(extreme))
    np.testing.assert_array_equal(forest.apply(x), forest.apply(XGB.prepare(model, extreme)))


@pytest.mark.parametrize(
    ("adapter", "model"),
    [
        (XGB, xgboost.XGBRegressor(n_jobs=1, n_estimators=4)),
        (XGB, xgboost.XGBRegressor(n_jobs=1, n_estimators=4, missing=0)),
        (LGBM, lightgbm.LGBMRegressor(n_jobs=1, n_estimators=4, verbose=-1)),
        (LGBM, lightgbm.LGBMRegressor(n_jobs=1, n_estimators=4, verbose=-1, zero_as_missing=True)),
    ],
)
def test_sparse_entries_that_are_absent_are_missing_to_xgboost_and_zero_to_lightgbm(adapter, model):
    X = sparse.random(300, 6, 0.5, random_state=0, format="csr")
    model.fit(X, np.asarray(X.sum(axis=1)).ravel())
    forest = adapter.forest(model)
    explicit = X.copy()
    explicit.data[::7], explicit.data[1::7], explicit.data[2::7] = 0.0, 1e-36, np.nan
    for rows in (X, explicit, X.tocsc(), X.toarray()):
        np.testing.assert_array_equal(forest.library_leaves(adapter.prepare(model, rows)), library_leaves(model, rows))


BAD_ROWS = {
    "a category of nowhere": lambda X: X.assign(many=pd.Categorical(["nowhere"] * len(X))),
    "a column too few": lambda X: X.drop(columns="number"),
    "another name": lambda X: X.rename(columns={"number": "other"}),
    "text": lambda X: X.assign(number="text"),
    "numbers for categories": lambda X: X.assign(many=1.0),
    "an array too narrow": lambda X: codes(X)[:, :3],
    "an array of text": lambda _: [["text"] * 7],
}


@pytest.mark.parametrize("bad", BAD_ROWS)
@pytest.mark.parametrize("key", [("xgboost", "frame, partitions"), ("lightgbm", "frame")], ids="-".join)
def test_bad_rows_meet_the_library_s_own_error(key, bad):
    adapter, model, X, forest = boosted(key)
    rows = BAD_ROWS[bad](X)
    try:
        expected = library_leaves(model, rows)
    except Exception as error:
        with pytest.raises(type(error)) as caught:
            adapter.prepare(model, rows)
        first, second = (str(e).splitlines()[0].partition("]")[2] for e in (error, caught.value))
        assert first == second
    else:  # LightGBM knows no names, and takes unseen categories for missing
        np.testing.assert_array_equal(forest.library_leaves(adapter.prepare(model, rows)), expected)


@pytest.mark.parametrize("name", ["binary", "multiclass words", "nan", "nan is zero", "frame", "integer categories"])
def test_treelite_reads_the_same_lightgbm_forest_where_it_loses_nothing(name):
    _, model, X, forest = boosted(("lightgbm", name))
    other = forest_from_treelite(treelite.frontend.from_lightgbm(model.booster_), precision="float64", accepts_nan=True)
    x = LGBM.prepare(model, X)
    np.testing.assert_array_equal(other.scores(x), forest.scores(x))


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
@pytest.mark.parametrize("seed", range(12))
def test_random_boosters_reach_the_same_leaves(library, seed):
    rng = np.random.default_rng(seed)
    X, y, categorical = random_data(rng)
    adapter, model, fit = random_model(rng, library, X, categorical)
    model.fit(X, y, **fit)
    forest = adapter.forest(model)
    rows = adversarial(forest, X)
    for given in (X, rows, float32(rows)):
        np.testing.assert_array_equal(
            forest.library_leaves(adapter.prepare(model, given)), library_leaves(model, given)
        )


def test_an_early_stopped_booster_is_read_up_to_its_best_iteration_or_as_far_as_asked():
    _, model, _, forest = boosted(("xgboost", "early stopping"))
    assert forest.n_trees == model.best_iteration + 1
    assert forest_from_xgboost(model.get_booster()).n_trees == model.get_booster().num_boosted_rounds()
    _, model, _, forest = boosted(("lightgbm", "early stopping"))
    assert forest.n_trees == model.best_iteration_
    assert forest_from_lightgbm(model.booster_, 1).n_trees == 1


def test_lightgbm_features_whose_zeros_are_missing_are_flagged():
    _, _, _, forest = boosted(("lightgbm", "zero is missing"))
    asked = np.unique(np.concatenate([tree.feature[tree.feature >= 0] for tree in forest.trees]))
    assert forest.zero_is_missing[asked].all()
    assert not boosted(("lightgbm", "zeros"))[3].zero_is_missing.any()


def test_lightgbm_iterations_that_disagree_about_a_feature_are_refused():
    X, y = DIABETES()
    options = {"n_estimators": 2, "n_jobs": 1, "verbose": -1}
    zero = lightgbm.LGBMRegressor(zero_as_missing=True, **options).fit(X, y)
    with pytest.raises(LoweringError, match="zero is missing in some splits of feature"):
        LGBM.forest(lightgbm.LGBMRegressor(**options).fit(X, y, init_model=zero))
    X = np.abs(np.round(X * 50))
    numbers = lightgbm.LGBMRegressor(**options).fit(X, y)
    with pytest.raises(LoweringError, match="categorical in some splits"):
        LGBM.forest(lightgbm.LGBMRegressor(**options).fit(X, y, init_model=numbers, categorical_feature=[2, 3, 8]))


@pytest.mark.parametrize("decision", [0, 2, 4, 6, 8, 10])  # missing type none, zero or nan, to the right or the left
@pytest.mark.parametrize("threshold", [0.0, -0.0, 1e-36, -1e-36, 1e-35, -1e-35, ZERO_EDGE, -ZERO_EDGE, 1e-34, -1e-34])
def test_lightgbm_thresholds_about_zero_split_as_lightgbm_does(threshold, decision):
    text = re.sub("(?m)^threshold=.*$", f"threshold={threshold!r}", stump().booster_.model_to_string())
    text = re.sub("(?m)^decision_type=.*$", f"decision_type={decision}", text)
    booster = lightgbm.Booster(model_str=text)
    rows = around([0.0, threshold, 1e-36, -1e-36, ZERO_EDGE, -ZERO_EDGE, np.nan, 1.0, -1.0], np.float64)[:, np.newaxis]
    expected = booster.predict(rows, pred_leaf=True, num_threads=1)
    np.testing.assert_array_equal(forest_from_lightgbm(booster).library_leaves(rows), expected)


def test_random_forests_of_lightgbm_average_as_many_iterations_as_are_used():
    _, model, X, _ = boosted(("lightgbm", "random forest"))
    model = pickle.loads(pickle.dumps(model))
    model.booster_.best_iteration = 2
    forest = LGBM.forest(model)
    assert forest.n_trees == 6
    view = LGBM.view(model, forest.scores(LGBM.prepare(model, X)))
    np.testing.assert_array_equal(view.predict_proba(LGBM.placeholder(model, len(X))), model.predict_proba(X))


@pytest.mark.parametrize("key", [("xgboost", "frame, partitions"), ("lightgbm", "frame")], ids="-".join)
def test_the_view_of_a_model_with_feature_names_does_not_miss_them(key, recwarn):
    adapter, model, X, forest = boosted(key)
    adapter.view(model, forest.scores(adapter.prepare(model, X))).predict(adapter.placeholder(model, len(X)))
    assert [str(warning.message) for warning in recwarn] == []


REFUSED = {
    "gblinear": (
        XGB,
        xgb(CANCER, booster="gblinear", max_depth=None),
        "booster must be 'gbtree' or 'dart', got 'gblinear'",
    ),
    "no tree": (XGB, xgb(CANCER, n_estimators=0), "holds no tree"),
    "linear leaves": (LGBM, lgbm(DIABETES, **LGBM_REGRESSOR, linear_tree=True), "tree 0: leaves must be constants"),
    "early stop": (LGBM, lgbm(CANCER, pred_early_stop=True), "pred_early_stop must be False"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_sum_of_constant_leaves_is_refused_with_the_reason(name):
    adapter, make, message = REFUSED[name]
    with pytest.raises(LoweringError, match=message):
        adapter.forest(make()[0])


def test_models_that_are_not_fitted_meet_the_library_s_error():
    for adapter, model in ((XGB, xgboost.XGBClassifier()), (LGBM, lightgbm.LGBMClassifier())):
        for call in (adapter.forest, adapter.fitted, lambda m, a=adapter: a.prepare(m, [[1.0]])):
            with pytest.raises(NotFittedError):
                call(model)


def test_a_view_refuses_what_does_not_follow_from_scores():
    for key, options in (
        (("xgboost", "binary"), [{"base_margin": np.zeros(3)}, {"iteration_range": (0, 2)}]),
        (("lightgbm", "binary"), [{"pred_leaf": True}, {"pred_contrib": True}, {"num_iteration": 1}]),
    ):
        adapter, model, _, _ = boosted(key)
        view, rows = adapter.view(model, np.zeros((3, 1))), adapter.placeholder(model, 3)
        for option in options:
            with pytest.raises(LoweringError):
                view.predict(rows, **option)
    with pytest.raises(LoweringError, match="apply needs the features"):
        boosted(("xgboost", "binary"))[0].view(boosted(("xgboost", "binary"))[1], np.zeros((3, 1))).apply(
            np.zeros((3, 30))
        )


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
@pytest.mark.parametrize("module", ["frontends.tree.{}_reader", "estimators.{}_forests"])
def test_a_missing_library_is_named_with_the_command_that_installs_it(library, module):
    code = f"import sys; sys.modules[{library!r}] = None; import fhelearn.{module.format(library)}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0
    assert f'pip install "fhelearn[{library}]"' in done.stderr.splitlines()[-1]
