"""The C++ engine's border: what it refuses, its threads, its promise not to copy or cast."""

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pytest
import threadpoolctl

from fhelearn import _core
from fhelearn.backends import native
from fhelearn.backends.base import Backend
from fhelearn.backends.native import NativeEngine, node_dicts, resolve_num_threads, threads
from fhelearn.exceptions import AccumulatorOverflowError, InputRangeError, ProgramError
from fhelearn.ir import DeclaredBounds, Faults, Program, ProgramBuilder, evaluate


def linear_program(features: int = 4, outputs: int = 1, seed: int = 0) -> Program:
    rng = np.random.default_rng(seed)
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(features,), lo=0, hi=65535, name="x")
    y = builder.emit("matmul", x, weights=rng.integers(-32768, 32768, (features, outputs)))
    return builder.build(builder.emit("add_constant", y, value=np.arange(outputs)))


def run_python(code: str, **environment: str) -> str:
    clean = {k: v for k, v in os.environ.items() if k not in ("FHELEARN_NUM_THREADS", "OMP_NUM_THREADS")}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env={**clean, **environment}, capture_output=True, text=True, check=True).stdout


# --- inputs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "takes 1 inputs, got 0"),
        ([[[1, 2, 3, 4]]], "input 0 'x': must be an int64 array, got list"),
        ([np.zeros((2, 4))], "must be an int64 array, got float64 array of shape (2, 4)"),
        ([np.zeros((2, 4), dtype=np.int32)], "got int32"),
        ([np.zeros((2, 4), dtype=np.uint64)], "got uint64"),
        ([np.zeros((2, 4), dtype=">i8")], "got >i8"),
        ([np.zeros((2, 5), dtype=np.int64)], "must have shape (n, 4), got (2, 5)"),
        ([np.zeros(4, dtype=np.int64)], "must have shape (n, 4), got (4,)"),
        ([np.int64(3)], "got int64"),
        ([np.zeros((4, 2), dtype=np.int64).T], "must be C-contiguous"),
        ([np.zeros((2, 8), dtype=np.int64)[:, ::2]], "must be C-contiguous"),
        ([np.full((3, 4), 65536)], "row 0, element (0,) is 65536, allowed is [0, 65535]"),
        ([np.full((3, 4), -1)], "is -1, allowed is [0, 65535]"),
    ],
)
def test_bad_inputs_are_named(inputs: list, message: str) -> None:
    with pytest.raises(InputRangeError) as caught:
        NativeEngine(linear_program()).run(inputs)
    assert message in str(caught.value)


def test_the_first_value_out_of_range_is_reported_as_the_reference_does() -> None:
    program = linear_program()
    x = np.zeros((50_000, 4), dtype=np.int64)
    x[40_000, 1] = x[49_000, 0] = 70_000
    messages = []
    for run in (lambda: evaluate(program, [x]), lambda: NativeEngine(program).run([x], num_threads=3)):
        with pytest.raises(InputRangeError) as caught:
            run()
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert "row 40000, element (1,) is 70000" in messages[0]


def test_inputs_must_agree_on_rows() -> None:
    builder = ProgramBuilder()
    x, y = (builder.emit("input", shape=(2,), lo=0, hi=1) for _ in range(2))
    engine = NativeEngine(builder.build(builder.emit("add", x, y)))
    with pytest.raises(InputRangeError, match="has 3 rows but input 0 has 2"):
        engine.run([np.zeros((2, 2), dtype=np.int64), np.zeros((3, 2), dtype=np.int64)])


def test_no_rows_give_no_rows() -> None:
    (result,) = NativeEngine(linear_program()).run([np.empty((0, 4), dtype=np.int64)])
    assert result.shape == (0, 1)
    assert result.dtype == np.int64


def test_misaligned_memory_is_refused() -> None:
    raw = np.zeros(8 * 8 + 1, dtype=np.uint8)
    x = raw[1:].view(np.int64).reshape(2, 4)
    with pytest.raises(InputRangeError, match="C-contiguous"):
        NativeEngine(linear_program()).run([x])


# --- programs -------------------------------------------------------------------------------------------------------


