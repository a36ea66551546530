"""scikit-learn's own estimator checks: every public estimator passes those that scikit-learn's class passes."""

import re
from unittest import SkipTest

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from tests.python.estimators.cases import CLASSES, without_n_bits

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
    """The message without what names the package, the added parameter or a place in memory."""
    text = re.sub(r"\b(fhelearn|sklearn)(\.\w+)*\.(?=[A-Z])", "", str(error))
    text = re.sub(r"(, )?\bn_bits=\w+", "", text)
    return re.sub(r"0x[0-9a-f]+", "0x", text)


@pytest.mark.filterwarnings("ignore")  # scikit-learn's, about convergence and deprecated classes
@parametrize_with_checks([cls(**FEWER_ITERATIONS.get(name, {})) for name, cls in CLASSES.items()])
def test_a_check_fails_only_where_it_fails_for_scikit_learns_class(estimator, check):
    ours = outcome(check, estimator)
    if ours is not None:
        theirs = outcome(check, type(estimator)._fhe_base(**without_n_bits(estimator)))
        assert (type(theirs), words(theirs)) == (type(ours), words(ours)), f"scikit-learn: {theirs!r}"
