"""What tree models refuse, when, and in which words; and odd input that the libraries answer is answered as they do."""

import copy
import re

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeRegressor as PlainTree

from fhelearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
)
from fhelearn.exceptions import LoweringError, NotCompiledError, QuantizationError
from fhelearn.lightgbm import LGBMClassifier, LGBMRegressor
from fhelearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from fhelearn.xgboost import XGBClassifier, XGBRegressor, XGBRFRegressor
from tests.python.estimators.forest_cases import (
    CATEGORICAL,
    CLASSES,
    CLASSIFIERS,
    EVERY_CLASS,
    LIGHTGBM,
    REFUSE_NAN,
    SCIKIT_LEARN,
    TAKE_CATEGORIES,
    TAKE_INFINITY,
    XGBOOST,
    compiled,
    data,
    fitted,
    lazy_circuits,  # noqa: F401 (an autouse fixture)
    library_leaves,
    make,
    own_leaves,
    regression,
    usual,
)
from tests.python.unit.frames import mixed_frame

X, Y = regression("diabetes")
SMALL = {"n_estimators": 5, "max_depth": 2, "n_jobs": 1}
LITTLE = {"n_estimators": 5, "num_leaves": 4, "n_jobs": 1, "verbose": -1}


def answer(call):
    """What `call` returns, or the exception that it raises."""
    try:
        return call()
    except Exception as error:
        return error


def assert_answers_as_the_library(model, rows, words=None):
    """Simulation refuses `rows` with the library's error, or reaches the leaves that the library reaches."""
    expected, simulated = answer(lambda: model.predict(rows)), answer(lambda: model.predict(rows, fhe="simulate"))
    if isinstance(expected, Exception):
        assert type(simulated) is type(expected), f"{expected!r}, {simulated!r}"
        assert words is None or re.search(words, str(simulated)), f"{simulated!r}"
        assert isinstance(answer(lambda: model.quantize_input(rows)), type(expected))
        return
    assert not isinstance(simulated, Exception), f"{expected!r}, {simulated!r}"
    most = float(np.finfo(np.float32).max)  # as good as infinity, which XGBoost answers but finds no leaves for
    finite = np.clip(rows, -most, most) if isinstance(rows, np.ndarray) else rows
    np.testing.assert_array_equal(own_leaves(model, rows), library_leaves(model, finite))


@EVERY_CLASS
def test_before_fit_it_says_so(name):
    estimator, x = make(name), data(name, usual(name))[0]
    for call in (
        lambda: estimator.compile(x),
        lambda: estimator.predict(x, fhe="simulate"),
        lambda: estimator.predict(x, fhe="execute"),
        lambda: estimator.quantize_input(x),
        lambda: estimator.dequantize_output(np.zeros((1, 1), dtype=np.int64)),
        lambda: estimator.report(),
        lambda: estimator.is_compiled_,
        lambda: estimator.program_,
        lambda: estimator.fhe_circuit_,
        lambda: estimator.onnx_model_,
    ):
        with pytest.raises(NotFittedError, match=rf"This {name} instance is not fitted yet"):
            call()
    with pytest.raises(NotFittedError):
        CLASSES[name].from_sklearn_model(CLASSES[name]._fhe_base(), x)


@EVERY_CLASS
def test_before_compile_it_says_to_call_compile(name):
    estimator, x = fitted(name, usual(name)), data(name, usual(name))[0]
    for call in (
        lambda: estimator.predict(x, fhe="simulate"),
        lambda: estimator.predict(x, fhe="execute"),
        lambda: estimator.quantize_input(x),
        lambda: estimator.report(),
        lambda: estimator.program_,
        lambda: estimator.fhe_circuit_,
    ):
        with pytest.raises(NotCompiledError, match=rf"This {name} instance is fitted but .* Call 'compile\(X\)'"):
            call()
    assert not estimator.is_compiled_