def test_the_core_validates_again() -> None:
    program = linear_program()
    outputs = list(program.outputs)
    for change, message in [
        (lambda n: n[1].pop("op"), "node 1: key 'op' is missing"),
        (lambda n: n[1].update(op="softmax"), "'softmax' is not an op"),
        (lambda n: n[1].update(op=3), "'op' must be a str, got int"),
        (lambda n: n[1].update(operands=[True]), r"operands'\[0\] must be an int, got bool"),
        (lambda n: n[1].update(operands=[2]), "operand 2 must be one of the 1 earlier nodes"),
        (lambda n: n[1].update(shape=[2**70]), "does not fit 64 bits"),
        (lambda n: n[1].update(lo=np.zeros((), dtype=np.int64)), "were given as proved, must contain"),
        (lambda n: n[1].update(hi=np.zeros(())), "must be a C-contiguous int64 array, got float64"),
        (lambda n: n[1].update(signed=1), "'signed' must be a bool"),
        (lambda n: n[1].update(attributes=[]), "'attributes' must be a dict"),
        (
            lambda n: n[1]["attributes"].update(weights=np.ones((4, 1))),
            "'weights' must be a C-contiguous int64",
        ),
        (lambda n: n[1]["attributes"].update(weights=np.ones((3, 1), dtype=np.int64)), r"weights.shape\[0\] = 3"),
        (lambda n: n[1]["attributes"].update(alpha=1), "'alpha' is not an attribute of matmul"),
        (lambda n: n[1]["attributes"].update(alpha=1.5), "attribute 'alpha' must be a list of ints, got float"),
        (lambda n: n.__setitem__(1, None), "node 1 must be a dict, got NoneType"),
    ]:
        nodes = node_dicts(program)
        change(nodes)
        with pytest.raises(_core.ProgramError, match=message):
            _core.Engine(nodes, outputs)
    with pytest.raises(_core.ProgramError, match="output 9"):
        _core.Engine(node_dicts(program), [9])
    with pytest.raises(_core.ProgramError, match="at least one output"):
        _core.Engine(node_dicts(program), [])


def test_a_table_that_does_not_cover_its_operand_never_runs() -> None:
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(2,), lo=0, hi=3)
    program = builder.build(builder.emit("table_lookup", x, lo=0, table=np.arange(4)))
    nodes = node_dicts(program)
    nodes[0]["hi"] = np.asarray(4)
    nodes[0]["width"] = 3
    with pytest.raises(_core.ProgramError, match=r"table covers \[0, 3\] but operand element 0 lies in \[0, 4\]"):
        _core.Engine(nodes, [1])


def test_core_errors_arrive_as_the_packages_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "node_dicts", lambda program: [])
    with pytest.raises(ProgramError, match="must be one of the 0 nodes"):
        NativeEngine(linear_program())


def test_declared_bounds_are_checked_at_run_time() -> None:
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(), lo=0, hi=10)
    y = builder.emit("negate", x, name="y", declared=DeclaredBounds(-5, 0, "structural", "a test"))
    engine = NativeEngine(builder.build(y))
    np.testing.assert_array_equal(engine.run([np.array([0, 5])])[0], [0, -5])
    with pytest.raises(AccumulatorOverflowError, match=r"%1 negate 'y': 1 of 2 rows leave the structural bounds"):
        engine.run([np.array([0, 6])])
    with pytest.raises(AccumulatorOverflowError, match="worst value -10"):
        engine.run([np.array([0, 6, 10])], on_overflow="wrap")


def test_products_of_calibrated_values_have_no_wrapped_meaning() -> None:
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(), lo=0, hi=10)
    y = builder.emit("negate", x, declared=DeclaredBounds(-5, 0, "calibrated", "a test"))
    program = builder.build(builder.emit("multiply", y, y, name="square"))
    x0 = np.array([0, 5])
    np.testing.assert_array_equal(NativeEngine(program).run([x0])[0], [0, 25])
    messages = []
    for run in (NativeEngine(program).run, lambda inputs, **options: evaluate(program, inputs, **options)):
        with pytest.raises(ProgramError) as caught:
            run([x0], on_overflow="wrap")
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert messages[0].startswith("%2 multiply 'square': an operand depends on calibrated bounds")


