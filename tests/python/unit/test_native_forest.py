"""Forests in the C++ core equal the plain walk that defines what a forest means."""

import copy
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest

from fhelearn import _core
from fhelearn.backends.native_forest import ForestEngine
from fhelearn.exceptions import QuantizationError
from fhelearn.quantization.conditions import ConditionEncoder
from tests.python.unit.forests import asked, engine_of, random_forest, rows_for, tree_arrays

PRECISIONS = ["float32", "float64"]


def answers(encoder: ConditionEncoder, x: np.ndarray) -> np.ndarray:
    """What the conditions mean, one at a time."""
    with np.errstate(over="ignore"):
        x = x.astype(encoder.precision).astype(np.float64)
    x[(np.abs(x) <= np.float32(1e-35)) & encoder.zero_is_missing] = np.nan
    for feature, known in encoder.known_categories.items():
        x[~np.isin(x[:, feature], list(known)), feature] = np.nan
    result = np.empty((len(x), encoder.n_conditions), dtype=np.int64)
    for i, members in enumerate(encoder.members):
        column = x[:, encoder.feature[i]]
        met = column <= encoder.threshold[i] if members is None else np.isin(column, list(members))
        result[:, i] = np.where(np.isnan(column), encoder.nan_true[i], met)
    return result


def small_encoder(**changes) -> ConditionEncoder:
    """Two numerical conditions on feature 0, a categorical one on feature 1."""
    arguments = {
        "n_features": 2,
        "precision": "float32",
        "feature": np.array([0, 0, 1]),
        "threshold": np.array([0.5, np.inf, 0.0]),
        "members": (None, None, frozenset({2, 7})),
        "nan_true": np.array([False, True, True]),
        "zero_is_missing": np.array([False, False]),
    }
    return ConditionEncoder(**(arguments | changes))


def small_arrays(**changes) -> dict:
    arguments = {
        "tree_starts": np.array([0, 3]),
        "condition": np.array([0, -1, -1]),
        "left": np.array([1, -1, -1]),
        "right": np.array([2, -1, -1]),
        "value": np.array([[0], [3], [-4]]),
        "first_output": np.array([0]),
        "n_outputs": 1,
    }
    return arguments | changes


# --- equal to the reference -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("depth", [0, 1, 4, 8, 11, 40])
def test_engine_and_encoder_equal_the_reference(depth: int, precision: str, dtype: str) -> None:
    for seed in range(12):
        forest = random_forest(seed, precision, depth)
        encoder, engine = engine_of(forest)
        x = rows_for(forest, seed, (1, 15, 16, 511, 512, 700)[seed % 6], dtype)
        assert (engine.apply(x) == forest.apply(x)).all()
        assert (engine.run(x) == forest.scores(x)).all()
        assert (encoder.encode(x) == answers(encoder, x)).all()


DIGEST = """
import hashlib
from tests.python.unit.forests import engine_of, random_forest, rows_for
digest = hashlib.sha256()
for seed in range(10):
    forest = random_forest(seed, ("float32", "float64")[seed % 2], 8)
    encoder, engine = engine_of(forest)
    x = rows_for(forest, seed, 600, "float64")
    assert (engine.apply(x) == forest.apply(x)).all()
    for result in (engine.run(x), encoder.encode(x)):
        digest.update(result.tobytes())
print(digest.hexdigest())
"""


