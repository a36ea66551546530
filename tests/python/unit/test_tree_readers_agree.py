"""All ways into the forest form agree on a model: treelite, ONNX-ML tree nodes, and Hummingbird's GEMM graph.

The rows are random ones, rows exactly on each threshold, and their float32 neighbours on both sides. Leaves must be
the same ones; scores may differ by float32 roundings of leaf values and of sums.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from xgboost import XGBClassifier, XGBRegressor

from fhelearn.exceptions import LoweringError
from fhelearn.frontends.tree.comparisons import canonical_threshold
from fhelearn.frontends.tree.forest import Forest
from fhelearn.frontends.tree.hummingbird_reader import forest_from_hummingbird
from fhelearn.frontends.tree.lightgbm_reader import forest_from_lightgbm
from fhelearn.frontends.tree.onnx_ml_reader import forest_from_onnx_ml
from fhelearn.frontends.tree.sklearn_reader import read_sklearn
from fhelearn.frontends.tree.xgboost_reader import forest_from_xgboost
from fhelearn.onnx import export_sklearn
from tests.python.unit.onnx_trees import (
    Tree,
    classifier,
    lightgbm_trees,
    regressor,
    rows_around,
    sklearn_tree,
    xgboost_trees,
)

IRIS = load_iris(return_X_y=True)
CANCER = load_breast_cancer(return_X_y=True)
DIABETES = load_diabetes(return_X_y=True)
SHORT = {"n_estimators": 4, "max_depth": 3, "random_state": 0}
BOOSTED = {**SHORT, "n_jobs": 1}


@dataclass
class Case:
    """A fitted model, the trees of its ONNX-ML view, and the library's own leaves and raw scores."""

    model: Any
    read: Callable[[Any], Forest]
    trees: list[Tree]
    leaves: Callable[[Any], np.ndarray]
    scores: Callable[[Any], np.ndarray]
    n_classes: int = 1
    double: bool = False


def sklearn_case(model, x, y):
    model.fit(x, y)
    each = [model] if hasattr(model, "tree_") else list(model.estimators_)
    trees = [sklearn_tree(tree, scale=1 / len(each)) for tree in each]
    answer = model.predict_proba if hasattr(model, "classes_") else model.predict
    return Case(
        model,
        read_sklearn,
        trees,
        lambda rows: model.apply(rows).reshape(len(rows), -1),
        lambda rows: answer(rows).reshape(len(rows), -1),
        n_classes=len(getattr(model, "classes_", [0])),
    )


def boosting_case(model, x, y):
    model.fit(x, y)
    stages = model.estimators_
    trees = [
        sklearn_tree(tree, output=k, scale=model.learning_rate) for stage in stages for k, tree in enumerate(stage)
    ]
    raw = model.decision_function if hasattr(model, "classes_") else model.predict
    return Case(
        model,
        read_sklearn,
        trees,
        lambda rows: model.apply(rows).reshape(len(rows), -1),
        lambda rows: raw(rows).reshape(len(rows), -1),
        n_classes=stages.shape[1],
    )


def xgboost_case(model, x, y):
    booster = model.fit(x, y).get_booster()
    n_classes = model.n_classes_ if getattr(model, "n_classes_", 2) > 2 else 1
    return Case(
        model,
        lambda fitted: forest_from_xgboost(fitted.get_booster()),
        xgboost_trees(booster, n_classes),
        lambda rows: model.apply(rows).reshape(len(rows), -1),
        lambda rows: model.predict(rows, output_margin=True).reshape(len(rows), -1).astype(np.float64),
        n_classes,
    )


def lightgbm_case(model, x, y):
    booster = model.fit(x, y).booster_
    n_classes = booster.num_model_per_iteration()
    return Case(
        model,
        lambda fitted: forest_from_lightgbm(fitted.booster_),
        lightgbm_trees(booster, n_classes),
        lambda rows: model.predict(rows, pred_leaf=True).reshape(len(rows), -1),
        lambda rows: model.predict(rows, raw_score=True).reshape(len(rows), -1),
        n_classes,
        double=True,
    )


