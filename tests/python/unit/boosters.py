"""Fitted boosters of every kind, and rows next to their decisions."""

import functools

import lightgbm
import numpy as np
import pandas as pd
import xgboost
from sklearn import datasets

from fhelearn.estimators.lightgbm_forests import LightGBMAdapter
from fhelearn.estimators.xgboost_forests import XGBoostAdapter

XGB, LGBM = XGBoostAdapter(), LightGBMAdapter()
ZERO_EDGE = float(np.float32(1e-35))

CANCER, DIABETES, WINE, LINNERUD = (
    functools.cache(functools.partial(load, return_X_y=True))
    for load in (datasets.load_breast_cancer, datasets.load_diabetes, datasets.load_wine, datasets.load_linnerud)
)


@functools.cache
def holes(value):
    """Breast cancer with a constant column, a column of duplicates, and one value in five replaced by `value`."""
    rng = np.random.default_rng(1)
    X = CANCER()[0].copy()
    X[:, 3], X[:, 4] = 1.0, np.round(X[:, 4], 2)
    X[rng.random(X.shape) < 0.2] = value
    return X, CANCER()[1]


@functools.cache
def frame(n=400):
    """Every kind of column a data frame may have."""
    rng = np.random.default_rng(2)
    X = pd.DataFrame(
        {
            "number": rng.normal(size=n),
            "many": pd.Categorical(rng.choice(list("pqrstuvw"), n)),
            "few": pd.Categorical(rng.choice([10, 20, 30], n)),
            "single": rng.normal(size=n).astype(np.float32),
            "integer": rng.integers(0, 5, n),
            "nullable": pd.array(rng.integers(0, 4, n), dtype="Int64"),
            "truth": rng.random(n) < 0.5,
        }
    )
    X.loc[::17, "many"] = np.nan
    X.loc[::13, "nullable"] = pd.NA
    y = X.number + X.many.cat.codes % 3 + 2 * (X.few.cat.codes == 1) + X.single + 0.1 * rng.normal(size=n)
    return X, y.to_numpy()


def codes(X):
    """The frame as numbers, categories as codes."""
    coded = X.assign(many=X.many.cat.codes.replace(-1, np.nan), few=X.few.cat.codes)
    return coded.astype({"nullable": float}).to_numpy(dtype=float, na_value=np.nan)


def odd_codes(X):
    """Codes that no training data holds: negative, fractional, huge, infinite, missing."""
    coded = codes(X)
    odd = [-1, -0.5, 0.5, 2.5, 7.999, 8, 100, 2.0**24, 1e30, -1e30, 2.0**31, 2.0**32 + 1, np.nan, 0, 3]
    coded[:, 1] = np.resize(odd, len(coded))
    return coded


def least_squares(y, score):
    return score - y, np.ones_like(y)


