"""Law: where calibrated bounds are left, ``on_overflow="wrap"`` says exactly what is decrypted."""

import numpy as np
import pytest

from fhelearn.backends.concrete import CircuitOptions, compile_program
from fhelearn.exceptions import LoweringError
from fhelearn.ir import DeclaredBounds, Program, ProgramBuilder, evaluate
from fhelearn.passes import expand_products
from fhelearn.testing import assert_bit_exact, random_inputs, random_program
from tests.python.fhe.shared_keys import with_keys

pytestmark = pytest.mark.fhe


def overflowing(signed: bool, then: str) -> Program:
    """A 4-bit region whose true values leave it by up to a factor of five."""
    b = ProgramBuilder()
    lo, hi = (-8, 7) if signed else (0, 15)
    x = b.emit("input", shape=(10,), lo=lo, hi=hi)
    factors = np.array([1, 2, 3, 4, 5, -1, -2, -3, -4, -5]) if signed else np.arange(1, 11)
    claim = DeclaredBounds(lo, hi, "calibrated", "seen on data that was too tame")
    y = b.emit("multiply_constant", x, value=factors, declared=claim)
    if then.startswith("round"):
        room = DeclaredBounds(lo, hi // 4 * 4, "calibrated", "as tame")
        y = b.emit("round", y, lsbs=2, method="exact", declared=room)
    if then.endswith("lookup"):
        y = b.emit("table_lookup", y, lo=lo, table=np.arange(16) * 5 % 13 - 3)
    return b.build(y)


def assert_wraps_as_the_reference_says(program: Program, inputs: list[np.ndarray]) -> None:
    circuit = with_keys(compile_program(program, CircuitOptions(batch_size=1)))
    assert_bit_exact(circuit.execute(inputs), evaluate(program, inputs, on_overflow="wrap"), program)


@pytest.mark.parametrize("then", ["output", "lookup", "round output", "round lookup"])
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_overflow_wraps_as_the_reference_says(signed: bool, then: str) -> None:
    program = overflowing(signed, then)
    bounds = program.nodes[0].value.bounds
    values = np.arange(bounds.minimum, bounds.maximum + 1, 5 if "round" in then else 3)
    rows = np.repeat(values[:, np.newaxis], 10, axis=1)
    assert_wraps_as_the_reference_says(program, [rows])


@pytest.mark.parametrize("approximate", [False, True])
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_sums_on_the_way_to_a_lookup_may_be_wider_than_their_region(signed: bool, approximate: bool) -> None:
    """Only what is looked at has a width: 7-bit sums of a 4-bit region are centred, then looked up."""
    b = ProgramBuilder()
    x = b.emit("input", shape=(4,), lo=0, hi=15)
    y = b.emit("matmul", x, weights=np.array([[3, -2], [1, 2], [-2, 3], [2, 1]]))
    lo, hi = (-8, 7) if signed else (0, 15)
    claim = DeclaredBounds(lo, hi, "calibrated", "seen on data that was too tame")
    y = b.emit("add_constant", y, value=np.array([-31, -40]), declared=claim)
    if approximate:  # exact: the removed bit is 0
        y = b.emit("multiply_constant", y, value=np.array(2))
        y = b.emit("round", y, lsbs=1, method="approximate")
        lo, hi = 2 * lo, 2 * hi
    table = np.arange(hi - lo + 1) * 5 % 13 - 3
    program = b.build(b.emit("table_lookup", y, lo=lo, table=table))
    rows = np.random.default_rng(signed).integers(0, 16, size=(12, 4))
    assert_wraps_as_the_reference_says(program, [rows])


@pytest.mark.parametrize("seed", range(16))
def test_random_programs_wrap_as_the_reference_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    program = expand_products(random_program(rng, small=True, calibrated=True))
    assert_wraps_as_the_reference_says(program, random_inputs(program, rng, 4))


def test_calibrated_programs_whose_overflow_would_wrap_otherwise_are_refused() -> None:
    b = ProgramBuilder()
    x = b.emit("input", shape=(1,), lo=0, hi=1023)
    y = b.emit("multiply_constant", x, value=np.array(2), declared=DeclaredBounds(0, 1023, "calibrated", "seen"))
    program = b.build(b.emit("table_lookup", y, lo=0, table=np.arange(1024) % 5))
    with pytest.raises(LoweringError, match="calibrated"):
        compile_program(program, CircuitOptions(batch_size=1))
