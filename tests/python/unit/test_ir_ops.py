"""Each op against its definition, written out with loops over single elements."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from fhelearn.exceptions import ProgramError
from fhelearn.ir import OPS, Bounds, ProgramBuilder, cost, evaluate
from fhelearn.passes import expand_products
from fhelearn.testing import random_inputs, random_program
from fhelearn.typing import IntArray


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261123)


def run(op: str, *arrays: IntArray, **attributes: Any) -> IntArray:
    """The op on inputs whose bounds are the arrays' own, per element."""
    builder = ProgramBuilder()
    operands = [builder.emit("input", shape=a.shape[1:], lo=a.min(axis=0), hi=a.max(axis=0)) for a in arrays]
    program = builder.build(builder.emit(op, *operands, **attributes))
    return evaluate(program, list(arrays))[0]


def test_matmul_is_a_sum_of_products(rng: np.random.Generator) -> None:
    x, w = rng.integers(-9, 9, size=(3, 2, 4)), rng.integers(-9, 9, size=(4, 5))
    y = run("matmul", x, weights=w)
    for n, i, j in product(range(3), range(2), range(5)):
        assert y[n, i, j] == sum(int(x[n, i, k]) * int(w[k, j]) for k in range(4))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("strides", [(1, 1), (2, 1)])
