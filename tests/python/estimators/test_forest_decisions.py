"""Rows reach the library's own leaves, and answers differ from the library's by no more than rounded leaves explain."""

import numpy as np
import pytest
from sklearn.tree import DecisionTreeClassifier as PlainTree

from fhelearn.ensemble import RandomForestClassifier
from fhelearn.estimators.build import METHODS
from fhelearn.estimators.forest_report import undecided
from fhelearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from tests.python.estimators.forest_cases import (
    CLASSES,
    EVERY_CASE,
    REGRESSORS,
    TIED,
    as_list,
    compiled,
    data_sets,
    lazy_circuits,  # noqa: F401 (an autouse fixture)
    library_leaves,
    make,
    own_leaves,
    rows_of,
    ties,
)

NUMBERS = [
    pytest.param(name, dataset, method, id=f"{name}-{dataset}-{method}")
    for name in CLASSES
    for dataset in data_sets(name)
    for method in METHODS
    if hasattr(make(name), method) and (method != "predict" or name in REGRESSORS) and method != "predict_log_proba"
]
"""Every answer that is no label; logarithms of probabilities are those of what `predict_proba` answers."""


def scores_of(model, x):
    return model._fhe_compiled.scores(model._fhe_adapter.prepare(model, x), "simulate")


def bracket(model, method, scores):
    """Least and greatest answers for scores that are off by what rounded leaves and float sums explain.

    Every answer grows with some scores and falls with the others: a probability grows with its own score, a mean or a
    median with all. So its extremes are where each score is off by as much as it may be.
    """
    bound = model._fhe_compiled.quantized.error_bound
    signs = np.vstack([2 * np.eye(scores.shape[1]) - 1, np.ones(scores.shape[1])])
    placeholder = model._fhe_adapter.placeholder(model, len(scores))
    views = (model._fhe_adapter.view(model, scores + sign * bound) for sign in np.vstack([signs, -signs]))
    answers = [np.hstack(as_list(getattr(view, method)(placeholder))) for view in views]
    return np.min(answers, axis=0), np.max(answers, axis=0)


def test_every_estimator_is_tried_on_at_least_five_data_sets():
    assert len(CLASSES) == 23
    assert all(len(data_sets(name)) >= 5 for name in CLASSES)


@EVERY_CASE
def test_every_row_reaches_the_librarys_leaves(name, dataset):
    for rows in rows_of(name, dataset):
        expected = library_leaves(compiled(name, dataset), rows)
        for grid in ("hidden", "thresholds"):
            np.testing.assert_array_equal(own_leaves(compiled(name, dataset, grid), rows), expected)


@EVERY_CASE
def test_both_exact_grids_give_the_same_scores(name, dataset):
    rows = rows_of(name, dataset)[2]
    scores = [scores_of(compiled(name, dataset, grid), rows) for grid in ("hidden", "thresholds")]
    assert scores[0].tobytes() == scores[1].tobytes()


@pytest.mark.parametrize(
    ("name", "dataset"), [(name, dataset) for name in CLASSES if name not in REGRESSORS for dataset in data_sets(name)]
)
def test_labels_are_the_librarys_except_where_the_report_says_undecided(name, dataset):
    model = compiled(name, dataset)
    for rows in rows_of(name, dataset)[::2]:
        expected, simulated = model.predict(rows), model.predict(rows, fhe="simulate")
        assert simulated.dtype == expected.dtype
        assert simulated.shape == expected.shape
        different = (simulated != expected).reshape(len(expected), -1).any(axis=1)
        unsure = undecided(model, scores_of(model, rows), model._fhe_compiled.quantized.error_bound)
        assert not (different & ~unsure).any(), f"rows {np.flatnonzero(different & ~unsure)}"


