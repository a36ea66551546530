"""What `simulate` returns is the exact integer result, on every input the encoder can produce."""

from itertools import product

import numpy as np
import pytest
from sklearn.datasets import make_regression

from fhelearn.ir import cost
from fhelearn.linear_model import LinearRegression, LogisticRegression
from tests.python.estimators.cases import CLASSES, compiled, data_for, fit, load

X, Y = make_regression(n_features=10, random_state=0)


def points_in_range(estimator, rng):
    """500 points drawn uniformly from the encoder's range, and its 1024 corners."""
    encoder = estimator._fhe_compiled.quantized.encoder
    uniform = rng.uniform(encoder.minimum, encoder.maximum, size=(500, 10))
    corners = np.array(list(product(*zip(encoder.minimum, encoder.maximum, strict=True))))
    return np.concatenate([uniform, corners])


def exact_scores(estimator, q):
    """The dot products in Python integers, which cannot wrap."""
    weights = estimator.program_.nodes[-1].array("weights").astype(object)
    return q.astype(object) @ weights


@pytest.mark.parametrize("n_bits", [*range(4, 17), None, {"inputs": 16, "weights": 4}, {"inputs": 4, "weights": 16}])
def test_no_point_in_the_range_wraps(n_bits, rng):
    model = LinearRegression(n_bits=n_bits).fit(X, Y).compile(X)
    points = points_in_range(model, rng)
    q = model.quantize_input(points)
    expected = exact_scores(model, q)
    assert (model._fhe_compiled.simulate(q) == expected).all()
    assert (model.predict(points, fhe="simulate") == model.dequantize_output(expected.astype(np.int64)).ravel()).all()
    bounds = model.program_.nodes[-1].value.bounds
    assert bounds.lo.min() == expected.min()
    assert bounds.hi.max() == expected.max()


@pytest.mark.parametrize("n_bits", [4, 16, None])
def test_corners_of_the_range_become_the_corners_of_the_program(n_bits):
    model = LinearRegression(n_bits=n_bits).fit(X, Y).compile(X)
    encoder = model._fhe_compiled.quantized.encoder
    assert (model.quantize_input(encoder.minimum[None]) == encoder.lo).all()
    assert (model.quantize_input(encoder.maximum[None]) == encoder.hi).all()


@pytest.mark.parametrize("name", CLASSES)
def test_linear_models_need_no_lookup_and_every_bound_is_proved(name):
    program = compiled(name).program_
    assert cost(program).total_lookups == 0
    assert {node.value.provenance for node in program.nodes} == {"proved"}


@pytest.mark.parametrize("name", CLASSES)
def test_scores_are_exact_for_every_estimator(name):
    model = compiled(name)
    q = model.quantize_input(data_for(name)[0])
    assert (model._fhe_compiled.simulate(q) == exact_scores(model, q)).all()


@pytest.mark.parametrize("n_bits", [2, 5, 12, None])
def test_decoded_scores_are_as_close_to_the_floats_as_the_steps_allow(n_bits, rng):
    model = LinearRegression(n_bits=n_bits).fit(X, Y).compile(X)
    quantized = model._fhe_compiled.quantized
    points = points_in_range(model, rng)
    weights, step = quantized.program.nodes[-1].array("weights")[:, 0], quantized.decoder.scale[0]
    folded = model.coef_ * quantized.encoder.scale
    rounded_inputs = np.abs(step * weights).sum() / 2
    mean_code = (X.mean(axis=0) - quantized.encoder.offset) / quantized.encoder.scale
    rounded_weights = np.abs((points - quantized.encoder.offset) / quantized.encoder.scale - mean_code) @ np.abs(
        folded - step * weights
    )
    error = np.abs(model.predict(points, fhe="simulate") - model.predict(points))
    # Beyond the two roundings there are only those of float64.
    assert (error <= (rounded_inputs + rounded_weights) * (1 + 1e-9) + 1e-9 * np.abs(Y).max()).all()


def test_the_score_at_the_mean_of_the_compile_data_has_no_weight_error():
    x, y = load("breast_cancer")
    model = fit(LogisticRegression(n_bits=6), x, y).compile(x)
    quantized = model._fhe_compiled.quantized
    weights = quantized.program.nodes[-1].array("weights")
    mean_code = (x.mean(axis=0) - quantized.encoder.offset) / quantized.encoder.scale
    score = quantized.decoder.offset + quantized.decoder.scale * (mean_code @ weights)
    np.testing.assert_allclose(score, model.decision_function(x.mean(axis=0)[None]), rtol=1e-9)
