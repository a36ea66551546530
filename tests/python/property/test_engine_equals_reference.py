"""engine == reference, bit for bit, on random programs and inputs over the whole declared range, corners included.

The bodies count (program, input row) cases; together they must be at least 100,000.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhelearn import _core
from fhelearn.backends.native import NativeEngine
from fhelearn.exceptions import AccumulatorOverflowError, ProgramError
from fhelearn.ir import OPS, Faults, Program, evaluate
from fhelearn.testing import assert_bit_exact, random_inputs, random_program
from fhelearn.typing import IntArray

ROWS = 64
PROGRAMS = 400


def outcome(run, *args, **kwargs) -> list[IntArray] | tuple[type, str]:
    """Arrays, or the error's type and message: both must agree."""
    try:
        return run(*args, **kwargs)
    except (AccumulatorOverflowError, ProgramError) as error:
        return type(error), str(error)


def check(program: Program, inputs: list[IntArray], **options) -> bool:
    """Compare one run with the reference; returns whether it raised."""
    expected = outcome(evaluate, program, inputs, **options)
    actual = outcome(NativeEngine(program).run, inputs, num_threads=2, **options)
    if isinstance(expected, tuple) or isinstance(actual, tuple):
        assert actual == expected, str(program)
        return True
    assert_bit_exact(actual, expected, program)
    return False


def test_at_least_100_000_random_cases_agree() -> None:
    cases = 0
    for seed in range(4 * PROGRAMS):
        rng = np.random.default_rng([1, seed])
        program = random_program(rng)
        inputs = random_inputs(program, rng, ROWS)
        assert not check(program, inputs)
        cases += ROWS
    assert cases >= 100_000


@pytest.mark.parametrize("op", sorted(OPS))
def test_programs_of_every_op_agree(op: str) -> None:
    for seed in range(30):
        rng = np.random.default_rng([2, seed])
        program = random_program(rng, must_use=op)
        assert not check(program, random_inputs(program, rng, ROWS))


@pytest.mark.parametrize("mode", ["error", "wrap"])
def test_calibrated_bounds_overflow_alike(mode: str) -> None:
    raised = 0
    for seed in range(PROGRAMS):
        rng = np.random.default_rng([3, seed])
        program = random_program(rng, calibrated=True)
        raised += check(program, random_inputs(program, rng, ROWS), on_overflow=mode)
    assert (raised > PROGRAMS / 10) == (mode == "error")


@pytest.mark.parametrize("mode", ["error", "wrap"])
def test_injected_faults_agree(mode: str) -> None:
    changed = 0
    for seed in range(PROGRAMS):
        rng = np.random.default_rng([4, seed])
        program = random_program(rng, must_use=("table_lookup", "round")[seed % 2], calibrated=seed % 4 >= 2)
        inputs = random_inputs(program, rng, ROWS)
        faults = Faults(*rng.random(2), seed=int(rng.integers(0, 2**64, dtype=np.uint64)))
        check(program, inputs, on_overflow=mode, faults=faults)
        clean, faulty = (outcome(evaluate, program, inputs, on_overflow=mode, faults=f) for f in (None, faults))
        if isinstance(clean, list) and isinstance(faulty, list):
            changed += any((a != b).any() for a, b in zip(clean, faulty, strict=True))
    assert changed > PROGRAMS / 10


@settings(max_examples=200)
@given(seed=st.integers(0, 2**63), rows=st.integers(0, 9), calibrated=st.booleans(), p_error=st.floats(0, 0.9))
def test_programs_that_hypothesis_draws_agree(seed: int, rows: int, calibrated: bool, p_error: float) -> None:
    rng = np.random.default_rng(seed)
    program = random_program(rng, calibrated=calibrated)
    inputs = random_inputs(program, rng, rows)
    for options in ({}, {"on_overflow": "wrap"}, {"faults": Faults(p_error, p_error, seed)}):
        check(program, inputs, **options)


def test_one_row_and_many_rows_give_the_same_rows() -> None:
    for seed in range(60):
        rng = np.random.default_rng([5, seed])
        program = random_program(rng)
        inputs = random_inputs(program, rng, 5000)
        engine = NativeEngine(program)
        together = engine.run(inputs)
        for row in (0, 1, 2047, 2048, 4999):
            alone = engine.run([np.ascontiguousarray(x[row : row + 1]) for x in inputs])
            assert_bit_exact([y[row : row + 1] for y in together], alone, program)


_CHILD = """
import hashlib, json
import numpy as np
from fhelearn import _core
from fhelearn.backends.native import NativeEngine
from fhelearn.testing import random_inputs, random_program

digest = hashlib.sha256()
for seed in range(300):
    rng = np.random.default_rng([6, seed])
    program = random_program(rng)
    for output in NativeEngine(program).run(random_inputs(program, rng, 64)):
        digest.update(output.tobytes())
print(json.dumps([_core.isa(), digest.hexdigest()]))
"""


def test_all_instruction_sets_give_the_same_bits() -> None:
    digests = set()
    for isa in _core.supported_isas():
        child = subprocess.run(
            [sys.executable, "-c", _CHILD],
            env={**os.environ, "FHELEARN_ISA": isa},
            capture_output=True,
            text=True,
            check=True,
        )
        used, digest = json.loads(child.stdout)
        assert used == isa
        digests.add(digest)
    assert len(digests) == 1
