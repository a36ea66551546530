"""What `simulate` returns is the exact result of the integer program, on every row the encoder takes."""

import contextlib
import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import lightgbm
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csc_matrix, csr_array, issparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from fhelearn.ensemble import RandomForestClassifier
from fhelearn.estimators.build import METHODS
from fhelearn.exceptions import LoweringError, NotCompiledError, QuantizationError
from fhelearn.ir import evaluate
from fhelearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from tests.python.estimators.cases import without_n_bits
from tests.python.estimators.forest_cases import (
    CLASSES,
    CLASSIFIERS,
    EVERY_CLASS,
    LIGHTGBM,
    OUTLIER_DETECTORS,
    REGRESSORS,
    SEVERAL_OUTPUTS,
    TAKE_CATEGORIES,
    TAKE_NAN,
    TIED,
    as_list,
    compiled,
    data,
    data_sets,
    fitted,
    lazy_circuits,  # noqa: F401 (an autouse fixture)
    library_leaves,
    make,
    own_leaves,
    ties,
    usual,
)

WAYS = [("hidden", "bits"), ("thresholds", "bits"), ("uniform", "bits"), ("uniform", "digits")]
EXACT = [
    pytest.param(name, dataset, grid, encoding, id=f"{name}-{dataset}-{grid}-{encoding}")
    for name in CLASSES
    for dataset in data_sets(name)
    for grid, encoding in WAYS
    if dataset in ("diabetes", "iris", "missing", "categories") or (grid, encoding) == WAYS[0]
    if not (dataset == "categories" and (grid, encoding) in WAYS[2:])
    and not (dataset == "missing" and encoding == "digits")
]
LABELLED = CLASSIFIERS + OUTLIER_DETECTORS


def rows_in_range(model, x, rng, n=120):
    """Rows inside and far outside the range of `x`, with huge, tiny, infinite and missing values (digits take none).

    They are prepared already: a categorical feature holds integers, unknown and negative ones among them.
    """
    forest, digits = model._fhe_adapter.forest(model), model._fhe_compiled.quantized.options.encoding == "digits"
    prepared = model._fhe_adapter.prepare(model, x)
    if digits:
        prepared = prepared[~np.isnan(prepared).any(axis=1)]
    low, high = np.nanmin(prepared, axis=0), np.nanmax(prepared, axis=0)
    span = np.where(high > low, high - low, 1.0)
    rows = rng.uniform(low - span / 2, high + span / 2, size=(n, len(low)))
    extreme = [0.0, -0.0, 1e-45, -1e-36, 1e-35, 3.4e38, -3.4e38, 1e300, -1e300, 5e-324, np.inf, -np.inf]
    chosen = rng.random(rows.shape) < 0.3
    rows[chosen] = rng.choice(extreme + ([] if digits else [np.nan]), int(chosen.sum()))
    for feature in {int(f) for tree in forest.trees for f in tree.feature[tree.members >= 0]}:
        rows[:, feature] = rng.choice([-1.0, np.nan, 2.0**24, *range(25)], n)
    return np.vstack([prepared.astype(np.float64)[:40], rows])


def assert_exact(model, rows):
    state = model._fhe_compiled
    bits = state.quantized.encode(rows)
    expected = evaluate(model.program_, [bits])[0]
    assert set(np.unique(bits)) <= {0, 1}
    assert state.simulate(rows).tobytes() == expected.tobytes()
    assert state.engine.run([bits])[0].tobytes() == expected.tobytes()
    with np.errstate(over="ignore"):
        narrow = rows.astype(np.float32)
    assert (state.simulate(narrow) == evaluate(model.program_, [state.quantized.encode(narrow)])[0]).all()
    bounds = model.program_.nodes[model.program_.outputs[0]].value.bounds
    assert (bounds.lo <= expected).all()
    assert (expected <= bounds.hi).all()


@pytest.mark.parametrize(("name", "dataset", "grid", "encoding"), EXACT)
def test_forest_engine_program_engine_and_reference_agree(name, dataset, grid, encoding, rng):
    model = compiled(name, dataset, grid, encoding)
    assert_exact(model, rows_in_range(model, data(name, dataset)[0], rng))


@pytest.mark.parametrize(("name", "grid", "encoding"), [(n, *way) for n in TAKE_CATEGORIES for way in WAYS[2:]])
def test_categories_have_no_place_on_a_grid(name, grid, encoding):
    with pytest.raises(
        LoweringError, match=r'asks for categories.*uniform grid; use grid="thresholds" or grid="hidden"'
    ):
        compiled(name, "categories", grid, encoding)


