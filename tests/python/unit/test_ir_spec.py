"""SPEC.md is normative: its tables and the code must say the same."""

import math
import re
from importlib.resources import files

import numpy as np
import pytest

from fhelearn.ir import FORMAT_VERSION, OPS, Faults, ProgramBuilder, evaluate
from fhelearn.ir.ops_lookup import MAX_LSBS
from fhelearn.ir.program import MAX_ELEMENTS, MAX_PROGRAM_BOUNDS, MAX_PROGRAM_WORK, MAX_RANK, MAX_WORK

SPEC = (files("fhelearn.ir") / "SPEC.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(\w+)` \| (\w+) \| ([\w ]+) \|([^|]*)\|", SPEC, flags=re.MULTILINE)


def test_the_specification_lists_every_op_and_no_other() -> None:
    assert sorted(name for name, *_ in ROWS) == sorted(OPS)


@pytest.mark.parametrize(("name", "kind", "arity", "attributes"), ROWS, ids=[row[0] for row in ROWS])
def test_a_row_states_kind_arity_and_attributes_of_its_op(name: str, kind: str, arity: str, attributes: str) -> None:
    spec = OPS[name]
    least, most = spec.arity
    assert kind == spec.kind
    assert arity == (str(least) if least == most else f"{least} to {most}")
    assert re.findall(r"`(\w+)`: (\w+)", attributes) == list(spec.attributes.items())


def test_the_specification_states_the_format_version() -> None:
    assert f"Format version: {FORMAT_VERSION}." in SPEC


def test_the_specification_states_the_limits() -> None:
    flat = " ".join(SPEC.split())
    assert f"at most {MAX_RANK} of them and 2^{MAX_ELEMENTS.bit_length() - 1} elements" in flat
    assert (
        f"more than 2^{MAX_PROGRAM_WORK.bit_length() - 1} steps to infer (2^{MAX_WORK.bit_length() - 1} for a node"
        in flat
    )
    assert f"more than 2^{MAX_PROGRAM_BOUNDS.bit_length() - 1} elements that have bounds of their own" in flat
    assert f"`1 <= lsbs <= {MAX_LSBS}`" in flat


def test_the_specification_states_the_generator_that_faults_draw_from() -> None:
    """The constants in the text, evaluated here by its formulas, give the draws of the reference."""
    golden, first, second = (int(c, 16) for c in re.findall(r"0x[0-9A-F]{16}", SPEC))
    mask = 2**64 - 1

    def mix(z: int) -> int:
        z &= mask
        z = (z ^ (z >> 30)) * first & mask
        z = (z ^ (z >> 27)) * second & mask
        return z ^ (z >> 31)

    def draw(seed: int, node: int, row: int, element: int, d: int) -> int:
        return mix(mix(mix(seed + golden * (node + 1)) + golden * (row + 1)) + golden * (16 * element + d + 1))

    builder = ProgramBuilder()
    x = builder.emit("input", shape=(5,), lo=0, hi=8)
    program = builder.build(builder.emit("table_lookup", x, lo=0, table=np.arange(9)))
    p_error, seed = 0.5, 2**63 + 11
    (y,) = evaluate(program, [np.full((40, 5), 4)], faults=Faults(p_error=p_error, seed=seed))
    for row, element in np.ndindex(40, 5):
        failed = draw(seed, 1, row, element, 0) < math.floor(p_error * 2**64)
        step = 1 if draw(seed, 1, row, element, 1) % 2 else -1
        assert y[row, element] == 4 + (step if failed else 0)