@pytest.mark.parametrize(("name", "dataset", "method"), NUMBERS)
def test_numbers_are_the_librarys_up_to_rounded_leaves(name, dataset, method):
    model = compiled(name, dataset)
    for rows in rows_of(name, dataset)[::2]:
        expected = np.hstack(as_list(getattr(model, method)(rows)))
        least, greatest = bracket(model, method, scores_of(model, rows))
        # The answer itself takes a few operations, a softmax one per class.
        slack = 8 * (2 + expected[0].size) * np.finfo(expected.dtype).eps * np.maximum(np.abs(least), np.abs(greatest))
        assert (least - slack <= expected).all()
        assert (expected <= greatest + slack).all()


@pytest.mark.parametrize("seed", TIED)
def test_labels_that_the_last_bit_of_a_sum_decides_are_the_librarys_or_undecided(seed):
    name, arguments = TIED[seed]
    x, y = ties(seed)
    model = make(name, **arguments, random_state=seed).fit(x, y).compile(x)
    different = model.predict(x) != model.predict(x, fhe="simulate")
    unsure = undecided(model, scores_of(model, x), model._fhe_compiled.quantized.error_bound)
    assert unsure[different].all()


@pytest.mark.parametrize("share", [(2, 1, 1), (2, 2, 1), (4, 4, 2), (1, 3, 3), (7, 7, 3), (3, 3)])
def test_classes_that_are_equal_in_a_leaf_stay_equal(share):
    """One leaf holds so many rows of each class; the library takes the first of those that are most."""
    labels = np.repeat(np.arange(len(share)), share)
    other = np.full(len(labels), len(share) - 1)
    x, y = np.repeat([0.0, 1.0], len(labels))[:, np.newaxis], np.concatenate([labels, other])
    for n_bits in (1, 8, 16):
        model = DecisionTreeClassifier(max_depth=1, random_state=0, n_bits=n_bits).fit(x, y).compile(x)
        unsure = undecided(model, scores_of(model, x), model._fhe_compiled.quantized.error_bound)
        assert (model.predict(x, fhe="simulate") == model.predict(x))[~unsure].all()


@pytest.mark.parametrize("share", [(1, 2), (3, 7), (1, 9), (5, 8), (6, 5)])
@pytest.mark.parametrize("n_trees", [2, 4, 6])
def test_trees_that_outvote_each_other_exactly_stay_tied(share, n_trees):
    """Half of the trees see the labels exchanged, so that every row is as probable in either class."""
    x = np.repeat([[0.0], [1.0]], sum(share), axis=0)
    y = np.concatenate([np.repeat([0, 1], share), np.repeat([1, 0], share)])
    plain = [PlainTree(max_depth=1).fit(x, y), PlainTree(max_depth=1).fit(x, 1 - y)]
    model = RandomForestClassifier(n_trees, max_depth=1, bootstrap=False, random_state=0).fit(x, y)
    model.estimators_ = plain * (n_trees // 2)
    model.compile(x)
    different = model.predict(x, fhe="simulate") != model.predict(x)
    unsure = undecided(model, scores_of(model, x), model._fhe_compiled.quantized.error_bound)
    assert not (different & ~unsure).any()


@pytest.mark.parametrize("step", [1e-12, 1e-9, 1e-6])
def test_values_beside_a_lattice_are_within_the_stated_error(step):
    x = np.arange(4.0)[:, np.newaxis]
    model = DecisionTreeRegressor().fit(x, [1.0, 2.0 + step, 4.0, 3.0 - step]).compile(x)
    error = np.abs(model.predict(x, fhe="simulate") - model.predict(x)).max()
    assert error <= model._fhe_compiled.quantized.error_bound[0]


@pytest.mark.parametrize("step", [0.0, 1e-12, 1e-9, 1e-6])
def test_probabilities_beside_a_half_are_the_librarys_or_undecided(step):
    x = np.array([[0.0], [0.0], [1.0], [1.0]])
    model = DecisionTreeClassifier().fit(x, [0, 1, 0, 1], sample_weight=[1, 1 + step, 3, 1]).compile(x)
    different = model.predict(x) != model.predict(x, fhe="simulate")
    unsure = undecided(model, scores_of(model, x), model._fhe_compiled.quantized.error_bound)
    assert not (different & ~unsure).any()