@pytest.mark.parametrize("name", TAKE_NAN)
@pytest.mark.parametrize(("grid", "encoding"), [("uniform", "digits"), ("uniform", "bits")])
def test_uniform_grids_refuse_missing_values_in_every_mode(name, grid, encoding):
    model, x = compiled(name, "missing", grid, encoding), data(name, "missing")[0]
    words = r'holds NaN in row \d+, column \d+; .* have no place for missing values, use grid="hidden" or "thresholds"'
    with pytest.raises(ValueError, match=words):
        model.quantize_input(x)
    with pytest.raises(ValueError, match=words):
        model.predict(x, fhe="simulate")  # "execute" refuses them, so it cannot answer


@pytest.mark.parametrize(("grid", "encoding"), WAYS)
@EVERY_CLASS
def test_decoding_the_program_gives_the_scores_of_simulate(name, grid, encoding):
    model, x = compiled(name, usual(name), grid, encoding), data(name, usual(name))[0]
    decoded = model.dequantize_output(evaluate(model.program_, [model.quantize_input(x)])[0])
    scores = model._fhe_compiled.scores(model._fhe_adapter.prepare(model, x), "simulate")
    assert decoded.tobytes() == scores.tobytes()
    view = model._fhe_adapter.view(model, decoded)
    answer = view.predict(model._fhe_adapter.placeholder(model, len(x)))
    assert (answer == model.predict(x, fhe="simulate")).all()


@pytest.mark.parametrize("n_bits", range(1, 17))
@pytest.mark.parametrize("name", ["RandomForestClassifier", "XGBRegressor", "AdaBoostRegressor", "LGBMClassifier"])
def test_every_width_of_leaves_is_exact_and_within_its_bound(name, n_bits, rng):
    x = data(name, usual(name))[0]
    model = compiled(name, usual(name), n_bits=n_bits)
    assert_exact(model, rows_in_range(model, x, rng, 30))
    quantized = model._fhe_compiled.quantized
    assert quantized.leaves.n_bits <= n_bits
    prepared = model._fhe_adapter.prepare(model, x)
    exact = model._fhe_adapter.forest(model).scores(prepared)
    error = np.abs(model._fhe_compiled.scores(prepared, "simulate") - exact)
    assert (error <= quantized.error_bound).all()


@pytest.mark.parametrize("name", LABELLED)
def test_auto_changes_no_label_of_the_compile_data_and_one_bit_fewer_does(name):
    for dataset in ("breast_cancer", "iris"):
        x = data(name, dataset)[0]
        model = compiled(name, dataset, n_bits="auto")
        bits = model._fhe_compiled.quantized.options.leaf_bits
        assert (model.predict(x, fhe="simulate") == model.predict(x)).all()
        same = compiled(name, dataset, n_bits=bits)
        assert same.predict(x, fhe="simulate").tobytes() == model.predict(x, fhe="simulate").tobytes()
        if bits > 1:
            fewer = compiled(name, dataset, n_bits=bits - 1)
            assert (fewer.predict(x, fhe="simulate") != fewer.predict(x)).any()


@pytest.mark.parametrize("seed", TIED)
def test_auto_changes_no_label_where_the_last_bit_of_a_sum_decides_or_refuses(seed):
    name, arguments = TIED[seed]
    x, y = ties(seed)
    model = make(name, **arguments, random_state=seed, n_bits="auto").fit(x, y)
    with contextlib.suppress(QuantizationError):  # which may say that no number of bits keeps the labels
        model.compile(x)
    assert not model.is_compiled_ or (model.predict(x, fhe="simulate") == model.predict(x)).all()


@pytest.mark.parametrize("grid", ["hidden", "uniform"])
def test_auto_counts_from_the_decisions_that_the_grid_leaves(grid):
    x, y = data("RandomForestClassifier", "breast_cancer")
    model = RandomForestClassifier(8, max_depth=4, random_state=0, n_bits={"leaves": "auto", "inputs": 3}).fit(x, y)
    labels = model.compile(x, grid=grid).predict(x, fhe="simulate")
    wide = copy.deepcopy(model).set_params(n_bits={"leaves": 16, "inputs": 3}).compile(x, grid=grid)
    assert (labels == wide.predict(x, fhe="simulate")).all()