def softmax_loss(y, score):
    p = np.exp(score - score.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return p - np.eye(score.shape[1])[y.astype(int)], p * (1 - p) + 0.1


def xgb(data, cls=xgboost.XGBClassifier, **options):
    return lambda: (cls(**{"n_estimators": 6, "max_depth": 3, "n_jobs": 1, **options}).fit(*data()), data()[0])


def xgb_early():
    X, y = CANCER()
    stopping = {"n_estimators": 100, "early_stopping_rounds": 2, "learning_rate": 1.0, "n_jobs": 1}
    model = xgboost.XGBClassifier(**stopping).fit(X[::2], y[::2], eval_set=[(X[1::2], y[1::2])], verbose=False)
    assert model.get_booster().num_boosted_rounds() > model.best_iteration + 1
    return model, X


def xgb_integer_categories():
    X, y = frame()
    X = codes(X)
    types = ["q", "c", "c", "q", "q", "q", "q"]
    return xgboost.XGBRegressor(n_estimators=6, n_jobs=1, enable_categorical=True, feature_types=types).fit(X, y), X


def shares():
    X, y = DIABETES()
    return X, np.clip(y / 350, 0.01, 1)


XGB_OBJECTIVES = (
    *("reg:squarederror", "reg:squaredlogerror", "reg:logistic", "reg:pseudohubererror", "reg:absoluteerror"),
    *("reg:gamma", "reg:tweedie", "count:poisson", "survival:cox", "rank:pairwise"),
)
REGRESSOR = {"cls": xgboost.XGBRegressor}
DART = {"booster": "dart", "rate_drop": 0.5, "one_drop": 1}
XGB_MODELS = {
    "binary": xgb(CANCER),
    "multiclass": xgb(WINE),
    "softmax": xgb(WINE, objective="multi:softmax"),
    "logitraw": xgb(CANCER, objective="binary:logitraw"),
    "hinge": xgb(CANCER, objective="binary:hinge"),
    **{name: xgb(shares, **REGRESSOR, objective=name) for name in XGB_OBJECTIVES},
    "quantiles": xgb(DIABETES, **REGRESSOR, objective="reg:quantileerror", quantile_alpha=[0.1, 0.5]),
    "custom": xgb(DIABETES, **REGRESSOR, objective=least_squares),
    "base score": xgb(DIABETES, **REGRESSOR, base_score=7.3),
    "multilabel": xgb(lambda: (WINE()[0], np.eye(3, dtype=int)[WINE()[1]])),
    "targets": xgb(LINNERUD, **REGRESSOR),
    "vector leaves": xgb(LINNERUD, **REGRESSOR, multi_strategy="multi_output_tree"),
    "forest": xgb(WINE, cls=xgboost.XGBRFClassifier),
    "forest of regressors": xgb(DIABETES, cls=xgboost.XGBRFRegressor),
    "boosted forests": xgb(WINE, num_parallel_tree=2),
    "dart": xgb(CANCER, **DART),
    "dart forests": xgb(WINE, **DART, num_parallel_tree=2),
    "early stopping": xgb_early,
    "nan": xgb(lambda: holes(np.nan)),
    "zero is missing": xgb(lambda: holes(0.0), missing=0),
    "sentinel is missing": xgb(lambda: holes(-999.1), missing=-999.1),
    "frame, one-hot": xgb(frame, **REGRESSOR, enable_categorical=True, max_cat_to_onehot=100),
    "frame, partitions": xgb(frame, **REGRESSOR, enable_categorical=True, max_cat_to_onehot=1),
    "frame, code 1 is missing": xgb(frame, **REGRESSOR, enable_categorical=True, missing=1.0),
    "integer categories": xgb_integer_categories,
}


def lgbm(data, cls=lightgbm.LGBMClassifier, **options):
    defaults = {"n_estimators": 6, "num_leaves": 7, "n_jobs": 1, "verbose": -1, "min_child_samples": 5}
    return lambda: (cls(**{**defaults, **options}).fit(*data()), data()[0])


def lgbm_early():
    X, y = CANCER()
    model = lightgbm.LGBMClassifier(n_estimators=100, num_leaves=7, learning_rate=0.9, n_jobs=1, verbose=-1)
    stop = lightgbm.early_stopping(2, verbose=False)
    model.fit(X[::2], y[::2], eval_set=[(X[1::2], y[1::2])], callbacks=[stop])
    # LightGBM drops no tree when it stops, except those of the last check.
    assert 0 < model.best_iteration_ < 100
    return model, X


def lgbm_integer_categories():
    X, y = frame()
    return lightgbm.LGBMRegressor(n_estimators=6, n_jobs=1, verbose=-1).fit(
        codes(X), y, categorical_feature=[1, 2]
    ), codes(X)


def words():
    X, y = WINE()
    return X, np.array(["red", "white", "blush"])[y]


LGBM_OBJECTIVES = (
    *("regression", "regression_l1", "huber", "fair", "poisson", "quantile", "mape", "gamma", "tweedie"),
    *("cross_entropy", "cross_entropy_lambda"),
)
LGBM_REGRESSOR = {"cls": lightgbm.LGBMRegressor}
RF = {"boosting_type": "rf", "bagging_fraction": 0.6, "bagging_freq": 1}
LGBM_MODELS = {
    "binary": lgbm(CANCER),
    "binary words": lgbm(lambda: (CANCER()[0], np.array(["no", "yes"])[CANCER()[1]]), sigmoid=2.5),
    "multiclass words": lgbm(words),
    "one against all": lgbm(words, objective="multiclassova"),
    **{name: lgbm(shares, **LGBM_REGRESSOR, objective=name) for name in LGBM_OBJECTIVES},
    "square root": lgbm(DIABETES, **LGBM_REGRESSOR, reg_sqrt=True),
    "custom": lgbm(DIABETES, **LGBM_REGRESSOR, objective=least_squares),
    "custom multiclass": lgbm(WINE, objective=softmax_loss),
    "random forest": lgbm(words, **RF),
    "random forest of regressors": lgbm(DIABETES, **LGBM_REGRESSOR, **RF),
    "dart": lgbm(words, boosting_type="dart", drop_rate=0.5, skip_drop=0.0),
    "goss": lgbm(CANCER, data_sample_strategy="goss", learning_rate=0.9),
    "early stopping": lgbm_early,
    "single leaves": lgbm(DIABETES, **LGBM_REGRESSOR, min_child_samples=1000),
    "nan": lgbm(lambda: holes(np.nan)),
    "nan is zero": lgbm(lambda: holes(np.nan), use_missing=False),
    "zeros": lgbm(lambda: holes(0.0)),
    "zero is missing": lgbm(lambda: holes(0.0), zero_as_missing=True),
    "zero is missing, nan": lgbm(lambda: holes(np.nan), zero_as_missing=True),
    "frame": lgbm(frame, **LGBM_REGRESSOR),
    "frame, zero is missing": lgbm(frame, **LGBM_REGRESSOR, zero_as_missing=True),
    "frame, one-hot": lgbm(frame, **LGBM_REGRESSOR, max_cat_to_onehot=100),
    "integer categories": lgbm_integer_categories,
}
FITTED = {
    **{("xgboost", name): (XGB, functools.cache(make)) for name, make in XGB_MODELS.items()},
    **{("lightgbm", name): (LGBM, functools.cache(make)) for name, make in LGBM_MODELS.items()},
}


@functools.cache
def boosted(key):
    """Adapter, fitted estimator, training features and forest."""
    adapter, make = FITTED[key]
    model, X = make()
    return adapter, model, X, adapter.forest(model)


def library_leaves(model, X):
    leaves = model.apply(X) if isinstance(model, xgboost.XGBModel) else model.predict(X, pred_leaf=True)
    return leaves.reshape(len(leaves), -1)


def margins(model, X):
    option = "output_margin" if isinstance(model, xgboost.XGBModel) else "raw_score"
    scores = model.predict(X, **{option: True})
    return scores.reshape(len(scores), -1)


def around(values, dtype):
    """Values of `dtype`, each with its two neighbours, as float64."""
    with np.errstate(over="ignore"):
        values = np.asarray(values).astype(dtype)
        neighbours = [np.nextafter(values, dtype(np.inf)), np.nextafter(values, dtype(-np.inf))]
    return np.concatenate([values, *neighbours]).astype(np.float64)


def float32(rows):
    with np.errstate(over="ignore"):
        return rows.astype(np.float32)


def adversarial(forest, X, n=300):
    """Rows whose features lie on thresholds, one step beside them in both precisions, halfway, at zero or nowhere."""
    rng = np.random.default_rng(3)
    rows = np.asarray(X, dtype=np.float64)[rng.integers(0, len(X), n)]
    categorical = {int(f) for tree in forest.trees for f in tree.feature[tree.members >= 0]}
    special = around([0.0, ZERO_EDGE, -ZERO_EDGE, 1e-36, -1e-36, 1e37, -1e37], np.float64)
    for feature in set(range(forest.n_features)) - categorical:
        thresholds = [tree.threshold[(tree.feature == feature) & (tree.members < 0)] for tree in forest.trees]
        once = around(np.concatenate(thresholds), np.float32)
        halfway = (once + around(once, np.float32)[len(once) : 2 * len(once)]) / 2
        values = np.concatenate([once, *(around(v, np.float64) for v in (*thresholds, once, halfway)), special])
        chosen = rng.random(n) < 0.8
        rows[chosen, feature] = rng.choice(values, chosen.sum())
    rows[rng.random(rows.shape) < 0.05] = np.nan
    return rows


@functools.cache
def inputs(key):
    """What the laws are stated on: training rows and, per kind of data, what is next to a change of decision."""
    _, _, X, forest = boosted(key)
    if isinstance(X, pd.DataFrame):
        other = X.assign(many=X.many.cat.set_categories(list("wvutsrqp")), few=X.few.cat.set_categories([30, 10]))
        nothing = X.assign(many=pd.Categorical([np.nan] * len(X), categories=X.many.cat.categories))
        return [X, other, nothing, X.iloc[::-1]]
    rows = adversarial(forest, X)
    given = [X, X.astype(np.float32), rows, float32(rows), np.asfortranarray(rows)[::2]]
    return [*given, odd_codes(frame()[0])] if "categories" in key[1] else given


@functools.cache
def stump():
    X = np.array([[0.0], [1.0]]).repeat(50, axis=0)
    return lightgbm.LGBMRegressor(n_estimators=1, n_jobs=1, verbose=-1, num_leaves=2).fit(X, X[:, 0])


def random_data(rng):
    """Duplicates, constants, ties, zeros, holes, tiny numbers; the last two features may be categories."""
    n, n_features = int(rng.integers(20, 200)), int(rng.integers(3, 7))
    X = rng.normal(size=(n, n_features)) * 10.0 ** rng.integers(-40, 30, n_features)
    X[:, 0] = np.round(X[:, 0] / np.abs(X[:, 0]).max() * 5)
    categorical = bool(rng.random() < 0.5)
    if categorical:
        X[:, -2:] = rng.integers(0, rng.integers(2, 70), (n, 2))
    for value in (0.0, np.nan, 1.0):
        if rng.random() < 0.4:
            X[rng.random(X.shape) < 0.2] = value
    return X, rng.normal(size=n) + np.nan_to_num(X[:, -1] % 3), categorical


def random_model(rng, library, X, categorical):
    depth, leaves, few = int(rng.integers(1, 7)), int(rng.integers(2, 40)), int(rng.integers(1, 5))
    if library == "xgboost":
        types = ["q"] * (X.shape[1] - 2) + ["c", "c"] if categorical else None
        options = {
            "enable_categorical": categorical,
            "feature_types": types,
            "max_cat_to_onehot": int(rng.integers(1, 9)),
        }
        missing = float(rng.choice([np.nan, 0.0, 1.0]))
        options |= {
            "max_depth": depth,
            "n_estimators": few,
            "missing": missing,
            "num_parallel_tree": int(rng.integers(1, 3)),
        }
        return XGB, xgboost.XGBRegressor(n_jobs=1, min_child_weight=0, **options), {}
    options = {"num_leaves": leaves, "n_estimators": few, "zero_as_missing": rng.random() < 0.3, "min_child_samples": 1}
    options |= {"use_missing": rng.random() < 0.8, "min_data_per_group": 1, "cat_smooth": 0.1, "min_data_in_bin": 1}
    fit = {"categorical_feature": [X.shape[1] - 2, X.shape[1] - 1]} if categorical else {}
    return LGBM, lightgbm.LGBMRegressor(n_jobs=1, verbose=-1, **options), fit
