"""Small networks of well-known shapes: they convert, keep their accuracy at 8 bits, and simulate exactly."""

from functools import cached_property

import numpy as np
import pytest

from fhelearn.backends.concrete.lowering import normalize
from fhelearn.backends.native import NativeEngine
from fhelearn.estimators.compiled_network import WIDEST_NATIVE_LOOKUP
from fhelearn.frontends.onnx.network import lookup_groups
from fhelearn.ir import evaluate
from fhelearn.onnx import export_torch
from fhelearn.torch import build_quantized_module
from tests.python.torch.architectures import ARCHITECTURES
from tests.python.torch.training import answers, train

CALIBRATION_ROWS = 512


class Trained:
    """An architecture, trained on its task, quantized at 8 bits with calibrated bounds."""

    def __init__(self, name):
        architecture = ARCHITECTURES[name]
        self.task = task = architecture.task()
        self.model = train(
            architecture.make,
            task.x,
            task.y,
            epochs=architecture.epochs,
            batch=64,
            learning_rate=architecture.learning_rate,
            loss=task.loss,
        )
        self.onnx = export_torch(self.model, task.x[:4])
        self.module = self.quantized(n_bits=8)

    @cached_property
    def few_bits(self):
        return self.quantized(n_bits=5, rounding_threshold_bits={"n_bits": 5, "method": "approximate"})

    def quantized(self, **settings):
        settings = {"rounding_threshold_bits": None, "bounds": "calibrated", **settings}
        return build_quantized_module(self.onnx, self.task.x[:CALIBRATION_ROWS], **settings)

    def score(self, outputs):
        return self.task.score(outputs, self.task.held_out_y)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def trained(request):
    return Trained(request.param)


def from_the_whole_range(program, rng, rows):
    """Random codes between the declared ends, which are among them."""
    (value,) = (node.value for node in program.nodes if node.op == "input")
    low, high = value.bounds.broadcast(value.shape).to_int64()
    inside = rng.integers(low, high + 1, (rows, *value.shape))
    return np.concatenate([low[np.newaxis], high[np.newaxis], np.where(inside % 2, low, high), inside])


def assert_engine_equals_reference(program, q):
    (ran,), (evaluated,) = (
        NativeEngine(program).run([q], on_overflow="wrap"),
        evaluate(program, [q], on_overflow="wrap"),
    )
    np.testing.assert_array_equal(ran, evaluated)


def test_architectures_learn_their_task(trained):
    assert trained.score(answers(trained.model, trained.task.held_out)) >= 0.9


def test_eight_bits_cost_at_most_one_point_of_accuracy(trained):
    held_out = trained.task.held_out
    assert len(held_out) >= 500
    simulated = trained.score(trained.module.forward(held_out, fhe="simulate"))
    assert simulated >= trained.score(answers(trained.model, held_out)) - 0.01


def test_engine_equals_reference_on_the_whole_input_range(trained, rng):
    program = trained.module.program
    assert_engine_equals_reference(program, from_the_whole_range(program, rng, rows=4))


def test_engine_equals_reference_on_held_out_rows(trained):
    assert_engine_equals_reference(trained.module.program, trained.module.quantize_input(trained.task.held_out[:24]))


def test_rounded_accumulators_of_few_bits_simulate_exactly_too(trained, rng):
    module = trained.few_bits
    q = from_the_whole_range(module.program, rng, rows=4)
    assert_engine_equals_reference(
        module.program, np.concatenate([q, module.quantize_input(trained.task.held_out[:24])])
    )


def test_no_lookup_is_too_wide_to_be_encrypted_where_accumulators_are_rounded(trained):
    """Sums of two operands, which products and maxima look up, included."""
    assert max(group.bits for group in lookup_groups(trained.few_bits.program)) <= WIDEST_NATIVE_LOOKUP


def test_calibration_rows_never_overflow(trained):
    assert not len(trained.module.overflowing_rows(trained.task.x[:CALIBRATION_ROWS]))


def test_what_is_simulated_is_the_very_program_that_is_encrypted(trained):
    """The back end's normal form changes nothing, so rows that overflow wrap alike."""
    rounded = trained.quantized(n_bits=5, rounding_threshold_bits={"n_bits": 5, "method": "approximate"})
    for program in (trained.module.program, rounded.program):
        assert normalize(program) == program
