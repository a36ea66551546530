"""Models get a fixed number of rows."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from fhelearn.exceptions import ModelFormatError
from fhelearn.onnx.cleanup.batch import fix_batch
from fhelearn.onnx.cleanup.graphs import static_shape
from tests.python.unit.onnx_cleanup.laws import OPSETS, applied, build, node, run, value


@pytest.mark.parametrize(("given", "fixed"), [("n", 1), (None, 1), (5, 5)])
def test_rows_are_fixed_where_they_are_open(given, fixed):
    body = ir.serde.deserialize_model(
        build([node("Relu", "x", "y")], [value("x", [given, 3])], [value("y", [given, 3])])
    )
    fix_batch(body)
    assert static_shape(body.graph.inputs[0]) == (fixed, 3)


@pytest.mark.parametrize("opset", OPSETS)
def test_a_single_row_is_not_squeezed_away(opset):
    model = build(
        [node("Squeeze", "x", "s"), node("Neg", "s", "y")], [value("x", ["n", 1, 1])], [value("y", ["n"])], (), opset
    )
    fixed, _ = applied(lambda body: [], model)
    assert run(fixed, {"x": np.ones((1, 1, 1), np.float32)})["y"].shape == (1,)
    assert run(fixed, {"x": np.ones((4, 1, 1), np.float32)})["y"].shape == (4,)


def test_a_squeeze_of_fixed_rows_means_what_it_says():
    model = build([node("Squeeze", "x", "y")], [value("x", [1, 3, 1])], ["y"])
    fixed, _ = applied(lambda body: [], model)
    assert run(fixed, {"x": np.ones((1, 3, 1), np.float32)})["y"].shape == (3,)


def test_other_lengths_must_be_known():
    body = ir.serde.deserialize_model(build([node("Relu", "x", "y")], [value("x", [1, "m"])], [value("y", [1, "m"])]))
    with pytest.raises(ModelFormatError, match="input 'x': the length of axis 1 must be a number, got m"):
        fix_batch(body)


def test_the_rank_must_be_known():
    graph = helper.make_graph(
        [node("Relu", "x", "y")],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
        [value("y", [1])],
    )
    with pytest.raises(ModelFormatError, match="input 'x' must be a tensor of known rank"):
        fix_batch(ir.serde.deserialize_model(helper.make_model(graph)))
