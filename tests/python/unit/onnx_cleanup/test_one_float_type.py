"""Casts between float types are gone, and the types that a caller sees are the same."""

import numpy as np
import pytest

from fhelearn.onnx.cleanup.one_float_type import one_float_type
from tests.python.unit.onnx_cleanup.laws import (
    OPSETS,
    applied,
    assert_close,
    build,
    node,
    op_types,
    rounding,
    run,
    value,
)

FLOAT, DOUBLE = 1, 11


def mixed(rng, opset=17):
    nodes = [
        node("MatMul", ["x", "w"], "h"),
        node("Cast", "h", "wide", to=DOUBLE),
        node("Mul", ["wide", "c"], "m"),
        node("Cast", "m", "narrow", to=FLOAT),
        node("Add", ["narrow", "h"], "s"),
        node("Relu", "s", "y"),
    ]
    consts = {"w": rng.normal(size=(3, 3)).astype(np.float32), "c": rng.normal(size=3)}
    return build(nodes, [value("x", [1, 3])], ["y"], consts, opset)


@pytest.mark.parametrize("opset", OPSETS)
def test_everything_between_the_borders_is_of_the_widest_type(opset, rng):
    model = mixed(rng, opset)
    cleaned, lines = applied(lambda body: one_float_type(body, cut=False), model)
    assert op_types(cleaned) == ["Cast", "MatMul", "Mul", "Add", "Relu", "Cast"]
    assert len(lines) == 2
    feeds = {"x": rng.normal(size=(1, 3)).astype(np.float32)}
    assert_close(run(cleaned, feeds), run(model, feeds), rounding(model, feeds))


def test_a_second_run_changes_nothing(rng):
    cleaned, _ = applied(lambda body: one_float_type(body, cut=False), mixed(rng))
    assert applied(lambda body: one_float_type(body, cut=False), cleaned)[1] == []


def test_casts_that_will_be_cut_stay(rng):
    nodes = [
        node("Cast", "x", "xw", to=DOUBLE),
        node("Sub", ["xw", "c"], "d"),
        node("Cast", "d", "dn", to=FLOAT),
        node("MatMul", ["dn", "w"], "h"),
        node("Softmax", "h", "p"),
        node("Cast", "p", "y", to=DOUBLE),
    ]
    consts = {"w": rng.normal(size=(3, 3)).astype(np.float32), "c": rng.normal(size=3)}
    model = build(nodes, [value("x", [1, 3])], [value("y", [1, 3], np.float64)], consts)
    assert applied(one_float_type, model)[1] == []


def test_casts_to_and_from_integers_stay(rng):
    nodes = [
        node("MatMul", ["x", "w"], "h"),
        node("Cast", "h", "i", to=7),
        node("Cast", "i", "f", to=DOUBLE),
        node("MatMul", ["f", "v"], "g"),
        node("Cast", "g", "n", to=FLOAT),
        node("MatMul", ["n", "w"], "y"),
    ]
    consts = {"w": 3 * rng.normal(size=(3, 3)).astype(np.float32), "v": rng.normal(size=(3, 3))}
    model = build(nodes, [value("x", [1, 3])], ["y"], consts)
    cleaned, _ = applied(lambda body: one_float_type(body, cut=False), model)
    assert op_types(cleaned) == ["Cast", "MatMul", "Cast", "Cast", "MatMul", "MatMul", "Cast"]
    feeds = {"x": np.array([[1, 2, 3]], np.float32)}
    assert_close(run(cleaned, feeds), run(model, feeds), rounding(model, feeds))


def test_types_that_an_operator_prescribes_stay(rng):
    nodes = [
        node("Relu", "x", "r"),
        node("Cast", "r", "w", to=DOUBLE),
        node("Resize", ["w", "", "scales"], "z", mode="nearest"),
        node("Cast", "z", "n", to=FLOAT),
        node("Neg", "n", "y"),
    ]
    model = build(nodes, [value("x", [1, 1, 2])], ["y"], {"scales": np.array([1, 1, 2], np.float32)})
    cleaned, _ = applied(lambda body: one_float_type(body, cut=False), model)
    assert op_types(cleaned) == ["Cast", "Relu", "Resize", "Neg", "Cast"]
    feeds = {"x": rng.normal(size=(1, 1, 2)).astype(np.float32)}
    assert_close(run(cleaned, feeds), run(model, feeds), rounding(model, feeds))


def test_half_precision_becomes_float32(rng):
    nodes = [node("Relu", "x", "r"), node("Cast", "r", "w", to=FLOAT), node("Mul", ["w", "c"], "y")]
    model = build(nodes, [value("x", [1, 2], np.float16)], ["y"], {"c": np.ones(2, np.float32)})
    cleaned, _ = applied(lambda body: one_float_type(body, cut=False), model)
    assert op_types(cleaned) == ["Cast", "Relu", "Mul"]