@pytest.mark.filterwarnings("ignore:Unknown data type:UserWarning")  # XGBoost's
@pytest.mark.parametrize("bad", ["features", "1d", "3d", "empty", "no features", "strings", "none", "complex"])
@EVERY_CLASS
def test_wrong_shapes_and_types_are_refused_as_in_the_library(name, bad):
    model, x = compiled(name, usual(name)), data(name, usual(name))[0]
    rows = {
        "features": x[:, :3],
        "1d": x[0],
        "3d": x[None],
        "empty": x[:0],
        "no features": x[:, :0],
        "strings": [["a"] * x.shape[1]],
        "none": None,
        "complex": x.astype(complex),
    }[bad]
    expected = answer(lambda: model.predict(rows))
    for call in (lambda: model.predict(rows, fhe="simulate"), lambda: model.quantize_input(rows)):
        found = answer(call)
        if isinstance(expected, Exception):
            assert isinstance(found, Exception), f"{expected!r}, {found!r}"
            assert str(found).split("\n")[0] == str(expected).split("\n")[0] or type(found) is type(expected)
        else:
            assert len(found) == len(expected)
    if isinstance(expected, Exception):
        assert isinstance(answer(lambda: copy.deepcopy(model).compile(rows)), (ValueError, TypeError, type(expected)))


@EVERY_CLASS
def test_sparse_rows_of_another_width_are_refused(name):
    model = compiled(name, usual(name))
    rows = scipy.sparse.csr_matrix(np.ones((2, model.n_features_in_ + 3)))
    expected = answer(lambda: model.predict(rows))
    assert isinstance(expected, Exception)
    with pytest.raises(type(expected), match=rf"{model.n_features_in_}|[Dd]ense data is required"):
        model.predict(rows, fhe="simulate")


@EVERY_CLASS
def test_compile_needs_a_row(name):
    model, x = copy.deepcopy(fitted(name, usual(name))), data(name, usual(name))[0]
    with pytest.raises(ValueError, match=r"0 sample|0 rows|[Ee]mpty|at least one|0-dim|greater than 0"):
        model.compile(x[:0])


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")  # scikit-learn's
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39, -1e300])
@EVERY_CLASS
def test_nan_infinity_and_huge_numbers_are_refused_or_answered_as_in_the_library(name, bad):
    for dataset in [usual(name)] + ([] if name in REFUSE_NAN else ["missing"]):
        model = compiled(name, dataset)
        rows = np.array(data(name, dataset)[0][:60])
        rows[::2, 0], rows[::3, 2] = bad, bad
        words = r"Input X contains (NaN|infinity)|has an infinite|too large for"
        assert_answers_as_the_library(model, rows, words if name in SCIKIT_LEARN else None)
    refused = isinstance(answer(lambda: model.predict(rows)), Exception)
    if np.isnan(bad):
        assert refused == (name in REFUSE_NAN)
    elif np.isinf(bad):
        assert refused == (name not in TAKE_INFINITY)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        *(("grid", v, 'grid must be one of "hidden", "thresholds", "uniform", got') for v in ("all", 3, ["hidden"])),
        *(("encoding", v, 'encoding must be one of "bits", "digits", got') for v in ("bytes", None, True, {})),
        *(("p_error", v, "p_error must be .*got") for v in (0.0, 1.0, -0.1, 2.0**-129, np.nan, "0.1", True)),
        *(("global_p_error", v, "global_p_error must be .*got") for v in (0, 1, np.inf)),
        *(("security_level", v, "security_level must be .*got") for v in (0, 127.5, "128", None)),
    ],
)
def test_options_that_are_not_allowed_are_named_with_what_is(option, value, words):
    model = copy.deepcopy(fitted("DecisionTreeRegressor", "diabetes"))
    with pytest.raises((ValueError, TypeError), match=words):
        model.compile(X, **{option: value})
    assert not model.is_compiled_


def test_two_error_probabilities_are_refused():
    model = copy.deepcopy(fitted("DecisionTreeRegressor", "diabetes"))
    with pytest.raises(ValueError, match="p_error"):
        model.compile(X, p_error=0.1, global_p_error=0.1)


