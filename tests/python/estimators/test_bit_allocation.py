"""The widths that n_bits=None chooses: they fit, they are as wide as fits, and no single width does better."""

import numpy as np
import pytest

from fhelearn.exceptions import QuantizationError
from fhelearn.frontends.linear import (
    MAX_WEIGHT_BITS,
    NOISE_BUDGET,
    BitWidths,
    LinearMap,
    integer_weights,
    plan,
    quantize_linear,
    required_budget,
)
from fhelearn.quantization import ColumnRange, UniformEncoder

CASES = [(1, 1), (3, 2), (10, 1), (30, 1), (64, 10), (200, 2), (784, 10), (3000, 1)]


def random_map(n_features, n_scores):
    """A linear map over features of unlike units, and data for it."""
    rng = np.random.default_rng(n_features)
    x = rng.normal(size=(300, n_features)) * 10.0 ** rng.uniform(-6, 6, n_features)
    return LinearMap(rng.normal(size=(n_features, n_scores)) / x.std(axis=0)[:, None], rng.normal(size=n_scores)), x


def measured_error(linear, x, bits):
    """Root mean square error of the decoded scores."""
    quantized = quantize_linear(linear, ColumnRange.of(x, margin=0.1), bits)
    q = quantized.encoder.quantize(x) @ quantized.program.nodes[-1].array("weights")
    return np.sqrt(np.mean((quantized.decoder.dequantize(q) - x @ linear.weights - linear.intercept) ** 2))


@pytest.mark.parametrize(("n_features", "n_scores"), CASES)
def test_the_chosen_widths_fit_and_wider_weights_would_not(n_features, n_scores):
    linear, x = random_map(n_features, n_scores)
    columns = ColumnRange.of(x, margin=0.1)
    bits = plan(linear, columns)
    encoder = UniformEncoder.from_range(columns, bits.inputs)
    assert required_budget(encoder, integer_weights(linear, encoder, bits.weights)[0]) <= NOISE_BUDGET
    wider = required_budget(encoder, integer_weights(linear, encoder, bits.weights + 1)[0])
    assert wider > NOISE_BUDGET or bits.weights == MAX_WEIGHT_BITS


@pytest.mark.parametrize(("n_features", "n_scores"), CASES)
def test_no_single_width_that_fits_is_more_accurate(n_features, n_scores):
    linear, x = random_map(n_features, n_scores)
    best = measured_error(linear, x, None)
    for width in range(4, 17):
        try:
            error = measured_error(linear, x, BitWidths(width, width))
        except QuantizationError:
            continue
        assert best <= error * (1 + 1e-9)


@pytest.mark.parametrize(("n_features", "n_scores"), CASES)
def test_weights_lie_in_their_width_and_are_off_by_at_most_half_a_step(n_features, n_scores):
    linear, x = random_map(n_features, n_scores)
    encoder = UniformEncoder.from_range(ColumnRange.of(x), 8)
    for bits in (2, 7, 16):
        weights, step = integer_weights(linear, encoder, bits)
        assert np.abs(weights).max(axis=0).tolist() == [2 ** (bits - 1) - 1] * n_scores
        error = np.abs(weights * step - linear.weights * encoder.scale[:, None])
        assert (error <= step / 2 * (1 + 1e-9)).all()


def test_required_budget_is_the_accumulators_width_plus_the_weights_norm():
    encoder = UniformEncoder(np.ones(2), np.zeros(2), np.array([-8, -8]), np.array([7, 7]))
    weights = np.array([[3, 0], [4, 1]])
    assert required_budget(encoder, weights) == 7 + np.log2(5)  # [-56, 49] is an i7, and the norm of (3, 4) is 5


def test_a_model_without_weights_is_compiled_to_zeros():
    linear = LinearMap(np.zeros((3, 2)), np.array([1.5, -2.5]))
    quantized = quantize_linear(linear, ColumnRange.of(np.eye(3)))
    assert not quantized.program.nodes[-1].array("weights").any()
    assert (quantized.decoder.dequantize(np.zeros((4, 2), dtype=np.int64)) == [1.5, -2.5]).all()
