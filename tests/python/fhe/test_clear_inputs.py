"""Inputs that the server may read: they meet encrypted values in sums and products."""

from collections.abc import Sequence

import numpy as np
import pytest

from fhelearn.backends.concrete import CircuitOptions, compile_program
from fhelearn.exceptions import LoweringError
from fhelearn.ir import Program, ProgramBuilder, evaluate
from fhelearn.testing import assert_bit_exact
from fhelearn.typing import IntArray
from tests.python.fhe.shared_keys import with_keys

pytestmark = pytest.mark.fhe


def mixed() -> Program:
    """A lookup of a sum, and a product, of two inputs."""
    b = ProgramBuilder()
    x = b.emit("input", shape=(3,), lo=-4, hi=3)
    y = b.emit("input", shape=(3,), lo=0, hi=7)
    total = b.emit("add", x, b.emit("multiply_constant", y, value=np.array(2)))
    looked_up = b.emit("table_lookup", total, lo=-4, table=np.arange(22) ** 2 % 17)
    scores = b.emit("matmul", looked_up, weights=np.array([[1], [2], [-1]]))
    return b.build(scores, b.emit("multiply", x, y))


def rows(n: int) -> list[IntArray]:
    rng = np.random.default_rng(0)
    return [rng.integers(-4, 4, size=(n, 3)), rng.integers(0, 8, size=(n, 3))]


@pytest.mark.parametrize("clear", [(0,), (1,)])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_decrypted_results_are_the_references_whichever_input_is_clear(clear: Sequence[int], batch_size: int) -> None:
    program, inputs = mixed(), rows(6)
    circuit = with_keys(compile_program(program, CircuitOptions(clear_inputs=tuple(clear), batch_size=batch_size)))
    assert_bit_exact(circuit.execute(inputs), evaluate(program, inputs), program)


def test_a_clear_input_travels_as_it_is_and_an_encrypted_one_never_twice_the_same() -> None:
    circuit = with_keys(compile_program(mixed(), CircuitOptions(clear_inputs=(1,), batch_size=1)))
    (first,), (second,) = (circuit.encrypt(rows(1)).contents for _ in range(2))
    assert first[1] == second[1]
    assert first[0] != second[0]
    everything = compile_program(mixed(), CircuitOptions(batch_size=1))
    assert circuit.cost.input_bytes_per_row < everything.cost.input_bytes_per_row


def test_lookups_of_clear_data_alone_are_refused() -> None:
    with pytest.raises(LoweringError, match=r"%\d table_lookup.*looks up clear data only; compute it before"):
        compile_program(mixed(), CircuitOptions(clear_inputs=(0, 1)))
    with pytest.raises(LoweringError, match="clear_inputs: 2 is no input of this program, it has 2"):
        compile_program(mixed(), CircuitOptions(clear_inputs=(2,)))


@pytest.mark.parametrize("value", [(-1,), (0, 0), "0", (True,), (1.0,), 1])
def test_positions_that_cannot_be_are_refused(value: object) -> None:
    with pytest.raises((ValueError, TypeError), match="clear_inputs must be"):
        CircuitOptions(clear_inputs=value)  # type: ignore[arg-type]
