"""scikit-learn's own estimator checks: every public estimator passes those that scikit-learn's class passes."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from tests.python.estimators.cases import CLASSES
from tests.python.estimators.checks import differences

FEWER_ITERATIONS = {
    "LogisticRegressionCV": {"max_iter": 5, "Cs": 2, "cv": 3},
    "GammaRegressor": {"max_iter": 5},
    "PoissonRegressor": {"max_iter": 5},
    "TweedieRegressor": {"max_iter": 5},
    "TheilSenRegressor": {"max_iter": 5, "max_subpopulation": 100},
    "RANSACRegressor": {"max_trials": 10},
    **{name: {"max_iter": 5, "cv": 3} for name in CLASSES if name.endswith(("LassoCV", "ElasticNetCV"))},
}
"""As scikit-learn's own tests do: the checks do not ask for a converged model."""


@pytest.mark.filterwarnings("ignore")  # scikit-learn's, about convergence and deprecated classes
@parametrize_with_checks([cls(**FEWER_ITERATIONS.get(name, {})) for name, cls in CLASSES.items()])
def test_a_check_fails_only_where_it_fails_for_scikit_learns_class(estimator, check):
    assert differences(check, estimator) is None