def test_every_instruction_set_gives_the_same_answer() -> None:
    digests = set()
    for isa in _core.supported_isas():
        environment = {**os.environ, "FHELEARN_ISA": isa, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-c", DIGEST]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1


def test_threads_give_the_same_answer() -> None:
    forest = random_forest(3)
    encoder, engine = engine_of(forest)
    x = rows_for(forest, 3, 20_000, "float32")
    expected = engine.run(x, num_threads=1)
    for num_threads in (2, 3, -1, None):
        assert (engine.run(x, num_threads=num_threads) == expected).all()
        assert (engine.apply(x, num_threads=num_threads) == forest.apply(x)).all()
    assert (encoder.encode(x, num_threads=3) == encoder.encode(x, num_threads=1)).all()
    results: list = [None] * 4

    def run(i: int) -> None:
        results[i] = engine.run(x, num_threads=2)

    workers = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all((result == expected).all() for result in results)


def test_no_rows_give_no_rows() -> None:
    encoder, engine = engine_of(random_forest(5))
    empty = np.empty((0, encoder.n_features), dtype=np.float32)
    assert engine.run(empty).shape[0] == engine.apply(empty).shape[0] == encoder.encode(empty).shape[0] == 0
    assert engine.run(empty).dtype == engine.apply(empty).dtype == encoder.encode(empty).dtype == np.int64


def test_sums_of_wide_leaves_are_exact() -> None:
    value = np.array([[0], [2**62], [-(2**62)]])
    engine = ForestEngine(conditions=small_encoder().native, **small_arrays(value=value))
    x = np.zeros((40, 2), dtype=np.float32)
    x[::2, 0] = 1
    assert engine.run(x).ravel().tolist() == [-(2**62), 2**62] * 20


# --- the encoder ----------------------------------------------------------------------------------------------------


def test_a_threshold_compares_in_the_precision() -> None:
    tenth = 0.1  # below the nearest float32
    for precision, expected in (("float32", [0, 0]), ("float64", [0, 1])):
        encoder = small_encoder(precision=precision, threshold=np.array([tenth, np.inf, 0.0]))
        assert encoder.encode([[np.float32(tenth), 2]])[0, 0] == expected[0]
        assert encoder.encode([[tenth, 2]])[0, 0] == expected[1]


def test_a_number_beyond_float32_is_infinite() -> None:
    encoder = small_encoder(threshold=np.array([np.finfo(np.float32).max, np.inf, 0.0]))
    assert encoder.encode([[1e300, 2], [-1e300, 7]]).tolist() == [[0, 1, 1], [1, 1, 1]]


def test_encoder_takes_what_numpy_takes() -> None:
    encoder = small_encoder()
    expected = [[1, 1, 1], [0, 1, 0]]
    for x in (
        [[0, 2], [1, 3]],
        np.array([[0, 1], [2, 3]], dtype=np.float16).T,
        np.array([[0, 2], [1, 3]], dtype=np.uint8),
    ):
        assert encoder.encode(x).tolist() == expected
    for x in ([1.0, 2.0], np.zeros((2, 3)), np.zeros((1, 2, 1))):
        with pytest.raises(ValueError, match=r"x must have shape \(n, 2\), got"):
            encoder.encode(x)


def test_categories_must_be_integers() -> None:
    x = np.array([[0.5, 2], [1, np.nan], [7, 1.5]])
    message = r"x: row 2, feature 1 is 1.5.*; categories must be integers"
    with pytest.raises(ValueError, match=message):
        small_encoder().encode(x)
    engine = ForestEngine(conditions=small_encoder().native, **small_arrays())
    with pytest.raises(ValueError, match=message):
        engine.run(x)
    with pytest.raises(ValueError, match=message):
        engine.apply(x)


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_copies_encode_alike_and_make_their_own_native_form(clone) -> None:
    encoder, _ = asked(random_forest(8))
    x = np.nan_to_num(rows_for(random_forest(8), 1, 50, "float32"))
    expected = encoder.encode(x)
    again = clone(encoder)
    assert "native" not in again.__dict__
    assert again.native is not encoder.native
    assert (again.encode(x) == expected).all()


def test_encoder_does_not_see_later_changes_of_its_arguments() -> None:
    feature = np.array([0, 0, 1])
    encoder = small_encoder(feature=feature)
    feature[0] = 1
    assert encoder.feature[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        encoder.feature[0] = 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "float16"}, "precision must be 'float32' or 'float64', got 'float16'"),
        ({"feature": np.array([0, 0, 2])}, r"feature\[2\] is 2, must be in \[0, 2\)"),
        ({"feature": np.array([0.0, 0.0, 1.0])}, "feature must hold int64, got float64"),
        ({"feature": np.zeros((3, 1), dtype=np.int64)}, r"feature must have one axis, got shape \(3, 1\)"),
        ({"threshold": np.array([np.nan, 0.0, 0.0])}, r"threshold\[0\] is NaN"),
        ({"threshold": np.array([0.0])}, "threshold has 1 entries, must have 3"),
        ({"members": (None, None)}, "members has 2 entries, must have 3"),
        ({"members": (None, None, frozenset({-1}))}, r"categories\[0\] is -1, must be a category in \[0, 2\*\*24\)"),
        ({"members": (None, None, frozenset({2**24}))}, "is 16777216, must be a category"),
        ({"members": (None, None, frozenset({2**70}))}, r"categories must be in \[0, 2\*\*24\)"),
        ({"nan_true": np.array([0, 1, 1])}, "nan_true must hold bool, got int64"),
        ({"zero_is_missing": np.array([True])}, "zero_is_missing has 1 entries, must have 2"),
        ({"known_categories": {2: frozenset({1})}}, "known_categories names feature 2 of 2"),
    ],
)
def test_bad_conditions_are_named(changes: dict, message: str) -> None:
    with pytest.raises(QuantizationError, match=message):
        small_encoder(**changes)