def test_options_out_of_range_are_refused() -> None:
    engine = NativeEngine(linear_program())
    x = np.zeros((1, 4), dtype=np.int64)
    with pytest.raises(ValueError, match="on_overflow must be 'error' or 'wrap', got 'ignore'"):
        engine.run([x], on_overflow="ignore")
    with pytest.raises(ValueError, match="p_error"):
        engine._engine.run([x], p_error=1.0)
    with pytest.raises(ValueError, match="rounding_noise"):
        engine._engine.run([x], rounding_noise=float("nan"))
    with pytest.raises(TypeError):
        engine._engine.run([x], seed=-1)


def test_it_is_a_backend_and_says_what_it_is() -> None:
    engine = NativeEngine(linear_program())
    assert isinstance(engine, Backend)
    assert engine.program == linear_program()
    assert _core.isa() in repr(engine)


def test_faults_need_no_lookup_to_be_accepted() -> None:
    program = linear_program()
    x = np.full((3, 4), 7)
    faults = Faults(p_error=0.5, rounding_noise=0.5, seed=2**64 - 1)
    np.testing.assert_array_equal(NativeEngine(program).run([x], faults=faults)[0], evaluate(program, [x])[0])


def test_inputs_are_not_written_and_outputs_are_fresh() -> None:
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(3,), lo=0, hi=9)
    engine = NativeEngine(builder.build(x, x))
    given = np.arange(6).reshape(2, 3)
    given.setflags(write=False)
    first, second = engine.run([given])
    first[:] = -1
    np.testing.assert_array_equal(second, given)
    np.testing.assert_array_equal(engine.run([given])[0], given)


# --- faults and wrapping: corners that random programs miss -----------------------------------------------------------


def test_a_wrapped_lookup_in_a_table_past_the_last_integer_reads_its_own_entries() -> None:
    lo = 2**63 - 4
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(), lo=lo, hi=2**63 - 1)
    y = builder.emit("input", shape=(), lo=0, hi=10)
    found = builder.emit("table_lookup", x, lo=lo, table=np.arange(8) * 10)
    calibrated = builder.emit("negate", y, declared=DeclaredBounds(-5, 0, "calibrated", "a test"))
    program = builder.build(found, calibrated)
    inputs = [np.arange(4) + lo, np.array([0, 3, 6, 10])]
    for options in ({}, {"faults": Faults(p_error=1e-300)}):
        results = NativeEngine(program).run(inputs, on_overflow="wrap", **options)
        assert [result.tolist() for result in results] == [[0, 10, 20, 30], [0, -3, -6, -10]]


@pytest.mark.parametrize("p_error", [0.0, 0.3])
def test_noise_moves_no_multiple_and_lookups_after_it_stay_in_their_tables(p_error: float) -> None:
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(64,), lo=0, hi=64)
    rounded = builder.emit("round", x, lsbs=3, method="approximate")
    found = builder.emit("table_lookup", rounded, lo=0, table=np.arange(65) * 3 - 9)
    again = builder.emit("table_lookup", found, lo=-9, table=np.arange(193) % 50)
    program = builder.build(rounded, found, again)
    engine = NativeEngine(program)
    batch = np.arange(10 * 64).reshape(10, 64) % 65
    for seed in range(20):
        faults = Faults(p_error=p_error, rounding_noise=4.0, seed=seed)
        results = engine.run([batch], faults=faults)
        for got, want in zip(results, evaluate(program, [batch], faults=faults), strict=True):
            np.testing.assert_array_equal(got, want)
        multiples = batch % 8 == 0
        np.testing.assert_array_equal(results[0][multiples], batch[multiples])


