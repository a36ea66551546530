"""The estimator checks of scikit-learn: every public tree estimator passes those that the library's class passes."""

import pytest
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils.estimator_checks import parametrize_with_checks

from tests.python.estimators.checks import differences
from tests.python.estimators.forest_cases import CLASSES, LIGHTGBM, XGBOOST

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


@pytest.mark.filterwarnings("ignore")  # the libraries'
@parametrize_with_checks([cls(**arguments(name)) for name, cls in CLASSES.items()])
def test_a_check_fails_only_where_it_fails_for_the_librarys_class(estimator, check):
    assert differences(check, estimator) is None
