"""Laws that hold for every program, on random ones."""

import sys
from itertools import product

import numpy as np
import pytest

from fhelearn.backends.concrete.lowering import normalize
from fhelearn.exceptions import AccumulatorOverflowError, LoweringError
from fhelearn.ir import OPS, DeclaredBounds, Program, ProgramBuilder, cost, evaluate, region_widths, verify
from fhelearn.passes import PASSES, eliminate_dead_nodes, expand_products, is_canonical
from fhelearn.testing import assert_bit_exact, random_inputs, random_program
from fhelearn.typing import IntArray

SEEDS = range(400)


@pytest.mark.parametrize("op", sorted(OPS))
def test_random_programs_can_be_asked_to_use_any_op(op: str) -> None:
    for small in (False, True):
        program = random_program(np.random.default_rng(0), small=small, must_use=op)
        assert op in {node.op for node in program.nodes}


def test_bounds_hold_python_integers_which_cannot_wrap() -> None:
    for seed in SEEDS:
        for node in random_program(np.random.default_rng(seed), calibrated=seed % 2 == 0).nodes:
            kinds = {type(v) for end in (node.value.bounds.lo, node.value.bounds.hi) for v in end.flat}
            assert kinds == {int}, node


def test_values_lie_inside_their_proved_bounds_and_regions() -> None:
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        program = random_program(rng)
        verify(program)
        inputs = random_inputs(program, rng, 50)
        everything = type(program)(program.nodes, tuple(range(len(program.nodes))))  # as outputs, all are looked at
        for node, region, value in zip(
            program.nodes, region_widths(everything), evaluate(everything, inputs), strict=True
        ):
            lo, hi = node.value.bounds.to_int64()
            assert ((value >= lo) & (value <= hi)).all(), program
            assert node.value.bit_width <= region.bit_width
            assert region.signed or not node.value.signed


@pytest.mark.parametrize("op", ["matmul", "conv2d", "conv1d", "sum_pool2d", "sum", "multiply_constant", "negate"])
def test_linear_bounds_are_attained_by_corners(op: str) -> None:
    """Interval arithmetic is tight for one linear op, so a narrower accumulator would be wrong for some input."""
    rng = np.random.default_rng(1)
    tried = 0
    while tried < 20:
        program = random_program(rng, small=True, must_use=op)
        index = next(i for i, node in enumerate(program.nodes) if node.op == op)
        node = program.nodes[index]
        if program.nodes[node.operands[0]].value.size > 12:
            continue
        tried += 1
        (source,) = node.operands
        alone = ProgramBuilder()
        box = program.nodes[source].value
        x = alone.emit("input", shape=box.shape, lo=box.bounds.lo, hi=box.bounds.hi)
        layer = alone.build(alone.emit(node.op, x, **node.attributes))
        low, high = (np.broadcast_to(b, box.shape) for b in box.bounds.to_int64())
        corners = np.array(list(product(*zip(low.ravel(), high.ravel(), strict=True)))).reshape(-1, *box.shape)
        (reached,) = evaluate(layer, [corners])
        found = layer.nodes[1].value.bounds.broadcast(layer.nodes[1].value.shape)
        np.testing.assert_array_equal(reached.min(axis=0), found.lo.astype(np.int64))
        np.testing.assert_array_equal(reached.max(axis=0), found.hi.astype(np.int64))


def rows_in_bounds(program: Program, inputs: list[IntArray]) -> list[IntArray]:
    """The rows that keep every declared bound."""
    keep = []
    for row in range(len(inputs[0])):
        try:
            evaluate(program, [x[row : row + 1] for x in inputs])
        except AccumulatorOverflowError:
            continue
        keep.append(row)
    return [x[keep] for x in inputs]