@pytest.mark.parametrize("rounding_noise", [0.0, 0.5])
def test_a_failing_lookup_steps_from_its_clipped_operand(rounding_noise: float) -> None:
    """ir/SPEC.md: lookups clip their operand to the table; one that fails reads the neighbour of that entry."""
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(50,), lo=0, hi=3)
    y = builder.emit("table_lookup", x, lo=0, table=np.array([0, 0, 9, 9]))
    # A failure of the first lookup reads 9, so that its negation is six below the second one's table.
    narrow = builder.emit("negate", y, declared=DeclaredBounds(-3, 0, "structural", "a test"))
    program = builder.build(y, builder.emit("table_lookup", narrow, lo=-3, table=np.array([10, 11, 12, 13])))
    faults = Faults(p_error=0.4, rounding_noise=rounding_noise, seed=1)
    first, second = NativeEngine(program).run([np.ones((40, 50), dtype=np.int64)], faults=faults)
    assert set(np.unique(second[first == 9])) == {10, 11}
    assert set(np.unique(second[first == 0])) == {12, 13}


def test_partial_sums_beyond_127_bits_may_cancel() -> None:
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(16,), lo=2**62, hi=2**62)
    weights = np.where(np.arange(16) < 8, 2**62, -(2**62))[:, np.newaxis]
    program = builder.build(builder.emit("matmul", x, weights=weights))
    batch = np.full((2, 16), 2**62)
    assert evaluate(program, [batch])[0].tolist() == [[0], [0]]
    assert NativeEngine(program).run([batch])[0].tolist() == [[0], [0]]


# --- threads --------------------------------------------------------------------------------------------------------


def test_num_threads_means_what_n_jobs_means() -> None:
    assert resolve_num_threads(3) == 3
    assert resolve_num_threads(np.int64(2)) == 2
    assert resolve_num_threads(-1) == _core.available_cpus()
    with threads(5):
        assert resolve_num_threads(None) == native.get_num_threads() == 5
    for wrong in (0, -2, 1.0, "2", True):
        with pytest.raises(ValueError, match="num_threads must be None"):
            resolve_num_threads(wrong)
    with pytest.raises(ValueError, match="num_threads"):
        NativeEngine(linear_program()).run([np.zeros((1, 4), dtype=np.int64)], num_threads=0)


def test_the_default_can_be_set_and_comes_back() -> None:
    before = native.get_num_threads()
    with threads(7):
        native.set_num_threads(3)
        assert native.get_num_threads() == 3
    assert native.get_num_threads() == before
    native.set_num_threads(None)
    assert native.get_num_threads() == before


def test_the_environment_sets_the_default() -> None:
    code = "from fhelearn import _core; print(_core.get_num_threads())"
    assert run_python(code, OMP_NUM_THREADS="3").strip() == "3"
    assert run_python(code, OMP_NUM_THREADS="3", FHELEARN_NUM_THREADS="4").strip() == "4"
    assert int(run_python(code)) == _core.available_cpus()
    wrong = "from fhelearn import _core\ntry: _core.get_num_threads()\nexcept ValueError as e: print(e)"
    assert "FHELEARN_NUM_THREADS='x' must be a positive integer" in run_python(wrong, FHELEARN_NUM_THREADS="x")


def test_no_number_of_threads_is_too_large() -> None:
    engine = NativeEngine(linear_program())
    x = np.ones((50_000, 4), dtype=np.int64)
    (expected,) = engine.run([x], num_threads=1)
    for huge in (1025, 2**62, 2**63 - 1, 2**70):
        assert resolve_num_threads(huge) == native.MAX_THREADS
        np.testing.assert_array_equal(engine.run([x], num_threads=huge)[0], expected)
        with threads(huge):
            assert native.get_num_threads() == native.MAX_THREADS
    np.testing.assert_array_equal(engine._engine.run([x], num_threads=2**62)[0], expected)


@pytest.mark.parametrize("name", ["FHELEARN_NUM_THREADS", "OMP_NUM_THREADS"])
@pytest.mark.parametrize("huge", [2**62, 2**63 - 1, 10**30])
def test_the_environment_may_ask_for_any_number_of_threads(name: str, huge: int) -> None:
    code = """
import numpy as np
from fhelearn.backends.native import NativeEngine, get_num_threads
from fhelearn.ir import ProgramBuilder

builder = ProgramBuilder()
x = builder.emit("input", shape=(100,), lo=0, hi=9)
engine = NativeEngine(builder.build(builder.emit("negate", x)))
print(get_num_threads(), engine.run([np.full((20_000, 100), 3)])[0].sum())
"""
    assert run_python(code, **{name: str(huge)}).split() == ["1024", "-6000000"]


