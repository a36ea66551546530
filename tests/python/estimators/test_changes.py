"""A model that changed after `compile`: `simulate` gives scikit-learn's current answer or raises."""

import copy

import numpy as np
import pytest
import scipy.sparse
from sklearn.utils._param_validation import StrOptions

from fhelearn.estimators.build import METHODS
from fhelearn.exceptions import LoweringError, NotCompiledError
from fhelearn.kernel_ridge import KernelRidge
from fhelearn.linear_model import Ridge
from fhelearn.naive_bayes import BernoulliNB
from fhelearn.svm import SVC, SVR, NuSVC, NuSVR, OneClassSVM
from tests.python.estimators.cases import CLASSES, REGRESSORS, compiled, data_for, load

NUMBERS = (None, False, True, 0.0, 0.3, 1.0, 3)


def other_values(model):
    """Every parameter of scikit-learn's class with values of its kinds that it does not have."""
    for name, constraints in model._fhe_base._parameter_constraints.items():
        allowed = [] if isinstance(constraints, str) else constraints
        options = [v for kind in allowed if isinstance(kind, StrOptions) for v in sorted(kind.options)]
        if name in model.get_params(deep=False):
            yield from ((name, value) for value in (*NUMBERS, *options) if value is not getattr(model, name))


def answer(model, method, x, **mode):
    try:
        return getattr(model, method)(x, **mode)
    except Exception as error:
        return error


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CLASSES)
def test_any_parameter_that_changes_is_followed_or_refused(name):
    x = data_for(name)[0][::10]
    for parameter, value in other_values(compiled(name)):
        model = copy.copy(compiled(name)).set_params(**{parameter: value})
        for method in METHODS:
            expected = answer(model, method, x)
            simulated = answer(model, method, x, fhe="simulate")
            if isinstance(simulated, NotCompiledError):
                continue
            case = f"{method} after {parameter}={value!r}: {expected!r}, {simulated!r}"
            assert isinstance(simulated, Exception) == isinstance(expected, Exception), case
            if isinstance(expected, Exception):
                assert type(simulated) is type(expected), case
            elif name in REGRESSORS or expected.dtype.kind == "f":
                np.testing.assert_allclose(simulated, expected, rtol=5e-3, atol=1e-3 * np.ptp(expected), err_msg=case)
            else:
                assert (simulated == expected).all(), case


@pytest.mark.parametrize("cls", [KernelRidge, SVC, NuSVC, SVR, NuSVR, OneClassSVM])
def test_another_kernel_is_refused(cls):
    x, y = load("iris")
    model = cls(kernel="linear").fit(x, y).compile(x)
    with pytest.raises(NotCompiledError, match="changed after it was compiled"):
        model.set_params(kernel="rbf").predict(x, fhe="simulate")
    assert not model.is_compiled_
    with pytest.raises(LoweringError, match="kernel must be 'linear'"):
        model.compile(x)
    assert model.set_params(kernel="linear").is_compiled_


@pytest.mark.parametrize("container", [np.array, scipy.sparse.csr_matrix])
@pytest.mark.parametrize(("cls", "attribute"), [(KernelRidge, "X_fit_"), (SVC, "support_vectors_")])
def test_other_training_rows_are_refused(cls, attribute, container):
    x, y = load("iris")
    model = cls(kernel="linear").fit(container(x), y).compile(container(x))
    assert model.is_compiled_
    setattr(model, attribute, getattr(model, attribute) * 2)
    with pytest.raises(NotCompiledError, match="changed after it was compiled"):
        model.predict(container(x), fhe="simulate")


def test_public_copies_that_libsvm_does_not_read_change_nothing():
    x, y = load("iris")
    model = SVC(kernel="linear").fit(x, y > 0).compile(x)
    model.intercept_ += 100
    model.dual_coef_ = model.dual_coef_ * 3
    np.testing.assert_allclose(
        model.compile(x).decision_function(x, fhe="simulate"), model.decision_function(x), atol=1e-3
    )


def test_a_switch_between_binarized_and_plain_features_is_refused():
    x, y = load("digits")
    model = BernoulliNB(binarize=8.0).fit(x, y).compile(x)
    with pytest.raises(NotCompiledError, match="changed after it was compiled"):
        model.set_params(binarize=None).predict(x, fhe="simulate")


@pytest.mark.parametrize("same", [np.int64(8), {"inputs": 8, "weights": 8}])
def test_the_same_widths_in_another_form_need_no_compile(same):
    x, y = load("diabetes")
    model = Ridge(n_bits=8).fit(x, y).compile(x).set_params(n_bits=same)
    assert model.predict(x, fhe="simulate").shape == y.shape


@pytest.mark.parametrize("value", [np.array([8, 8]), "8", {"inputs": np.zeros(2), "weights": 8}, [8]])
def test_widths_that_are_not_allowed_are_named_not_compared(value):
    x, y = load("diabetes")
    model = Ridge(n_bits=8).fit(x, y).compile(x).set_params(n_bits=value)
    with pytest.raises(NotCompiledError, match=r"n_bits of this Ridge instance is .*but it was compiled with 8"):
        model.predict(x, fhe="simulate")
    assert not model.is_compiled_
