"""Law: what is decrypted equals the reference, for every op, on random programs, for every number of rows."""

import numpy as np
import pytest

from fhelearn.backends.concrete import Circuit, CircuitOptions, compile_program
from fhelearn.ir import OPS, Program, ProgramBuilder, evaluate
from fhelearn.passes import eliminate_dead_nodes
from fhelearn.testing import assert_bit_exact, random_inputs, random_program
from tests.python.fhe import one_op_programs
from tests.python.fhe.shared_keys import with_keys

pytestmark = pytest.mark.fhe


def assert_execution_equals_reference(program: Program, rows: int, seed: int, batch_size: int = 2) -> Circuit:
    inputs = random_inputs(program, np.random.default_rng(seed), rows)
    circuit = with_keys(compile_program(program, CircuitOptions(batch_size=batch_size)))
    assert_bit_exact(circuit.execute(inputs), evaluate(program, inputs), program)
    return circuit


def live_random_program(op: str, seed: int) -> Program:
    """A random program whose outputs depend on a node `op`."""
    rng = np.random.default_rng(seed)
    while True:
        program = random_program(rng, small=True, must_use=op)
        if any(node.op == op for node in eliminate_dead_nodes(program).nodes):
            return program


def linear_program() -> Program:
    b = ProgramBuilder()
    x = b.emit("input", shape=(5,), lo=-100, hi=100)
    return b.build(b.emit("matmul", x, weights=np.arange(15).reshape(5, 3) - 7))


def lookup_program() -> Program:
    b = ProgramBuilder()
    x = b.emit("input", shape=(2,), lo=-4, hi=3)
    return b.build(b.emit("table_lookup", x, lo=-4, table=np.arange(8) ** 2))


@pytest.mark.parametrize("name", one_op_programs.PROGRAMS)
def test_execution_equals_the_reference_for_every_op(name: str) -> None:
    program = one_op_programs.build(name)
    rows = 3 if program.inputs else 1  # a batch of two and a single row
    circuit = assert_execution_equals_reference(program, rows, seed=1)
    assert circuit.cost.num_lookups == sum(circuit.cost.lookups_by_bit_width.values())


@pytest.mark.parametrize("op", sorted(set(OPS) - {"input", "round"}))
def test_execution_equals_the_reference_on_random_programs(op: str) -> None:
    assert_execution_equals_reference(live_random_program(op, seed=7), rows=2, seed=2)


@pytest.mark.parametrize("seed", range(5))
def test_execution_equals_the_reference_on_random_programs_with_lookups(seed: int) -> None:
    assert_execution_equals_reference(live_random_program("table_lookup", seed), rows=3, seed=seed, batch_size=1)


def test_every_op_of_the_program_has_a_hand_written_program() -> None:
    used = {node.op for name in one_op_programs.PROGRAMS for node in one_op_programs.build(name).nodes}
    assert used == set(OPS)


@pytest.mark.parametrize("make", [linear_program, lookup_program])
def test_any_number_of_rows_works(make: object, rng: np.random.Generator) -> None:
    program = make()  # type: ignore[operator]
    circuit = with_keys(compile_program(program, CircuitOptions(batch_size=4)))
    for rows in (0, 1, 3, 4, 5, 9):
        inputs = random_inputs(program, rng, rows)
        assert_bit_exact(circuit.execute(inputs), evaluate(program, inputs), program)


def test_the_steps_of_execution_work_apart(rng: np.random.Generator) -> None:
    program = lookup_program()
    circuit = with_keys(compile_program(program, CircuitOptions(batch_size=2)))
    keys = circuit.keygen()
    inputs = random_inputs(program, rng, 5)
    results = circuit.run(circuit.encrypt(inputs), keys.evaluation_keys)
    assert results.num_rows == 5
    assert_bit_exact(circuit.decrypt(results), evaluate(program, inputs), program)


@pytest.mark.parametrize("strategy", ["mono", "multi"])
def test_both_parameter_strategies_give_the_reference(strategy: str, rng: np.random.Generator) -> None:
    program = one_op_programs.build("two_layers")
    circuit = compile_program(program, CircuitOptions(strategy=strategy, batch_size=2))  # type: ignore[arg-type]
    inputs = random_inputs(program, rng, 3)
    assert circuit.cost.strategy == strategy
    assert_bit_exact(circuit.execute(inputs), evaluate(program, inputs), program)


def test_repeated_sums_of_one_value_stay_exact(rng: np.random.Generator) -> None:
    """``x + x`` three times broke 118 of 400 encrypted runs when it was compiled as written."""
    b = ProgramBuilder()
    x = b.emit("input", shape=(40,), lo=0, hi=1)
    y = b.emit("table_lookup", x, lo=0, table=np.array([0, 1]))
    for _ in range(3):
        y = b.emit("add", y, y)
    program = b.build(b.emit("table_lookup", y, lo=0, table=np.arange(9) % 5))
    assert_execution_equals_reference(program, rows=2, seed=3, batch_size=1)


def test_lookups_on_ten_bits_give_the_reference() -> None:
    """Beyond eight bits the compiler encodes values by residues."""
    b = ProgramBuilder()
    x = b.emit("input", shape=(1,), lo=-400, hi=500)
    program = b.build(b.emit("table_lookup", x, lo=-400, table=np.arange(-400, 501) // 16))
    inputs = random_inputs(program, np.random.default_rng(4), 1)
    circuit = compile_program(program, CircuitOptions(p_error=2.0**-10, batch_size=1))  # keys take a third of the time
    assert_bit_exact(circuit.execute(inputs), evaluate(program, inputs), program)


def test_error_probabilities_and_security_levels_are_honoured() -> None:
    program = lookup_program()
    prices = {}
    for name, options in {
        "per lookup": CircuitOptions(p_error=2.0**-10, batch_size=1),
        "per row": CircuitOptions(global_p_error=2.0**-10, batch_size=1),
        "default": CircuitOptions(batch_size=1),
        "secure": CircuitOptions(security_level=132, batch_size=1),
    }.items():
        circuit = compile_program(program, options)
        prices[name] = circuit.cost.complexity
        assert circuit.cost.p_error <= options.lookup_p_error(circuit.cost.num_lookups + 1)
    assert prices["per lookup"] <= prices["per row"] <= prices["default"] <= prices["secure"]


def test_a_sum_of_equal_lookups_is_exact() -> None:
    """Each of them decrypts to the same noise: added up as they are, 9 of 60 such sums of 64 came out wrong."""
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(4,), lo=0, hi=1)
    index = builder.emit("matmul", x, weights=np.array([[8], [4], [2], [1]]) @ np.ones((1, 64), dtype=np.int64))
    table = np.random.default_rng(0).integers(0, 256, size=16)
    y = builder.emit("table_lookup", index, lo=0, table=table)
    program = builder.build(builder.emit("sum", y, axes=(0,), keepdims=False))
    circuit = assert_execution_equals_reference(program, 60, seed=0)
    assert circuit.cost.num_lookups == 1