@pytest.mark.parametrize("dilations", [(1, 1), (1, 2)])
def test_conv2d_is_a_sum_over_its_window(rng: np.random.Generator, groups: int, strides: Any, dilations: Any) -> None:
    x, w = rng.integers(-5, 5, size=(2, 4, 6, 7)), rng.integers(-5, 5, size=(6, 4 // groups, 2, 3))
    y = run("conv2d", x, weights=w, strides=strides, dilations=dilations, groups=groups)
    assert y.shape[1:] == (6, (6 - dilations[0] - 1) // strides[0] + 1, (7 - 2 * dilations[1] - 1) // strides[1] + 1)
    for n, o, i, j in np.ndindex(*y.shape):
        first = o // (6 // groups) * (4 // groups)
        total = 0
        for c, k, m in product(range(4 // groups), range(2), range(3)):
            row, column = i * strides[0] + k * dilations[0], j * strides[1] + m * dilations[1]
            total += int(x[n, first + c, row, column]) * int(w[o, c, k, m])
        assert y[n, o, i, j] == total


def test_every_op_accepts_no_rows() -> None:
    for op in OPS:
        program = random_program(np.random.default_rng(5), must_use=op)
        outputs = evaluate(program, random_inputs(program, np.random.default_rng(5), 0))
        assert [o.shape for o in outputs] == [(0, *program.nodes[i].value.shape) for i in program.outputs]


def test_conv1d_is_conv2d_on_one_row(rng: np.random.Generator) -> None:
    x, w = rng.integers(-5, 5, size=(3, 4, 9)), rng.integers(-5, 5, size=(2, 2, 3))
    flat = run("conv1d", x, weights=w, strides=(2,), dilations=(2,), groups=2)
    planar = run("conv2d", x[:, :, None], weights=w[:, :, None], strides=(1, 2), dilations=(1, 2), groups=2)
    np.testing.assert_array_equal(flat, planar[:, :, 0])


def test_sum_pool2d_sums_windows(rng: np.random.Generator) -> None:
    x = rng.integers(-5, 5, size=(2, 3, 5, 6))
    y = run("sum_pool2d", x, kernel=(2, 3), strides=(2, 1))
    for n, c, i, j in np.ndindex(*y.shape):
        assert y[n, c, i, j] == x[n, c, 2 * i : 2 * i + 2, j : j + 3].sum()


@pytest.mark.parametrize("method", ["exact", "approximate"])
@pytest.mark.parametrize("lsbs", [1, 3, 7])
def test_round_goes_to_the_nearest_multiple_and_ties_go_up(lsbs: int, method: str) -> None:
    x = np.arange(-300, 300)[:, None]
    y = run("round", x, lsbs=lsbs, method=method)
    step = 2**lsbs
    for value, rounded in zip(x[:, 0], y[:, 0], strict=True):
        assert rounded % step == 0
        assert -step < 2 * (value - rounded) <= step if rounded < value else 2 * (rounded - value) <= step


def test_round_does_not_overflow_at_the_ends_of_int64() -> None:
    ends = np.array([[-(2**63)], [2**63 - 2**61 - 1]])
    np.testing.assert_array_equal(run("round", ends, lsbs=62, method="exact"), [[-(2**63)], [2**62]])


@pytest.mark.parametrize("shape", [(), (3, 1), (4,), (3, 4)])
def test_table_lookup_reads_the_table_of_its_element(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    x, table = rng.integers(-7, 8, size=(5, 3, 4)), rng.integers(-99, 99, size=(*shape, 16))
    y = run("table_lookup", x, lo=-8, table=table)
    tables = np.broadcast_to(table, (3, 4, 16))
    for n, i, j in np.ndindex(*x.shape):
        assert y[n, i, j] == tables[i, j, x[n, i, j] + 8]


def test_lookup_bounds_are_what_each_element_can_reach(rng: np.random.Generator) -> None:
    lo = rng.integers(-8, 8, size=(6, 4))
    hi = np.minimum(lo + rng.integers(0, 9, size=(6, 4)), 15)
    table = rng.integers(-99, 99, size=(4, 24))
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(6, 4), lo=lo, hi=hi)
    bounds = builder.value(builder.emit("table_lookup", x, lo=-8, table=table)).bounds
    for i, j in np.ndindex(6, 4):
        reached = table[j, lo[i, j] + 8 : hi[i, j] + 9]
        assert (bounds.lo[i, j], bounds.hi[i, j]) == (reached.min(), reached.max())


def test_static_ops_move_elements(rng: np.random.Generator) -> None:
    x = rng.integers(-9, 9, size=(2, 3, 4))
    np.testing.assert_array_equal(run("reshape", x, shape=(2, 6)), [row.reshape(2, 6) for row in x])
    np.testing.assert_array_equal(run("transpose", x, axes=(1, 0)), [row.T for row in x])
    np.testing.assert_array_equal(run("slice", x, starts=(0, 1), stops=(3, 4), steps=(2, 2)), x[:, 0:3:2, 1:4:2])
    np.testing.assert_array_equal(run("gather", x, axis=1, indices=np.array([3, 0, 3])), x[:, :, [3, 0, 3]])
    np.testing.assert_array_equal(run("concatenate", x, x, axis=1), [np.hstack([row, row]) for row in x])
    np.testing.assert_array_equal(
        run("broadcast", x[:, :1], shape=(2, 3, 4)), [[row[:1].repeat(3, 0)] * 2 for row in x]
    )
    padded = run("pad", x, before=(1, 0), after=(0, 2), value=-7)
    assert padded.shape == (2, 4, 6)
    np.testing.assert_array_equal(padded[:, 1:, :4], x)
    assert (padded[:, 0] == -7).all()
    assert (padded[:, :, 4:] == -7).all()


def test_elementwise_ops(rng: np.random.Generator) -> None:
    x, y = rng.integers(-9, 9, size=(2, 4, 3, 2))
    for op, function in (("add", int.__add__), ("sub", int.__sub__), ("multiply", int.__mul__), ("maximum", max)):
        expected = np.frompyfunc(lambda a, b, f=function: f(int(a), int(b)), 2, 1)(x, y).astype(np.int64)
        np.testing.assert_array_equal(run(op, x, y), expected)
    np.testing.assert_array_equal(run("negate", x), 0 - x)
    column = np.array([[3], [-4], [5]])
    np.testing.assert_array_equal(run("add_constant", x, value=column)[:, 1], x[:, 1] - 4)
    np.testing.assert_array_equal(run("multiply_constant", x, value=column)[:, 2], 5 * x[:, 2])
    np.testing.assert_array_equal(run("sum", x, axes=(0,), keepdims=True)[:, 0], x.sum(axis=1))
    np.testing.assert_array_equal(run("sum", x, axes=(0, 1), keepdims=False), [row.sum() for row in x])


def test_a_constant_is_the_same_in_every_row() -> None:
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(2,), lo=0, hi=1)
    program = builder.build(builder.emit("add", x, builder.emit("constant", value=np.array([5, -6]))))
    np.testing.assert_array_equal(evaluate(program, [np.zeros((3, 2), np.int64)])[0], [[5, -6]] * 3)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("matmul", {"weights": np.ones((2, 2), np.int64)}, r"last axis of operand shape \(3, 4\) must be"),
    ("matmul", {"weights": np.ones((4, 2))}, "must be an integer array, got dtype float64"),
    ("conv1d", {"weights": np.ones((1, 3, 9), int), "strides": [1], "dilations": [1], "groups": 1}, "pad first"),
    ("conv1d", {"weights": np.ones((1, 2, 1), int), "strides": [1], "dilations": [1], "groups": 2}, "groups=2"),
    ("conv1d", {"weights": np.ones((1, 3, 1), int), "strides": [0], "dilations": [1], "groups": 1}, "strides must be"),
    ("sum", {"axes": [2], "keepdims": False}, "distinct axes"),
    ("sum", {"axes": [0], "keepdims": 1}, "keepdims must be a bool, got int"),
    ("add_constant", {"value": np.ones((2, 3, 4), int)}, "must broadcast to the operand's shape"),
    ("table_lookup", {"lo": 0, "table": np.arange(7)}, r"operand is in \[0, 7\] but the table covers \[0, 6\]"),
    ("table_lookup", {"lo": 0, "table": np.ones((2, 8), int)}, "must broadcast"),
    ("table_lookup", {"lo": 0}, r"attributes must be \['lo', 'table'\]"),
    ("round", {"lsbs": 0, "method": "exact"}, "lsbs must be in"),
    ("round", {"lsbs": 2, "method": "up"}, "method must be"),
    ("reshape", {"shape": (5,)}, "does not hold the 12 elements"),
    ("reshape", {"shape": (-1,)}, "positive integers"),
    ("transpose", {"axes": (0, 0)}, "permutation"),
    ("slice", {"starts": (0, 0), "stops": (3, 5), "steps": (1, 1)}, "axis 1"),
    ("gather", {"axis": 1, "indices": np.array([4])}, r"in \[0, 3\]"),
    ("pad", {"before": (0,), "after": (0, 0), "value": 0}, "one entry >= 0"),
    ("broadcast", {"shape": (4, 4)}, "does not broadcast"),
    ("broadcast", {"shape": (2**24, 3, 4)}, "elements per row; at most"),
    ("relu", {}, "unknown op 'relu'; known are add,"),
]


@pytest.mark.parametrize(("op", "attributes", "message"), REFUSED)
def test_what_does_not_fit_is_refused_naming_node_and_remedy(op: str, attributes: Any, message: str) -> None:
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(3, 4), lo=0, hi=7)
    with pytest.raises(ProgramError, match=rf"^%1 {op} 'here': .*{message}"):
        builder.emit(op, x, name="here", **attributes)


def test_bounds_beyond_63_bits_are_refused() -> None:
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(2,), lo=0, hi=2**62)
    builder.emit("negate", x)
    with pytest.raises(ProgramError, match="beyond 63 bits; use fewer bits"):
        builder.emit("sum", x, axes=(0,), keepdims=False)
    with pytest.raises(ProgramError, match="lo must be"):
        builder.emit("input", shape=(1,), lo=0.5, hi=1)
    with pytest.raises(ProgramError, match="beyond 63 bits"):
        builder.emit("input", shape=(1,), lo=0, hi=2**63)
    with pytest.raises(ProgramError, match="empty bounds"):
        builder.emit("input", shape=(1,), lo=1, hi=0)


def test_operands_must_be_earlier_nodes_and_outputs_nodes() -> None:
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(1,), lo=0, hi=1)
    for operand in (1, -1, True):
        with pytest.raises(ProgramError, match="must be one of the 1 earlier nodes"):
            builder.emit("negate", operand)
    with pytest.raises(ProgramError, match="takes 2 operands, got 1"):
        builder.emit("add", x)
    with pytest.raises(ProgramError, match="at least one output"):
        builder.build()
    with pytest.raises(ProgramError, match="output %7"):
        builder.build(7)


