"""Laws that hold for every program, on random ones."""

import numpy as np
import pytest

from fhelearn.exceptions import LoweringError
from fhelearn.ir import OPS, ProgramBuilder, evaluate, region_widths, verify
from fhelearn.passes import PASSES, eliminate_dead_nodes, expand_products, is_canonical
from fhelearn.testing import assert_bit_exact, random_inputs, random_program

SEEDS = range(400)


@pytest.mark.parametrize("op", sorted(OPS))
def test_random_programs_can_be_asked_to_use_any_op(op: str) -> None:
    for small in (False, True):
        program = random_program(np.random.default_rng(0), small=small, must_use=op)
        assert op in {node.op for node in program.nodes}


def test_values_lie_inside_their_proved_bounds_and_regions() -> None:
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        program = random_program(rng)
        verify(program)
        inputs = random_inputs(program, rng, 50)
        everything = type(program)(program.nodes, tuple(range(len(program.nodes))))
        for node, region, value in zip(
            program.nodes, region_widths(program), evaluate(everything, inputs), strict=True
        ):
            lo, hi = node.value.bounds.to_int64()
            assert ((value >= lo) & (value <= hi)).all(), program
            assert node.value.bit_width <= region.bit_width
            assert region.signed or not node.value.signed


def test_linear_bounds_are_attained_by_some_corner() -> None:
    """Interval arithmetic is tight for one linear op, so a narrower accumulator would be wrong for some input."""
    rng = np.random.default_rng(1)
    for _ in range(50):
        program = random_program(rng, small=True, must_use="matmul")
        index = next(i for i, node in enumerate(program.nodes) if node.op == "matmul")
        node = program.nodes[index]
        (source,) = node.operands
        bounds = program.nodes[source].value.bounds.broadcast(program.nodes[source].value.shape)
        weights = node.array("weights")
        low, high = bounds.to_int64()
        found = node.value.bounds.broadcast(node.value.shape)
        for column in range(weights.shape[1]):
            up, down = weights[:, column] > 0, weights[:, column] < 0
            best = np.where(up, high, low) * weights[:, column]
            worst = np.where(down, high, low) * weights[:, column]
            np.testing.assert_array_equal(best.sum(-1), found.hi[..., column].astype(np.int64))
            np.testing.assert_array_equal(worst.sum(-1), found.lo[..., column].astype(np.int64))


@pytest.mark.parametrize("name", sorted(PASSES))
def test_a_pass_changes_no_answer(name: str) -> None:
    changed = refused = 0
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        program = random_program(rng, small=seed % 2 == 0)
        try:
            result = PASSES[name](program)
        except (
            LoweringError
        ):  # a product of operands too wide for any table, see test_passes_refuse_what_no_table_can_hold
            refused += 1
            continue
        verify(result)
        changed += result != program
        inputs = random_inputs(program, rng, 20)
        assert_bit_exact(evaluate(result, inputs), evaluate(program, inputs), program)
        assert PASSES[name](result) == result
    assert changed > 50
    assert refused == 0 or name == "expand_products"


def test_passes_keep_their_promises() -> None:
    for seed in SEEDS:
        program = random_program(np.random.default_rng(seed), small=True)
        expanded = expand_products(program)
        assert not {"multiply", "maximum"} & {node.op for node in expanded.nodes}
        assert is_canonical(PASSES["canonicalize_linear"](expanded))
        live = eliminate_dead_nodes(program)
        used = {i for node in live.nodes for i in node.operands} | set(live.outputs)
        assert all(node.op == "input" or i in used for i, node in enumerate(live.nodes))


def test_structural_bounds_of_expanded_products_hold_for_all_operands() -> None:
    """Exhaustive: every pair of operands of every sign, against the product and maximum themselves."""
    for (a, b), (c, d) in (((0, 5), (0, 7)), ((-4, 3), (0, 5)), ((-6, -2), (-3, 3)), ((2, 2), (-1, 6))):
        for op in ("multiply", "maximum"):
            builder = ProgramBuilder()
            x = builder.emit("input", shape=(1,), lo=a, hi=b)
            y = builder.emit("input", shape=(1,), lo=c, hi=d)
            program = builder.build(builder.emit(op, x, y))
            grid = np.array(np.meshgrid(np.arange(a, b + 1), np.arange(c, d + 1))).reshape(2, -1, 1)
            result = expand_products(program)
            assert_bit_exact(evaluate(result, list(grid)), evaluate(program, list(grid)), program)


def test_passes_refuse_what_no_table_can_hold() -> None:
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(1,), lo=0, hi=2**16 - 1)
    y = builder.emit("input", shape=(1,), lo=0, hi=1)
    program = builder.build(builder.emit("multiply", x, y, name="wide"))
    with pytest.raises(LoweringError, match=r"%2 multiply 'wide': needs a lookup on 17 bits, at most 16 .* fewer bits"):
        expand_products(program)
