"""Fitted tree models of scikit-learn as forests.

They are read from scikit-learn's own arrays rather than through treelite, whose importer copies the same arrays of
random forests, gradient boosting and isolation forests, and loses or lacks what this module needs (treelite 4.8.1):

* it takes the number of trees from the parameter ``n_estimators``, so a booster that stopped early
  (``n_iter_no_change``), or a parameter changed after ``fit``, makes it read past the end of an array;
* it sends unknown categories of histogram gradient boosting to the right where scikit-learn takes them for missing,
  refuses categories that are strings, and counts in raw categories where the model counts in encoded ones;
* it divides leaves by the number of trees before they are summed, where scikit-learn divides the sum: a tie of two
  classes may round to another winner;
* it knows no single trees, no AdaBoost and no bagging.

The tests hold the two readings of a model against each other wherever treelite has one.

Scores are what the library sums: where it divides the sum by the number of trees or by the weights' sum, that division
is left to whoever turns scores into answers, so that not even the last bit differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn import dummy, ensemble, tree
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from fhelearn.exceptions import LoweringError
from fhelearn.frontends.tree.comparisons import canonical_threshold
from fhelearn.frontends.tree.forest import Forest, TreeNodes
from fhelearn.typing import FloatArray, IntArray

_TREE_CLASSES = (tree.DecisionTreeClassifier, tree.DecisionTreeRegressor)  # bases of the ExtraTree classes too


def read_sklearn(model: Any) -> Forest:
    """Read a fitted tree model of scikit-learn, of whichever family.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If it is not fitted.
    LoweringError
        If it is no tree model, or one whose trees are not all of its answer; see the functions of the families.
    """
    for classes, read in _READERS:
        if isinstance(model, classes):
            return read(model)
    raise LoweringError(
        f"{type(model).__name__} is no tree model of scikit-learn; supported are decision trees, extra trees, random "
        "forests, gradient boosting, isolation forests, and AdaBoost and bagging over decision trees"
    )


def read_tree(model: Any) -> Forest:
    """Read one decision tree or extremely randomized tree.

    Scores are its predictions: the class probabilities of output 0, then of output 1, and so on; or the values of the
    outputs.
    """
    check_is_fitted(model)
    return _average([model], model.n_features_in_)


def read_forest(model: Any) -> Forest:
    """Read a random forest or extra trees. Scores are the sums of the trees' predictions, as :func:`read_tree` has."""
    check_is_fitted(model)
    return _average(model.estimators_, model.n_features_in_)


def read_gradient_boosting(model: Any) -> Forest:
    """Read gradient boosting. Scores are its raw predictions: one, or one per class.

    Raises
    ------
    LoweringError
        If the ``init`` estimator is none whose prediction is the same for every row.
    """
    check_is_fitted(model)
    constant = isinstance(model.init_, (dummy.DummyClassifier, dummy.DummyRegressor))
    random = constant and model.init_.strategy in ("stratified", "uniform")
    if random or not (constant or (isinstance(model.init_, str) and model.init_ == "zero")):
        raise LoweringError(
            f"{type(model).__name__}: init predicts by {model.init_!r}, whose answer is not the same for every row; "
            "fit with init=None or init='zero'"
        )
    trees = [
        _nodes(sub, model.learning_rate * sub.tree_.value[:, 0, :1], first_output=output)
        for stage in model.estimators_
        for output, sub in enumerate(stage)
    ]
    base = model._raw_predict_init(np.zeros((1, model.n_features_in_)))[0]
    return Forest(tuple(trees), model.n_features_in_, "float32", base)


def hist_feature_order(model: Any) -> IntArray:
    """Which feature each column of histogram gradient boosting's preprocessed data holds, shape (n_features,).

    Its preprocessor moves categorical features to the front.
    """
    if model._preprocessor is None:
        return np.arange(model.n_features_in_, dtype=np.int64)
    categorical = np.asarray(model.is_categorical_, dtype=np.bool_)
    return np.concatenate([np.flatnonzero(categorical), np.flatnonzero(~categorical)]).astype(np.int64)


def read_hist_gradient_boosting(model: Any) -> Forest:
    """Read histogram gradient boosting. Scores are its raw predictions: one, or one per class.

    Features are in the order of the data that the model was fitted on; categorical ones hold their encoded categories.
    """
    check_is_fitted(model)
    order = hist_feature_order(model)
    category_sets: dict[frozenset[int], int] = {}
    trees = [
        _hist_nodes(predictor, order, output, category_sets)
        for stage in model._predictors
        for output, predictor in enumerate(stage)
    ]
    mapper = model._bin_mapper
    known = {
        int(order[column]): frozenset(int(category) for category in mapper.bin_thresholds_[column])
        for column in np.flatnonzero(mapper.is_categorical_)
    }
    return Forest(
        trees=tuple(trees),
        n_features=model.n_features_in_,
        precision="float64",
        base=np.ravel(model._baseline_prediction),
        category_sets=tuple(category_sets),
        accepts_nan=True,
        known_categories=known,
    )


