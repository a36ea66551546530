"""`answer` makes of decrypted integers what a prediction method answers for the rows."""

import numpy as np
import pytest

from fhelearn.estimators.build import METHODS
from fhelearn.ir import evaluate
from tests.python.estimators import cases, forest_cases
from tests.python.estimators.forest_cases import lazy_circuits  # noqa: F401 (an autouse fixture)

EVERY = [("linear", name) for name in cases.CLASSES] + [("trees", name) for name in forest_cases.CLASSES]


def compiled(family, name):
    if family == "linear":
        return cases.compiled(name), cases.data_for(name)[0]
    dataset = forest_cases.usual(name)
    return forest_cases.compiled(name, dataset), forest_cases.data(name, dataset)[0]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # scikit-learn's, on its deprecated classes
@pytest.mark.parametrize(("family", "name"), EVERY)
def test_decrypted_integers_are_answered_as_the_rows_are(family, name):
    model, x = compiled(family, name)
    (integers,) = evaluate(model.program_, [model.quantize_input(x)])
    for method in METHODS:
        if not hasattr(model, method):
            continue
        expected, answer = getattr(model, method)(x, fhe="simulate"), model.answer(integers, method)
        pairs = zip(expected, answer, strict=True) if isinstance(expected, list) else [(expected, answer)]
        for theirs, ours in pairs:
            ours = np.asarray(ours).astype(theirs.dtype)  # a float32 answer is that of float32 features
            assert np.array_equal(ours, theirs, equal_nan=theirs.dtype.kind == "f")


def test_a_method_that_the_class_lacks_is_named_with_those_it_has():
    model = forest_cases.compiled("DecisionTreeRegressor", "diabetes")
    with pytest.raises(ValueError, match=r"has no prediction method 'predict_proba'; choose one of predict$"):
        model.answer(np.zeros((1, 1), dtype=np.int64), "predict_proba")
