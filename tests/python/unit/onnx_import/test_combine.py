"""Law: two encrypted tensors meet within half a step of their grids; exactly where the grids are common."""

import numpy as np
import pytest

from fhelearn.frontends.onnx.settings import Rounding
from fhelearn.ir import cost
from tests.python.unit.onnx_import.graphs import (
    build,
    codes,
    floats,
    imported,
    node,
    reference,
    settings,
    simulate,
    value,
)

SHAPE = (1, 3, 2)


def two(op_type, kind=np.float32, result=None, shapes=(SHAPE, SHAPE), **attributes):
    inputs = [value(f"x{i}", shape, kind) for i, shape in enumerate(shapes)]
    out = np.broadcast_shapes(*shapes)
    nodes = [node(op_type, [i.name for i in inputs], ["y"], **attributes)]
    return build(nodes, inputs, [value("y", out, kind if result is None else result)], {}, 21)


def rows(model, rng, ranges, whole=False):
    drawn = []
    for info, (low, high) in zip(model.graph.input, ranges, strict=True):
        shape = [d.dim_value for d in info.type.tensor_type.shape.dim][1:]
        x = rng.uniform(low, high, (40, *shape))
        x[0], x[1] = low, high
        drawn.append(np.rint(x) if whole else x)
    return drawn


def answers(model, samples, rng, how=None):
    network = imported(model, samples, how)
    q = codes(network, rng)
    return network, simulate(network, q)[0], reference(model, floats(network, q))[0]


@pytest.mark.parametrize("bounds", ["proved", "calibrated"])
@pytest.mark.parametrize(("op_type", "sign"), [("Add", 1), ("Sub", -1)])
@pytest.mark.parametrize("high", [1.0, 1.7, 40.0, 1e-3, 5000.0])
def test_a_sum_is_off_by_half_a_step_of_each_operand_and_of_the_sum_at_most(op_type, sign, high, bounds, rng):
    model = two(op_type)
    samples = rows(model, rng, [(-1.0, 1.0), (-high, high)])
    samples[1] = sign * samples[1]
    _, found, expected = answers(model, samples, rng, settings(8, bounds=bounds, margin=2.0))
    step = 2 * max(1.0, high) / 255  # the coarser of the operands' grids; a new grid has that step as well
    assert np.abs(found - expected).max() <= 2 * step