def read_isolation_forest(model: Any) -> Forest:
    """Read an isolation forest. The score is the sum over the trees of the path length in them."""
    check_is_fitted(model)
    trees = []
    subsets = model._max_features != model.n_features_in_  # else estimators_features_ is drawn, but not used
    for index, sub in enumerate(model.estimators_):
        depth = model._decision_path_lengths[index] + model._average_path_length_per_tree[index] - 1.0
        trees.append(_nodes(sub, depth[:, np.newaxis], features=_subset(model, index) if subsets else None))
    return Forest(tuple(trees), model.n_features_in_, "float32", np.zeros(1), accepts_nan=True)


def read_adaboost_classifier(model: Any) -> Forest:
    """Read AdaBoost over classification trees.

    Scores are ``decision_function`` times the sum of the estimators' weights: one score of two classes, else one per
    class. A leaf votes for the class its tree predicts there.

    Raises
    ------
    LoweringError
        If an estimator is no decision tree.
    """
    check_is_fitted(model)
    trees = []
    n_classes = len(model.classes_)
    for sub, weight in zip(model.estimators_, model.estimator_weights_, strict=False):
        _require_tree(model, sub)
        voted = sub.classes_.take(np.argmax(sub.tree_.value[:, 0, : len(sub.classes_)], axis=1))
        votes = voted[:, np.newaxis] == model.classes_
        if n_classes == 1:
            value = np.zeros((len(votes), 1))
        elif n_classes == 2:
            value = np.where(votes[:, 1:], 2.0, -2.0) * weight
        else:
            value = np.where(votes, weight, -1 / (n_classes - 1) * weight)
        trees.append(_nodes(sub, value))
    return Forest(tuple(trees), model.n_features_in_, "float32", np.zeros(1 if n_classes <= 2 else n_classes))


def read_adaboost_regressor(model: Any) -> Forest:
    """Read AdaBoost over regression trees. Score t is the prediction of tree t: the answer is their weighted median.

    Raises
    ------
    LoweringError
        If an estimator is no decision tree.
    """
    check_is_fitted(model)
    trees = []
    for index, sub in enumerate(model.estimators_):
        _require_tree(model, sub)
        trees.append(_nodes(sub, sub.tree_.value[:, 0, :1], first_output=index))
    return Forest(tuple(trees), model.n_features_in_, "float32", np.zeros(len(trees)))


def read_bagging(model: Any) -> Forest:
    """Read bagging over decision trees. Scores are the sums of the trees' probabilities or values.

    Raises
    ------
    LoweringError
        If an estimator is no decision tree.
    """
    check_is_fitted(model)
    classes = np.arange(model.n_classes_) if hasattr(model, "classes_") else None
    estimators = model.estimators_[: model.n_estimators]  # scikit-learn leaves the rest out, should there be one
    for sub in estimators:
        _require_tree(model, sub)
    features = [_subset(model, index) for index in range(len(estimators))]
    return _average(estimators, model.n_features_in_, features, classes)


def accepts_nan(sub: Any) -> bool:
    """Whether a decision tree predicts for rows with missing values."""
    return bool(get_tags(sub).input_tags.allow_nan)


def _average(
    estimators: Sequence[Any],
    n_features: int,
    features: Sequence[IntArray] | None = None,
    classes: IntArray | None = None,
) -> Forest:
    """The sum of the predictions of `estimators`.

    features: per estimator, the features that it asks. classes: all labels, if estimators may know only some of them.
    """
    trees = []
    for index, sub in enumerate(estimators):
        value = _predictions(sub)
        if classes is not None and len(sub.classes_) != len(classes):
            some, value = value, np.zeros((len(value), len(classes)))
            value[:, np.searchsorted(classes, sub.classes_)] = some
        trees.append(_nodes(sub, value, features=None if features is None else features[index]))
    base = np.zeros(trees[0].value.shape[1])
    return Forest(tuple(trees), n_features, "float32", base, accepts_nan=accepts_nan(estimators[0]))


