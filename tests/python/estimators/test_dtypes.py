"""Answers have the dtype that scikit-learn gives them."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from fhelearn.estimators.build import METHODS
from fhelearn.linear_model import LogisticRegression
from tests.python.estimators.cases import CLASSES, data_for, fit, load, make


@pytest.mark.filterwarnings("ignore")  # rounded features leave the range, and scikit-learn has classes to remove
@pytest.mark.parametrize("fitted_on", [np.float32, np.float64])
@pytest.mark.parametrize("name", CLASSES)
def test_every_answer_has_scikit_learns_dtype(name, fitted_on):
    x, y = data_for(name)
    model = fit(make(name), x.astype(fitted_on), y).compile(x)
    for kind in (np.float32, np.float64, np.int32, object):
        rows = np.ceil(x[:7]).astype(kind)
        for method in METHODS:
            if hasattr(model, method):
                expected = getattr(model, method)(rows)
                simulated = getattr(model, method)(rows, fhe="simulate")
                assert simulated.dtype == expected.dtype, f"{method} of {kind.__name__}"
                assert simulated.shape == expected.shape


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_dtypes_of_sparse_rows_and_frames(kind):
    x, y = load("digits")
    model = fit(LogisticRegression(max_iter=5), x.astype(kind), y).compile(x)
    for rows in (scipy.sparse.csr_matrix(x[:5], dtype=kind), pd.DataFrame(x[:5], dtype=kind)):
        for method in ("decision_function", "predict_proba"):
            assert getattr(model, method)(rows, fhe="simulate").dtype == getattr(model, method)(rows).dtype


def test_a_frame_with_the_names_of_fit_gives_no_warning(recwarn):
    x, y = load("iris")
    frame = pd.DataFrame(x, columns=list("abcd"))
    model = LogisticRegression(max_iter=1000).fit(frame, y).compile(frame)
    recwarn.clear()  # of fit
    model.predict_proba(frame, fhe="simulate")
    model.report(frame, y)
    assert [str(warning.message) for warning in recwarn] == []
