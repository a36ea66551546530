"""XGBoost boosters in the one forest form.

Treelite reads the trees. What it loses or refuses, measured with treelite 4.8.1 on models of XGBoost 3.2, is settled
here, always by XGBoost's own code:

* It refuses a booster that stores the categories of a data frame. The encoder is taken out of the model first: the
  trees hold codes already, and turning names into codes is the client's work (`DMatrix` does it).
* Its base scores are double precision logits, XGBoost adds single precision ones (0.52114938 against 0.52114934 on
  breast cancer). They are asked of XGBoost: the same booster with zero in every leaf predicts nothing else.
* It has no early stopping. The booster is sliced to the iterations that `predict` uses.

It keeps what matters: comparisons are ``x < t`` in float32 (``x <= nextafter(t, -inf)`` here), categories that a split
lists go to the right and all others, negative ones and those above the largest listed included, to the left
(``common::Decision`` in XGBoost's ``categorical.h``), vector leaves, and weights of DART's trees, multiplied into the
leaves. Node numbers are XGBoost's own.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np

from fhelearn.exceptions import LoweringError
from fhelearn.frontends.tree.forest import Forest
from fhelearn.frontends.tree.treelite_reader import forest_from_treelite
from fhelearn.typing import FloatArray

try:
    from xgboost import Booster
except ImportError as error:
    raise ImportError('XGBoost models need XGBoost: pip install "fhelearn[xgboost]"') from error

_NO_CATEGORIES: dict[str, list[Any]] = {"enc": [], "feature_segments": [], "sorted_idx": []}


def forest_from_xgboost(booster: Booster, n_iterations: int | None = None) -> Forest:
    """Read a booster of trees.

    Parameters
    ----------
    booster : xgboost.Booster
        Its scores are margins: what ``predict(output_margin=True)`` returns.
    n_iterations : int, default=None
        Read only so many iterations (early stopping: ``best_iteration + 1``); None reads all.

    Returns
    -------
    Forest
        In float32; one output per class of a multiclass model, one per target, else one. ``library_leaves`` equals
        ``predict(pred_leaf=True)``. Leaves and base are the float32 numbers that XGBoost adds.

    Raises
    ------
    LoweringError
        If the booster is linear, holds no tree, or treelite cannot read it.
    """
    from treelite import TreeliteError
    from treelite.frontend import from_xgboost

    base = base_margin(booster)
    if n_iterations is not None and n_iterations < booster.num_boosted_rounds():
        booster = booster[0:n_iterations]
    try:
        model = from_xgboost(_without_category_names(booster))
    except TreeliteError as error:
        reason = str(error).splitlines()[0]
        raise LoweringError(f"XGBoost: treelite cannot read this booster: {reason}") from error
    forest = forest_from_treelite(model, precision="float32", accepts_nan=True, base=base)
    return replace(forest, sum_precision="float32")


def base_margin(booster: Booster) -> FloatArray:
    """What XGBoost adds to the leaves of every row, per output, as its own code computes it from the base scores.

    Returns float64, shape (n_outputs,). Raises LoweringError if the booster is linear or holds no tree.
    """
    row = np.zeros((1, booster.num_features()), dtype=np.float32)
    margin = zero_leaves(booster).inplace_predict(row, predict_type="margin", validate_features=False)
    return np.asarray(margin, dtype=np.float64).ravel()


def zero_leaves(booster: Booster) -> Booster:
    """One iteration of a booster, every leaf zero: its margins are the base margins, its answers the objective's.

    Fed with ``base_margin=scores``, it turns scores into predictions by XGBoost's own code.

    Raises
    ------
    LoweringError
        If the booster is linear or holds no tree.
    """
    config = json.loads(booster.save_config())["learner"]
    name = config["learner_train_param"]["booster"]
    if name not in ("gbtree", "dart"):
        raise LoweringError(f"XGBoost: booster must be 'gbtree' or 'dart', got '{name}', which has no trees; fit one")
    if booster.num_boosted_rounds() == 0:
        raise LoweringError("XGBoost: the booster holds no tree; fit it with n_estimators of at least 1")
    model = _json(booster[0:1])
    learner = model["learner"]
    # DART weights its trees by scaling what they change in the prediction, the caller's base_margin included.
    learner["gradient_booster"] = learner["gradient_booster"].get("gbtree", learner["gradient_booster"])
    for tree in _trees(model)["trees"]:
        inner = np.array(tree["left_children"]) >= 0
        tree["split_conditions"] = np.where(inner, tree["split_conditions"], 0.0).tolist()
        # Leaves of several outputs; XGBoost before 3.2 keeps them in base_weights, among those of inner nodes.
        for weights in {"leaf_weights", "base_weights"} & tree.keys():
            tree[weights] = [0.0] * len(tree[weights])
    zero = _loaded(model)
    zero.set_param("nthread", config["generic_param"]["nthread"])
    return zero


def _without_category_names(booster: Booster) -> Booster:
    """The booster, or a copy that does not know the names of its categories."""
    if booster.feature_types is None or "c" not in booster.feature_types:
        return booster
    model = _json(booster)
    if "cats" in _trees(model):
        _trees(model)["cats"] = _NO_CATEGORIES
    return _loaded(model)


def _json(booster: Booster) -> dict[str, Any]:
    """Numbers are written so that XGBoost reads the same float32 again, and so are Python's."""
    model: dict[str, Any] = json.loads(booster.save_raw("json"))
    return model


def _trees(model: dict[str, Any]) -> dict[str, Any]:
    """The part of a model that holds its trees; DART wraps it once more."""
    part = model["learner"]["gradient_booster"]
    trees: dict[str, Any] = part.get("gbtree", part)["model"]
    return trees


def _loaded(model: dict[str, Any]) -> Booster:
    booster = Booster()
    booster.load_model(bytearray(json.dumps(model).encode()))
    return booster
