"""Every public tree estimator with small parameters, data sets of every kind, and rows next to decisions."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import datasets
from sklearn.base import is_classifier, is_outlier_detector
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from fhelearn.estimators.compiled import CompiledModel
from tests.python.estimators.cases import public_classes
from tests.python.unit.frames import mixed_frame

MODULES = ("tree", "ensemble", "xgboost", "lightgbm")

ARGUMENTS: dict[str, dict[str, Any]] = {
    **{f"{kind}Tree{what}": {"max_depth": 5} for kind in ("Decision", "Extra") for what in ("Classifier", "Regressor")},
    **{
        f"{kind}{what}": {"n_estimators": 10, "max_depth": 3, "n_jobs": 1}
        for kind in ("RandomForest", "ExtraTrees")
        for what in ("Classifier", "Regressor")
    },
    **{f"GradientBoosting{what}": {"n_estimators": 10, "max_depth": 2} for what in ("Classifier", "Regressor")},
    **{
        f"HistGradientBoosting{what}": {"max_iter": 10, "max_leaf_nodes": 7, "min_samples_leaf": 5}
        for what in ("Classifier", "Regressor")
    },
    "AdaBoostClassifier": {"estimator": DecisionTreeClassifier(max_depth=2), "n_estimators": 10},
    "AdaBoostRegressor": {"estimator": DecisionTreeRegressor(max_depth=3), "n_estimators": 10},
    "BaggingClassifier": {"estimator": DecisionTreeClassifier(max_depth=3), "max_features": 0.7},
    "BaggingRegressor": {"estimator": DecisionTreeRegressor(max_depth=3), "max_features": 0.7},
    "IsolationForest": {"n_estimators": 10, "max_samples": 64},
    **{
        f"XGB{kind}": {"n_estimators": 10, "max_depth": 3, "n_jobs": 1}
        for kind in ("Classifier", "Regressor", "RFClassifier", "RFRegressor")
    },
    **{
        f"LGBM{kind}": {"n_estimators": 10, "num_leaves": 7, "min_child_samples": 5, "n_jobs": 1, "verbose": -1}
        for kind in ("Classifier", "Regressor")
    },
}

CATEGORICAL: dict[str, dict[str, Any]] = {
    **{
        f"XGB{kind}": {"enable_categorical": True}
        for kind in ("Classifier", "Regressor", "RFClassifier", "RFRegressor")
    },
    **{f"LGBM{kind}": {"min_data_per_group": 5, "cat_smooth": 1.0} for kind in ("Classifier", "Regressor")},
}
"""What it takes for categories to be asked on a few hundred rows."""


CLASSES = public_classes(MODULES)
CLASSIFIERS = [name for name, cls in CLASSES.items() if is_classifier(cls())]
OUTLIER_DETECTORS = [name for name, cls in CLASSES.items() if is_outlier_detector(cls())]
REGRESSORS = [name for name in CLASSES if name not in CLASSIFIERS + OUTLIER_DETECTORS]
XGBOOST = [name for name in CLASSES if name.startswith("XGB")]
LIGHTGBM = [name for name in CLASSES if name.startswith("LGBM")]
SCIKIT_LEARN = [name for name in CLASSES if name not in XGBOOST + LIGHTGBM]

REFUSE_NAN = [name for name in CLASSES if name.startswith(("AdaBoost", "GradientBoosting"))]
TAKE_NAN = [name for name in CLASSES if name not in REFUSE_NAN]
TAKE_CATEGORIES = [name for name in CLASSES if name.startswith("Hist")] + XGBOOST + LIGHTGBM
TAKE_INFINITY = [*TAKE_CATEGORIES, "IsolationForest"]
TAKE_WORDS = [name for name in CLASSIFIERS if name not in XGBOOST]
SEVERAL_OUTPUTS = [
    name for name in CLASSES if name.startswith(("DecisionTree", "ExtraTree", "RandomForest", "XGB"))
] + ["BaggingRegressor"]  # fmt: skip

CLASSIFICATION = ("breast_cancer", "wine", "iris", "digits", "generated")
REGRESSION = ("diabetes", "generated", "friedman", "digits", "coarse")


def generated(n: int = 150) -> np.ndarray:
    """Rows with duplicates, a constant feature, magnitudes that float32 rounds, and a coarse feature."""
    rng = np.random.default_rng(2)
    x = np.column_stack(
        [rng.normal(size=n), np.full(n, 0.1), 1e9 + rng.normal(size=n) * 100, rng.integers(0, 4, n), rng.normal(size=n)]
    )
    return np.vstack([x, x[: n // 3]])


def with_holes(x: np.ndarray) -> np.ndarray:
    """`x` with a fifth of its values missing."""
    return np.where(np.random.default_rng(1).random(x.shape) < 0.2, np.nan, x)


def _generated_labels(x: np.ndarray) -> np.ndarray:
    return (x[:, 3] + (x[:, 0] > 0) + 2 * (x[:, 4] > 1)).astype(int)


def ties(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Few rows of few values with random labels, on which classes are often equally probable."""
    rng = np.random.default_rng(seed)
    n, classes = int(rng.integers(10, 60)), int(rng.integers(2, 5))
    x, y = rng.integers(0, 3, (n, 3)).astype(float), rng.integers(0, classes, n)
    y[:classes] = np.arange(classes)
    return x, y


