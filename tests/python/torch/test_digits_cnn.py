"""The convolutional network on digits: accuracy, lookups and exactness of what is encrypted."""

import numpy as np
import pytest

from fhelearn.backends.concrete.lowering import lower
from fhelearn.backends.native import NativeEngine
from fhelearn.ir import Faults, evaluate
from fhelearn.torch import build_quantized_module
from tests.python.torch.digits_cnn import N_BITS, ROUNDING, trained_digits

MOST_LOOKUPS, WIDEST_LOOKUP = 180, 6


@pytest.fixture(scope="module")
def digits():
    return trained_digits()


@pytest.fixture(scope="module")
def module(digits):
    return build_quantized_module(digits.model, digits.x[:500], n_bits=N_BITS, rounding_threshold_bits=ROUNDING)


def accuracy(module, digits, **options):
    return (module.forward(digits.held_out, fhe="simulate", **options).argmax(axis=1) == digits.held_out_y).mean()


def test_the_float_network_is_trained(digits):
    assert digits.float_accuracy >= 0.95


def test_simulated_accuracy_is_within_one_point_of_float(digits, module):
    assert accuracy(module, digits) >= digits.float_accuracy - 0.01


@pytest.mark.parametrize("seed", range(3))
def test_noise_of_rounding_keeps_the_accuracy_within_one_point_of_float(digits, module, seed):
    noise = Faults(rounding_noise=0.1, seed=seed)
    assert accuracy(module, digits, faults=noise) >= digits.float_accuracy - 0.01


def test_few_and_narrow_lookups_are_encrypted(module):
    lookups = lower(module.program, 1).lookups_by_bit_width
    assert sum(lookups.values()) <= MOST_LOOKUPS
    assert max(lookups) <= WIDEST_LOOKUP


def test_engine_equals_reference_with_and_without_noise(digits, module, rng):
    program = module.program
    value = program.nodes[0].value
    low, high = value.bounds.broadcast(value.shape).to_int64()
    q = np.concatenate([rng.integers(low, high + 1, (30, *value.shape)), module.quantize_input(digits.held_out[:70])])
    engine = NativeEngine(program)
    for faults in (None, Faults(rounding_noise=0.1, seed=7), Faults(p_error=0.01, rounding_noise=0.1, seed=7)):
        (ran,) = engine.run([q], on_overflow="wrap", faults=faults)
        (evaluated,) = evaluate(program, [q], on_overflow="wrap", faults=faults)
        np.testing.assert_array_equal(ran, evaluated)
