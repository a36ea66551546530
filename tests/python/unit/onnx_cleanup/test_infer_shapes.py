"""Every value gets its type and static shape."""

import numpy as np
import onnx_ir as ir

from fhelearn.onnx.cleanup.graphs import static_shape
from fhelearn.onnx.cleanup.infer_shapes import infer_shapes
from tests.python.unit.onnx_cleanup.laws import build, ml_node, node, value


def shapes_of(model):
    body = ir.serde.deserialize_model(model)
    lines = infer_shapes(body)
    return {out.name: (static_shape(out), out.dtype) for each in body.graph for out in each.outputs}, lines, body


def test_every_value_gets_its_shape():
    model = build(
        [node("MatMul", ["x", "w"], "h"), node("Relu", "h", "r"), node("ArgMax", "r", "y", axis=1)],
        [value("x", [1, 4])],
        [value("y", [1, 1], np.int64)],
        {"w": np.ones((4, 3), np.float32)},
    )
    shapes, lines, _ = shapes_of(model)
    assert shapes == {"h": ((1, 3), 1), "r": ((1, 3), 1), "y": ((1, 1), 7)}
    assert lines == ["2 values got static shapes"]


def test_annotations_for_another_number_of_rows_are_replaced():
    model = build([node("Relu", "x", "h"), node("Neg", "h", "y")], [value("x", ["n", 4])], ["y"])
    model.graph.value_info.append(value("h", ["n", 4]))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    shapes, _, _ = shapes_of(model)
    assert shapes["h"] == ((1, 4), 1)


def test_operators_of_onnx_ml_without_inference_keep_the_shape():
    nodes = [
        ml_node("Scaler", "x", "s", offset=[0.5], scale=[2.0]),
        ml_node("Normalizer", "s", "n", norm="L2"),
        node("Relu", "n", "y"),
    ]
    shapes, _, _ = shapes_of(build(nodes, [value("x", [1, 3])], [value("y", [1, 3])]))
    assert shapes == dict.fromkeys(("s", "n", "y"), ((1, 3), 1))


def test_a_second_run_changes_nothing():
    model = build([node("Relu", "x", "h"), node("Neg", "h", "y")], [value("x", [1, 4])], ["y"])
    _, _, body = shapes_of(model)
    assert infer_shapes(body) == []