@pytest.mark.parametrize(
    ("n_bits", "words"),
    [
        *(
            (v, r'n_bits must be an int from 1 to 16 or "auto", got')
            for v in (0, 17, -1, 8.0, "8", None, True, [8], np.nan)
        ),
        ({}, "must have the keys 'leaves' or 'inputs' or both, got"),
        ({"leaves": 4, "weights": 4}, "must have the keys 'leaves' or 'inputs' or both, got"),
        ({"leaves": 0}, r"n_bits\['leaves'\] must be an int from 1 to 16"),
        ({"leaves": 4, "inputs": 1}, r"n_bits\['inputs'\] must be an int from 2 to 8, got 1"),
        ({"leaves": 4, "inputs": 9}, r"n_bits\['inputs'\] must be an int from 2 to 8, got 9"),
        ({"leaves": 4, "inputs": "auto"}, r"n_bits\['inputs'\] must be an int"),
    ],
)
def test_widths_that_are_not_allowed_are_named_with_what_is(n_bits, words):
    model = copy.deepcopy(fitted("DecisionTreeClassifier", "iris"))
    with pytest.raises(QuantizationError, match=words):
        model.set_params(n_bits=n_bits).compile(data("DecisionTreeClassifier", "iris")[0])


@pytest.mark.parametrize("name", SCIKIT_LEARN)
def test_widths_that_are_not_allowed_are_refused_by_fit_too(name):
    x, y = data(name, usual(name))
    with pytest.raises(ValueError, match=r"The 'n_bits' parameter of .* must be"):
        make(name, n_bits=17).fit(x, y)


@pytest.mark.parametrize("mode", ["encrypted", None, True, ["simulate"]])
def test_unknown_modes_are_refused(mode):
    with pytest.raises(ValueError, match='fhe must be "disable", "simulate" or "execute", got '):
        compiled("DecisionTreeRegressor", "diabetes").predict(X, fhe=mode)


@pytest.mark.parametrize("bad", [np.zeros(3, dtype=np.int64), np.zeros((2, 7), dtype=np.int64), np.zeros((2, 1))])
def test_wrong_integers_are_refused_by_dequantize_output(bad):
    with pytest.raises(ValueError, match=r"q must hold integers of shape \(n, 1\), got"):
        compiled("DecisionTreeRegressor", "diabetes").dequantize_output(bad)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((n, {"output_margin": True}) for n in XGBOOST),
        *((n, {"iteration_range": (0, 1)}) for n in XGBOOST),
        *((n, {"base_margin": np.zeros(len(X))}) for n in XGBOOST),
        *((n, {"raw_score": True}) for n in LIGHTGBM),
        *((n, {"pred_leaf": True}) for n in LIGHTGBM),
        *((n, {"num_iteration": 2}) for n in LIGHTGBM),
    ],
)
def test_answers_that_need_more_than_scores_are_refused(name, options):
    model, x = compiled(name, usual(name)), data(name, usual(name))[0]
    with pytest.raises(
        ValueError, match=rf"{name}\.predict: {next(iter(options))} cannot be combined with fhe='simulate'"
    ):
        model.predict(x, fhe="simulate", **options)


@pytest.mark.parametrize(
    ("cls", "inner"),
    [
        (AdaBoostClassifier, LogisticRegression(max_iter=5000)),
        (AdaBoostRegressor, LinearRegression()),
        (BaggingClassifier, KNeighborsClassifier()),
        (BaggingRegressor, LinearRegression()),
    ],
)
def test_ensembles_of_other_models_are_refused(cls, inner):
    x, y = data(cls.__name__, usual(cls.__name__))
    model = cls(inner, n_estimators=3, random_state=0).fit(x, y)
    words = rf"{cls.__name__}: its estimators must be decision trees .*got {type(inner).__name__}; fit with estimator="
    with pytest.raises(LoweringError, match=words):
        model.compile(x)
    assert len(model.predict(x)) == len(x)


def test_trees_that_override_predict_are_refused_inside_an_ensemble():
    class Doubled(PlainTree):
        def predict(self, X, check_input=True):
            return 2 * super().predict(X, check_input)

    model = BaggingRegressor(Doubled(max_depth=2), n_estimators=3, random_state=0).fit(X, Y)
    with pytest.raises(LoweringError, match="its estimator Doubled overrides predict"):
        model.compile(X)


@pytest.mark.parametrize("booster", ["gblinear"])
def test_boosters_without_trees_are_refused(booster):
    model = XGBRegressor(booster=booster, n_estimators=3).fit(X, Y)
    with pytest.raises(LoweringError, match="booster must be 'gbtree' or 'dart', got 'gblinear', which has no trees"):
        model.compile(X)


