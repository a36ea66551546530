"""Nodes that pass their input on are gone, and no name that a caller knows is lost."""

import numpy as np
import pytest

from fhelearn.onnx.cleanup.remove_identities import remove_identities
from tests.python.unit.onnx_cleanup.laws import OPSETS, applied, assert_equal, build, node, op_types, run, value

X = {"x": np.array([[-1.5, 0.25, 3]], np.float32)}


@pytest.mark.parametrize("opset", OPSETS)
def test_identities_dropout_and_casts_to_the_same_type_are_gone(opset):
    nodes = [
        node("Identity", "x", "i"),
        node("Relu", "i", "r"),
        node("Dropout", "r", "d"),
        node("Dropout", ["d", "ratio", "training"], ["e"]),
        node("Cast", "e", "c", to=1),
        node("Neg", "c", "n"),
        node("Identity", "n", "y"),
    ]
    consts = {"ratio": np.float32(0.3), "training": np.array(False)}
    model = build(nodes, [value("x", [1, 3])], ["y"], consts, opset)
    cleaned, lines = applied(remove_identities, model)
    assert op_types(cleaned) == ["Relu", "Neg"]
    assert len(lines) == 5
    assert_equal(run(cleaned, X), run(model, X))


@pytest.mark.parametrize("op_type", ["Identity", "Dropout", "Cast"])
def test_two_outputs_of_one_value_keep_both_names(op_type):
    attributes = {"to": 1} if op_type == "Cast" else {}
    nodes = [node("Relu", "x", "a"), node(op_type, "a", "b", **attributes)]
    model = build(nodes, [value("x", [1, 3])], ["a", "b"])
    cleaned, _ = applied(remove_identities, model)
    assert op_types(cleaned) == ["Relu", "Identity"]
    assert_equal(run(cleaned, X), run(model, X))


@pytest.mark.parametrize("op_type", ["Identity", "Dropout"])
def test_an_output_that_is_an_input_keeps_its_name(op_type):
    model = build([node(op_type, "x", "y")], [value("x", [1, 3])], ["y"])
    cleaned, _ = applied(remove_identities, model)
    assert op_types(cleaned) == ["Identity"]
    assert_equal(run(cleaned, X), run(model, X))


def test_an_intermediate_value_that_becomes_an_output_keeps_its_readers():
    nodes = [node("Relu", "x", "a"), node("Neg", "a", "b"), node("Identity", "a", "y")]
    model = build(nodes, [value("x", [1, 3])], ["b", "y"])
    cleaned, _ = applied(remove_identities, model)
    assert op_types(cleaned) == ["Relu", "Neg"]
    assert_equal(run(cleaned, X), run(model, X))


def test_casts_that_change_values_stay():
    nodes = [node("Cast", "x", "i", to=7), node("Cast", "i", "b", to=9), node("Cast", "b", "y", to=1)]
    cleaned, lines = applied(remove_identities, build(nodes, [value("x", [1, 3])], ["y"]))
    assert op_types(cleaned) == ["Cast"] * 3
    assert lines == []


@pytest.mark.parametrize("reason", ["training", "mask"])
def test_dropout_in_training_or_with_a_mask_stays(reason):
    training = reason == "training"
    outputs = ["d"] if training else ["d", "mask"]
    nodes = [node("Dropout", ["x", "ratio", "training"], outputs), node("Neg", "d", "y")]
    outs = ["y"] if training else ["y", value("mask", [1, 3], bool)]
    consts = {"ratio": np.float32(0.5), "training": np.array(training)}
    cleaned, _ = applied(remove_identities, build(nodes, [value("x", [1, 3])], outs, consts))
    assert op_types(cleaned) == ["Dropout", "Neg"]
