"""How an estimator does in scikit-learn's own checks, beside the library's class."""

import re
from unittest import SkipTest

from tests.python.estimators.cases import without_n_bits


def differences(check, estimator):
    """None if `check` passes, or fails for the library's class in the same words; else both failures."""
    ours = outcome(check, estimator)
    if ours is None:
        return None
    theirs = outcome(check, type(estimator)._fhe_base(**without_n_bits(estimator)))
    same = (type(theirs), words(theirs)) == (type(ours), words(ours))
    return None if same else f"ours: {ours!r}, the library's: {theirs!r}"


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
