"""Tree models on real ciphertexts: what is decrypted is what `simulate` said, bit for bit."""

import copy
import pickle

import numpy as np
import pytest

from fhelearn.estimators.build import METHODS
from tests.python.estimators.forest_cases import CLASSES, REGRESSORS, as_list, data, make
from tests.python.fhe.shared_keys import with_keys

pytestmark = pytest.mark.fhe

SMALL = {
    **{name: {"n_estimators": 3} for name in CLASSES if "n_estimators" in make(name).get_params(deep=False)},
    **{
        name: {"max_iter": 3, "max_leaf_nodes": 4, "min_samples_leaf": 5} for name in CLASSES if name.startswith("Hist")
    },
}

WAYS = [("hidden", "bits"), ("thresholds", "bits"), ("uniform", "bits"), ("uniform", "digits")]


def shallow(name):
    """Arguments that leave a handful of lookups."""
    depth = {"max_depth": 2} if "max_depth" in make(name).get_params(deep=False) else {}
    few = {"num_leaves": 4} if name.startswith("LGBM") else {}
    return {**depth, **few, **SMALL.get(name, {})}


def encrypted(name, dataset, grid="thresholds", encoding="bits", n_bits=6, **arguments):
    """The fitted estimator, compiled, with keys that circuits of equal parameters share."""
    x, y = data(name, dataset)
    model = make(name, **{**shallow(name), **arguments}, n_bits=n_bits).fit(x, y)
    model.compile(x, grid=grid, encoding=encoding)
    with_keys(model.fhe_circuit_)
    return model


def assert_decrypts_exactly(model, rows):
    bits = model.quantize_input(rows)
    state = model._fhe_compiled
    decrypted = state.circuit.execute([bits])[0]
    simulated = state.simulate(model._fhe_adapter.prepare(model, rows))
    assert decrypted.tobytes() == simulated.tobytes()
    assert decrypted.tobytes() == state.engine.run([bits])[0].tobytes()
    executed = model.predict(rows, fhe="execute")
    assert executed.tobytes() == model.predict(rows, fhe="simulate").tobytes()
    return executed


@pytest.mark.parametrize("name", CLASSES)
def test_encrypted_rows_of_every_estimator_decrypt_to_what_was_simulated(name):
    dataset = "diabetes" if name in REGRESSORS else "iris"
    model, rows = encrypted(name, dataset), data(name, dataset)[0][:3]
    answered = assert_decrypts_exactly(model, rows)
    if name not in REGRESSORS:
        assert (answered == model.predict(rows)).all()


@pytest.mark.parametrize(("grid", "encoding"), WAYS)
@pytest.mark.parametrize("name", ["DecisionTreeClassifier", "XGBClassifier"])
def test_every_grid_and_encoding_decrypts_to_what_was_simulated(name, grid, encoding):
    n_bits = {"leaves": 6, "inputs": 4}
    model, rows = encrypted(name, "breast_cancer", grid, encoding, n_bits), data(name, "breast_cancer")[0][:3]
    answered = assert_decrypts_exactly(model, rows)
    assert (answered == model.predict(rows, fhe="simulate")).all()
    if grid == "hidden" and encoding == "bits":
        assert (answered == model.predict(rows)).all()


@pytest.mark.parametrize("name", ["RandomForestClassifier", "XGBClassifier", "LGBMClassifier"])
def test_missing_values_are_encrypted_with_their_side(name):
    model, rows = encrypted(name, "missing"), data(name, "missing")[0][:3]
    assert np.isnan(rows).any()
    assert_decrypts_exactly(model, rows)


@pytest.mark.parametrize("name", ["HistGradientBoostingRegressor", "XGBRegressor", "LGBMRegressor"])
def test_categories_are_encrypted_as_membership(name):
    options = {"enable_categorical": True} if name.startswith("XGB") else {}
    options |= {"min_data_per_group": 5, "cat_smooth": 1.0} if name.startswith("LGBM") else {}
    model, rows = encrypted(name, "categories", **options), data(name, "categories")[0][:3]
    assert model._fhe_compiled.quantized.forest.category_sets
    assert_decrypts_exactly(model, rows)


@pytest.mark.parametrize("name", ["DecisionTreeRegressor", "RandomForestClassifier", "XGBRegressor"])
def test_several_outputs_are_one_ciphertext_each(name):
    model, rows = encrypted(name, "outputs"), data(name, "outputs")[0][:2]
    assert assert_decrypts_exactly(model, rows).shape == (2, 3)
    if name in REGRESSORS:
        program = model.program_
        assert program.nodes[program.outputs[0]].value.size == 3


@pytest.mark.filterwarnings("ignore:divide by zero encountered in log:RuntimeWarning")  # scikit-learn's
@pytest.mark.parametrize("name", ["DecisionTreeClassifier", "AdaBoostClassifier"])
def test_every_method_executes_as_it_simulates(name):
    model, rows = encrypted(name, "words wine"), data(name, "words wine")[0][:2]
    for method in METHODS:
        if hasattr(model, method):
            executed, simulated = (getattr(model, method)(rows, fhe=mode) for mode in ("execute", "simulate"))
            for a, b in zip(as_list(executed), as_list(simulated), strict=True):
                assert a.tobytes() == b.tobytes()


def test_pickled_models_make_keys_of_their_own_and_answer_alike():
    model, rows = encrypted("DecisionTreeClassifier", "iris"), data("DecisionTreeClassifier", "iris")[0][:2]
    expected = model.predict(rows, fhe="execute")
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert twin.fhe_circuit_.keys is None
        with_keys(twin.fhe_circuit_)
        assert (twin.predict(rows, fhe="execute") == expected).all()


def test_a_model_that_asks_nothing_still_answers_encrypted_rows():
    x = data("DecisionTreeClassifier", "iris")[0]
    model = make("DecisionTreeRegressor").fit(x, np.full(len(x), 2.5)).compile(x)
    assert (model.predict(x[:2], fhe="execute") == 2.5).all()


def test_digits_refuse_missing_values_before_they_encrypt():
    model = encrypted("DecisionTreeClassifier", "iris", "uniform", "digits", {"leaves": 6, "inputs": 4})
    with pytest.raises(ValueError, match=r"holds NaN in row 0, column 1; .* no place for missing values"):
        model.predict([[5.0, np.nan, 1.0, 0.2]], fhe="execute")


def test_equal_trees_decrypt_to_their_sum():
    """Trees without randomness: if they were not added up first, their lookups would be one ciphertext, many times."""
    x, y = data("RandomForestClassifier", "breast_cancer")
    model = make("RandomForestClassifier", n_estimators=16, bootstrap=False, max_features=None, max_depth=3).fit(x, y)
    model.compile(x, grid="thresholds")
    with_keys(model.fhe_circuit_)
    bits = model.quantize_input(x[:24])
    (sums,) = model.fhe_circuit_.execute([bits])
    assert (sums == model._fhe_compiled.simulate(model._fhe_adapter.prepare(model, x[:24]))).all()