@pytest.mark.parametrize("name", REGRESSORS)
def test_auto_is_refused_where_there_are_no_labels(name):
    model = copy.deepcopy(fitted(name, "diabetes")).set_params(n_bits="auto")
    with pytest.raises(QuantizationError, match=rf"keeps labels, and {name} has none; give an int from 1 to 16"):
        model.compile(data(name, "diabetes")[0])


@pytest.mark.parametrize("inputs", range(2, 9))
@pytest.mark.parametrize(("grid", "encoding"), [("uniform", "bits"), ("uniform", "digits")])
def test_every_width_of_inputs_is_exact(grid, encoding, inputs, rng):
    x, y = data("DecisionTreeRegressor", "diabetes")
    model = DecisionTreeRegressor(max_depth=5, random_state=0, n_bits={"leaves": 6, "inputs": inputs}).fit(x, y)
    model.compile(x, grid=grid, encoding=encoding)
    assert_exact(model, rows_in_range(model, x, rng))
    # The uniform grid promises so many points of a feature and nothing of the model's.
    columns = 2**inputs - 1 if encoding == "bits" else 2 ** (inputs - inputs // 2) + 2 ** (inputs // 2) - 2
    assert model.quantize_input(x).shape == (len(x), 10 * columns)


def test_digits_and_the_uniform_grid_decide_alike():
    for name in CLASSES:
        x = data(name, usual(name))[0]
        answers = [
            compiled(name, usual(name), *way).predict(x, fhe="simulate")
            for way in (("uniform", "bits"), ("uniform", "digits"))
        ]
        assert answers[0].tobytes() == answers[1].tobytes(), name


@pytest.mark.parametrize("grid", ["hidden", "thresholds", "uniform"])
def test_a_model_that_asks_nothing_answers_every_row_alike(grid):
    x, y = data("DecisionTreeClassifier", "iris")
    model = DecisionTreeClassifier().fit(x, np.zeros(len(y))).compile(x, grid=grid)
    assert (model.predict(x, fhe="simulate") == 0).all()
    assert (model.predict_proba(x, fhe="simulate") == 1).all()
    assert_exact(model, x)
    digits = DecisionTreeRegressor().fit(x, np.full(len(y), 2.5)).compile(x, encoding="digits")
    assert (digits.predict(x, fhe="simulate") == 2.5).all()


def test_constant_and_single_rows_compile_to_the_same_decisions():
    x, y = data("DecisionTreeClassifier", "iris")
    for rows in (x[:1], np.repeat(x[:1], 3, axis=0), np.zeros((1, 4))):
        model = DecisionTreeClassifier(max_depth=4, random_state=0).fit(x, y).compile(rows)
        assert (model.predict(x, fhe="simulate") == model.predict(x)).all()


@EVERY_CLASS
def test_copies_and_pickles_answer_alike_and_clones_are_fresh(name):
    model, x = compiled(name, usual(name)), data(name, usual(name))[0]
    expected = model.predict(x, fhe="simulate").tobytes()
    for twin in (pickle.loads(pickle.dumps(model)), copy.copy(model), copy.deepcopy(model)):
        assert twin.is_compiled_
        assert twin.predict(x, fhe="simulate").tobytes() == expected
        assert twin.program_.digest == model.program_.digest
    fresh = clone(model.set_params(n_bits=8))
    assert fresh.get_params(deep=False).keys() == model.get_params(deep=False).keys()
    with pytest.raises(NotFittedError):
        _ = fresh.is_compiled_


@EVERY_CLASS
def test_a_model_of_the_library_compiles_as_it_is(name):
    x = data(name, usual(name))[0]
    ours = compiled(name, usual(name), "thresholds")  # decoys are drawn anew every time
    arguments = without_n_bits(fitted(name, usual(name)))
    rows = 2 * len(x) // 3
    plain = CLASSES[name]._fhe_base(**arguments).fit(x[:rows], data(name, usual(name))[1][:rows])
    before = pickle.dumps(plain)
    adopted = CLASSES[name].from_sklearn_model(plain, x, grid="thresholds")
    assert adopted.program_.digest == ours.program_.digest
    assert adopted.predict(x, fhe="simulate").tobytes() == ours.predict(x, fhe="simulate").tobytes()
    assert len(pickle.dumps(plain)) == len(before)
    other = CLASSES[name].from_sklearn_model(plain, x, n_bits=3, grid="thresholds")
    assert other.n_bits == 3
    assert other._fhe_compiled.quantized.options.grid == "thresholds"


@pytest.mark.filterwarnings("ignore:divide by zero encountered in log:RuntimeWarning")  # the libraries'
@EVERY_CLASS
def test_disable_is_bit_identical_with_the_library(name):
    x, y = data(name, usual(name))
    ours, rows = compiled(name, usual(name)), 2 * len(x) // 3
    theirs = CLASSES[name]._fhe_base(**without_n_bits(ours)).fit(x[:rows], y[:rows])
    for method in METHODS:
        assert hasattr(ours, method) == hasattr(theirs, method)
        if hasattr(ours, method):
            assert getattr(ours, method)(x).tobytes() == getattr(theirs, method)(x).tobytes()


@EVERY_CLASS
def test_a_new_fit_drops_the_compiled_state(name):
    x, y = data(name, usual(name))
    model = copy.deepcopy(compiled(name, usual(name)))
    assert model.is_compiled_
    model.fit(x, y)
    assert not model.is_compiled_
    with pytest.raises(NotCompiledError, match=rf"This {name} instance is fitted but not compiled yet"):
        model.predict(x, fhe="simulate")


def changes(model):
    """Ways to change what a fitted model predicts, each of a copy."""
    first = np.ravel(getattr(model, "estimators_", []))[:1]
    if hasattr(model, "tree_"):
        yield lambda m: m.tree_.value.__setitem__(slice(None), m.tree_.value[::-1].copy())
        yield lambda m: m.tree_.threshold.__setitem__(0, m.tree_.threshold[0] + 0.1)
    elif len(first):
        yield lambda m: np.ravel(m.estimators_)[-1].tree_.threshold.__setitem__(
            0, np.ravel(m.estimators_)[-1].tree_.threshold[0] + 0.1
        )
    if hasattr(model, "estimator_weights_"):
        yield lambda m: m.estimator_weights_.__setitem__(0, m.estimator_weights_[0] * 2)
    if hasattr(model, "_predictors"):
        yield lambda m: m._predictors[0][0].nodes["value"].__setitem__(0, 9.0)
        yield lambda m: m._predictors[0][0].nodes["num_threshold"].__setitem__(0, 9.0)
    if hasattr(model, "get_booster"):
        yield lambda m: m.set_params(missing=1.5)
        if model.get_booster().num_boosted_rounds() > 1:
            yield lambda m: setattr(m, "_Booster", m.get_booster()[0:5])
    if hasattr(model, "booster_"):
        yield lambda m: m.booster_.set_leaf_output(0, 0, 5.0)


@EVERY_CLASS
def test_changed_fitted_attributes_are_noticed(name):
    x = data(name, usual(name))[0]
    made = list(changes(compiled(name, usual(name))))
    assert made
    for change in made:
        model = copy.deepcopy(compiled(name, usual(name)))
        change(model)
        assert not model.is_compiled_
        with pytest.raises(NotCompiledError, match=r"changed after it was compiled.*Call 'compile\(X\)' again"):
            model.predict(x, fhe="simulate")


@EVERY_CLASS
def test_another_n_bits_asks_for_compile_again(name):
    x = data(name, usual(name))[0]
    model = copy.deepcopy(compiled(name, usual(name))).set_params(n_bits=5)
    with pytest.raises(NotCompiledError, match=rf"n_bits of this {name} instance is 5, but it was compiled with 8"):
        model.predict(x, fhe="simulate")
    assert model.set_params(n_bits={"leaves": np.int64(8)}).predict(x, fhe="simulate").shape == (len(x),)


@pytest.mark.filterwarnings("ignore:divide by zero encountered in log:RuntimeWarning")  # the libraries'
@pytest.mark.filterwarnings("ignore:Converting data to scipy sparse matrix:UserWarning")  # LightGBM's
@EVERY_CLASS
def test_containers_and_dtypes_of_rows_answer_as_in_the_library(name):
    x = data(name, usual(name))[0][:40]
    model = compiled(name, usual(name))
    for rows in (
        x.tolist(), x.astype(np.float32), np.round(x).astype(np.int32), np.asfortranarray(x)[::2], x.astype(object),
        pd.DataFrame(x), csr_array(x), csc_matrix(x),
    ):  # fmt: skip
        for method in METHODS:
            if hasattr(model, method):
                try:
                    expected = getattr(model, method)(rows)
                except (TypeError, ValueError) as error:
                    with pytest.raises(type(error)):
                        getattr(model, method)(rows, fhe="simulate")
                    continue
                simulated = getattr(model, method)(rows, fhe="simulate")
                assert (simulated.dtype, simulated.shape) == (expected.dtype, expected.shape), method
                dense = x if not hasattr(rows, "astype") or issparse(rows) else np.asarray(rows, dtype=float)
                assert simulated.tobytes() == getattr(model, method)(dense, fhe="simulate").tobytes(), method


@pytest.mark.parametrize("name", SEVERAL_OUTPUTS)
def test_several_outputs_are_answered_in_the_librarys_form(name):
    model, x = compiled(name, "outputs"), data(name, "outputs")[0]
    for method in ("predict", "predict_proba"):
        if hasattr(model, method):
            expected, simulated = getattr(model, method)(x), getattr(model, method)(x, fhe="simulate")
            assert type(simulated) is type(expected)
            for a, b in zip(as_list(expected), as_list(simulated), strict=True):
                assert (a.dtype, a.shape) == (b.dtype, b.shape)


@EVERY_CLASS
def test_jobs_and_threads_change_nothing(name):
    model = compiled(name, usual(name))
    x = np.tile(data(name, usual(name))[0], (8, 1))
    expected = model.predict(x, fhe="simulate").tobytes()
    for n_jobs in (1, 2, -1):
        assert model.predict(x, fhe="simulate", n_jobs=n_jobs).tobytes() == expected
    twin = pickle.loads(pickle.dumps(model))  # whose engine is not made yet
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: twin.predict(x, fhe="simulate").tobytes(), range(8)))
    assert set(answers) == {expected}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_an_overridden_predict_proba_is_applied_once_to_features(name, monkeypatch):
    monkeypatch.setattr("fhelearn.backends.concrete.is_available", lambda: False)  # a report without its circuit

    class Sharpened(CLASSES[name]):
        def predict_proba(self, X, **options):
            assert np.asarray(X).shape[1] == 4
            squares = super().predict_proba(X, **options) ** 2
            return squares / squares.sum(axis=1, keepdims=True)

    x, y = data(name, "iris")
    model = Sharpened(**make(name).get_params(deep=False)).fit(x, y).compile(x)
    plain = make(name).fit(x, y).compile(x)
    squares = plain.predict_proba(x, fhe="simulate") ** 2
    expected = squares / squares.sum(axis=1, keepdims=True)
    np.testing.assert_array_equal(model.predict_proba(x, fhe="simulate"), expected)
    assert (model.predict(x, fhe="simulate") == plain.predict(x, fhe="simulate")).all()
    assert model.report(x, y).label_agreement == plain.report(x, y).label_agreement