@pytest.mark.parametrize(
    "model",
    [
        XGBClassifier(booster="dart", rate_drop=0.5, one_drop=1, **SMALL),
        XGBRegressor(booster="dart", rate_drop=0.5, one_drop=1, normalize_type="forest", **SMALL),
        LGBMClassifier(boosting_type="dart", drop_rate=0.5, skip_drop=0.0, **LITTLE),
        LGBMRegressor(boosting_type="dart", drop_rate=0.5, skip_drop=0.0, **LITTLE),
    ],
    ids=lambda m: type(m).__name__,
)
def test_dart_with_dropped_trees_decides_and_answers_as_the_library(model):
    x, y = data(type(model).__name__, usual(type(model).__name__))
    model = copy.deepcopy(model).fit(x, y).set_params(n_bits=16).compile(x)
    assert_answers_as_the_library(model, x)
    expected, simulated = model.predict(x), model.predict(x, fhe="simulate")
    if type(model).__name__ in CLASSIFIERS:
        assert (simulated == expected).all()
    else:
        bound = model._fhe_compiled.quantized.error_bound[0]
        assert (np.abs(simulated - expected) <= bound).all()


def test_linear_leaves_are_refused():
    model = LGBMRegressor(linear_tree=True, **LITTLE).fit(X, Y)
    with pytest.raises(
        LoweringError, match=r"LightGBM: tree \d+: leaves must be constants.*fit with linear_tree=False"
    ):
        model.compile(X)


def test_early_stopping_of_single_rows_is_refused():
    x, y = data("LGBMClassifier", "breast_cancer")
    model = LGBMClassifier(pred_early_stop=True, **LITTLE).fit(x, y)
    with pytest.raises(LoweringError, match="pred_early_stop must be False, got True: it leaves out trees"):
        model.compile(x)
    model.set_params(pred_early_stop="false").compile(x)
    assert not model.set_params(pred_early_stop=True).is_compiled_


@pytest.mark.parametrize("init", [LogisticRegression(max_iter=5000), DummyClassifier(strategy="stratified")])
def test_gradient_boosting_from_a_model_that_tells_rows_apart_is_refused(init):
    x, y = data("GradientBoostingClassifier", "breast_cancer")
    model = GradientBoostingClassifier(init=init, n_estimators=2).fit(x, y)
    words = (
        "GradientBoostingClassifier: init predicts by .*not the same for every row; fit with init=None or init='zero'"
    )
    with pytest.raises(LoweringError, match=words):
        model.compile(x)


@pytest.mark.parametrize("init", ["zero", None, DummyClassifier(strategy="prior")])
def test_gradient_boosting_from_a_constant_is_answered(init):
    x, y = data("GradientBoostingClassifier", "breast_cancer")
    model = GradientBoostingClassifier(init=init, n_estimators=5, random_state=0).fit(x, y).compile(x)
    assert_answers_as_the_library(model, x)


def least_squares(y, score):
    return score - y, np.ones_like(y)


@pytest.mark.parametrize("cls", [XGBRegressor, LGBMRegressor])
def test_custom_objectives_are_answered_as_in_the_library(cls):
    model = cls(objective=least_squares, n_bits=16, **(SMALL if cls is XGBRegressor else LITTLE)).fit(X, Y).compile(X)
    assert_answers_as_the_library(model, X)
    error = np.abs(model.predict(X, fhe="simulate") - model.predict(X)).max()
    assert error <= model._fhe_compiled.quantized.error_bound[0]


@pytest.mark.parametrize("strategy", ["one_output_per_tree", "multi_output_tree"])
def test_boosters_of_several_outputs_are_answered_or_refused_by_name(strategy):
    targets = np.column_stack([Y, -Y, Y**2])
    model = XGBRegressor(multi_strategy=strategy, tree_method="hist", **SMALL).fit(X, targets).compile(X)
    assert model.predict(X, fhe="simulate").shape == targets.shape
    with pytest.raises(ValueError, match=r"y should be a 1d array|1-?[dD]|bad input shape"):
        LGBMRegressor(**LITTLE).fit(X, targets)


