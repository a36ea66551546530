"""What no output depends on is gone."""

import numpy as np

from fhelearn.onnx.cleanup.remove_dead_nodes import remove_dead_nodes
from tests.python.unit.onnx_cleanup.laws import applied, assert_equal, build, names, node, op_types, run, value


def test_nodes_and_initializers_that_no_output_needs_are_gone_and_inputs_stay():
    nodes = [
        node("Relu", "x", "y"),
        node("Add", ["x", "c"], "dead"),
        node("Neg", "dead", "deader"),
        node("Neg", "unused", "also"),
    ]
    consts = {"c": np.ones(3, np.float32), "d": np.ones(3, np.float32)}
    model = build(nodes, [value("x", [1, 3]), value("unused", [1, 3])], ["y"], consts)
    cleaned, lines = applied(remove_dead_nodes, model)
    assert op_types(cleaned) == ["Relu"]
    assert not cleaned.graph.initializer
    assert names(cleaned.graph.input) == ["x", "unused"]
    assert len(lines) == 4
    feeds = {"x": np.array([[-1, 2, 3]], np.float32), "unused": np.ones((1, 3), np.float32)}
    assert_equal(run(cleaned, feeds), run(model, feeds))


def test_a_living_graph_does_not_change():
    model = build([node("Add", ["x", "c"], "y")], [value("x", [1, 3])], ["y"], {"c": np.ones(3, np.float32)})
    assert applied(remove_dead_nodes, model)[1] == []