TIED = {
    80: ("RandomForestClassifier", {"n_estimators": 2, "max_depth": 1}),
    107: (
        "BaggingClassifier",
        {"n_estimators": 4, "estimator": DecisionTreeClassifier(max_depth=2), "max_features": 1.0},
    ),
    212: ("RandomForestClassifier", {"n_estimators": 1, "max_depth": 1}),
    227: ("ExtraTreesClassifier", {"n_estimators": 4, "max_depth": 3}),
    311: (
        "BaggingClassifier",
        {"n_estimators": 4, "estimator": DecisionTreeClassifier(max_depth=3), "max_features": 1.0},
    ),
    333: ("AdaBoostClassifier", {"n_estimators": 2, "estimator": DecisionTreeClassifier(max_depth=1)}),
}
"""Seeds of :func:`ties` (and of the model), and models in which the last bit of a sum decides between classes."""


@cache
def classification(name: str) -> tuple[Any, np.ndarray]:
    """Features and labels, shuffled; at most 250 rows."""
    x = generated()
    labels = _generated_labels(x)
    if name == "generated":
        return x, (labels > 2).astype(int)
    if name == "missing":
        return with_holes(x), np.clip(labels, 0, 3)
    if name == "categories":
        x, y = mixed_frame()
        return x, np.digitize(y, [1.0, 3.0])
    if name == "outputs":
        return x, np.column_stack([labels > 2, labels % 2, x[:, 4] > 0]).astype(int)
    x, y = getattr(datasets, f"load_{name.removeprefix('words ')}")(return_X_y=True)
    rows = np.random.default_rng(0).permutation(len(x))[:250]
    if name.startswith("words "):
        y = np.array(["red", "white", "blush"])[y]
    return x[rows], y[rows]


@cache
def regression(name: str) -> tuple[Any, np.ndarray]:
    """Features and targets, shuffled; at most 250 rows."""
    x = generated()
    values = x[:, 0] ** 2 + x[:, 3] + 0.5
    if name == "generated":
        return x, values
    if name == "missing":
        return with_holes(x), values
    if name == "categories":
        return mixed_frame()
    if name == "outputs":
        return x, np.column_stack([values, x[:, 3] * x[:, 4], x[:, 0] ** 2])
    if name == "friedman":
        return datasets.make_friedman1(n_samples=200, noise=0.1, random_state=0)
    if name == "coarse":  # integers, on which midpoints between neighbours are exact, and many rows alike
        rows = np.random.default_rng(4).integers(-3, 4, size=(200, 6)).astype(float)
        return rows, rows[:, 0] * rows[:, 1] + rows[:, 2]
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    rows = np.random.default_rng(0).permutation(len(x))[:250]
    return x[rows], y[rows].astype(float)


def data(name: str, dataset: str) -> tuple[Any, np.ndarray]:
    """Features and targets for the estimator `name`."""
    return (regression if name in REGRESSORS else classification)(dataset)


def data_sets(name: str) -> list[str]:
    """The data sets that the estimator `name` takes: at least five, those of its special abilities included."""
    found = [*(REGRESSION if name in REGRESSORS else CLASSIFICATION)]
    found += ["words wine"] if name in TAKE_WORDS else []
    found += ["missing"] if name in TAKE_NAN else []
    found += ["categories"] if name in TAKE_CATEGORIES else []
    found += ["outputs"] if name in SEVERAL_OUTPUTS else []
    return found