@pytest.mark.parametrize("op", sorted(OPS))
def test_the_lookups_of_an_op_are_those_of_its_expansion(op: str) -> None:
    """Per element one for a table, one for each bit that exact rounding removes, and what expanded products contain."""
    for seed in range(5):
        program = expand_products(random_program(np.random.default_rng(seed), small=True, must_use=op))
        expected = 0
        for node in program.nodes:
            if node.op == "table_lookup":
                expected += node.value.size
            elif node.op == "round":
                expected += node.value.size * node.integer("lsbs")
            else:
                assert OPS[node.op].kind in ("source", "levelled", "static")
        assert cost(program).total_lookups == expected


def test_a_product_costs_what_it_expands_to() -> None:
    for op in ("multiply", "maximum"):
        builder = ProgramBuilder()
        x, y = (builder.emit("input", shape=(2, 3), lo=0, hi=3) for _ in range(2))
        program = builder.build(builder.emit(op, x, y))
        assert cost(program).total_lookups == cost(expand_products(program)).total_lookups


def test_padding_keeps_bounds_in_python_integers() -> None:
    """NumPy's own pad puts int64 into object arrays, whose products then wrap: 2**70 came out as a proved 0."""
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(1,), lo=0, hi=1)
    y = builder.emit("pad", x, before=(0,), after=(1,), value=2**40)
    assert {type(v) for v in builder.value(y).bounds.hi.flat} == {int}
    with pytest.raises(ProgramError, match="beyond 63 bits"):
        builder.emit("multiply_constant", y, value=np.array([1, 2**30]))