def _predictions(sub: Any) -> FloatArray:
    """What a tree predicts at each node, output by output without scikit-learn's padding of classes."""
    value = sub.tree_.value
    n_classes = np.atleast_1d(getattr(sub, "n_classes_", np.ones(value.shape[1], dtype=np.int64)))
    return np.concatenate([value[:, output, :n] for output, n in enumerate(n_classes)], axis=1)


def _nodes(sub: Any, value: FloatArray, *, features: IntArray | None = None, first_output: int = 0) -> TreeNodes:
    """The nodes of a decision tree that adds `value`, shape (n_nodes, width), at its leaves."""
    arrays = sub.tree_
    leaf = arrays.children_left < 0
    feature = np.where(leaf, -1, arrays.feature)
    if features is not None:
        feature = np.where(leaf, -1, features[feature])
    return TreeNodes(
        feature=feature.astype(np.int64),
        threshold=canonical_threshold(np.where(leaf, 0.0, arrays.threshold), False, "float32"),
        members=np.full(len(leaf), -1, dtype=np.int64),
        nan_left=arrays.missing_go_to_left.astype(np.bool_) & ~leaf,
        left=arrays.children_left.astype(np.int64),
        right=arrays.children_right.astype(np.int64),
        value=np.where(leaf[:, np.newaxis], value, 0.0),
        first_output=first_output,
        library_id=np.arange(len(leaf), dtype=np.int64),
    )


def _hist_nodes(
    predictor: Any, order: IntArray, first_output: int, category_sets: dict[frozenset[int], int]
) -> TreeNodes:
    """The nodes of a tree of histogram gradient boosting; sets that are new are added to `category_sets`."""
    nodes = predictor.nodes
    inner = nodes["is_leaf"] == 0
    categorical = inner & (nodes["is_categorical"] != 0)
    members = np.full(len(nodes), -1, dtype=np.int64)
    for node in np.flatnonzero(categorical):
        words = predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]].astype("<u4")
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")
        members[node] = category_sets.setdefault(frozenset(np.flatnonzero(bits).tolist()), len(category_sets))
    return TreeNodes(
        feature=np.where(inner, order[np.where(inner, nodes["feature_idx"], 0)], -1),
        threshold=np.where(inner & ~categorical, nodes["num_threshold"], 0.0),
        members=members,
        nan_left=inner & (nodes["missing_go_to_left"] != 0),
        left=np.where(inner, nodes["left"].astype(np.int64), -1),
        right=np.where(inner, nodes["right"].astype(np.int64), -1),
        value=np.where(inner, 0.0, nodes["value"])[:, np.newaxis],
        first_output=first_output,
        library_id=np.arange(len(nodes), dtype=np.int64),
    )


def _subset(model: Any, index: int) -> IntArray:
    """The features that estimator `index` of a bagging model asks."""
    return np.asarray(model.estimators_features_[index], dtype=np.int64)


def _require_tree(model: Any, sub: Any) -> None:
    if not isinstance(sub, _TREE_CLASSES):
        raise LoweringError(
            f"{type(model).__name__}: its estimators must be decision trees or extra trees, got {type(sub).__name__}; "
            "fit with estimator=DecisionTreeClassifier() or DecisionTreeRegressor()"
        )
    for method in ("predict", "predict_proba"):
        owner = next((cls for cls in type(sub).__mro__ if method in vars(cls)), None)
        if owner is not None and owner.__module__.split(".")[0] not in ("sklearn", "fhelearn"):
            raise LoweringError(
                f"{type(model).__name__}: its estimator {type(sub).__name__} overrides {method}, so that its leaves "
                "are not its answers; use a decision tree of scikit-learn"
            )


_READERS: tuple[tuple[tuple[type, ...], Callable[[Any], Forest]], ...] = (
    (_TREE_CLASSES, read_tree),
    (
        (
            ensemble.RandomForestClassifier,
            ensemble.RandomForestRegressor,
            ensemble.ExtraTreesClassifier,
            ensemble.ExtraTreesRegressor,
        ),
        read_forest,
    ),
    ((ensemble.GradientBoostingClassifier, ensemble.GradientBoostingRegressor), read_gradient_boosting),
    ((ensemble.HistGradientBoostingClassifier, ensemble.HistGradientBoostingRegressor), read_hist_gradient_boosting),
    ((ensemble.IsolationForest,), read_isolation_forest),
    ((ensemble.AdaBoostClassifier,), read_adaboost_classifier),
    ((ensemble.AdaBoostRegressor,), read_adaboost_regressor),
    ((ensemble.BaggingClassifier, ensemble.BaggingRegressor), read_bagging),
)