def repeated_lookups(rng: np.random.Generator) -> Program:
    """A sum of lookups of which some have the same index and the same table, some only one of both."""
    builder, k, m, size = ProgramBuilder(), int(rng.integers(1, 5)), int(rng.integers(2, 12)), 16
    x = builder.emit("input", shape=(k,), lo=0, hi=1)
    if rng.integers(2):
        x = builder.emit("gather", x, axis=0, indices=rng.integers(k, size=m))
    else:
        x = builder.emit("matmul", x, weights=rng.integers(-1, 2, size=(k, m)))
    tables = rng.integers(-4, 5, size=(3, size))
    table = tables[rng.integers(3, size=m)] if rng.integers(2) else tables[0]
    y = builder.emit("table_lookup", x, lo=-8, table=table)
    return builder.build(builder.emit("matmul", y, weights=rng.integers(-2, 3, size=(m, 2))), y)


def repeated_filters(rng: np.random.Generator) -> Program:
    """A sum of lookups on a padded convolution: some filters are equal, some windows see nothing but padding."""
    builder, filters = ProgramBuilder(), rng.integers(-1, 2, size=(2, 1, 2, 2))
    x = builder.emit("input", shape=(1, 2, 2), lo=0, hi=1)
    x = builder.emit("pad", x, before=(0, 2, 0), after=(0, 1, 0), value=0)
    weights = filters[rng.integers(2, size=4)]
    x = builder.emit("conv2d", x, weights=weights, strides=(1, 1), dilations=(1, 1), groups=1)
    x = builder.emit("add_constant", x, value=rng.integers(0, 2, size=(4, 1, 1)))
    x = builder.emit("reshape", x, shape=(2, 8) if rng.integers(2) else (16,))
    table = rng.integers(-4, 5, size=20)
    y, again = (builder.emit("table_lookup", x, lo=-8, table=table) for _ in range(2))
    total = builder.emit("add", y, again)
    return builder.build(builder.emit("sum", total, axes=(0,), keepdims=False), y)


def dying_channels(rng: np.random.Generator) -> Program:
    """A lookup per channel of a convolution of which some channels, or rows, can only give one number."""
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(1, 3, 3), lo=0, hi=3)
    y = builder.emit(
        "conv2d", x, weights=rng.integers(-1, 2, size=(4, 1, 2, 2)), strides=(1, 1), dilations=(1, 1), groups=1
    )
    table = rng.integers(-4, 5, size=(4, 1, 1, 25)) * rng.integers(2, size=(4, 1, 1, 1)) + rng.integers(3)
    z = builder.emit("table_lookup", y, lo=-12, table=table)
    scalar = builder.emit(
        "table_lookup", builder.emit("sum", x, axes=(0, 1, 2), keepdims=False), lo=0, table=np.full(28, 7)
    )
    return builder.build(z, scalar)


def test_no_slice_of_a_lookup_is_constant_once_constants_are_folded() -> None:
    dropped = 0
    for seed in range(50):
        program = dying_channels(np.random.default_rng(seed))
        folded = PASSES["fold_constant_lookups"](program)
        dropped += cost(program).total_lookups - cost(folded).total_lookups
        for node in folded.nodes:
            if node.op == "table_lookup":
                lo, hi = node.value.bounds.broadcast(node.value.shape).to_int64()
                for axis in range(lo.ndim):
                    rest = tuple(a for a in range(lo.ndim) if a != axis)
                    assert not (lo == hi).all(axis=rest).any()
    assert dropped > 400


def test_equal_filters_and_windows_of_padding_are_looked_up_once() -> None:
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(1, 2, 2), lo=0, hi=1)
    padded = builder.emit("pad", x, before=(0, 2, 0), after=(0, 0, 0), value=0)
    weights = np.array([[1, 2], [3, 4]])[np.newaxis, np.newaxis].repeat(3, axis=0)
    y = builder.emit("conv2d", padded, weights=weights, strides=(1, 1), dilations=(1, 1), groups=1)
    table = np.arange(11) % 3
    first, second = (builder.emit("table_lookup", y, lo=0, table=table) for _ in range(2))
    program = builder.build(builder.emit("add", first, second))
    assert cost(program).total_lookups == 2 * 3 * 3
    normal = normalize(program)
    assert cost(normal).total_lookups == 3  # of three windows, one sees only padding
    assert is_canonical(normal)
    rows = np.array(list(product(range(2), repeat=4))).reshape(-1, 1, 2, 2)
    assert_bit_exact(evaluate(normal, [rows]), evaluate(program, [rows]), program)