def test_ranks_names_and_work_have_limits() -> None:
    builder = ProgramBuilder()
    with pytest.raises(ProgramError, match="has 17 axes; at most 16"):
        builder.emit("input", shape=(1,) * 17, lo=0, hi=1)
    for name in ("a\nreturn %7", "\ud800", 5):
        with pytest.raises(ProgramError, match="name must be a string of printable characters"):
            builder.emit("input", shape=(1,), lo=0, hi=1, name=name)  # type: ignore[arg-type]
    wide = builder.emit("input", shape=(2**12, 2**12), lo=0, hi=1)
    with pytest.raises(ProgramError, match="needs too much work"):
        builder.emit("matmul", wide, weights=np.ones((2**12, 2**7), np.int64))
    for _ in range(2**8 - 1):
        builder.emit("negate", wide)
    with pytest.raises(ProgramError, match="the program needs too much work"):
        builder.emit("negate", wide)


def test_bounds_of_single_elements_have_a_limit() -> None:
    """A small file could otherwise pad one zero around a huge value, again and again."""
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(2**11, 2**11), lo=0, hi=1)
    y = builder.emit("pad", x, before=(0, 0), after=(0, 1), value=5)
    with pytest.raises(ProgramError, match="too many bounds of single elements"):
        builder.emit("negate", y)


def test_sums_beyond_62_bits_are_proved_in_python_integers() -> None:
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(16,), lo=2**62, hi=2**62)
    signs = np.where(np.arange(16) % 2, -1, 1)[:, np.newaxis]
    program = builder.build(builder.emit("matmul", x, weights=signs * 2**62))
    assert program.nodes[1].value.bounds == Bounds.of(0, 0)
    assert evaluate(program, [np.full((1, 16), 2**62)])[0].tolist() == [[0]]


def test_bit_widths_are_the_smallest_that_hold_the_bounds() -> None:
    for lo, hi, bits in (
        (0, 0, 1),
        (0, 1, 1),
        (0, 2, 2),
        (0, 255, 8),
        (-1, 0, 1),
        (-1, 1, 2),
        (-128, 127, 8),
        (-129, 0, 9),
        (-8, -8, 4),
    ):
        assert Bounds.of(lo, hi).bit_width == bits
