"""The estimator checks of scikit-learn: every public tree estimator passes those that the library's class passes."""

import re
from unittest import SkipTest

import pytest
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils.estimator_checks import parametrize_with_checks

from tests.python.estimators.forest_cases import CLASSES, LIGHTGBM, XGBOOST, without_n_bits

FEWER_TREES = {
    **{name: {"n_estimators": 3, "n_jobs": 1} for name in XGBOOST},
    **{name: {"n_estimators": 3, "n_jobs": 1, "verbose": -1} for name in LIGHTGBM},
    **{name: {"max_iter": 3, "min_samples_leaf": 5} for name in CLASSES if name.startswith("Hist")},
    "AdaBoostClassifier": {"estimator": DecisionTreeClassifier(max_depth=1), "n_estimators": 3},
    "AdaBoostRegressor": {"estimator": DecisionTreeRegressor(max_depth=3), "n_estimators": 3},
}
"""As scikit-learn's own tests do: the checks do not ask for a good model."""


def arguments(name):
    return FEWER_TREES.get(name, {"n_estimators": 3} if "n_estimators" in CLASSES[name]().get_params() else {})


def outcome(check, estimator):
    """The exception that `check` raises on `estimator`, or None."""
    try:
        check(estimator)
    except SkipTest:  # the check does not apply to this estimator
        return None
    except Exception as error:
        return error
    return None


def words(error):
    """The message without what names the package, the added parameter, a time, or a place in memory or in a file."""
    text = re.sub(r"\b(fhelearn|sklearn|xgboost|lightgbm)(\.\w+)*\.(?=[A-Z])", "", str(error))
    text = re.sub(r"(, )?\bn_bits=\w+", "", text)
    text = re.sub(r"\[\d\d:\d\d:\d\d\]", "", text).split("Stack trace:")[0]
    return re.sub(r"0x[0-9a-f]+", "0x", text)


@pytest.mark.filterwarnings("ignore")  # the libraries'
@parametrize_with_checks([cls(**arguments(name)) for name, cls in CLASSES.items()])
def test_a_check_fails_only_where_it_fails_for_the_librarys_class(estimator, check):
    ours = outcome(check, estimator)
    if ours is not None:
        theirs = outcome(check, type(estimator)._fhe_base(**without_n_bits(estimator)))
        assert (type(theirs), words(theirs)) == (type(ours), words(ours)), f"the library: {theirs!r}"
