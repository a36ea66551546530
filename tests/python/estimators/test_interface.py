"""Parameters, copies, pickles and search behave as scikit-learn's."""

import copy
import inspect
import pickle
import subprocess
import sys

import joblib
import numpy as np
import pytest
import sklearn.linear_model
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError, UnsetMetadataPassedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fhelearn.linear_model
from fhelearn.cross_decomposition import PLSRegression
from fhelearn.discriminant_analysis import LinearDiscriminantAnalysis
from fhelearn.estimators.build import METHODS
from fhelearn.exceptions import NotCompiledError
from fhelearn.linear_model import Lasso, LogisticRegression, Ridge, SGDRegressor
from tests.python.estimators.cases import CLASSES, compiled, data_for, fit, load, make, without_n_bits

X, Y = load("iris")

pytestmark = pytest.mark.filterwarnings("ignore:Class PassiveAggressive:FutureWarning")  # scikit-learn's


@pytest.mark.parametrize("name", CLASSES)
def test_parameters_are_scikit_learns_plus_n_bits(name):
    cls = CLASSES[name]
    ours, theirs = inspect.signature(cls).parameters, inspect.signature(cls._fhe_base).parameters
    assert {key: str(value) for key, value in ours.items() if key != "n_bits"} == {k: str(v) for k, v in theirs.items()}
    assert ours["n_bits"].kind is inspect.Parameter.KEYWORD_ONLY
    assert make(name, n_bits=5).get_params()["n_bits"] == 5
    assert clone(make(name, n_bits=5)).n_bits == 5
    assert "n_bits=5" in repr(make(name, n_bits=5))


@pytest.mark.parametrize("name", CLASSES)
def test_classes_say_where_they_live_and_what_they_take(name):
    cls = CLASSES[name]
    assert getattr(sys.modules[cls.__module__], cls.__qualname__) is cls
    assert cls.__module__.startswith("fhelearn.")
    assert "n_bits : int or dict, default=None" in cls.__doc__
    assert cls.__doc__.startswith(cls._fhe_base.__doc__[:40])
    for method in METHODS:
        if hasattr(cls, method):
            assert 'fhe : {"disable", "simulate", "execute"}' in getattr(cls, method).__doc__
            parameters = inspect.signature(getattr(cls, method)).parameters
            assert all(parameters[key].kind is inspect.Parameter.KEYWORD_ONLY for key in ("fhe", "n_jobs", "progress"))


def test_set_params_reaches_n_bits():
    assert Ridge().set_params(n_bits=9, alpha=3).get_params() == Ridge(alpha=3, n_bits=9).get_params()


def unpickled(model):
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, unpickled])
@pytest.mark.parametrize("name", CLASSES)
def test_copies_and_pickles_of_compiled_estimators_answer_alike(name, duplicate):
    model = compiled(name)
    x = data_for(name)[0]
    twin = duplicate(model)
    assert twin.program_ == model.program_
    assert (twin.predict(x, fhe="simulate") == model.predict(x, fhe="simulate")).all()


def test_joblib_files_keep_the_compiled_state(tmp_path):
    model = Ridge().fit(X, Y).compile(X)
    joblib.dump(model, tmp_path / "model")
    assert (joblib.load(tmp_path / "model").predict(X, fhe="simulate") == model.predict(X, fhe="simulate")).all()


def test_clones_are_neither_fitted_nor_compiled():
    with pytest.raises(NotFittedError):
        clone(Ridge().fit(X, Y).compile(X)).predict(X, fhe="simulate")


def test_grid_search_over_n_bits():
    search = GridSearchCV(LogisticRegression(max_iter=1000), {"n_bits": [3, 8], "C": [0.1, 1]}, cv=2).fit(X, Y)
    best = search.best_estimator_.compile(X)
    assert best.n_bits in (3, 8)
    assert best.program_.nodes[0].value.bit_width == best.n_bits


def test_cross_validation_takes_the_estimators():
    assert cross_val_score(LogisticRegression(max_iter=1000), X, Y, cv=3).min() > 0.9


def test_a_pipeline_passes_fhe_to_its_last_step():
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    pipeline[-1].compile(pipeline[:-1].transform(X))
    assert (pipeline.predict(X, fhe="simulate") == pipeline.predict(X)).all()
    np.testing.assert_allclose(pipeline.predict_proba(X, fhe="simulate"), pipeline.predict_proba(X), atol=1e-4)


def test_a_search_passes_n_bits_through_a_pipeline():
    pipeline = make_pipeline(StandardScaler(), Ridge())
    assert pipeline.set_params(ridge__n_bits=4)[-1].n_bits == 4


def test_metadata_routing_can_ask_for_fhe():
    with sklearn.config_context(enable_metadata_routing=True):
        last = LogisticRegression().set_predict_request(fhe=True)
        pipeline = make_pipeline(StandardScaler(), last).fit(X, Y)
        pipeline[-1].compile(pipeline[:-1].transform(X))
        assert (pipeline.predict(X, fhe="simulate") == pipeline.predict(X)).all()


