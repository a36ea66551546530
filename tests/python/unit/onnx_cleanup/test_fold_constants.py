"""What depends on constants and shapes alone is computed, of whatever size."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

from fhelearn.onnx.cleanup.fold_constants import fold_constants
from tests.python.unit.onnx_cleanup.laws import OPSETS, applied, assert_equal, build, node, op_types, run, value


def constants(model):
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


@pytest.mark.parametrize("opset", OPSETS)
def test_shapes_are_constants(opset, rng):
    nodes = [
        node("Shape", "x", "shape"),
        node("Constant", [], "zero", value=numpy_helper.from_array(np.array(0))),
        node("Gather", ["shape", "zero"], "rows", axis=0),
        node("Constant", [], "axes", value=numpy_helper.from_array(np.array([0]))),
        node("Unsqueeze", ["rows", "axes"], "rows1"),
        node("Constant", [], "rest", value=numpy_helper.from_array(np.array([-1]))),
        node("Concat", ["rows1", "rest"], "target", axis=0),
        node("ConstantOfShape", "shape", "zeros"),
        node("Range", ["zero", "two", "one"], "range"),
        node("Add", ["x", "zeros"], "sum"),
        node("Reshape", ["sum", "target"], "flat"),
        node("Mul", ["flat", "floats"], "scaled"),
        node("Cast", "range", "floats", to=1),
    ]
    nodes.insert(-2, nodes.pop())
    model = build(
        nodes, [value("x", [1, 2, 1])], [value("scaled", [1, 2])], {"two": np.array(2), "one": np.array(1)}, opset
    )
    folded, lines = applied(fold_constants, model)
    assert set(op_types(folded)) <= {"Add", "Reshape", "Mul"}
    assert len(lines) == 1
    feeds = {"x": rng.normal(size=(1, 2, 1)).astype(np.float32)}
    assert_equal(run(folded, feeds), run(model, feeds))


def test_no_constant_is_too_large(rng):
    large = rng.normal(size=(700, 900)).astype(np.float32)
    nodes = [
        node("Transpose", "w", "wt"),
        node("Mul", ["wt", "two"], "wt2"),
        node("Expand", ["two", "shape"], "many"),
        node("MatMul", ["x", "wt2"], "h"),
        node("Add", ["h", "many"], "y"),
    ]
    consts = {"w": large, "two": np.array([2], np.float32), "shape": np.array([1000, 700])}
    model = build(nodes, [value("x", [1, 900])], ["y"], consts)
    folded, _ = applied(fold_constants, model)
    assert op_types(folded) == ["MatMul", "Add"]
    np.testing.assert_array_equal(constants(folded)["wt2"], 2 * large.T)


def test_nodes_of_several_outputs_are_folded():
    nodes = [
        node("Split", ["c", "parts"], ["left", "right"], axis=0),
        node("TopK", ["left", "k"], ["top", "where"]),
        node("Mul", ["x", "top"], "h"),
        node("Add", ["h", "right"], "y"),
    ]
    consts = {"c": np.array([3, 1, 2, 5], np.float32), "parts": np.array([3, 1]), "k": np.array([1])}
    model = build(nodes, [value("x", [1, 1])], ["y"], consts)
    folded, _ = applied(fold_constants, model)
    assert op_types(folded) == ["Mul", "Add"]
    feeds = {"x": np.array([[7]], np.float32)}
    assert_equal(run(folded, feeds), run(model, feeds))


def test_an_output_that_is_constant_keeps_its_name():
    nodes = [
        node("Constant", [], "c", value=numpy_helper.from_array(np.array([1, 2], np.float32))),
        node("Neg", "c", "constant"),
        node("Relu", "x", "y"),
    ]
    model = build(nodes, [value("x", [1, 2])], [value("constant", [2]), "y"])
    folded, _ = applied(fold_constants, model)
    assert op_types(folded) == ["Relu"]
    feeds = {"x": np.array([[-1, 1]], np.float32)}
    assert_equal(run(folded, feeds), run(model, feeds))


def test_a_branch_that_is_decided_is_inlined():
    branches = {
        name: helper.make_graph([node(op, "x", f"{name}_out")], name, [], [value(f"{name}_out", [1, 2])])
        for name, op in (("then_branch", "Relu"), ("else_branch", "Neg"))
    }
    model = build([node("If", "yes", "y", **branches)], [value("x", [1, 2])], ["y"], {"yes": np.array(True)})
    folded, _ = applied(fold_constants, model)
    assert op_types(folded) == ["Relu"]


@pytest.mark.parametrize("op_type", ["RandomNormal", "RandomUniform"])
def test_random_numbers_are_no_constants(op_type):
    nodes = [node(op_type, [], "r", shape=[1, 2]), node("Add", ["x", "r"], "y")]
    folded, lines = applied(fold_constants, build(nodes, [value("x", [1, 2])], ["y"]))
    assert op_types(folded) == [op_type, "Add"]
    assert lines == []


def test_bernoulli_draws_of_a_constant_are_no_constants():
    nodes = [node("Bernoulli", "c", "r"), node("Add", ["x", "r"], "y")]
    folded, _ = applied(fold_constants, build(nodes, [value("x", [1, 2])], ["y"], {"c": np.full(2, 0.5, np.float32)}))
    assert op_types(folded) == ["Bernoulli", "Add"]