# --- the engine's border --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"condition": np.array([3, -1, -1])},
            ValueError,
            r"condition\[0\] is 3, must be -1 at a leaf, else in \[0, 2\]",
        ),
        ({"left": np.array([0, -1, -1])}, ValueError, r"left\[0\] is 0, must be a later node of its tree, in \[1, 2\]"),
        ({"right": np.array([1, -1, -1])}, ValueError, r"right\[0\] is 1, must be no other node's child"),
        ({"tree_starts": np.array([0, 2])}, ValueError, r"tree_starts\[1\] is 2, must be the number of nodes, 3"),
        ({"value": np.array([[3], [4]])}, ValueError, "value has 2 rows, must have one per node: 3"),
        ({"first_output": np.array([1])}, ValueError, r"first_output\[0\] is 1, must be in \[0, 0\]"),
        (
            {"value": np.array([[0], [-(2**63)], [0]])},
            ValueError,
            "may sum up to 9223372036854775808, must fit 64 bits",
        ),
        (
            {"value": np.array([0, 3, -4])},
            TypeError,
            r"value must be a C-contiguous int64 array with 2 axes, got int64",
        ),
        ({"left": np.array([1.0, -1.0, -1.0])}, TypeError, "left must be a C-contiguous int64 array"),
        ({"condition": [0, -1, -1]}, TypeError, "condition must be a C-contiguous int64 array with 1 axes, got list"),
        ({"conditions": None}, TypeError, "incompatible constructor arguments"),
    ],
)
def test_bad_trees_are_named(changes: dict, error: type[Exception], message: str) -> None:
    arguments = {"conditions": small_encoder().native} | small_arrays(**changes)
    with pytest.raises(error, match=message):
        ForestEngine(**arguments)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([[0.0, 2.0]], TypeError, "x must be a C-contiguous float64 array with 2 axes, got list"),
        (np.zeros((3, 2), dtype=np.int64), TypeError, "got int64 array of shape"),
        (np.zeros((2, 3)).T, TypeError, "not C-contiguous"),
        (np.zeros((3, 2), dtype=">f4"), TypeError, "got >f4"),
        (np.zeros(2), TypeError, "with 2 axes"),
        (np.zeros((3, 1)), ValueError, "x has 1 columns, must have one per feature: 2"),
    ],
)
def test_bad_rows_are_named(x, error: type[Exception], message: str) -> None:
    engine = ForestEngine(conditions=small_encoder().native, **small_arrays())
    for method in (engine.run, engine.apply):
        with pytest.raises(error, match=message):
            method(x)


def test_num_threads_means_what_it_means_to_programs() -> None:
    engine = ForestEngine(conditions=small_encoder().native, **small_arrays())
    with pytest.raises(ValueError, match="num_threads must be None"):
        engine.run(np.zeros((1, 2)), num_threads=0)


def test_the_forest_keeps_its_conditions_alive() -> None:
    forest = random_forest(11)
    encoder, of_trees = asked(forest)
    engine = ForestEngine(conditions=encoder.native, **tree_arrays(forest, of_trees))
    x = rows_for(forest, 2, 40, "float32")
    del encoder
    assert (engine.apply(x) == forest.apply(x)).all()
    assert repr(engine) == f"ForestEngine({forest.n_trees} trees, isa={_core.isa()!r})"