def test_sums_of_equal_lookups_become_multiples_of_one() -> None:
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(2,), lo=0, hi=1)
    index = builder.emit("matmul", x, weights=np.ones((2, 5), dtype=np.int64))
    y = builder.emit("table_lookup", index, lo=0, table=np.array([0, 1, 3]))
    program = builder.build(builder.emit("sum", y, axes=(0,), keepdims=False))
    normal = normalize(program)
    assert cost(program).total_lookups == 5
    assert cost(normal).total_lookups == 1
    assert is_canonical(normal)
    rows = np.array([[0, 0], [1, 0], [1, 1]])
    assert evaluate(normal, [rows])[0].tolist() == evaluate(program, [rows])[0].tolist() == [0, 5, 15]


RARE = {
    "share_equal_lookups": (repeated_lookups, repeated_filters),
    "fold_constant_lookups": (dying_channels, dying_channels),
}


@pytest.mark.parametrize("name", sorted(PASSES))
def test_a_pass_changes_no_answer(name: str) -> None:
    changed = refused = rows = 0
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        if name in RARE and seed % 3:  # a random program hardly ever has any
            program = RARE[name][seed % 2](rng)
        else:
            program = random_program(rng, small=seed % 2 == 0, calibrated=seed % 4 == 1)
        try:
            result = PASSES[name](program)
        except (
            LoweringError
        ):  # a product of operands too wide for any table, see test_passes_refuse_what_no_table_can_hold
            refused += 1
            continue
        verify(result)
        changed += result != program
        inputs = rows_in_bounds(program, random_inputs(program, rng, 20))
        rows += len(inputs[0])
        assert_bit_exact(evaluate(result, inputs), evaluate(program, inputs), program)
        assert PASSES[name](result) == result
    assert changed > 50
    assert rows > 10 * len(SEEDS)
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


def test_a_calibrated_residual_connection_keeps_its_bounds() -> None:
    """Y + y becomes 2 W x, which may only be as wide as the calibrated y allows, or its table would not cover it."""
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(3,), lo=0, hi=3)
    y = builder.emit(
        "matmul", x, weights=np.ones((3, 2), np.int64), declared=DeclaredBounds(0, 4, "calibrated", "seen")
    )
    z = builder.emit("add", y, y)
    program = builder.build(builder.emit("table_lookup", z, lo=0, table=np.arange(9) % 5))
    result = PASSES["canonicalize_linear"](program)
    assert is_canonical(result)
    final = result.nodes[result.nodes[result.outputs[0]].operands[0]]
    assert (final.value.provenance, final.value.bounds.maximum) == ("calibrated", 8)
    inputs = rows_in_bounds(program, [np.array(list(product(range(4), repeat=3)))])
    assert_bit_exact(evaluate(result, inputs), evaluate(program, inputs), program)


def test_wide_maps_are_read_off_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(50,), lo=-3, hi=3)
    total = builder.emit("sum", x, axes=(0,), keepdims=True)
    program = builder.build(builder.emit("add", total, builder.emit("gather", x, axis=0, indices=np.array([7]))))
    whole = PASSES["canonicalize_linear"](program)
    module = sys.modules["fhelearn.passes.canonicalize_linear"]  # the package has a function of that name
    monkeypatch.setattr(module, "MAX_PROBE_ENTRIES", 150)
    assert PASSES["canonicalize_linear"](program) == whole


def test_passes_refuse_what_no_table_can_hold() -> None:
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(1,), lo=0, hi=2**16 - 1)
    y = builder.emit("input", shape=(1,), lo=0, hi=1)
    program = builder.build(builder.emit("multiply", x, y, name="wide"))
    with pytest.raises(LoweringError, match=r"%2 multiply 'wide': needs a lookup on 17 bits, at most 16 .* fewer bits"):
        expand_products(program)
