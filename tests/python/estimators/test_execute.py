"""Real keys, real ciphertexts: what is decrypted is what `simulate` said, bit for bit."""

import copy
import pickle

import numpy as np
import pytest

from fhelearn.estimators.build import METHODS
from fhelearn.linear_model import LinearRegression, LogisticRegression, Ridge
from fhelearn.naive_bayes import BernoulliNB
from tests.python.estimators.cases import CLASSES, compiled, data_for, fit, load

pytestmark = pytest.mark.fhe


@pytest.mark.parametrize("name", CLASSES)
def test_five_encrypted_rows_per_estimator(name):
    model, rows = compiled(name), data_for(name)[0][:: len(data_for(name)[0]) // 5][:5]
    decrypted = model.fhe_circuit_
    if decrypted.keys is None:
        decrypted.keygen()
    q = model.quantize_input(rows)
    assert (decrypted.execute([q])[0] == model._fhe_compiled.simulate(q)).all()
    for method in METHODS:
        if hasattr(model, method):
            executed, simulated = (getattr(model, method)(rows, fhe=mode) for mode in ("execute", "simulate"))
            assert executed.tobytes() == simulated.tobytes()


@pytest.mark.parametrize("n_bits", [2, 8, 16, None])
def test_corners_of_the_range_decrypt_exactly(n_bits, rng):
    x, y = load("diabetes")
    model = LinearRegression(n_bits=n_bits).fit(x, y).compile(x)
    encoder = model._fhe_compiled.quantized.encoder
    weights = model.program_.nodes[-1].array("weights")[:, 0]
    corners = rng.choice([0, 1], size=(20, 10)).astype(bool)
    corners = np.concatenate([corners, [weights > 0, weights < 0]])
    points = np.where(corners, encoder.maximum, encoder.minimum)
    assert (model.predict(points, fhe="execute") == model.predict(points, fhe="simulate")).all()


def test_labels_of_raw_breast_cancer_equal_scikit_learns():
    x, y = load("breast_cancer")
    model = fit(LogisticRegression(), x, y).compile(x)
    assert (model.predict(x, fhe="execute") == model.predict(x)).all()


def test_the_widest_programs_that_plan_makes_find_parameters(rng):
    x = rng.normal(size=(60, 784))
    model = Ridge().fit(x, x[:, :2]).compile(x)
    assert (model.predict(x[:2], fhe="execute") == model.predict(x[:2], fhe="simulate")).all()


def secret_pieces(keys):
    """Slices of the serialized keys, 128 bytes each, that cover all of the secret part but runs of one byte."""
    secret, public = keys.to_bytes(), keys.evaluation_keys.to_bytes()
    pieces = [secret[start : start + 128] for start in range(0, len(secret) - 128, 128)]
    pieces = [piece for piece in pieces if len(set(piece)) > 1 and piece not in public]
    assert pieces
    return pieces


def test_pickles_hold_no_secret_key_and_make_new_ones():
    x, y = load("iris")
    model = Ridge().fit(x, y).compile(x)
    keys = model.fhe_circuit_.keygen()
    content = pickle.dumps(model)
    assert keys.key_id.encode() not in content
    pieces = secret_pieces(keys)
    assert all(piece in pickle.dumps([0.5, keys.to_bytes()]) for piece in pieces)  # a leak would be found
    for safe in (content, pickle.dumps(copy.deepcopy(model)), pickle.dumps(model._fhe_compiled)):
        assert not any(piece in safe for piece in pieces)
    twin = pickle.loads(content)
    assert twin.fhe_circuit_.keys is None
    assert (twin.predict(x[:3], fhe="execute") == model.predict(x[:3], fhe="simulate")).all()
    assert twin.fhe_circuit_.keys.key_id != keys.key_id


def test_keys_are_made_once_and_kept():
    x, y = load("iris")
    model = Ridge().fit(x, y).compile(x)
    model.predict(x[:2], fhe="execute")
    key_id = model.fhe_circuit_.keys.key_id
    model.predict(x[:2], fhe="execute")
    assert model.fhe_circuit_.keys.key_id == key_id


def test_several_rows_show_a_progress_bar_when_asked(capsys):
    x, y = load("iris")
    model = Ridge().fit(x, y).compile(x)
    model.predict(x[:3], fhe="execute", progress=True)
    assert "3/3" in capsys.readouterr().err
    model.predict(x[:3], fhe="execute", progress=False)
    model.predict(x[:3], fhe="execute")
    assert capsys.readouterr().err == ""


def test_rows_run_in_parallel_workers():
    x, y = load("iris")
    model = BernoulliNB(binarize=2.0).fit(x, y).compile(x)
    parallel = model.predict(x, fhe="execute", n_jobs=2)
    assert (parallel == model.predict(x, fhe="simulate")).all()


def test_the_cost_is_in_the_report():
    x, y = load("iris")
    report = Ridge().fit(x, y).compile(x).report()
    assert report.secret_key_bytes > 0
    assert report.input_bytes_per_row > 0
    assert 0 < report.seconds_per_row < 1
    assert 0 < report.p_error <= 2.0**-40
