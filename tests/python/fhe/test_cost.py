"""Reports: what the compiler counted, what a run takes, and errors that say what to change."""

import time

import joblib
import numpy as np
import pytest

from fhelearn.backends.concrete import CircuitOptions, compile_program
from fhelearn.exceptions import LoweringError, ParametersNotFoundError
from fhelearn.ir import Program, ProgramBuilder
from fhelearn.testing import random_inputs

pytestmark = pytest.mark.fhe


def linear(features: int = 30, bits: int = 15) -> Program:
    b = ProgramBuilder()
    x = b.emit("input", shape=(features,), lo=-(2**bits), hi=2**bits - 1)
    weights = np.full((features, 1), 2**bits - 1)
    return b.build(b.emit("matmul", x, weights=weights, name="score"))


def lookup(bits: int, count: int = 4) -> Program:
    b = ProgramBuilder()
    x = b.emit("input", shape=(count,), lo=0, hi=2**bits - 1)
    return b.build(b.emit("table_lookup", x, lo=0, table=np.arange(2**bits), name="wide table"))


def test_linear_circuits_need_no_lookup_and_little_memory() -> None:
    circuit = compile_program(linear())
    cost = circuit.cost
    assert circuit.batch_size == 16
    assert cost.num_lookups == 0
    assert cost.lookups_by_bit_width == {}
    assert cost.evaluation_key_bytes == 0
    assert cost.input_bytes_per_row < 1000
    assert len(circuit.keygen().to_bytes()) < 50_000
    assert cost.p_error <= 2.0**-40


def test_lookups_are_counted_by_width_and_node() -> None:
    cost = compile_program(lookup(3)).cost
    assert cost.num_lookups == 4
    assert cost.lookups_by_bit_width == {3: 4}
    assert cost.lookups_by_node == {"%1 table_lookup 'wide table'": 4}
    assert cost.strategy == "mono"
    assert cost.evaluation_key_bytes > 1e6
    assert cost.global_p_error == pytest.approx(4 * cost.p_error)
    assert "polynomialSize" in str(cost.parameters)


def test_the_price_of_a_row_does_not_depend_on_the_batch_size() -> None:
    prices = [compile_program(lookup(3), CircuitOptions(batch_size=b)).cost.complexity for b in (1, 2, 16)]
    assert prices == pytest.approx([prices[0]] * 3, rel=1e-3)


def test_keys_fit_circuits_of_every_batch_size() -> None:
    """The batched function must not force parameters of its own on single rows."""
    assert len({compile_program(lookup(3), CircuitOptions(batch_size=b)).parameters for b in (1, 2, 16)}) == 1
    assert len({compile_program(linear(), CircuitOptions(batch_size=b)).parameters for b in (1, 2, 64)}) == 1


def test_mixed_widths_keep_the_cheaper_strategy() -> None:
    b = ProgramBuilder()
    x = b.emit("input", shape=(8,), lo=0, hi=3)
    y = b.emit("table_lookup", x, lo=0, table=np.array([0, 1, 3, 7]))
    z = b.emit("matmul", y, weights=np.ones((8, 1), dtype=np.int64))
    program = b.build(b.emit("table_lookup", z, lo=0, table=np.arange(57) % 5))
    prices = {
        strategy: compile_program(program, CircuitOptions(strategy=strategy, batch_size=1)).cost  # type: ignore[arg-type]
        for strategy in ("mono", "multi", "auto")
    }
    cheaper = "multi" if prices["multi"].complexity < 0.8 * prices["mono"].complexity else "mono"
    assert prices["auto"].strategy == cheaper
    assert prices["auto"].complexity == prices[cheaper].complexity


@pytest.mark.parametrize("program", [linear(), lookup(4, 16)], ids=["linear", "lookups"])
def test_estimated_time_is_of_the_right_magnitude(program: Program, rng: np.random.Generator) -> None:
    circuit = compile_program(program)
    estimate = circuit.estimate_seconds(16)
    circuit.keygen()
    inputs = random_inputs(program, rng, 16)
    circuit.execute([x[:1] for x in inputs])  # decompresses the keys
    started = time.perf_counter()
    circuit.execute(inputs)
    taken = time.perf_counter() - started
    assert taken / 3 < estimate < taken * 3  # the machine may be busy; a quiet one is within 1.5
    assert circuit.estimate_seconds(0) == 0


def test_an_estimate_touches_neither_keys_nor_joblibs_configuration(rng: np.random.Generator) -> None:
    circuit = compile_program(linear())
    genuine, made = circuit._pipeline, []

    def meanwhile(*arguments: object) -> object:
        made.append(circuit.keygen())
        return genuine(*arguments)  # type: ignore[arg-type]

    circuit._pipeline = meanwhile  # type: ignore[method-assign, assignment]
    with joblib.parallel_config("multiprocessing", n_jobs=2):
        assert circuit.estimate_seconds() > 0
    assert circuit.keys is made[0]


def test_single_rows_and_batches_are_estimated_apart(rng: np.random.Generator) -> None:
    """A run of one row says little about a thousand, and the other way round."""
    program = linear()
    circuit = compile_program(program)
    for _ in range(3):
        circuit.execute(random_inputs(program, rng, 1))
    started = time.perf_counter()
    circuit.execute(random_inputs(program, rng, 256))
    taken = time.perf_counter() - started
    for _ in range(100):
        circuit.execute(random_inputs(program, rng, 1))
    assert taken / 3 < circuit.estimate_seconds(256) < taken * 3
    assert sum(len(kept) for kept in circuit._observed._seconds.values()) <= 4 * 32


def test_compiling_a_linear_model_takes_less_than_half_a_second() -> None:
    compile_program(linear(5))
    started = time.perf_counter()
    compile_program(linear())
    assert time.perf_counter() - started < 0.5


def test_a_program_without_parameters_names_its_widest_node_and_the_remedy() -> None:
    with pytest.raises(ParametersNotFoundError, match=r"%1 matmul 'score'.*5\d bits.*fewer n_bits"):
        compile_program(linear(bits=23))


def test_a_table_on_too_many_bits_names_its_node_and_the_remedy() -> None:
    with pytest.raises(LoweringError, match=r"%1 table_lookup 'wide table': looks up 17-bit values.*round"):
        compile_program(lookup(17, 1))


def test_weights_beyond_the_compilers_integers_name_their_node() -> None:
    b = ProgramBuilder()
    x = b.emit("input", shape=(1,), lo=0, hi=0)
    program = b.build(b.emit("multiply_constant", x, value=np.array([-(2**63)]), name="huge"))
    with pytest.raises(LoweringError, match=r"'huge'.*63 bits"):
        compile_program(program)


@pytest.mark.parametrize("p_error", [0.99, 2.0**-128])
@pytest.mark.parametrize("bits", [2, 8, 16])
def test_extreme_error_probabilities_are_honoured_by_the_optimizer(bits: int, p_error: float) -> None:
    assert compile_program(lookup(bits, 1), CircuitOptions(p_error=p_error)).cost.p_error <= p_error


def test_progress_bars_show_rows_and_key_generation(capfd: pytest.CaptureFixture[str]) -> None:
    circuit = compile_program(lookup(2, 1), CircuitOptions(batch_size=1))
    circuit.execute([np.array([[1], [2], [3]])], progress=True)
    shown = capfd.readouterr().err
    assert "key generation" in shown
    assert "encrypted rows" in shown
    circuit.execute([np.array([[1], [2], [3]])])
    assert capfd.readouterr().err == ""