def odd_frame():
    """Rows with categories that were not seen, in another order, as missing values, and nothing but these."""
    x = mixed_frame()[0]
    colour = pd.Categorical(["violet", "grey", None] * 80, categories=["violet", "grey", "red", "green", "blue"])
    town = pd.Categorical([f"town {i % 30}" for i in range(len(x))])
    return {
        "unseen": x.assign(colour=colour, town=town),
        "missing": x.assign(colour=pd.Categorical([None] * len(x), ["red"])),
    }


@pytest.mark.parametrize("kind", ["unseen", "missing"])
@pytest.mark.parametrize("name", TAKE_CATEGORIES)
def test_unseen_categories_are_refused_or_answered_as_in_the_library(name, kind):
    assert_answers_as_the_library(compiled(name, "categories"), odd_frame()[kind])


@pytest.mark.parametrize("name", [*LIGHTGBM, "HistGradientBoostingRegressor", "XGBRegressor"])
def test_codes_that_are_no_integers_or_unknown_are_answered_as_in_the_library(name):
    rng = np.random.default_rng(6)
    x = np.column_stack([rng.integers(0, 6, 300), rng.normal(size=300)]).astype(float)
    y = (x[:, 0] % 3) * 2 + x[:, 1]
    y = (y > np.median(y)).astype(int) if name in CLASSIFIERS else y
    options = {"feature_types": ["c", "q"]} if name in XGBOOST else {}
    options |= {"categorical_features": [0]} if name.startswith("Hist") else {}
    fit = {"categorical_feature": [0]} if name in LIGHTGBM else {}
    model = make(name, **{**CATEGORICAL.get(name, {}), **options}).fit(x, y, **fit).compile(x)
    rows = np.column_stack([[-1, -0.5, 0.5, 2.5, 6, 7, 100, 2.0**24, 2.0**31, 1e30, np.nan, 3], np.zeros(12)])
    for row in (*rows, *x[:3]):
        assert_answers_as_the_library(model, row[None])


@pytest.mark.filterwarnings("ignore:invalid value encountered in reduce:RuntimeWarning")
def test_a_diverged_model_is_refused():
    model = DecisionTreeRegressor(max_depth=2).fit(X, Y)
    model.tree_.value[:] = np.inf
    with pytest.raises(LoweringError, match="a leaf holds NaN or infinity"):
        model.compile(X)
    wide = DecisionTreeRegressor(max_depth=2).fit(X, np.where(Y > 100, 1.7e308, -1.7e308))
    with pytest.raises(LoweringError, match=r"NaN or infinity|overflows float64; rescale the target"):
        wide.compile(X)


def test_a_feature_without_a_finite_value_has_no_uniform_grid():
    x = X.copy()
    model = DecisionTreeRegressor(max_depth=3, random_state=0).fit(x, Y)
    x[:, 4] = np.nan
    with pytest.raises(
        QuantizationError, match=r'feature 4 has no finite value.*use grid="thresholds" or grid="hidden"'
    ):
        model.compile(x, grid="uniform")
    assert_answers_as_the_library(model.compile(x), x)


@pytest.mark.parametrize("cls", [XGBRFRegressor, HistGradientBoostingRegressor, GradientBoostingRegressor])
def test_foreign_models_are_refused_by_from_sklearn_model(cls):
    with pytest.raises(
        TypeError, match=rf"{cls.__name__}.from_sklearn_model: model must be a .*\.{cls.__name__}, got .*Linear"
    ):
        cls.from_sklearn_model(LinearRegression().fit(X, Y), X)

    class Mine(cls._fhe_base):
        pass

    with pytest.raises(TypeError, match="a subclass of it whose own methods would be lost; derive Mine from"):
        cls.from_sklearn_model(Mine().fit(X, Y), X)


def test_an_object_that_only_looks_like_a_tree_is_refused():
    class Nothing(BaseEstimator):
        tree_ = None

    with pytest.raises(TypeError, match=r"DecisionTreeClassifier\.from_sklearn_model: model must be"):
        DecisionTreeClassifier.from_sklearn_model(Nothing(), X)
