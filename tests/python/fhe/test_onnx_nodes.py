"""Law: for every operator, what is decrypted is what the engine says, on a small node test of the ONNX project."""

import pytest

from fhelearn.backends.concrete import CircuitOptions, compile_program
from fhelearn.backends.native import NativeEngine
from fhelearn.testing import assert_bit_exact
from tests.python.fhe.shared_keys import with_keys
from tests.python.onnx_node_tests import CLAIMED
from tests.python.onnx_nodes.cases import WITHOUT_DATA
from tests.python.onnx_nodes.executed import any_codes, small_program, smallest_case

pytestmark = pytest.mark.fhe


def assert_execution_equals_the_engine(op_type: str) -> None:
    quantized = small_program(smallest_case(op_type))
    program, q = quantized.network.program, any_codes(quantized)
    circuit = with_keys(compile_program(program, CircuitOptions(batch_size=1)))
    assert_bit_exact(circuit.execute(q), NativeEngine(program).run(q, on_overflow="wrap"), program)


@pytest.mark.parametrize("op_type", sorted(CLAIMED - WITHOUT_DATA))
def test_decrypted_answers_are_those_of_the_engine(op_type: str) -> None:
    assert_execution_equals_the_engine(op_type)