CASES = {
    "tree, 3 classes": lambda: sklearn_case(DecisionTreeClassifier(max_depth=4, random_state=0), *IRIS),
    "tree, 1 target": lambda: sklearn_case(DecisionTreeRegressor(max_depth=4, random_state=0), *DIABETES),
    "random forest": lambda: sklearn_case(RandomForestClassifier(**SHORT), *CANCER),
    "extra trees, 2 targets": lambda: sklearn_case(
        ExtraTreesRegressor(**SHORT), DIABETES[0], np.column_stack([DIABETES[1], -(DIABETES[1] ** 2)])
    ),
    "boosting, 2 classes": lambda: boosting_case(GradientBoostingClassifier(**SHORT), *CANCER),
    "boosting, 3 classes": lambda: boosting_case(GradientBoostingClassifier(**SHORT), IRIS[0][:110], IRIS[1][:110]),
    "boosting, 1 target": lambda: boosting_case(GradientBoostingRegressor(**SHORT), *DIABETES),
    "XGBoost, 2 classes": lambda: xgboost_case(XGBClassifier(**BOOSTED), *CANCER),
    "XGBoost, 3 classes": lambda: xgboost_case(XGBClassifier(**BOOSTED), *IRIS),
    "XGBoost, 1 target": lambda: xgboost_case(XGBRegressor(**BOOSTED), *DIABETES),
    "LightGBM, 3 classes": lambda: lightgbm_case(LGBMClassifier(**BOOSTED, verbose=-1), *IRIS),
    "LightGBM, 1 target": lambda: lightgbm_case(LGBMRegressor(**BOOSTED, verbose=-1), *DIABETES),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return CASES[request.param]()


def onnx_ml_forest(case, base=None):
    n_features = case.model.n_features_in_
    attributes = {} if base is None else {"base_values": base}
    if case.n_classes > 1:
        model = classifier(case.trees, n_features, list(range(case.n_classes)), case.double, **attributes)
    else:
        n_targets = len(next(node for node in case.trees[0] if node.mode == "LEAF").weights)
        model = regressor(case.trees, n_features, n_targets, case.double, **attributes)
    return forest_from_onnx_ml(model)


def leaf_ranks(forest, x):
    """The leaf that each row reaches in each tree, as its place among the tree's leaves from left to right."""
    leaves = forest.apply(x)
    columns = []
    for index, tree in enumerate(forest.trees):
        rank, stack = np.full(len(tree.feature), -1), [0]
        while stack:
            node = stack.pop()
            if tree.feature[node] < 0:
                rank[node] = rank.max() + 1
            else:
                stack += [tree.right[node], tree.left[node]]
        columns.append(rank[leaves[:, index]])
    return np.stack(columns, axis=1)


def float32_error(forest):
    """A bound of rounding leaf values and base to float32, and of summing them in float32."""
    largest = np.abs(forest.base).max() + sum(np.abs(tree.value).max() for tree in forest.trees)
    return (forest.n_trees + 3) * np.finfo(np.float32).eps * largest


def float32_rows(forest):
    return rows_around(forest, np.random.default_rng(0), "float32").astype(np.float64)


def test_treelite_and_onnx_ml_reach_the_librarys_leaves_and_scores(case):
    direct = case.read(case.model)
    x = float32_rows(direct)
    bare = onnx_ml_forest(case)
    base = (case.scores(x[:1]) - bare.scores(x[:1]))[0]
    through_onnx = onnx_ml_forest(case, base.tolist())
    assert np.array_equal(direct.library_leaves(x), case.leaves(x))
    assert np.array_equal(through_onnx.library_leaves(x), case.leaves(x))
    np.testing.assert_allclose(through_onnx.scores(x), case.scores(x), rtol=0, atol=float32_error(through_onnx))
    scale = direct.n_trees if case.read is read_sklearn and not hasattr(case.model, "learning_rate") else 1
    np.testing.assert_allclose(direct.scores(x) / scale, case.scores(x), rtol=0, atol=float32_error(direct))


def test_hummingbirds_graph_reaches_the_same_leaves_and_scores(case):
    if isinstance(case.model, XGBRegressor):
        with pytest.raises(LoweringError, match=r"XGBRegressor: hummingbird-ml .* cannot convert"):
            export_sklearn(case.model, DIABETES[0], tree_implementation="gemm")
        return
    direct = case.read(case.model)
    x = float32_rows(direct)
    forest = forest_from_hummingbird(export_sklearn(case.model, x, tree_implementation="gemm"))
    # Hummingbird puts the trees of one class together, the libraries those of one iteration.
    per_class = forest.n_trees // (forest.n_outputs if forest.trees[0].value.shape[1] < forest.n_outputs else 1)
    order = np.arange(forest.n_trees).reshape(-1, per_class).T.ravel()
    assert np.array_equal(leaf_ranks(forest, x)[:, order], leaf_ranks(direct, x))
    for mine, theirs in zip(direct.trees, (forest.trees[i] for i in order), strict=True):
        # LightGBM compares in float64; on the float32 features of the graph the same decision has this threshold.
        expected = canonical_threshold(mine.threshold[mine.feature >= 0], False, "float32")
        assert np.array_equal(np.sort(theirs.threshold[theirs.feature >= 0]), np.sort(expected))
    found, expected = forest.scores(x), case.scores(x)
    if "GradientBoosting" in type(case.model).__name__ and case.n_classes > 1:
        # Hummingbird starts from log(prior), scikit-learn from that minus its mean, which softmax does not see.
        found, expected = (scores - scores.mean(axis=1, keepdims=True) for scores in (found, expected))
    np.testing.assert_allclose(found, expected, rtol=0, atol=float32_error(forest))


@pytest.mark.parametrize("name", ["XGBoost, 2 classes", "LightGBM, 3 classes"])
def test_treelite_and_onnx_ml_send_missing_values_where_the_library_does(name):
    case = CASES[name]()
    direct = case.read(case.model)
    x = float32_rows(direct)
    x[np.random.default_rng(1).random(x.shape) < 0.3] = np.nan
    assert np.array_equal(direct.library_leaves(x), case.leaves(x))
    assert np.array_equal(onnx_ml_forest(case).library_leaves(x), case.leaves(x))


def test_thresholds_that_hummingbird_rounds_are_read_as_its_graph_compares_them():
    step = np.spacing(np.float32(4))  # scikit-learn does not split features that are closer than 1e-7
    x = (4 + np.arange(8) * np.float64(step))[:, np.newaxis]  # eight neighbouring float32
    fitted = DecisionTreeRegressor(random_state=0).fit(x, np.arange(8.0) ** 2)
    thresholds = np.sort(fitted.tree_.threshold[fitted.tree_.feature >= 0])
    assert np.array_equal(thresholds, 4 + (np.arange(7) + 0.5) * np.float64(step))
    exact = forest_from_hummingbird(export_sklearn(fitted, x, tree_implementation="gemm"))
    assert np.array_equal(exact.scores(x)[:, 0], fitted.predict(x))
    with pytest.raises(LoweringError, match="answers predict otherwise than the model"):
        export_sklearn(fitted, x, tree_implementation="gemm", tree_precision="float32")
    graph = export_sklearn(fitted, x[:1], tree_implementation="gemm", tree_precision="float32")
    rounded = forest_from_hummingbird(graph)
    asked = rounded.trees[0].threshold[rounded.trees[0].feature >= 0]
    assert np.array_equal(np.sort(asked), np.sort(thresholds.astype(np.float32)))
    # Halfway cases go to the even neighbour: every second threshold is rounded up, onto a feature of the other side.
    rounded_up = (thresholds.astype(np.float32) > thresholds).sum()
    assert (rounded.scores(x)[:, 0] != fitted.predict(x)).sum() == rounded_up == 3