def test_metadata_routing_leaves_scoring_and_unrequested_keywords_alone():
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(StandardScaler(), LogisticRegression())
        assert cross_val_score(pipeline, X, Y, cv=3).min() > 0.9
        search = GridSearchCV(pipeline, {"logisticregression__C": [0.1, 1]}, cv=2).fit(X, Y)
        assert search.predict(X).shape == Y.shape
        with pytest.raises(UnsetMetadataPassedError, match="fhe"):
            search.best_estimator_.predict(X, fhe="simulate")


@pytest.mark.parametrize("name", CLASSES)
def test_notebooks_show_the_estimators(name):
    shown = compiled(name)._repr_html_()
    assert name in shown
    assert "Fitted" in shown


def test_transformers_among_them_keep_set_output():
    frame, target = load_iris(return_X_y=True, as_frame=True)
    for model in (LinearDiscriminantAnalysis(), PLSRegression()):
        model.fit(frame, target).compile(frame)
        assert list(model.set_output(transform="pandas").transform(frame).index) == list(frame.index)
        assert (model.predict(frame, fhe="simulate").shape) == target.shape


@pytest.mark.parametrize("retrain", ["fit", "partial_fit"])
def test_training_anew_drops_the_compiled_state(retrain):
    model = SGDRegressor(random_state=0).fit(X, Y).compile(X)
    assert model.is_compiled_
    getattr(model, retrain)(X, Y)
    assert not model.is_compiled_
    with pytest.raises(NotCompiledError, match=r"compile\(X\)"):
        model.predict(X, fhe="simulate")


def test_another_n_bits_asks_for_another_compile():
    model = Ridge(n_bits=8).fit(X, Y).compile(X)
    with pytest.raises(NotCompiledError, match=r"is 5, but it was compiled with 8. Call 'compile\(X\)' again"):
        model.set_params(n_bits=5).predict(X, fhe="simulate")
    assert model.compile(X).program_.nodes[0].value.bit_width == 5


def test_changed_coefficients_ask_for_another_compile():
    model = Ridge().fit(X, Y).compile(X)
    model.coef_[0] += 1
    with pytest.raises(NotCompiledError, match=r"fitted attributes of this Ridge instance, .* changed after"):
        model.predict(X, fhe="simulate")


@pytest.mark.parametrize("name", CLASSES)
def test_fitted_scikit_learn_models_are_compiled_as_they_are(name):
    cls, (x, y) = CLASSES[name], data_for(name)
    ours = compiled(name)
    with pytest.MonkeyPatch.context() as patch:
        model = fit(cls._fhe_base(**without_n_bits(ours)), x, y)
        patch.setattr(cls, "fit", None)
        imported = cls.from_sklearn_model(model, x, n_bits=None, range_margin=0.1)
    assert imported.program_ == ours.program_
    for ours_now, theirs in zip(*(ours._fhe_adapter.fitted(m) for m in (imported, model)), strict=True):
        assert np.array_equal(ours_now, theirs)
    assert not hasattr(model, "n_bits")


def test_models_of_another_class_are_not_imported():
    with pytest.raises(TypeError, match=r"model must be a sklearn.linear_model.Ridge, got sklearn.*Lasso"):
        Ridge.from_sklearn_model(sklearn.linear_model.Lasso().fit(X, Y), X)
    with pytest.raises(NotFittedError, match="This Ridge instance is not fitted yet"):
        Ridge.from_sklearn_model(sklearn.linear_model.Ridge(), X)


def test_subclasses_of_scikit_learns_classes_are_not_imported_without_their_methods():
    class Mine(sklearn.linear_model.Ridge):
        pass

    words = r"a subclass of it whose own methods would be lost; derive Mine from fhelearn.linear_model.Ridge instead"
    with pytest.raises(TypeError, match=words):
        Ridge.from_sklearn_model(Mine().fit(X, Y), X)

    class Ours(Ridge):
        pass

    assert Ridge.from_sklearn_model(Ours().fit(X, Y), X).is_compiled_


def test_subclasses_of_the_public_classes_keep_their_constructor():
    class Gentle(Lasso):
        def __init__(self, alpha=0.01, n_bits=4):
            super().__init__(alpha=alpha, n_bits=n_bits)

    assert Gentle().get_params() == {"alpha": 0.01, "n_bits": 4}
    assert Gentle().fit(X, Y).compile(X).program_.nodes[0].value.bit_width == 4


def test_every_linear_model_of_scikit_learn_that_predicts_has_a_counterpart():
    theirs = {name for name in sklearn.linear_model.__all__ if hasattr(getattr(sklearn.linear_model, name), "predict")}
    assert theirs == set(fhelearn.linear_model.__all__)


@pytest.mark.parametrize("module", sorted({cls.__module__ for cls in CLASSES.values()}))
def test_importing_estimators_loads_neither_torch_nor_concrete(module):
    code = f"import sys, {module}; print({{'torch', 'concrete', 'onnx'}} & set(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "set()"