def _default_threads(_: int) -> int:
    return native.get_num_threads()


def test_joblib_workers_share_the_cpus() -> None:
    workers = _core.available_cpus()
    counts = joblib.Parallel(n_jobs=max(workers, 2))(joblib.delayed(_default_threads)(i) for i in range(2))
    assert counts == [1, 1]


def test_threadpoolctl_limits_the_engine() -> None:
    with threads(6):
        with threadpoolctl.threadpool_limits(limits=1):
            assert native.get_num_threads() == 1
        assert native.get_num_threads() == 6
    assert [info["user_api"] for info in threadpoolctl.threadpool_info()].count("fhelearn") == 1


def test_one_engine_runs_in_several_python_threads() -> None:
    program = linear_program(30, 3)
    engine = NativeEngine(program)
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 65536, (20_000, 30)) for _ in range(4)]
    results: list = [None] * 4

    def work(i: int) -> None:
        for _ in range(5):
            results[i] = engine.run([batches[i]], num_threads=2)[0]

    callers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for batch, result in zip(batches, results, strict=True):
        np.testing.assert_array_equal(result, evaluate(program, [batch])[0])


def others_see_inside(call: Callable[[], object]) -> bool:
    """Whether another Python thread executes while `call` does, which is: whether `call` lets go of the GIL.

    No timing: with an endless switch interval a thread keeps the GIL until it gives it up, so that the state between
    the two assignments can be seen by another thread only if `call` gives it up. Then the watcher, which waits for
    nothing else, gets it in one of the calls.
    """
    inside = seen = False

    def work() -> None:
        nonlocal inside
        for _ in range(1000):
            inside = True
            call()
            inside = False
            if seen:
                return

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e6)
    try:
        runner = threading.Thread(target=work)
        runner.start()
        while runner.is_alive() and not seen:
            seen = inside
            time.sleep(0)  # hands the GIL over
        runner.join()
    finally:
        sys.setswitchinterval(interval)
    return seen


def test_the_gil_is_free_during_a_run() -> None:
    engine = NativeEngine(linear_program(512, 32))
    batch = np.ones((2_000, 512), dtype=np.int64)
    assert others_see_inside(lambda: engine.run([batch], num_threads=1))
    assert not others_see_inside(lambda: sum(range(10_000)))  # C code that keeps it


def _run_in_child(engine_bytes: bytes) -> int:
    x = pickle.loads(engine_bytes)
    return int(NativeEngine(linear_program(30)).run([x], num_threads=2)[0].sum())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    x = np.full((50_000, 30), 3)
    expected = int(NativeEngine(linear_program(30)).run([x], num_threads=2)[0].sum())
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_run_in_child, [pickle.dumps(x)] * 2, chunksize=1) == [expected] * 2


# --- instruction sets -----------------------------------------------------------------------------------------------


def test_the_instruction_set_can_be_forced() -> None:
    supported = _core.supported_isas()
    assert supported[-1] == "portable"
    for isa in supported:
        assert run_python("from fhelearn import _core; print(_core.isa())", FHELEARN_ISA=isa).strip() == isa


def test_an_unknown_instruction_set_is_an_error_not_a_fallback() -> None:
    code = "from fhelearn import _core\ntry: _core.isa()\nexcept ValueError as error: print(error)"
    message = run_python(code, FHELEARN_ISA="avx9000")
    assert "FHELEARN_ISA='avx9000' is not supported here; choose one of" in message
    assert "portable" in message


# --- the module's stubs ---------------------------------------------------------------------------------------------


def test_the_module_comes_with_stubs_that_name_all_it_offers() -> None:
    stub = Path(_core.__file__).with_name("_core.pyi")
    assert stub.is_file(), "built without FHELEARN_BUILD_STUBS"
    text = stub.read_text()
    public = [name for name in vars(_core) if not name.startswith("_")]
    assert json.dumps(sorted(public)).replace('"', "'") in text
    assert (stub.parent / "py.typed").is_file()
