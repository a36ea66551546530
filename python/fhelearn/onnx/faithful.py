"""What must be settled before Hummingbird 0.4.11 sees a model, so that its ONNX graph is that model.

Hummingbird silently drops parts of some models (the base score and the early stopping of XGBClassifier, the links of
LightGBM's objectives, zeros in histogram-based trees). What it takes by configuration is given to it here; the rest is
refused.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np

from fhelearn.exceptions import LoweringError

_XGBOOST_OBJECTIVES = ("binary:logistic", "multi:softmax", "multi:softprob")
# Hummingbird ends LightGBM classifiers in a sigmoid or softmax, regressors in nothing or, for tweedie, in exp.
_LIGHTGBM_OBJECTIVES = (
    "binary", "multiclass", "regression", "regression_l1", "huber", "fair", "quantile", "mape", "tweedie",
)  # fmt: skip


def prepared(model: Any) -> tuple[Any, dict[str, Any]]:
    """A shallow copy of `model` that Hummingbird converts faithfully, and the configuration that goes with it.

    Classes become their indices: Hummingbird knows integer labels only.

    Raises
    ------
    LoweringError
        If Hummingbird would leave a part of the model out.
    """
    plain = _plain(model)
    name, module = type(model).__name__, type(model).__module__.split(".")[0]
    if module == "xgboost" and hasattr(model, "get_booster"):
        return _prepare_xgboost(name, plain)
    if module == "lightgbm" and hasattr(model, "booster_"):
        _check_lightgbm(name, model)
    if module == "sklearn" and hasattr(model, "_predictors"):
        _check_histogram_trees(name, model)
    if module == "sklearn" and getattr(model, "loss", None) == "exponential" and hasattr(model, "estimators_"):
        _refuse(name, "takes loss='exponential' for 'log_loss'")
    # Thresholds are float64: as such they are compared with float32 features exactly.
    return plain, {"tree_op_precision_dtype": "float64"}


def _refuse(name: str, what: str) -> NoReturn:
    raise LoweringError(
        f"{name}: hummingbird-ml 0.4.11 {what}, so there is no exact ONNX view of this model; predictions, simulated "
        "and encrypted, do not need it"
    )


def _plain(model: Any) -> Any:
    if isinstance(model, str):  # "drop" and "passthrough" in place of a transformer
        return model
    plain = copy.copy(model)
    if isinstance(steps := vars(plain).get("steps"), list) and steps:
        plain.steps = [(name, _plain(step)) for name, step in steps]
    if type(model).__name__ == "ColumnTransformer" and hasattr(plain, "transformers_"):
        names = list(getattr(plain, "feature_names_in_", []))
        plain.transformers_ = [
            (name, _plain(part), _positions(columns, names, plain.n_features_in_))
            for name, part, columns in plain.transformers_
        ]
    if isinstance(classes := vars(plain).get("classes_"), np.ndarray):
        plain.classes_ = np.arange(len(classes))
        if type(model).__name__.startswith("LogisticRegression"):
            # The parameter that scikit-learn 1.8 took away; without it Hummingbird takes the model for one-vs-rest.
            plain.multi_class = "multinomial" if len(classes) > 2 else "ovr"
    return plain


def _positions(columns: Any, names: list[str], count: int) -> list[int]:
    """What a ColumnTransformer selects by names, labels of a slice, a mask or positions, as positions from 0.

    Hummingbird looks names up among the inputs of the graph, which is one matrix, and takes masks for positions.
    """
    if isinstance(columns, slice):
        start, stop = columns.start, columns.stop
        start = names.index(start) if isinstance(start, str) else start
        stop = names.index(stop) + 1 if isinstance(stop, str) else stop
        return list(range(count))[slice(start, stop, columns.step)]
    chosen: list[Any] = [columns] if np.isscalar(columns) else list(columns)
    if chosen and all(isinstance(column, (bool, np.bool_)) for column in chosen):
        return [position for position, column in enumerate(chosen) if column]
    return [names.index(column) if isinstance(column, str) else int(column) % count for column in chosen]


def _prepare_xgboost(name: str, model: Any) -> tuple[Any, dict[str, Any]]:
    booster = model.get_booster()
    learner = json.loads(booster.save_config())["learner"]
    if (kind := learner["gradient_booster"]["name"]) != "gbtree":
        _refuse(name, f"reads booster='gbtree' only, not {kind!r}")
    config = {"tree_op_precision_dtype": "float32"}  # Hummingbird reads a text of 9 digits: exact in float32 only
    best = getattr(model, "best_iteration", None) if "best_iteration" in booster.attributes() else None
    model._Booster = booster.copy() if best is None else booster[: best + 1]
    model._Booster.feature_names = model._Booster.feature_types = None  # Hummingbird wants f0, f1, ... in the dump
    if not hasattr(model, "n_classes_"):
        return model, config  # XGBRegressor: the converter reads the base score itself (and fails on that of XGBoost 3)
    if (objective := learner["objective"]["name"]) not in _XGBOOST_OBJECTIVES:
        _refuse(name, f"takes objective={objective!r} for a logistic one")
    if model.n_classes_ > 2 and int(model.get_params().get("num_parallel_tree") or 1) > 1:
        _refuse(name, "mixes up the classes of num_parallel_tree > 1")
    score = np.atleast_1d(np.array(json.loads(learner["learner_model_param"]["base_score"]), dtype=np.float32))
    if objective == "binary:logistic":
        score = -np.log(np.float32(1) / score - np.float32(1))  # as XGBoost: in float32
    return model, {**config, "base_prediction": [[float(value) for value in score]]}


def _check_lightgbm(name: str, model: Any) -> None:
    if model.boosting_type == "rf":
        _refuse(name, "does not read boosting_type='rf'")
    if (objective := str(getattr(model, "objective_", ""))) not in _LIGHTGBM_OBJECTIVES:
        _refuse(name, f"leaves the link of objective={objective!r} out")
    for tree in model.booster_.dump_model()["tree_info"]:
        for node in _lightgbm_nodes(tree["tree_structure"]):
            if "leaf_coeff" in node:
                _refuse(name, "leaves the slopes of linear trees out")
            if node.get("decision_type", "<=") != "<=":
                _refuse(name, "takes categorical splits for numerical ones")


def _lightgbm_nodes(root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        stack += [node[child] for child in ("left_child", "right_child") if child in node]


def _check_histogram_trees(name: str, model: Any) -> None:
    for predictor in (tree for iteration in model._predictors for tree in iteration):
        nodes = predictor.nodes
        leaf = nodes["is_leaf"].astype(np.bool_)
        if (nodes["is_categorical"].astype(np.bool_) & ~leaf).any():
            _refuse(name, "takes categorical splits for numerical ones")
        if (nodes["value"][leaf] == 0).any() or (nodes["num_threshold"][~leaf] == 0).any():
            _refuse(name, "replaces leaf values and thresholds of 0 by -1")