CASES = [pytest.param(name, dataset, id=f"{name}-{dataset}") for name in CLASSES for dataset in data_sets(name)]
EVERY_CASE = pytest.mark.parametrize(("name", "dataset"), CASES)
EVERY_CLASS = pytest.mark.parametrize("name", CLASSES)


def usual(name: str) -> str:
    """A data set of numbers that the estimator `name` takes."""
    return "diabetes" if name in REGRESSORS else "iris"


def make(name: str, **arguments: Any) -> Any:
    """An instance of the public estimator `name`."""
    cls = CLASSES[name]
    seed = {"random_state": 0} if name not in LIGHTGBM else {}
    return cls(**{**seed, **copy.deepcopy(ARGUMENTS[name]), **arguments})


def fit_on(name: str, dataset: str, **arguments: Any) -> Any:
    """The estimator `name`, newly fitted on two thirds of a data set."""
    x, y = data(name, dataset)
    if dataset == "categories":
        arguments = {**CATEGORICAL.get(name, {}), **arguments}
    rows = 2 * len(x) // 3
    return make(name, **arguments).fit(x[:rows], y[:rows])


@cache
def fitted(name: str, dataset: str) -> Any:
    """The estimator `name`, fitted on two thirds of a data set. Shared between tests: do not change it."""
    return fit_on(name, dataset)


@cache
def compiled(name: str, dataset: str, grid: str = "hidden", encoding: str = "bits", n_bits: Any = 8) -> Any:
    """The fitted estimator, compiled; without its circuit under :func:`lazy_circuits`. Shared: do not change it."""
    model = copy.deepcopy(fitted(name, dataset)).set_params(n_bits=n_bits)
    return model.compile(data(name, dataset)[0], grid=grid, encoding=encoding)


@pytest.fixture(autouse=True)
def lazy_circuits(monkeypatch):
    """Leave the Concrete circuit to its first use: laws about simulation need none, and each takes 0.1 to 1 s.

    `compile` still checks the options of the circuit. Import the name into a module to put it under the fixture.
    """
    monkeypatch.setattr(CompiledModel, "prepare_circuit", CompiledModel.circuit_options)


def as_list(answer: Any) -> list[np.ndarray]:
    """The arrays of an answer: several outputs' probabilities are a list."""
    return list(answer) if isinstance(answer, list) else [answer]


def library_leaves(model: Any, x: Any) -> np.ndarray:
    """The leaves as the library itself finds and numbers them, shape (n, n_trees)."""
    name = type(model).__name__
    if name in LIGHTGBM:
        return model.predict(x, pred_leaf=True).reshape(len(x), -1)
    if name.startswith("Hist"):
        return _hist_leaves(model, x)
    if hasattr(model, "estimators_features_"):
        drawn = name != "IsolationForest" or model._max_features != model.n_features_in_
        pairs = zip(model.estimators_, model.estimators_features_, strict=True)
        return np.column_stack([sub.apply(x[:, features] if drawn else x) for sub, features in pairs])
    if not hasattr(model, "apply"):
        return np.column_stack([sub.apply(x) for sub in model.estimators_])
    return model.apply(x).reshape(len(x), -1)


def _hist_leaves(model: Any, x: Any) -> np.ndarray:
    """Histogram gradient boosting tells no leaves: its own traversal is made to return the number of the node."""
    encoded = model._preprocess_X(x, reset=False)
    known, index = model._bin_mapper.make_known_categories_bitsets()
    columns = []
    for predictor in (predictor for stage in model._predictors for predictor in stage):
        numbered = copy.deepcopy(predictor)
        numbered.nodes["value"] = np.arange(len(numbered.nodes))
        columns.append(numbered.predict(encoded, known, index, n_threads=1))
    return np.column_stack(columns).astype(np.int64)


def own_leaves(model: Any, x: Any) -> np.ndarray:
    """The leaves that the C++ forest engine reaches, in the library's numbers, shape (n, n_trees)."""
    reached = model._fhe_compiled.forest_engine.apply(model._fhe_adapter.prepare(model, x))
    trees = model._fhe_adapter.forest(model).trees
    return np.column_stack([tree.library_id[reached[:, t]] for t, tree in enumerate(trees)])