def stopped_early(name, x, y):
    held_out = {"eval_set": [(x[1::2], y[1::2])]}
    if name in LIGHTGBM:
        stop = lightgbm.early_stopping(2, verbose=False)
        return make(name, n_estimators=100, learning_rate=0.9).fit(x[::2], y[::2], callbacks=[stop], **held_out)
    if name.startswith("Hist"):
        return make(name, max_iter=100, learning_rate=0.9, early_stopping=True, n_iter_no_change=2).fit(x, y)
    model = make(name, n_estimators=100, learning_rate=1.0, early_stopping_rounds=2)
    return model.fit(x[::2], y[::2], verbose=False, **held_out)


@pytest.mark.parametrize("name", ["XGBClassifier", "LGBMClassifier", "HistGradientBoostingClassifier"])
def test_early_stopped_boosters_predict_with_the_trees_that_the_library_uses(name):
    x, y = data(name, "breast_cancer")
    model = stopped_early(name, x, y).compile(x)
    used = {"X": "best_iteration", "L": "best_iteration_", "H": "n_iter_"}[name[0]]
    trees = model._fhe_compiled.quantized.forest.n_trees
    assert trees == getattr(model, used) + (name[0] == "X") < 100
    np.testing.assert_array_equal(own_leaves(model, x), library_leaves(model, x))
    assert (model.predict(x, fhe="simulate") == model.predict(x)).all()


def test_a_booster_loaded_from_a_file_compiles_and_replaces_a_compiled_one(tmp_path):
    x, y = data("XGBClassifier", "breast_cancer")
    make("XGBClassifier").fit(x, y).save_model(tmp_path / "model.json")
    loaded, other = make("XGBClassifier"), make("XGBClassifier").fit(x, 1 - y).compile(x)
    loaded.load_model(tmp_path / "model.json")
    assert (loaded.compile(x).predict(x, fhe="simulate") == loaded.predict(x)).all()
    other.load_model(tmp_path / "model.json")
    assert not other.is_compiled_
