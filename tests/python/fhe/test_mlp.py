"""Networks and pipelines on real ciphertexts: what is decrypted is what `simulate` said, bit for bit."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fhelearn.neural_network import MLPClassifier, MLPRegressor
from fhelearn.pipeline import from_sklearn_model
from tests.python.estimators.cases import fit, load
from tests.python.fhe.shared_keys import with_keys

pytestmark = pytest.mark.fhe

X, Y = load("iris")
NARROW = {"model_inputs": 3, "op_inputs": 4, "op_weights": 4}


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_encrypted_rows_of_a_classifier_decrypt_to_what_was_simulated(activation):
    model = MLPClassifier((4,), activation=activation, max_iter=300, random_state=0, n_bits=NARROW)
    fit(model, X, np.array(["a", "b", "c"])[Y]).compile(X, rounding_threshold_bits=5)
    with_keys(model.fhe_circuit_)
    rows = X[::50]
    for method in ("predict", "predict_proba", "predict_log_proba"):
        executed, simulated = (getattr(model, method)(rows, fhe=mode) for mode in ("execute", "simulate"))
        assert executed.tobytes() == simulated.tobytes()


def test_encrypted_rows_of_a_regressor_with_two_targets_decrypt_to_what_was_simulated():
    model = MLPRegressor(hidden_layer_sizes=(3,), max_iter=300, random_state=0, n_bits=NARROW)
    fit(model, X, X[:, 1:3]).compile(X, rounding_threshold_bits=5)
    with_keys(model.fhe_circuit_)
    assert model.predict(X[:3], fhe="execute").tobytes() == model.predict(X[:3], fhe="simulate").tobytes()


def test_a_scaled_pipeline_decrypts_to_what_was_simulated():
    encrypted = from_sklearn_model(fit(make_pipeline(StandardScaler(), LogisticRegression()), X, Y), X)
    with_keys(encrypted.fhe_circuit_)
    for method in ("predict", "predict_proba"):
        executed, simulated = (getattr(encrypted, method)(X[::10], fhe=mode) for mode in ("execute", "simulate"))
        assert executed.tobytes() == simulated.tobytes()