@pytest.mark.parametrize("high", [1.0, 3.0])
def test_a_sum_on_one_grid_or_on_a_multiple_of_it_is_exact_and_needs_no_lookup(high, rng):
    model = two("Add")
    network, found, expected = answers(
        model, rows(model, rng, [(-1.0, 1.0), (-high, high)]), rng, settings(8, margin=1.0)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert not cost(network.program).lookups


@pytest.mark.parametrize("op_type", ["Max", "Min", "Mul"])
@pytest.mark.parametrize("ranges", [((-5, 5), (-5, 5)), ((-7, 3), (0, 9)), ((2, 9), (-4, -1))])
def test_whole_numbers_meet_exactly(op_type, ranges, rng):
    model = two(op_type, np.int64)
    _, found, expected = answers(model, rows(model, rng, ranges, whole=True), rng, settings(8, bounds="proved"))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("op_type", ["Max", "Min"])
def test_the_greater_of_two_is_off_by_half_a_step_at_most(op_type, rng):
    model = two(op_type)
    _, found, expected = answers(
        model, rows(model, rng, [(-1.0, 1.0), (100.0, 103.0)]), rng, settings(8, bounds="proved")
    )
    assert np.abs(found - expected).max() <= 3.0 / 255


@pytest.mark.parametrize("op_type", ["Greater", "Less", "Equal", "GreaterOrEqual", "LessOrEqual"])
@pytest.mark.parametrize("ranges", [((-1.0, 1.0), (0.0, 3.0)), ((0.3, 0.3), (0.4, 0.4)), ((5.0, 6.0), (5.2, 5.4))])
def test_comparisons_are_right_wherever_rounding_cannot_decide(op_type, ranges, rng):
    model = two(op_type, result=np.bool_)
    network = imported(model, rows(model, rng, ranges), settings(8, bounds="proved"))
    q = codes(network, rng)
    x, y = floats(network, q)
    step = 2 * max(max(high - low for low, high in ranges), 0.1 if ranges[0][0] == 0.3 else 0) / 255
    far = np.abs(x - y) > step
    assert far.any()
    np.testing.assert_array_equal(simulate(network, q)[0][far], reference(model, [x, y])[0][far])


@pytest.mark.parametrize("op_type", ["And", "Or", "Xor", "Equal"])
def test_truths_meet_exactly_even_if_only_one_was_seen(op_type, rng):
    model = two(op_type, np.bool_)
    network = imported(model, [np.ones((2, *SHAPE[1:]))] * 2)
    q = codes(network, rng)
    np.testing.assert_array_equal(simulate(network, q)[0], reference(model, floats(network, q))[0])
    assert max(cost(network.program).lookups) <= 2


@pytest.mark.parametrize("choice", ["xxx", "xxc", "xcx", "cxx", "xcc"])
@pytest.mark.parametrize("function", [None, "Sigmoid"])
@pytest.mark.parametrize("rounding", [None, 3])
def test_a_choice_between_tensors_is_off_by_half_a_step_at_most(choice, function, rounding, rng):
    constants = {"condition": rng.random(SHAPE) > 0.5, "a": rng.normal(size=SHAPE), "b": rng.normal(size=SHAPE)}
    kinds = dict(zip(constants, (np.bool_, np.float32, np.float32), strict=True))
    inputs = [value(name, SHAPE, kinds[name]) for name, k in zip(constants, choice, strict=True) if k == "x"]
    kept = {n: v.astype(kinds[n]) for (n, v), k in zip(constants.items(), choice, strict=True) if k == "c"}
    encrypted = [i.name for i in inputs if i.name != "condition"] if function else []
    nodes = [node(function, [name], [f"f{name}"]) for name in encrypted]
    names = [f"f{name}" if name in encrypted else name for name in constants]
    model = build([*nodes, node("Where", names, ["y"])], inputs, [value("y", SHAPE)], kept, 21)
    ranges = [(0, 1) if i.name == "condition" else (-2.0, 2.0) for i in inputs]
    samples = [np.rint(x) if r == (0, 1) else x for x, r in zip(rows(model, rng, ranges), ranges, strict=True)]
    how = settings({"model_inputs": 4, "op_inputs": 4, "op_weights": 4}, bounds="proved", rounding=None)
    if rounding:
        how = settings({"model_inputs": 3, "op_inputs": 3, "op_weights": 3}, bounds="proved", rounding=Rounding.of(5))
    _, found, expected = answers(model, samples, rng, how)
    step = 4.0 / (2**3 - 1 if rounding else 2**4 - 1)
    assert np.abs(found - expected).max() <= step


def test_rounding_never_touches_the_codes_of_a_pair_or_a_compared_difference(rng):
    model = two("Equal", np.int64, np.bool_)
    how = settings(5, bounds="proved", rounding=Rounding.of(3))
    _, found, expected = answers(model, rows(model, rng, [(0, 15), (0, 15)], whole=True), rng, how)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shapes", [((1, 3, 2), (3, 1)), ((2,), (1, 3, 2)), ((1, 1, 1), (1, 3, 2))])
@pytest.mark.parametrize("op_type", ["Add", "Mul", "Max", "Sub"])
def test_two_tensors_of_different_shapes_broadcast_as_in_numpy(op_type, shapes, rng):
    inputs = [value(f"x{i}", shape, np.int64) for i, shape in enumerate(shapes)]
    model = build(
        [node(op_type, ["x0", "x1"], ["y"])], inputs, [value("y", np.broadcast_shapes(*shapes), np.int64)], {}, 21
    )
    samples = [rng.integers(-5, 6, (30, *(s[1:] if s[0] == 1 else s))).astype(float) for s in shapes]
    network = imported(model, samples, settings(8, bounds="proved"))
    q = codes(network, rng)
    found, expected = simulate(network, q)[0], reference(model, floats(network, q))[0]
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)