def beside(threshold: np.ndarray, nan: bool) -> np.ndarray:
    """Per threshold: itself, its neighbours in float64 and in float32, and a tie of rounding to float32; or NaN.

    Returns shape (n, 7). What is beyond float32 becomes its end, because most libraries refuse it; so does the infinite
    threshold of a node that parts missing values from all others.
    """
    most = float(np.finfo(np.float32).max)
    t = np.clip(threshold, -most, most)
    t32 = t.astype(np.float32)
    with np.errstate(over="ignore"):
        up32 = np.nextafter(t32, np.float32(np.inf)).astype(np.float64)
        down32 = np.nextafter(t32, np.float32(-np.inf)).astype(np.float64)
    missing = np.full_like(t, np.nan) if nan else t
    steps = [np.nextafter(t, -np.inf), np.nextafter(t, np.inf), down32, up32, (t + up32) / 2]
    return np.column_stack([np.clip(np.column_stack([t, *steps]), -most, most), missing])


def visits(forest: Any, x: np.ndarray) -> list[tuple[int, int, float]]:
    """A row that reaches a node asking it, of every numerical condition: (row, feature, threshold)."""
    x = forest.missing(x)
    found: dict[tuple[int, float], int] = {}
    for tree in forest.trees:
        passing = {0: np.arange(len(x))}
        for node in range(len(tree.feature)):
            rows = passing.pop(node, np.empty(0, dtype=np.int64))
            if tree.feature[node] < 0 or not len(rows):
                continue
            values, threshold = x[rows, tree.feature[node]], tree.threshold[node]
            left = values <= threshold
            if tree.members[node] >= 0:
                left = np.isin(values, list(forest.category_sets[tree.members[node]]))
            else:
                found.setdefault((int(tree.feature[node]), float(threshold)), int(rows[0]))
            left = np.where(np.isnan(values), tree.nan_left[node], left)
            passing[int(tree.left[node])], passing[int(tree.right[node])] = rows[left], rows[~left]
    return [(row, feature, threshold) for (feature, threshold), row in found.items()]


@cache
def rows_of(name: str, dataset: str) -> tuple[Any, ...]:
    """Training and test rows, and rows on and next to every threshold, each in both precisions."""
    x = data(name, dataset)[0]
    hard = adversarial(fitted(name, dataset), x)
    return x, float32(x), hard, float32(hard)


def adversarial(model: Any, x: Any) -> Any:
    """Rows that reach a node with its very threshold, or a neighbour of it; and rows with all features so.

    A data frame gives a data frame, whose categories are shuffled in some rows.
    """
    forest = model._fhe_adapter.forest(model)
    places = visits(forest, model._fhe_adapter.prepare(model, x))
    row, feature = (np.array([place[i] for place in places], dtype=np.int64) for i in (0, 1))
    values = beside(np.array([place[2] for place in places]), forest.accepts_nan)
    rng = np.random.default_rng(3)
    columns = [x.iloc[:, j].to_numpy() if isinstance(x, pd.DataFrame) else x[:, j] for j in range(x.shape[1])]
    source = np.concatenate([np.repeat(row, values.shape[1]), rng.integers(0, len(x), 100)])
    asked = np.concatenate([np.repeat(feature, values.shape[1]), np.full(100, -1)])
    given = np.concatenate([values.ravel(), np.zeros(100)])
    changed = []
    for j, column in enumerate(columns):
        taken = column[source].copy()
        if column.dtype.kind == "f":
            taken[asked == j] = given[asked == j]
            if (feature == j).any():
                taken[asked == -1] = rng.choice(values[feature == j].ravel(), 100)
        else:
            taken[asked == -1] = rng.permutation(taken[asked == -1])
        changed.append(taken)
    if not isinstance(x, pd.DataFrame):
        return np.column_stack(changed)
    return pd.DataFrame({c: pd.Series(v, dtype=x[c].dtype) for c, v in zip(x.columns, changed, strict=True)})


def float32(x: Any) -> Any:
    """The same rows in float32, categories as they are."""
    if isinstance(x, pd.DataFrame):
        return x.astype({c: np.float32 for c in x.columns if x[c].dtype.kind == "f"})
    return x.astype(np.float32)
